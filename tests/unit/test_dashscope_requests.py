"""DashScope, client to session: every field and event, every refusal, and what each state allows."""

import base64
import struct
from collections.abc import Callable, Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingress.dialects.base import (
    AudioIn,
    ClearIn,
    Close,
    CommitIn,
    Configure,
    FinishIn,
    Reply,
    Request,
    SessionFinished,
    Welcome,
)
from services.ingress.dialects.dashscope import DashScope
from services.ingress.dialects.dashscope_audio import Intake
from services.ingress.dialects.dashscope_config import LANGUAGES
from services.ingress.dialects.realtime import MAX_AUDIO_CHARS, MAX_BAD_FRAMES
from shared.messages import AudioFormat, SessionSettings

SESSION = "sess_" + "a" * 21
SDK_DEFAULT = {"type": "server_vad", "threshold": 0.2, "silence_duration_ms": 800}


def welcome(**more: Any) -> Welcome:
    fields: dict[str, Any] = {"settings": SessionSettings(), "takes_context": True, **more}
    return Welcome(session_id=SESSION, model="qwen3-asr-flash-realtime", **fields)


def dialect(**more: Any) -> DashScope:
    return DashScope(welcome(**more))


def receive(made: DashScope, kind: str, **fields: Any) -> Sequence[Request]:
    return made.receive(orjson.dumps({"event_id": "event_1", "type": kind, **fields}).decode())


def update(made: DashScope, **session: Any) -> Sequence[Request]:
    return receive(made, "session.update", session=session)


def configured(made: DashScope, **session: Any) -> tuple[Configure, dict[str, Any]]:
    """The request, and the session.updated that goes with it."""
    configure, reply = update(made, **session)
    assert isinstance(configure, Configure)
    return configure, frame_of(reply)


def frame_of(request: Request) -> dict[str, Any]:
    assert isinstance(request, Reply | Close)
    (frame,) = request.frames
    parsed: dict[str, Any] = orjson.loads(frame)
    return parsed


def error_of(requests: Sequence[Request]) -> dict[str, Any]:
    (request,) = requests
    event = frame_of(request)
    assert event["type"] == "error"
    error: dict[str, Any] = event["error"]
    assert set(error) == {"type", "code", "message", "param", "event_id"}
    return error


def append(made: DashScope, data: bytes) -> Sequence[Request]:
    return receive(made, "input_audio_buffer.append", audio=base64.b64encode(data).decode())


def audio_of(requests: Sequence[Request]) -> bytes:
    return b"".join(request.data for request in requests if isinstance(request, AudioIn))


def wav(rate: int = 16_000, channels: int = 1, bits: int = 16, tag: int = 1, extra: bytes = b"") -> bytes:
    """A header, with ``extra`` chunks before the audio."""
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, tag, channels, rate, rate * 2, 2, bits)
    return b"RIFF\xff\xff\xff\xffWAVE" + fmt + extra + b"data\x00\x00\x00\x00"


# --- session.created and the defaults ---------------------------------------------------------------------


def created(made: DashScope) -> dict[str, Any]:
    (frame,) = made.open()
    parsed: dict[str, Any] = orjson.loads(frame)
    return parsed


def test_session_created_shows_the_documented_defaults() -> None:
    event = created(DashScope(welcome(), new_id=lambda: "event_x"))
    assert event == {
        "event_id": "event_x",
        "type": "session.created",
        "session": {
            "id": SESSION,
            "object": "realtime.session",
            "model": "qwen3-asr-flash-realtime",
            "modalities": ["text"],
            "input_audio_format": "pcm",
            "sample_rate": 16_000,
            "input_audio_transcription": None,
            "turn_detection": SDK_DEFAULT,
        },
    }


