"""Captions: what a transcript learns from events, and what a terminal, a pipe and a clock make of it."""

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from services.cli.captions import Line, Screen, Transcript, final_line, open_line, timestamp
from services.cli.client import Ask, Clock, opening, realtime_url
from services.cli.meter import growth
from services.cli.stats import percentile

TEXT = "conversation.item.input_audio_transcription.text"
COMPLETED = "conversation.item.input_audio_transcription.completed"
FAILED = "conversation.item.input_audio_transcription.failed"


def started(item: str, ms: int) -> dict[str, Any]:
    return {"type": "input_audio_buffer.speech_started", "item_id": item, "audio_start_ms": ms}


def stopped(item: str, ms: int) -> dict[str, Any]:
    return {"type": "input_audio_buffer.speech_stopped", "item_id": item, "audio_end_ms": ms}


def text(item: str, confirmed: str, stash: str) -> dict[str, Any]:
    return {"type": TEXT, "item_id": item, "text": confirmed, "stash": stash, "language": "en"}


def completed(item: str, transcript: str) -> dict[str, Any]:
    return {"type": COMPLETED, "item_id": item, "transcript": transcript, "language": "en"}


def failed(item: str, message: str) -> dict[str, Any]:
    return {"type": FAILED, "item_id": item, "error": {"code": "engine_failed", "message": message}}


UTTERANCE = [
    started("a", 320),
    text("a", "", "It was"),
    text("a", "It was", " the best"),
    stopped("a", 4_850),
    {"type": "input_audio_buffer.committed", "item_id": "a", "previous_item_id": None},
    {"type": "conversation.item.created", "item": {"id": "a"}, "previous_item_id": None},
    completed("a", "It was the best of times."),
]


def after(*events: dict[str, Any]) -> Transcript:
    transcript = Transcript()
    for now, event in enumerate(events):
        transcript.take(event, float(now))
    return transcript


def test_an_utterance_becomes_one_line_with_its_times_and_moments() -> None:
    (line,) = after(*UTTERANCE).finals
    assert (line.start_ms, line.end_ms, line.text, line.stash) == (
        320,
        4_850,
        "It was the best of times.",
        "",
    )
    assert (line.partial_at, line.stopped_at, line.completed_at) == (1.0, 3.0, 6.0)


def test_only_the_last_event_of_an_item_makes_it_final() -> None:
    transcript = Transcript()
    made = [transcript.take(event, 0.0) for event in UTTERANCE]
    assert made[:-1] == [None] * 6
    assert made[-1] is transcript.finals[0]


def test_an_item_is_open_while_it_has_text_and_no_end() -> None:
    assert after(started("a", 0)).open == []
    assert [line.stash for line in after(*UTTERANCE[:4]).open] == [" the best"]
    assert after(*UTTERANCE).open == []


def test_two_items_may_be_open_and_end_in_order() -> None:
    transcript = after(
        started("a", 0), text("a", "one", ""), stopped("a", 9), started("b", 9), text("b", "", "two")
    )
    assert [line.item for line in transcript.open] == ["a", "b"]
    transcript.take(completed("a", "One."), 9.0)
    transcript.take(completed("b", "Two."), 9.0)
    assert transcript.full_text() == "One. Two."


def test_a_failed_item_is_final_and_says_so() -> None:
    (line,) = after(started("a", 0), text("a", "", "hm"), stopped("a", 100), failed("a", "gave up")).finals
    assert final_line(line).plain == "[0:00.0 – 0:00.1] not recognised: gave up"


@pytest.mark.parametrize(
    "event", [{"type": "session.created"}, {"type": "session.finished"}, {"type": "error"}]
)
def test_events_of_no_item_change_nothing(event: dict[str, Any]) -> None:
    assert after(event) == Transcript()


def test_a_manual_utterance_has_no_times() -> None:
    assert final_line(Line("a", text="Hello.")).plain == "Hello."


