"""What every dialect promises: no frame of a client raises, and it ends when the session ends."""

import base64
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.ingress.dialects.base import (
    AudioIn,
    Close,
    Configure,
    Dialect,
    ItemAbandoned,
    ItemCompleted,
    ItemFailed,
    ItemStarted,
    ItemStopped,
    ItemText,
    Noticed,
    Reply,
    Request,
    SessionFinished,
    Trouble,
    Welcome,
)
from services.ingress.dialects.registry import DIALECTS, PATHS, dialect_at, load_dialect
from services.ingress.intake import converter_for
from shared.messages import Mode, SessionSettings

TYPES = [
    "session.update",
    "session.finish",
    "input_audio_buffer.append",
    "input_audio_buffer.commit",
    "input_audio_buffer.clear",
    "response.create",
]
COMMANDS = ["ping", "reset", "batch_start", "batch_end", "speaker_register_start", "speaker_register_end"]
WORDS = [
    *(
        "session",
        "turn_detection",
        "type",
        "server_vad",
        "threshold",
        "silence_duration_ms",
        "language",
        "zh",
    ),
    *(
        "input_audio_transcription",
        "corpus",
        "text",
        "sample_rate",
        "audio",
        "input",
        "format",
        "pcm",
        "user_id",
    ),
    *("input_audio_format", "prefix_padding_ms", "store", "diarization", "enabled", "opus", "event_id"),
]
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(WORDS)
)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=5), inner, max_size=5)
    ),
    max_leaves=12,
)
RIFF = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data\0\0\0\0"
AUDIO = st.binary(max_size=40) | st.binary(max_size=20).map(lambda data: RIFF + data)
EVENTS = st.builds(
    lambda kind, body, extra: json.dumps({**extra, "type": kind, "session": body, "audio": body}),
    st.sampled_from(TYPES) | SCALARS,
    JSON,
    st.dictionaries(st.sampled_from(WORDS), JSON, max_size=3),
)
APPENDS = AUDIO.map(
    lambda data: json.dumps({"type": "input_audio_buffer.append", "audio": base64.b64encode(data).decode()})
)
ORDERS = st.builds(
    lambda command, extra: json.dumps({**extra, "command": command}),
    st.sampled_from(COMMANDS) | SCALARS,
    st.dictionaries(st.sampled_from(WORDS), JSON, max_size=3),
)
FRAMES = EVENTS | APPENDS | ORDERS | JSON.map(json.dumps) | st.text(max_size=30) | AUDIO
MODES: list[Mode] = ["vad", "manual"]
TROUBLES: list[Trouble] = [
    "overloaded",
    "storage_full",
    "draining",
    "internal",
    "idle",
    "slow_client",
    "superseded",
]

ITEM_EVENTS = st.sampled_from(
    [
        ItemStarted("item_1", 0, "vad"),
        ItemText("item_1", "a", "b", ""),
        ItemStopped("item_1", 0, 900, "vad", "silence"),
        ItemStopped("item_2", 0, 900, "manual", "commit"),
        ItemCompleted("item_1", "text", "", "", 0, 900, 1.0),
        ItemFailed("item_1", "engine_failed", "No."),
        ItemAbandoned("item_1"),
        Noticed("empty_commit", "e"),
        Noticed("cleared", ""),
        Noticed("reset", ""),
        Noticed("gap", ""),
        Noticed("something new", ""),
        SessionFinished("client"),
        SessionFinished("idle"),
        SessionFinished("error"),
        SessionFinished("closed"),
    ]
)


def made(name: str, **more: Any) -> Dialect:
    fields: dict[str, Any] = {"settings": SessionSettings(), **more}
    return load_dialect(name)(Welcome(session_id="sess_" + "a" * 21, model="m", **fields))


def check_frames(frames: Sequence[str]) -> None:
    for frame in frames:
        assert isinstance(json.loads(frame), dict)


def check_requests(requests: Sequence[Request]) -> None:
    for request in requests:
        if isinstance(request, Reply | Close):
            check_frames(request.frames)
        if isinstance(request, Close):
            assert len(request.reason.encode()) <= 123
            assert request is requests[-1]
        if isinstance(request, AudioIn):
            assert request.data
        if isinstance(request, Configure):
            # Complete and usable: the converter takes it, and an engine is told one language or none.
            converter_for(request.format)
            assert request.settings.mode in MODES


@pytest.mark.parametrize("name", DIALECTS)
@settings(deadline=None, max_examples=150)
@given(
    frames=st.lists(FRAMES | ITEM_EVENTS, max_size=15),
    mode=st.sampled_from(MODES),
    languages=st.sampled_from([(), ("en",)]),
)
def test_whatever_is_received_nothing_raises(
    name: str, frames: list[Any], mode: Mode, languages: tuple[str, ...]
) -> None:
    dialect = made(name, settings=SessionSettings(mode=mode), languages=languages)
    check_frames(dialect.open())
    for frame in frames:
        if isinstance(frame, str | bytes):
            check_requests(dialect.receive(frame))
        else:
            check_frames(dialect.send(frame))


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("trouble", TROUBLES)
def test_after_a_trouble_the_client_is_heard_no_more(name: str, trouble: Trouble) -> None:
    dialect = made(name)
    closing = dialect.fail(trouble)
    assert 1000 <= closing.code < 5000
    check_requests([closing])
    assert list(dialect.receive("{}")) == []


@pytest.mark.parametrize("path", PATHS)
def test_every_path_has_a_dialect_that_can_be_built(path: str) -> None:
    for variant in (path, path + "/"):
        name = dialect_at(variant)
        assert name is not None
        made(name)
    assert dialect_at(path + "/more") is None
    assert dialect_at("/") is None