def test_the_deployment_decides_what_a_client_does_not_name() -> None:
    settings = SessionSettings(
        threshold=0.6, silence_ms=400, partial_every_ms=2000, idle_timeout_s=9, language="en"
    )
    made = dialect(settings=settings)
    assert created(made)["session"]["turn_detection"]["threshold"] == 0.4
    configure, _ = configured(made, turn_detection={"type": "server_vad"})
    assert configure.settings == settings
    configure, _ = configured(made, turn_detection={"type": "server_vad", "threshold": 0.0})
    assert (configure.settings.threshold, configure.settings.silence_ms) == (0.4, 400)
    assert configure.settings.partial_every_ms == 2000


def test_with_vad_off_by_default_a_session_is_manual_until_it_asks_otherwise() -> None:
    made = dialect(settings=SessionSettings(mode="manual"))
    assert created(made)["session"]["turn_detection"] is None
    assert configured(made)[0].settings.mode == "manual"
    assert configured(made, turn_detection={"type": "server_vad"})[0].settings.mode == "vad"


# --- session.update ---------------------------------------------------------------------------------------


def test_what_the_sdk_sends_with_transcription_params() -> None:
    configure, event = configured(
        dialect(),
        modalities=["text"],
        voice=None,
        input_audio_format="pcm",
        output_audio_format="pcm16",
        input_audio_transcription={"language": "zh", "corpus": {"text": "热词"}},
        turn_detection={**SDK_DEFAULT, "prefix_padding_ms": 300},
        sample_rate=16_000,
    )
    assert configure == Configure(
        settings=SessionSettings(language="zh"), format=AudioFormat(), context="热词", event_id="event_1"
    )
    assert event["type"] == "session.updated"
    assert "warnings" not in event
    session = event["session"]
    assert session["input_audio_transcription"] == {"language": "zh", "corpus": {"text": "热词"}}
    assert session["turn_detection"] == {**SDK_DEFAULT, "prefix_padding_ms": 300}


def test_what_the_sdk_sends_without_transcription_params() -> None:
    configure, event = configured(
        dialect(), input_audio_format="pcm16", input_audio_transcription={"model": None}
    )
    assert configure.settings == SessionSettings()
    assert event["session"]["input_audio_format"] == "pcm"
    assert event["session"]["input_audio_transcription"] == {}


def test_turn_detection_null_is_manual_and_absent_is_not() -> None:
    made = dialect()
    assert configured(made, modalities=["text"])[0].settings.mode == "vad"
    configure, event = configured(made, turn_detection=None)
    assert configure.settings.mode == "manual"
    assert event["session"]["turn_detection"] is None
    assert configured(made, sample_rate=8000)[0].settings.mode == "manual"
    assert configured(made, turn_detection={"type": "server_vad"})[0].settings.mode == "vad"


def test_turn_detection_is_replaced_not_merged_and_absent_keeps_it() -> None:
    made = dialect()
    configured(made, turn_detection={"type": "server_vad", "threshold": 0.0, "silence_duration_ms": 400})
    assert configured(made)[0].settings.silence_ms == 400
    configure, event = configured(made, turn_detection={"type": "server_vad", "threshold": 0.4})
    assert (configure.settings.threshold, configure.settings.silence_ms) == (0.6, 800)
    assert event["session"]["turn_detection"] == {**SDK_DEFAULT, "threshold": 0.4}


def test_transcription_is_replaced_not_merged_and_absent_keeps_it() -> None:
    made = dialect()
    configured(made, input_audio_transcription={"language": "zh", "corpus": {"text": "a"}})
    configure, _ = configured(made, sample_rate=8000)
    assert (configure.settings.language, configure.context) == ("zh", "a")
    configure, event = configured(made, input_audio_transcription={"corpus": {"text": "b"}})
    assert (configure.settings.language, configure.context) == ("", "b")
    assert event["session"]["input_audio_transcription"] == {"corpus": {"text": "b"}}
    configure, event = configured(made, input_audio_transcription=None)
    assert (configure.settings.language, configure.context) == ("", "")
    assert event["session"]["input_audio_transcription"] is None


