"""G.711: the tables are those of the standard, and a session in it is a session at 8 kHz."""

import av
import numpy as np
import pytest

from services.ingress.g711 import ALAW, MULAW, Table, expand
from services.ingress.intake import converter_for
from shared.audio import SAMPLE_RATE
from shared.messages import AudioFormat
from tests.unit.test_resample import convert


@pytest.mark.parametrize(("codec", "table"), [("pcm_mulaw", MULAW), ("pcm_alaw", ALAW)])
def test_the_tables_are_those_of_ffmpeg(codec: str, table: Table) -> None:
    decoder = av.CodecContext.create(codec, "r")
    decoder.sample_rate, decoder.layout = 8000, "mono"  # type: ignore[attr-defined]
    data = bytes(range(256))
    frames = [*decoder.decode(av.Packet(data)), *decoder.decode(None)]  # type: ignore[attr-defined]
    wanted = np.concatenate([frame.to_ndarray().ravel() for frame in frames])
    assert np.array_equal(wanted, table)


@pytest.mark.parametrize(("codec", "table"), [("pcmu", MULAW), ("pcma", ALAW)])
def test_a_stream_is_that_of_its_samples_and_counts_its_own_bytes(codec: str, table: Table) -> None:
    data = np.random.default_rng(1).integers(0, 255, 8001, dtype=np.uint8).tobytes()
    made = converter_for(AudioFormat(codec=codec, sample_rate=8000), 50)
    out = b"".join(piece for at in range(0, 8001, 333) for piece in made.pieces(data[at : at + 333]))
    assert made.consumed <= 50 + 8001
    assert out + made.flush() == convert(8000, expand(table, data), [])
    assert made.consumed == 50 + 8001
    # The log takes back 2 bytes for each sample at this rate: half a second of G.711 is 4000 bytes.
    assert SAMPLE_RATE // 2 * made.src_rate // SAMPLE_RATE * 2 == 4000
