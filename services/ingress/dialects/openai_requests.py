"""What an OpenAI client may ask of its session: ``session.update``, field by field.

Only fields that are named change, on every level; null is a value of its own.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from services.ingress.dialects.base import Welcome
from services.ingress.dialects.openai_config import (
    CODECS,
    EAGERNESS,
    RATES,
    WITHOUT_VAD,
    Config,
    context_of,
    server_vad,
    warnings_of,
)
from services.ingress.dialects.realtime import Fields, Invalid, mapping, number, quoted, string

DELAYS = ("minimal", "low", "medium", "high", "xhigh")
LOGPROBS = "item.input_audio_transcription.logprobs"
MAX_CONTEXT_CHARS = 40_000
MAX_WORDS = 1_000
_LANGUAGE = re.compile(r"[a-z]{2,3}")
_INPUT = "session.audio.input."
_TRANSCRIPTION = _INPUT + "transcription."
_TURN = _INPUT + "turn_detection."


# --- fields: (configuration so far, value, welcome) -> configuration ------------------------------------


def _format(config: Config, value: Any, _: Welcome) -> Config:
    param = _INPUT + "format"
    given = mapping(value, param)
    kind = one_of(given.get("type", config.format["type"]), param + ".type", CODECS)
    if kind != "audio/pcm":
        return replace(config, format={"type": kind})
    rate = given.get("rate", config.format.get("rate", RATES[0]))
    if isinstance(rate, bool) or not isinstance(rate, int | float) or rate not in RATES:
        supported = ", ".join(map(str, RATES))
        raise Invalid(param + ".rate", f"Invalid value: {quoted(rate)}. Supported values are: {supported}.")
    return replace(config, format={"type": kind, "rate": int(rate)})


def _noise_reduction(config: Config, value: Any, _: Welcome) -> Config:
    if value is None:
        return replace(config, noise_reduction=None)
    param = _INPUT + "noise_reduction"
    merged = {**(config.noise_reduction or {}), **mapping(value, param)}
    told: Fields = {"type": one_of(merged.get("type"), param + ".type", ("near_field", "far_field"))}
    if merged.get("strength") is not None:
        told["strength"] = number(merged["strength"], param + ".strength", (0, 1), whole=False)
    return replace(config, noise_reduction=told)


def _transcription(config: Config, value: Any, welcome: Welcome) -> Config:
    if value is None:  # a transcription session without transcription would be none
        return replace(config, transcription={"model": welcome.model})
    given = mapping(value, _INPUT + "transcription")
    named = {name: read(given[name], welcome) for name, read in TRANSCRIPTION.items() if name in given}
    merged = {**config.transcription, **named}
    if len(context_of(merged)) > MAX_CONTEXT_CHARS:
        raise Invalid(
            _TRANSCRIPTION + "prompt", f"Invalid value: longer than {MAX_CONTEXT_CHARS} characters."
        )
    return replace(config, transcription=merged)


def _model(value: Any, welcome: Welcome) -> str:
    if value is None:
        return welcome.model
    model = string(value, _TRANSCRIPTION + "model")
    if not welcome.serves(model):
        raise Invalid(
            _TRANSCRIPTION + "model",
            f"Invalid value: {quoted(model)} is not served in this session; name it in the URL (?model=).",
        )
    return model


def _language(value: Any, welcome: Welcome, param: str = _TRANSCRIPTION + "language") -> str | None:
    if value in (None, ""):
        return None
    language = string(value, param)
    only = welcome.languages if welcome.languages and not welcome.detects_language else ()
    if not _LANGUAGE.fullmatch(language) or (only and language not in only):
        known = f" Supported values are: {', '.join(map(quoted, only))}." if only else " Expected ISO-639-1."
        raise Invalid(param, f"Invalid value: {quoted(language)}.{known}")
    return language


def _languages(value: Any, welcome: Welcome) -> list[str]:
    param = _TRANSCRIPTION + "languages"
    return [language for word in _words(value, param) if (language := _language(word, welcome, param))]


def _words(value: Any, param: str) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > MAX_WORDS:
        raise Invalid(param, f"Invalid value: expected an array of at most {MAX_WORDS} strings.")
    return [string(word, param) for word in value]


TRANSCRIPTION: Mapping[str, Callable[[Any, Welcome], Any]] = {
    "model": _model,
    "language": _language,
    "languages": _languages,
    "prompt": lambda value, _: None if value is None else string(value, _TRANSCRIPTION + "prompt"),
    "keywords": lambda value, _: _words(value, _TRANSCRIPTION + "keywords"),
    "delay": lambda value, _: None if value is None else one_of(value, _TRANSCRIPTION + "delay", DELAYS),
}


def _turn_detection(config: Config, value: Any, welcome: Welcome) -> Config:
    if value is None:
        return replace(config, turn_detection=None)
    old = config.turn_detection or {}
    given = mapping(value, _INPUT + "turn_detection")
    kind = one_of(given.get("type", old.get("type")), _TURN + "type", ("server_vad", "semantic_vad"))
    if kind == "semantic_vad":
        eagerness = given.get("eagerness", old.get("eagerness", "auto"))
        told = {"type": kind, "eagerness": one_of(eagerness, _TURN + "eagerness", EAGERNESS)}
        return replace(config, turn_detection=told)
    merged = dict(old if old.get("type") == kind else server_vad(welcome.settings))
    for name, (limits, whole) in SERVER_VAD.items():
        if given.get(name) is not None:
            read = number(given[name], _TURN + name, limits, whole=whole)
            merged[name] = int(read) if whole else read
        elif name in given:
            merged[name] = server_vad(welcome.settings)[name]
    return replace(config, turn_detection=merged)


SERVER_VAD: Mapping[str, tuple[tuple[int, int], bool]] = {
    "threshold": ((0, 1), False),
    "prefix_padding_ms": ((0, 10_000), True),
    "silence_duration_ms": ((0, 10_000), True),
    "idle_timeout_ms": ((0, 3_600_000), True),
}
"""Name -> range, and whether it is whole. The vendor documents no ranges of milliseconds."""

INPUT: Mapping[str, Callable[[Config, Any, Welcome], Config]] = {
    "format": _format,
    "noise_reduction": _noise_reduction,
    "transcription": _transcription,
    "turn_detection": _turn_detection,
}


def one_of(value: Any, param: str, known: Any) -> str:
    if not isinstance(value, str) or value not in known:
        supported = ", ".join(f"'{name}'" for name in known)
        raise Invalid(param, f"Invalid value: {quoted(value)}. Supported values are: {supported}.")
    return value


# --- the whole ------------------------------------------------------------------------------------------


def updated(config: Config, session: object, welcome: Welcome) -> Config:
    """``config`` after a ``session.update`` with ``session``. Raises Invalid."""
    if not isinstance(session, dict):
        raise Invalid("session", "Invalid value: 'session' must be an object.")
    one_of(session.get("type", "transcription"), "session.type", ("transcription",))
    given = mapping(mapping(session.get("audio"), "session.audio").get("input"), "session.audio.input")
    for name, read in INPUT.items():
        if name in given:
            config = read(config, given[name], welcome)
    if config.transcription["model"] == WITHOUT_VAD:
        if given.get("turn_detection") is not None:
            raise Invalid(_TURN[:-1], f"Invalid value: turn_detection must be null for {WITHOUT_VAD}.")
        config = replace(config, turn_detection=None)
    if "include" in session:
        include = session["include"]
        for value in _words(include, "session.include"):
            one_of(value, "session.include", (LOGPROBS,))
        config = replace(config, include=tuple(include) if include else None)
    return replace(config, warnings=warnings_of(config, welcome))