@pytest.mark.parametrize(
    ("threshold", "probability"),
    [(0.0, 0.4), (0.2, 0.5), (1, 0.9), (-1, 0.05), (-0.5, 0.15), (0.4, 0.6)],
)
def test_threshold(threshold: float, probability: float) -> None:
    turn = {"type": "server_vad", "threshold": threshold, "silence_duration_ms": 400}
    configure, event = configured(dialect(), turn_detection=turn)
    assert configure.settings.threshold == probability
    assert configure.settings.silence_ms == 400
    assert event["session"]["turn_detection"] == turn


@pytest.mark.parametrize(("asked", "used"), [(-5, 0), (0, 0), (750.5, 750), (9000, 2000)])
def test_prefix_padding_is_clamped(asked: float, used: int) -> None:
    configure, event = configured(
        dialect(), turn_detection={"type": "server_vad", "prefix_padding_ms": asked}
    )
    assert configure.settings.prefix_padding_ms == used
    assert event["session"]["turn_detection"]["prefix_padding_ms"] == used


@pytest.mark.parametrize("rate", [8000, 16_000, 24_000, 48_000])
def test_both_styles_of_naming_the_format(rate: int) -> None:
    for name in ("pcm", "wav"):
        flat, shown = configured(dialect(), input_audio_format=name, sample_rate=rate)
        nested, also_shown = configured(
            dialect(), audio={"input": {"format": {"type": name, "sample_rate": rate}}}
        )
        assert flat == nested
        assert flat.format == AudioFormat(codec=name, sample_rate=rate)
        for event in (shown, also_shown):
            session = event["session"]
            assert (session["input_audio_format"], session["sample_rate"]) == (name, rate)


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_each_documented_language_is_accepted(language: str) -> None:
    assert len(LANGUAGES) == 27
    configure, _ = configured(dialect(), input_audio_transcription={"language": language})
    assert configure.settings.language == language


@pytest.mark.parametrize("detect", ["", "auto"])
def test_ways_to_ask_for_detection(detect: str) -> None:
    configure, event = configured(dialect(), input_audio_transcription={"language": detect})
    assert configure.settings.language == ""
    assert event["session"]["input_audio_transcription"] == {"language": detect}
    assert "warnings" not in event


LANGUAGE = "session.input_audio_transcription.language"
CONTEXT = "session.input_audio_transcription.corpus.text"
TURN = "session.turn_detection."
NESTED = "session.audio.input.format."


@pytest.mark.parametrize(
    ("session", "param"),
    [
        ({"input_audio_format": "mp3"}, "session.input_audio_format"),
        ({"input_audio_format": ["pcm"]}, "session.input_audio_format"),
        ({"sample_rate": 44_100}, "session.sample_rate"),
        ({"sample_rate": "16000"}, "session.sample_rate"),
        ({"sample_rate": True}, "session.sample_rate"),
        ({"sample_rate": [16000]}, "session.sample_rate"),
        ({"audio": "pcm"}, "session.audio"),
        ({"audio": {"input": {"format": {"type": "mp3"}}}}, NESTED + "type"),
        ({"audio": {"input": {"format": {"sample_rate": 11_025}}}}, NESTED + "sample_rate"),
        ({"input_audio_transcription": "zh"}, "session.input_audio_transcription"),
        ({"input_audio_transcription": {"language": "zh-CN"}}, LANGUAGE),
        ({"input_audio_transcription": {"language": "Chinese"}}, LANGUAGE),
        ({"input_audio_transcription": {"language": 7}}, LANGUAGE),
        ({"input_audio_transcription": {"corpus": []}}, "session.input_audio_transcription.corpus"),
        ({"input_audio_transcription": {"corpus": {"text": 1}}}, CONTEXT),
        ({"input_audio_transcription": {"corpus": {"text": "词" * 10_001}}}, CONTEXT),
        ({"input_audio_transcription": {"corpus": {"text": "word " * 10_001}}}, CONTEXT),
        ({"input_audio_transcription": {"corpus": {"text": " " * 100_001}}}, CONTEXT),
        ({"turn_detection": "server_vad"}, "session.turn_detection"),
        ({"turn_detection": {}}, TURN + "type"),
        ({"turn_detection": {"type": "semantic_vad"}}, TURN + "type"),
        ({"turn_detection": {"type": "server_vad", "threshold": 1.1}}, TURN + "threshold"),
        ({"turn_detection": {"type": "server_vad", "threshold": "0.2"}}, TURN + "threshold"),
        ({"turn_detection": {"type": "server_vad", "threshold": True}}, TURN + "threshold"),
        (
            {"turn_detection": {"type": "server_vad", "silence_duration_ms": 199}},
            TURN + "silence_duration_ms",
        ),
        (
            {"turn_detection": {"type": "server_vad", "silence_duration_ms": 6001}},
            TURN + "silence_duration_ms",
        ),
        (
            {"turn_detection": {"type": "server_vad", "silence_duration_ms": 400.5}},
            TURN + "silence_duration_ms",
        ),
        ({"turn_detection": {"type": "server_vad", "prefix_padding_ms": "1"}}, TURN + "prefix_padding_ms"),
        ({"store": "no"}, "session.store"),
    ],
)
def test_a_wrong_field_is_named_and_nothing_of_the_update_takes_effect(
    session: dict[str, Any], param: str
) -> None:
    made = dialect()
    before = configured(made, sample_rate=24_000)[0]
    error = error_of(update(made, **{"sample_rate": 8000, **session}))
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", "invalid_value", param)
    assert error["event_id"] == "event_1"
    assert error["message"].startswith("Invalid value: ")
    assert configured(made)[0] == before


