"""Random frames of a client: good ones, nearly good ones, and rubbish. The same seed gives the same frames."""

import base64
import json
import random
from collections.abc import Callable
from functools import cache
from typing import Any

from tests.opus import opus_head, page, raw_packets, stream
from tests.speech import packaged_speech

Frame = str | bytes

WORDS = (
    *("session", "audio", "input", "format", "type", "sample_rate", "rate", "turn_detection", "server_vad"),
    *("threshold", "silence_duration_ms", "prefix_padding_ms", "input_audio_transcription", "language", "zh"),
    *("en", "corpus", "text", "input_audio_format", "pcm", "pcm16", "wav", "opus", "store", "diarization"),
    *("transcription", "prompt", "keywords", "noise_reduction", "semantic_vad", "eagerness", "audio/pcmu"),
    *("model", "include", "delay", "event_id", "enabled", "strength", "languages", "gpt-realtime-whisper"),
)
KINDS = (
    *("session.update", "session.finish", "input_audio_buffer.append", "input_audio_buffer.commit"),
    *("input_audio_buffer.clear", "response.create", "conversation.item.create", "session.created", "", "x"),
)
SCALARS: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 0.2, 0.5, 1.5, 300, 400, 800, 8000, 16_000, 24_000, 48_000, 10**30, -0.0),
    *("", "auto", "\x00", "\ud83d\ude00", "ſ", "x" * 300, 1e308, float("nan"), float("inf"), [], {}),
)


@cache
def _speech() -> bytes:
    return packaged_speech("two_cities.wav")[40_000:140_000]


@cache
def _opus() -> list[bytes]:
    return raw_packets(_speech()[:32_000])


