"""Records of any length to windows of 512 samples."""

import pytest

from services.vad_worker.windows import Windows

W = 512


def test_windows_do_not_depend_on_how_audio_is_divided() -> None:
    pcm = bytes(range(256)) * 40
    whole = Windows().push(0, pcm)
    windows, parts = Windows(), []
    for first in range(0, len(pcm), 334):
        parts += windows.push(first // 2, pcm[first : first + 334])
        windows = Windows.restore(windows.snapshot())
    assert [(end, list(audio), rms) for end, audio, rms in parts] == [
        (end, list(audio), rms) for end, audio, rms in whole
    ]
    assert (windows.base, len(windows.remainder)) == (10 * W - W + 512, 0)


def test_windows_begin_anew_at_a_reset() -> None:
    windows = Windows()
    windows.push(0, bytes(2 * 700))
    windows.reset(700)
    [(end, audio, rms)] = windows.push(700, b"\x00\x40" * W)
    assert (end, audio[0], rms) == (700 + W, 0.5, 0.5)


def test_windows_refuse_samples_out_of_place() -> None:
    windows = Windows()
    windows.push(0, bytes(200))
    with pytest.raises(ValueError, match="sample 101 do not follow sample 100"):
        windows.push(101, bytes(200))