def test_an_unknown_format_is_refused_in_the_vendors_words() -> None:
    error = error_of(update(dialect(), input_audio_format="mp3"))
    assert error["message"] == "Invalid value: 'mp3'. Supported values are: 'pcm', 'opus'."


def test_a_context_of_the_greatest_length_is_accepted() -> None:
    for text in ("词" * 10_000, "word " * 10_000):
        configure, _ = configured(dialect(), input_audio_transcription={"corpus": {"text": text}})
        assert configure.context == text


@pytest.mark.parametrize("session", [None, [], "x", 5])
def test_a_session_that_is_no_object(session: object) -> None:
    assert error_of(receive(dialect(), "session.update", session=session))["param"] == "session"
    assert error_of(receive(dialect(), "session.update"))["param"] == "session"


def test_null_fields_count_as_absent_where_null_means_nothing() -> None:
    made = dialect()
    nulls = dict.fromkeys(("input_audio_format", "sample_rate", "audio", "store", "diarization", "voice"))
    turn = {"type": "server_vad", "threshold": None, "silence_duration_ms": None, "prefix_padding_ms": None}
    transcription = {"language": None, "corpus": None}
    configure, _ = configured(made, **nulls, turn_detection=turn, input_audio_transcription=transcription)
    assert configure == Configure(settings=SessionSettings(), format=AudioFormat(), event_id="event_1")


def test_a_session_may_ask_not_to_be_kept() -> None:
    made = dialect()
    assert configured(made, store=False)[0].settings.store is False
    assert configured(made)[0].settings.store is False
    assert configured(made, store=True)[0].settings.store is True


# --- what the engine cannot do ----------------------------------------------------------------------------


def test_context_that_the_engine_cannot_use_is_echoed_with_a_warning() -> None:
    made = dialect(takes_context=False)
    configure, event = configured(made, input_audio_transcription={"corpus": {"text": "热词"}})
    assert configure.context == ""
    assert event["session"]["input_audio_transcription"] == {"corpus": {"text": "热词"}}
    assert len(event["warnings"]) == 1
    assert "context" in event["warnings"][0]


def test_a_language_outside_the_engines_is_refused() -> None:
    error = error_of(update(dialect(languages=("en",)), input_audio_transcription={"language": "zh"}))
    assert (error["code"], error["param"]) == ("invalid_value", LANGUAGE)
    assert error["message"] == "Invalid value: 'zh'. Supported values are: 'en'."