@pytest.mark.parametrize(
    ("ms", "shown"),
    [(0, "0:00.0"), (320, "0:00.3"), (59_960, "1:00.0"), (61_240, "1:01.2"), (600_000, "10:00.0")],
)
def test_timestamps(ms: int, shown: str) -> None:
    assert timestamp(ms) == shown


def test_confirmed_text_is_solid_and_the_draft_dim() -> None:
    line = open_line(Line("a", start_ms=0, text="It was", stash=" the best"), 80)
    assert line.plain == "[0:00.0 …] It was the best"
    assert [(line.plain[s.start : s.end], s.style) for s in line.spans if s.style] == [
        ("[0:00.0 …] ", "cyan"),
        (" the best", "dim"),
    ]


def test_of_a_long_line_the_end_is_shown() -> None:
    shown = open_line(Line("a", text="x" * 500 + " end", stash=" draft"), 40).plain
    assert shown.startswith("…x")
    assert shown.endswith(" end draft")
    assert len(shown) <= 3 * 40 + 1


@given(st.text())
def test_a_server_cannot_move_our_cursor(said: str) -> None:
    for shown in (final_line(Line("a", text=said)), open_line(Line("a", stash=said), 10_000)):
        assert shown.plain.isprintable()


def drawn(*, terminal: bool) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=60, color_system=None, highlight=False)
    transcript = Transcript()
    with Screen(console) as screen:
        for event in UTTERANCE:
            screen.show(transcript, transcript.take(event, 0.0))
    return out.getvalue()


def test_a_pipe_gets_the_finals_only() -> None:
    assert drawn(terminal=False) == "[0:00.3 – 0:04.8] It was the best of times.\n"


def test_a_terminal_sees_the_partial_change_in_place() -> None:
    seen = drawn(terminal=True)
    assert seen.index("It was the best") < seen.index("It was the best of times.")
    assert "\x1b[2K" in seen  # the line is cleared before it is drawn again
    assert seen.count("\n") <= 2  # the final line, and what Live leaves


def test_the_final_line_replaces_the_partial_one() -> None:
    assert "[0:00.3 …]" not in drawn(terminal=True).split("It was the best of times.")[1]


def test_the_clock_knows_when_a_sample_was_sent() -> None:
    clock = Clock(sent_at=[10.0, 10.1, 10.2])
    moments = [clock.moment_of(ms) for ms in (0, 1, 100, 101, 200, 250, 300, 999)]
    assert moments == [10.0, 10.0, 10.0, 10.1, 10.1, 10.2, 10.2, 10.2]


@pytest.mark.parametrize(
    ("url", "model", "full"),
    [
        ("localhost:8001", "", "ws://localhost:8001/api-ws/v1/realtime"),
        ("http://h:1", "m", "ws://h:1/api-ws/v1/realtime?model=m"),
        ("wss://h/base/realtime?model=old&x=1", "new", "wss://h/base/realtime?model=new&x=1"),
    ],
)
def test_what_an_address_leaves_out_is_filled_in(url: str, model: str, full: str) -> None:
    assert realtime_url(url, model) == full


def test_manual_mode_is_an_explicit_null() -> None:
    assert opening(Ask(url="", manual=True))["session"]["turn_detection"] is None
    assert "turn_detection" not in opening(Ask(url=""))["session"]
    assert opening(Ask(url="", silence_ms=400))["session"]["turn_detection"]["silence_duration_ms"] == 400


def test_percentiles_interpolate() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([0.0, 10.0], 0.95) == 9.5
    assert percentile([7.0], 0.99) == 7.0


def test_growth_compares_the_last_third_with_the_first() -> None:
    falling_behind = [(float(second), second * 10.0) for second in range(40)]
    assert growth(falling_behind, 10, 40) == pytest.approx(200.0)
    assert growth([(second, 7.0) for second, _ in falling_behind], 10, 40) == 0.0
    assert growth(falling_behind, 36, 40) is None
