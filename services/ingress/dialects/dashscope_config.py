"""What a DashScope session is set to: the client's view of it, and the settings that follow from it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from services.ingress.dialects.base import Welcome
from shared.messages import AudioFormat, SessionSettings

LANGUAGES = frozenset(
    "zh yue en ja de ko ru fr pt ar it es hi id th tr uk vi cs da fil fi is ms no pl sv".split()  # noqa: SIM905 - else 27 lines
)
"""Codes that the vendor documents."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Turn detection as the client sees it."""

    threshold: float
    """On the vendor's scale, [-1, 1]."""
    probability: float
    silence_ms: int
    prefix_ms: int
    echo_prefix: bool = False


@dataclass(frozen=True, slots=True)
class Config:
    """Everything a client can set, and what it is set to."""

    turn: Turn | None
    """None: manual mode."""
    codec: str = "pcm"
    sample_rate: int = 16_000
    transcription: Mapping[str, Any] | None = None
    """What is echoed of ``input_audio_transcription``."""
    language: str = ""
    context: str = ""
    store: bool = True
    diarization: bool = False
    warnings: tuple[str, ...] = field(default=())

    @property
    def format(self) -> AudioFormat:
        if self.codec == "opus":
            return AudioFormat(codec="opus")  # it says its rate itself
        return AudioFormat(codec=self.codec, sample_rate=self.sample_rate)


def to_probability(threshold: float) -> float:
    """The vendor's scale as a Silero probability: lower is more sensitive on both."""
    return round(min(max(0.4 + 0.5 * threshold, 0.05), 0.95), 4)


def to_threshold(probability: float) -> float:
    return round(min(max((probability - 0.4) / 0.5, -1.0), 1.0), 4)


def default_turn(settings: SessionSettings) -> Turn:
    return Turn(
        threshold=to_threshold(settings.threshold),
        probability=settings.threshold,
        silence_ms=settings.silence_ms,
        prefix_ms=settings.prefix_padding_ms,
    )


def initial(welcome: Welcome) -> Config:
    """The configuration of a client that sends no ``session.update``."""
    manual = welcome.settings.mode == "manual"
    return Config(
        turn=None if manual else default_turn(welcome.settings),
        language=welcome.settings.language,
        store=welcome.settings.store,
    )


def warnings_of(config: Config, welcome: Welcome) -> tuple[str, ...]:
    found = []
    if config.language != engine_language(config, welcome):
        found.append(f"language: the engine cannot be told '{config.language}'; it is left to detection.")
    if config.context and not welcome.takes_context:
        found.append("corpus.text: the engine of this model cannot use context; it is ignored.")
    if config.diarization:
        found.append("diarization: not available; it is ignored.")
    return tuple(found)


def engine_language(config: Config, welcome: Welcome) -> str:
    """What the engine is told; empty = detect."""
    return config.language if knows(welcome, config.language) else ""


def knows(welcome: Welcome, language: str) -> bool:
    return not welcome.languages or language in welcome.languages


def engine_context(config: Config, welcome: Welcome) -> str:
    return config.context if welcome.takes_context else ""


def session_settings(config: Config, welcome: Welcome) -> SessionSettings:
    """Complete settings; ``context_hash`` is left to the session, which stores the text."""
    turn = config.turn or default_turn(welcome.settings)
    return msgspec.structs.replace(
        welcome.settings,
        mode="vad" if config.turn else "manual",
        threshold=turn.probability,
        silence_ms=turn.silence_ms,
        prefix_padding_ms=turn.prefix_ms,
        language=engine_language(config, welcome),
        store=config.store,
    )


def session_object(config: Config, welcome: Welcome) -> dict[str, Any]:
    """The ``session`` of session.created and session.updated."""
    detection: dict[str, Any] | None = None
    if config.turn:
        detection = {
            "type": "server_vad",
            "threshold": config.turn.threshold,
            "silence_duration_ms": config.turn.silence_ms,
        }
        if config.turn.echo_prefix:
            detection["prefix_padding_ms"] = config.turn.prefix_ms
    return {
        "id": welcome.session_id,
        "object": "realtime.session",
        "model": welcome.model,
        "modalities": ["text"],
        "input_audio_format": config.codec,
        "sample_rate": config.sample_rate,
        "input_audio_transcription": config.transcription,
        "turn_detection": detection,
    }