class Fuzzer:
    """``next`` gives one frame after the other."""

    def __init__(self, seed: int, dialect: str) -> None:
        self._random = random.Random(seed)
        self._dialect = dialect
        self._kinds: list[tuple[int, Callable[[], Frame]]] = [
            (30, self._append),
            (14, self._update),
            (8, lambda: self._event("input_audio_buffer.commit")),
            (5, lambda: self._event("input_audio_buffer.clear")),
            (12, self._wild_event),
            (5, lambda: json.dumps(self._value(3))),
            (8, self._mutilated),
            (3, self._binary),
        ]
        if dialect == "dashscope":
            self._kinds.append((1, lambda: self._event("session.finish")))
        self._weights = [weight for weight, _ in self._kinds]
        self._rubbish = 0
        """So many frames to come that are no events: ten in a row are the end."""

    def next(self) -> Frame:
        if not self._rubbish and self._random.random() < 0.004:
            self._rubbish = self._random.randrange(8, 15)
        if self._rubbish:
            self._rubbish -= 1
            return self._random.choice(("{", "7", "", b"\x00", "\x7f"))
        [(_, make)] = self._random.choices(self._kinds, self._weights)
        return make()

    # --- frames -----------------------------------------------------------------------------------------

    def _event(self, kind: Any, **fields: Any) -> str:
        ids = ({}, {"event_id": f"e{self._random.randrange(9)}"}, {"event_id": self._value(1)})
        event = {"type": kind, **self._random.choice(ids), **fields}
        return json.dumps(event, ensure_ascii=self._random.random() < 0.5)

    def _append(self) -> str:
        data = self._audio()
        encode = self._random.choice((base64.b64encode, base64.urlsafe_b64encode, base64.encodebytes))
        text = encode(data).decode()
        if self._random.random() < 0.05:
            text = text[: self._random.randrange(len(text) + 1)] + self._random.choice(("", "=", "*", "\n"))
        return self._event("input_audio_buffer.append", audio=text)

    def _audio(self) -> bytes:
        chance = self._random
        header = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data\0\0\0\0"
        return chance.choice(
            (
                lambda: chance.randbytes(chance.randrange(1, 400)),
                lambda: bytes(chance.randrange(1, 4000)),
                lambda: chance.choice(_opus()),
                lambda: stream(_opus()[: chance.randrange(1, 9)])[: chance.randrange(1, 900)],
                lambda: page([chance.randbytes(9)]) + page([opus_head()], flags=2),
                lambda: header + chance.randbytes(chance.randrange(50)),
                lambda: header[: chance.randrange(1, 45)],
                lambda: _speech()[chance.randrange(9000) :][: chance.randrange(1, 9000)],
                lambda: _speech()[: chance.randrange(60_000)],
            )
        )()

    def _update(self) -> str:
        session: dict[str, Any] = {}
        for name, values in (OPENAI_FIELDS if self._dialect == "openai" else DASHSCOPE_FIELDS).items():
            if self._random.random() < 0.3:
                session[name] = self._spoiled(self._random.choice(values))
        if self._dialect == "openai":
            session = {"type": "transcription", "audio": {"input": session}}
        return self._event("session.update", session=session)

    def _spoiled(self, value: Any) -> Any:
        """Mostly as it is; or anything else, or one of its fields is."""
        draw = self._random.random()
        if draw < 0.05:
            return self._value(2)
        if draw < 0.2 and isinstance(value, dict) and value:
            name = self._random.choice(sorted(value))
            return {**value, name: self._value(1)}
        return value

    def _wild_event(self) -> str:
        kind = self._random.choice(KINDS) if self._random.random() < 0.8 else self._value(1)
        fields = {name: self._value(2) for name in self._random.sample(WORDS, 3)}
        return self._event(kind, **fields)

    def _mutilated(self) -> str:
        """A good frame with a few characters changed, cut off or doubled."""
        frame = self._random.choice((self._append, self._update))()
        at = self._random.randrange(len(frame))
        cut = self._random.choice((frame[:at], frame[at:], frame[:at] + frame[at + 1 :], frame[:at] * 2))
        return cut + self._random.choice(("", "{", "\x00", '"', "]" * 50, "[" * 5000, "\ufeff"))

    def _binary(self) -> bytes:
        return self._random.randbytes(self._random.randrange(60))

    def _value(self, depth: int) -> Any:
        chance = self._random.random()
        if depth == 0 or chance < 0.5:
            return self._random.choice(SCALARS if chance < 0.25 else WORDS)
        if chance < 0.65:
            return [self._value(depth - 1) for _ in range(self._random.randrange(4))]
        names = self._random.sample(WORDS, self._random.randrange(5))
        return {name: self._value(depth - 1) for name in names}


DASHSCOPE_FIELDS: dict[str, list[Any]] = {
    "input_audio_format": ["pcm", "pcm16", "opus", "wav", None],
    "sample_rate": [8000, 16_000, 24_000, 48_000, 44_100],
    "input_audio_transcription": [
        None,
        {},
        {"language": "en"},
        {"language": "auto", "corpus": {"text": "a"}},
    ],
    "turn_detection": [
        None,
        {"type": "server_vad"},
        {"type": "server_vad", "threshold": 0.0, "silence_duration_ms": 400, "prefix_padding_ms": 300},
        {"type": "server_vad", "threshold": 2},
    ],
    "audio": [{"input": {"format": {"type": "pcm", "sample_rate": 16_000}}}, {}],
    "store": [True, False],
}
OPENAI_FIELDS: dict[str, list[Any]] = {
    "format": [{"type": "audio/pcm", "rate": 24_000}, {"type": "audio/pcmu"}, {"type": "audio/pcma"}, None],
    "transcription": [
        None,
        {"model": "whisper-1", "language": "en"},
        {"model": "gpt-9"},
        {"prompt": "a", "keywords": ["b"], "languages": ["en", "de"], "delay": "low"},
    ],
    "turn_detection": [
        None,
        {"type": "server_vad", "threshold": 0.3, "silence_duration_ms": 200, "prefix_padding_ms": 100},
        {"type": "semantic_vad", "eagerness": "high"},
        {"type": "server_vad", "threshold": 2},
    ],
    "noise_reduction": [None, {"type": "near_field"}, {"strength": 0.5}],
}