def test_an_engine_that_detects_is_left_to_detect_a_language_that_it_cannot_be_told() -> None:
    made = dialect(languages=("zh", "en"), detects_language=True)
    configure, event = configured(made, input_audio_transcription={"language": "uk"})
    assert configure.settings.language == ""
    assert event["session"]["input_audio_transcription"] == {"language": "uk"}
    assert "uk" in event["warnings"][0]
    assert configured(made, input_audio_transcription={"language": "en"})[0].settings.language == "en"
    assert error_of(update(made, input_audio_transcription={"language": "xx"}))["param"] == LANGUAGE


def test_diarization_is_not_there_yet_and_says_so() -> None:
    made = dialect()
    assert len(configured(made, diarization={"enabled": True})[1]["warnings"]) == 1
    assert "warnings" not in configured(made, diarization={"enabled": False})[1]


# --- audio ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "encode",
    [
        lambda data: base64.b64encode(data).decode(),
        lambda data: base64.b64encode(data).decode().rstrip("="),
        lambda data: base64.urlsafe_b64encode(data).decode(),
        lambda data: base64.urlsafe_b64encode(data).decode().rstrip("="),
        lambda data: base64.encodebytes(data).decode(),
    ],
)
def test_kinds_of_base64(encode: Callable[[bytes], str]) -> None:
    data = bytes(range(256)) * 2 + b"\xfb\xff"
    assert receive(dialect(), "input_audio_buffer.append", audio=encode(data)) == (AudioIn(data),)


@pytest.mark.parametrize("audio", ["not base64!", "AAAAA", "A A A A", "héllo", None, 7, ["AAAA"], {}, "===="])
def test_not_base64(audio: object) -> None:
    made = dialect()
    if audio == "====":
        assert receive(made, "input_audio_buffer.append", audio=audio) == ()
        return
    error = error_of(receive(made, "input_audio_buffer.append", audio=audio))
    assert (error["type"], error["code"], error["param"]) == (
        "invalid_request_error",
        "invalid_value",
        "audio",
    )
    assert audio_of(append(made, b"abcd")) == b"abcd"


def test_an_append_without_audio() -> None:
    assert error_of(receive(dialect(), "input_audio_buffer.append"))["param"] == "audio"
    assert receive(dialect(), "input_audio_buffer.append", audio="") == ()


def test_the_greatest_append_is_accepted_and_a_longer_one_is_not() -> None:
    made = dialect()
    greatest = "A" * MAX_AUDIO_CHARS
    (heard,) = receive(made, "input_audio_buffer.append", audio=greatest)
    assert isinstance(heard, AudioIn)
    assert len(heard.data) == MAX_AUDIO_CHARS // 4 * 3
    error = error_of(receive(made, "input_audio_buffer.append", audio=greatest + "AAAA"))
    assert (error["code"], error["param"]) == ("invalid_value", "audio")


def test_an_odd_byte_waits_for_its_other_half() -> None:
    made = dialect()
    assert audio_of(append(made, b"abc")) == b"ab"
    assert append(made, b"") == ()
    assert audio_of(append(made, b"d")) == b"cd"


def test_half_a_sample_does_not_survive_its_item() -> None:
    for end in ("input_audio_buffer.commit", "input_audio_buffer.clear"):
        made = dialect(settings=SessionSettings(mode="manual"))
        append(made, b"abc")
        receive(made, end)
        assert append(made, b"xy") == (AudioIn(b"xy", skipped=1),)


