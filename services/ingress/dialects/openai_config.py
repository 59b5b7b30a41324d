"""What an OpenAI transcription session is set to: the client's view of it, and the settings that follow from it.

What is echoed is what was asked; where the engine cannot do it, a warning says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from services.ingress.dialects.base import Welcome
from services.ingress.dialects.realtime import Fields
from shared.messages import AudioFormat, SessionSettings

SILENCE_MS = 500
"""Documented; a deployment's own default is for protocols that document none."""
RATES = (24_000, 8_000, 16_000, 48_000)
"""The vendor takes the first alone."""
CODECS = {"audio/pcm": "pcm", "audio/pcmu": "pcmu", "audio/pcma": "pcma"}
G711_RATE = 8_000
EAGERNESS = {"low": 1600, "medium": 800, "auto": 800, "high": 400}
"""Semantic turn detection is not available: silence that ends a turn instead, in milliseconds."""
WITHOUT_VAD = "gpt-realtime-whisper"
"""The vendor has no turn detection for this model."""
_PREFIX_MS = (0, 2_000)


@dataclass(frozen=True, slots=True)
class Config:
    """The session as its client sees it; values are never changed, but replaced."""

    format: Mapping[str, Any]
    transcription: Mapping[str, Any]
    turn_detection: Mapping[str, Any] | None
    noise_reduction: Mapping[str, Any] | None = None
    include: tuple[str, ...] | None = None
    warnings: tuple[str, ...] = field(default=())

    @property
    def audio(self) -> AudioFormat:
        return AudioFormat(codec=CODECS[self.format["type"]], sample_rate=self.format.get("rate", G711_RATE))


def defaults(settings: SessionSettings, model: str) -> SessionSettings:
    """The deployment's settings, with what the vendor documents otherwise."""
    mode = "manual" if model == WITHOUT_VAD else settings.mode
    return msgspec.structs.replace(settings, silence_ms=SILENCE_MS, mode=mode)


def initial(welcome: Welcome) -> Config:
    """The configuration of a client that sends no ``session.update``."""
    manual = welcome.settings.mode == "manual"
    return Config(
        format={"type": "audio/pcm", "rate": RATES[0]},
        transcription={"model": welcome.model},
        turn_detection=None if manual else server_vad(welcome.settings),
    )


def server_vad(settings: SessionSettings) -> Mapping[str, Any]:
    return {
        "type": "server_vad",
        "threshold": settings.threshold,
        "prefix_padding_ms": settings.prefix_padding_ms,
        "silence_duration_ms": settings.silence_ms,
        "idle_timeout_ms": None,
    }


def warnings_of(config: Config, welcome: Welcome) -> tuple[str, ...]:
    turn, asked = config.turn_detection or {}, language_of(config)
    possible = (
        (
            bool(asked) and not engine_language(config, welcome),
            f"language: the engine cannot be told '{asked}'.",
        ),
        (bool(context_of(config.transcription)) and not welcome.takes_context, "prompt, keywords: ignored."),
        (len(config.transcription.get("languages") or ()) > 1, "languages: all are possible anyway."),
        (config.transcription.get("delay") is not None, "delay: ignored."),
        (config.noise_reduction is not None, "noise_reduction: not available."),
        (turn.get("type") == "semantic_vad", "turn_detection: semantic_vad is a length of silence here."),
        (turn.get("idle_timeout_ms") is not None, "idle_timeout_ms: ignored."),
        (bool(config.include), "include: no logprobs are available."),
    )
    return tuple(text for is_so, text in possible if is_so)


def language_of(config: Config) -> str:
    """What the client asked for: one language, or one possible language."""
    languages = config.transcription.get("languages") or []
    return config.transcription.get("language") or (languages[0] if len(languages) == 1 else "")


def engine_language(config: Config, welcome: Welcome) -> str:
    """What the engine is told; empty = detect."""
    language = language_of(config)
    return language if not welcome.languages or language in welcome.languages else ""


def context_of(transcription: Mapping[str, Any]) -> str:
    parts = (transcription.get("prompt") or "", ", ".join(transcription.get("keywords") or ()))
    return "\n".join(filter(None, parts))


def session_settings(config: Config, welcome: Welcome) -> SessionSettings:
    """Complete settings; ``context_hash`` is left to the session, which stores the text."""
    settings = msgspec.structs.replace(welcome.settings, language=engine_language(config, welcome))
    turn = config.turn_detection
    if turn is None:
        return msgspec.structs.replace(settings, mode="manual")
    settings = msgspec.structs.replace(settings, mode="vad")
    if turn["type"] == "semantic_vad":
        return msgspec.structs.replace(settings, silence_ms=EAGERNESS[turn["eagerness"]])
    low, high = _PREFIX_MS
    return msgspec.structs.replace(
        settings,
        threshold=min(max(turn["threshold"], 0.05), 0.95),
        silence_ms=max(turn["silence_duration_ms"], 100),
        prefix_padding_ms=min(max(turn["prefix_padding_ms"], low), high),
    )


def session_object(config: Config, welcome: Welcome) -> Fields:
    """The ``session`` of session.created and session.updated."""
    return {
        "id": welcome.session_id,
        "object": "realtime.transcription_session",
        "type": "transcription",
        "expires_at": None,
        "audio": {
            "input": {
                "format": config.format,
                "transcription": config.transcription,
                "noise_reduction": config.noise_reduction,
                "turn_detection": config.turn_detection,
            }
        },
        "include": config.include,
    }
