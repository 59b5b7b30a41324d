"""What a DashScope client may ask of its session: ``session.update``, field by field.

A field that is absent keeps its value; an object that is present replaces the old one as a whole. For
``turn_detection`` absent and null differ: null is manual mode.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from services.ingress.dialects.base import Welcome
from services.ingress.dialects.dashscope_config import (
    LANGUAGES,
    Config,
    default_turn,
    to_probability,
    warnings_of,
)
from services.ingress.dialects.realtime import Invalid, mapping, number, quoted, string

DETECT = frozenset({"", "auto"})
"""Ways to say: find out the language."""
FORMATS = {"pcm": "pcm", "pcm16": "pcm", "wav": "wav", "opus": "opus"}
"""Names that clients use -> ours; the SDK says pcm16 when it was told nothing."""
RATES = (8_000, 16_000, 24_000, 48_000)
SILENCE_MS = (200, 6_000)
THRESHOLD = (-1, 1)
PREFIX_MS = (0, 2_000)
"""Values outside are clamped: the vendor documents no range."""
CONTEXT_TOKENS = 10_000
_TOKENS = re.compile(
    r"[\u0e00-\u0e7f\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]|[^\s\u2e80-\u9fff]{1,6}"
)
"""An estimate from below: an ideograph, or up to six other characters, make at least a token."""

_TRANSCRIPTION = "session.input_audio_transcription"
_TURN = "session.turn_detection"


# --- values ----------------------------------------------------------------------------------------------


def count_tokens(text: str) -> int:
    return sum(1 for _ in _TOKENS.finditer(text))


# --- fields: (configuration so far, value, welcome) -> configuration ------------------------------------


def _format(config: Config, value: Any, _: Welcome, param: str = "session.input_audio_format") -> Config:
    if value is None:
        return config
    if not isinstance(value, str) or value not in FORMATS:
        raise Invalid(param, f"Invalid value: {quoted(value)}. Supported values are: 'pcm', 'opus'.")
    return replace(config, codec=FORMATS[value])


def _rate(config: Config, value: Any, _: Welcome, param: str = "session.sample_rate") -> Config:
    if value is None:
        return config
    if isinstance(value, bool) or not isinstance(value, int | float) or value not in RATES:
        supported = ", ".join(map(str, RATES))
        raise Invalid(param, f"Invalid value: {quoted(value)}. Supported values are: {supported}.")
    return replace(config, sample_rate=int(value))


def _audio(config: Config, value: Any, welcome: Welcome) -> Config:
    """The newer style of the SDK: ``audio.input.format``, with nothing at the top level."""
    given = mapping(mapping(value, "session.audio").get("input"), "session.audio.input")
    param = "session.audio.input.format"
    audio_format = mapping(given.get("format"), param)
    config = _format(config, audio_format.get("type"), welcome, param + ".type")
    return _rate(config, audio_format.get("sample_rate"), welcome, param + ".sample_rate")


def _transcription(config: Config, value: Any, welcome: Welcome) -> Config:
    given = mapping(value, _TRANSCRIPTION)
    echo: dict[str, Any] = {}
    language, context = welcome.settings.language, ""
    if given.get("language") is not None:
        asked = _language(given["language"], welcome)
        echo["language"], language = asked, "" if asked in DETECT else asked
    text = mapping(given.get("corpus"), _TRANSCRIPTION + ".corpus").get("text")
    if text is not None:
        context = _context(text)
        echo["corpus"] = {"text": context}
    return replace(config, transcription=None if value is None else echo, language=language, context=context)


def _language(value: Any, welcome: Welcome) -> str:
    param = _TRANSCRIPTION + ".language"
    language = string(value, param)
    if language in DETECT:
        return language
    supported = LANGUAGES
    if welcome.languages and not welcome.detects_language:
        supported = LANGUAGES.intersection(welcome.languages)
    if language not in supported:
        known = ", ".join(f"'{name}'" for name in sorted(supported))
        raise Invalid(param, f"Invalid value: {quoted(language)}. Supported values are: {known}.")
    return language


def _context(value: Any) -> str:
    param = _TRANSCRIPTION + ".corpus.text"
    text = string(value, param)
    # The first test spares counting megabytes.
    if len(text) > 10 * CONTEXT_TOKENS or count_tokens(text) > CONTEXT_TOKENS:
        raise Invalid(param, f"Invalid value: the text is longer than {CONTEXT_TOKENS} tokens.")
    return text


def _turn_detection(config: Config, value: Any, welcome: Welcome) -> Config:
    if value is None:
        return replace(config, turn=None)
    given = mapping(value, _TURN)
    if given.get("type") != "server_vad":
        raise Invalid(
            _TURN + ".type",
            f"Invalid value: {quoted(given.get('type'))}. Supported values are: 'server_vad'.",
        )
    turn = default_turn(welcome.settings)
    if given.get("threshold") is not None:
        threshold = number(given["threshold"], _TURN + ".threshold", THRESHOLD, whole=False)
        turn = replace(turn, threshold=threshold, probability=to_probability(threshold))
    if given.get("silence_duration_ms") is not None:
        silence = number(given["silence_duration_ms"], _TURN + ".silence_duration_ms", SILENCE_MS, whole=True)
        turn = replace(turn, silence_ms=int(silence))
    if given.get("prefix_padding_ms") is not None:
        any_size = (-(10**9), 10**9)
        prefix = number(given["prefix_padding_ms"], _TURN + ".prefix_padding_ms", any_size, whole=False)
        low, high = PREFIX_MS
        turn = replace(turn, prefix_ms=int(min(max(prefix, low), high)), echo_prefix=True)
    return replace(config, turn=turn)


def _store(config: Config, value: Any, welcome: Welcome) -> Config:
    if value is None:
        return replace(config, store=welcome.settings.store)
    if not isinstance(value, bool):
        raise Invalid("session.store", f"Invalid value: {quoted(value)}. Expected true or false.")
    return replace(config, store=value)


def _diarization(config: Config, value: Any, _: Welcome) -> Config:
    return replace(config, diarization=isinstance(value, dict) and value.get("enabled") is True)


FIELDS: Mapping[str, Callable[[Config, Any, Welcome], Config]] = {
    "input_audio_format": _format,
    "sample_rate": _rate,
    "audio": _audio,
    "input_audio_transcription": _transcription,
    "turn_detection": _turn_detection,
    "store": _store,
    "diarization": _diarization,
}
"""Fields that mean something; all others are the SDK's or another API's, and are ignored."""


# --- the whole ------------------------------------------------------------------------------------------


def updated(config: Config, session: object, welcome: Welcome) -> Config:
    """``config`` after a ``session.update`` with ``session``. Raises Invalid."""
    if not isinstance(session, dict):
        raise Invalid("session", "Invalid value: 'session' must be an object.")
    for name, read in FIELDS.items():
        if name in session:
            config = read(config, session[name], welcome)
    return replace(config, warnings=warnings_of(config, welcome))
