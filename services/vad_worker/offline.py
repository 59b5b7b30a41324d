"""A whole recording through detector and segmenter at once: for tests, measurements and comparisons.

It makes the records that an ingress would write and treats them as the handler does, without a log.
"""

from collections.abc import Iterator

from services.vad_worker.detectors.base import Detector
from services.vad_worker.segmenter import Segmenter
from services.vad_worker.windows import Windows
from shared.audio import BYTES_PER_SAMPLE, FRAME_SAMPLES
from shared.messages import (
    AnyVadEvent,
    Claim,
    Finished,
    Opened,
    SessionSettings,
    frame_sequences,
)
from shared.sessions import new_session_id

_STREAM = "OFFLINE"


def segment_pcm(
    pcm: bytes,
    settings: SessionSettings,
    detector: Detector,
    *,
    frame_samples: int = FRAME_SAMPLES,
    session_id: str = "",
) -> list[AnyVadEvent]:
    """All VAD events of a recording: PCM16 mono at 16 kHz.

    Audio record i has sequence i, from 1 on; the first record of the session has 0. Only ``session_id``
    decides about item ids; without one they are random.
    """
    opened = Opened(ep=1, ix=0, prev=0, pos=0, tenant="", dialect="", model="", pool="", settings=settings)
    segmenter = Segmenter(session_id or new_session_id("batch", 0), opened, 0)
    windows, state = Windows(), detector.fresh()
    events: list[AnyVadEvent] = []
    size = frame_samples * BYTES_PER_SAMPLE
    seq = pos = 0
    for seq, first in enumerate(range(0, len(pcm), size), start=1):
        frame = pcm[first : first + size]
        n = len(frame) // BYTES_PER_SAMPLE
        segmenter.audio(seq, pos, n, _STREAM)
        for end, window, rms in windows.push(pos, frame):
            [probability] = detector.detect([state], [window])
            segmenter.window(seq, end, probability, rms)
            events += _settle(segmenter)
        pos += n
    segmenter.control(seq + 1, _finished(seq + 1, pos))
    events += _settle(segmenter)
    return events


def claimed_pcm(pcm: bytes, claim: Claim, *, frame_samples: int = FRAME_SAMPLES) -> bytes:
    """The audio that a claim of ``segment_pcm`` on the same recording names."""
    if not claim.frames:
        return b""
    start = (frame_sequences(claim)[0] - 1) * frame_samples + claim.offset
    return pcm[start * BYTES_PER_SAMPLE : (start + claim.n) * BYTES_PER_SAMPLE]


def _finished(ix: int, pos: int) -> Finished:
    return Finished(ep=1, ix=ix, prev=ix - 1, pos=pos, reason="client")


def _settle(segmenter: Segmenter) -> Iterator[AnyVadEvent]:
    while event := segmenter.decide():
        segmenter.apply(event)
        yield event