@given(
    st.lists(st.integers(0, 60), max_size=12),
    st.sampled_from([b"", wav(), wav(8000), wav(extra=b"LIST\x05\0\0\0abcde\0")]),
    st.binary(max_size=64),
)
def test_however_audio_is_cut_the_same_samples_and_positions_come_out(
    sizes: list[int], header: bytes, audio: bytes
) -> None:
    # Noise that begins like a header is a header.
    data = header + b"\0" + audio
    made, out, at, skipped = Intake(), b"", 0, 0
    for size in [*sizes, len(data)]:
        piece = made.feed(data[at : at + size])
        at += size
        if piece:
            out += piece.audio
            skipped += piece.skipped
            assert len(piece.audio) % 2 == 0
    wanted = b"\0" + audio
    assert out == wanted[: len(wanted) // 2 * 2]
    assert skipped == (len(header) if out else 0)


def test_a_wav_header_is_skipped_and_counted() -> None:
    assert append(dialect(), wav() + b"abcd") == (AudioIn(b"abcd", skipped=44),)


def test_a_wav_header_with_another_rate_speaks_for_its_file_only() -> None:
    made = dialect(settings=SessionSettings(mode="manual"))
    configure, heard = append(made, wav(8000) + b"abcd")
    assert isinstance(configure, Configure)
    assert configure.format == AudioFormat(sample_rate=8000)
    assert configure.settings == SessionSettings(mode="manual")
    assert audio_of([heard]) == b"abcd"
    assert append(made, b"efgh") == (AudioIn(b"efgh"),)
    assert configured(made, input_audio_transcription={"language": "zh"})[0].format.sample_rate == 8000
    receive(made, "input_audio_buffer.commit")
    configure, heard = append(made, b"ijkl")
    assert isinstance(configure, Configure)
    assert configure.format == AudioFormat()
    assert configure.settings.language == "zh"


def test_a_header_whose_audio_comes_later_still_speaks_for_it() -> None:
    made = dialect()
    assert append(made, wav(8000)) == ()
    configure, heard = append(made, b"abcd")
    assert isinstance(configure, Configure)
    assert configure.format.sample_rate == 8000
    assert heard == AudioIn(b"abcd", skipped=44)


def test_one_wav_file_after_the_other_without_a_commit() -> None:
    made = dialect()
    append(made, wav() + b"abc")
    assert append(made, wav() + b"defg") == (AudioIn(b"defg", skipped=45),)


@pytest.mark.parametrize(
    "header",
    [
        wav(channels=2),
        wav(bits=8),
        wav(tag=3, bits=32),
        wav(rate=96_000),
        wav(extra=b"LIST\xff\xff\xff\x00"),
    ],
)
def test_a_wav_file_that_cannot_be_used_is_refused_as_a_whole(header: bytes) -> None:
    made = dialect(settings=SessionSettings(mode="manual"))
    for data in (header + b"abcd", b"efgh"):
        error = error_of(append(made, data))
        assert (error["code"], error["param"]) == ("invalid_value", "audio")
    receive(made, "input_audio_buffer.commit")
    assert append(made, b"ok") == (AudioIn(b"ok", skipped=len(header) + 8),)


def test_a_new_format_begins_with_a_whole_sample() -> None:
    made = dialect()
    append(made, b"abc")
    configured(made, sample_rate=8000)
    assert append(made, b"xy") == (AudioIn(b"xy", skipped=1),)


def test_opus_is_passed_on_as_it_comes() -> None:
    """What it is, and whether it is whole, is for the decoder to say."""
    made = dialect()
    configure, event = configured(made, input_audio_format="opus", sample_rate=48_000)
    assert configure.format == AudioFormat(codec="opus")
    assert (event["session"]["input_audio_format"], event["session"]["sample_rate"]) == ("opus", 48_000)
    assert configured(made, sample_rate=8_000)[0].format == configure.format, "its stream would begin anew"
    for data in (b"abc", b"RIFF\0\0\0\0WAVE", b"d"):
        (heard,) = append(made, data)
        assert heard == AudioIn(data, event_id="event_1")
    assert receive(made, "input_audio_buffer.append", audio="====") == ()
    assert error_of(receive(made, "input_audio_buffer.append", audio="!"))["param"] == "audio"
    assert configured(made, audio={"input": {"format": {"type": "pcm"}}})[0].format.codec == "pcm"
    assert audio_of(append(made, b"abc")) == b"ab"


def test_invalid_audio_is_told_with_the_clients_id() -> None:
    (frame,) = dialect().invalid_audio("Invalid audio: no.", "event_7")
    error = orjson.loads(frame)["error"]
    assert error == {
        "type": "invalid_request_error",
        "code": "invalid_value",
        "message": "Invalid audio: no.",
        "param": "audio",
        "event_id": "event_7",
    }


# --- commit, clear, unknown events ------------------------------------------------------------------------


def test_commit_belongs_to_manual_mode() -> None:
    made = dialect()
    error = error_of(receive(made, "input_audio_buffer.commit"))
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_value")
    configured(made, turn_detection=None)
    assert receive(made, "input_audio_buffer.commit") == (CommitIn("event_1"),)


def test_clear() -> None:
    assert receive(dialect(), "input_audio_buffer.clear") == (ClearIn("event_1"),)


@pytest.mark.parametrize("kind", ["response.create", "conversation.item.create", "x" * 1000])
def test_unknown_events_are_named(kind: str) -> None:
    error = error_of(receive(dialect(), kind))
    assert (error["type"], error["code"], error["param"]) == (
        "invalid_request_error",
        "invalid_value",
        "type",
    )
    assert kind[:64] in error["message"]
    assert len(error["message"]) < 400


@pytest.mark.parametrize("kind", [None, 5, {}, ["session.finish"]])
def test_an_event_without_a_proper_type(kind: object) -> None:
    assert error_of(dialect().receive(orjson.dumps({"type": kind}).decode()))["param"] == "type"
    assert error_of(dialect().receive("{}"))["param"] == "type"


@pytest.mark.parametrize(
    ("event_id", "echoed"), [("e", "e"), (5, None), (None, None), ({}, None), ("x" * 600, None)]
)
def test_event_id_is_echoed_when_it_is_a_string(event_id: object, echoed: str | None) -> None:
    error = error_of(dialect().receive(orjson.dumps({"type": "x", "event_id": event_id}).decode()))
    assert error["event_id"] == echoed


# --- frames that are no events ----------------------------------------------------------------------------

BAD_FRAMES: list[tuple[str | bytes, str]] = [
    ("{", "invalid_json"),
    ("", "invalid_json"),
    ("\ud800", "invalid_json"),
    ("[" * 100_000, "invalid_json"),
    ("[]", "invalid_value"),
    ("null", "invalid_value"),
    (b'{"type": "session.finish"}', "invalid_value"),
]


@pytest.mark.parametrize(("frame", "code"), BAD_FRAMES)
def test_bad_frames(frame: str | bytes, code: str) -> None:
    error = error_of(dialect().receive(frame))
    assert (error["type"], error["code"]) == ("invalid_request_error", code)


def test_ten_bad_frames_in_a_row_close_the_connection() -> None:
    made = dialect()
    for _ in range(MAX_BAD_FRAMES - 1):
        error_of(made.receive("{"))
    append(made, b"ab")
    for at in range(MAX_BAD_FRAMES):
        (answer,) = made.receive(b"" if at % 2 else "{")
    assert isinstance(answer, Close)
    assert answer.code == 1007
    assert frame_of(answer)["type"] == "error"
    assert append(made, b"ab") == ()


# --- the end ----------------------------------------------------------------------------------------------


def test_after_session_finish_nothing_is_answered() -> None:
    made = dialect()
    assert receive(made, "session.finish") == (FinishIn(),)
    assert append(made, b"abcd") == ()
    assert receive(made, "input_audio_buffer.append", audio="!") == ()
    for kind in ("session.finish", "session.update", "input_audio_buffer.commit", "response.create"):
        assert receive(made, kind) == ()
    for frame, _ in BAD_FRAMES * 2:
        assert made.receive(frame) == ()


@pytest.mark.parametrize("frame", ['{"type": "session.finish", "event_id": "e9"}', "{", b"x"])
def test_any_event_after_session_finished_is_an_error_and_the_end(frame: str | bytes) -> None:
    made = dialect()
    receive(made, "session.finish")
    made.send(SessionFinished("client"))
    (answer,) = made.receive(frame)
    assert isinstance(answer, Close)
    assert answer.code == 1000
    assert frame_of(answer)["error"]["event_id"] in ("e9", None)
    assert made.receive(frame) == ()
