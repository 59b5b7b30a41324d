"""Engines by name: a table of import strings, so that only the chosen one is imported.

Engine modules import their native library inside the constructor, never at the top: a probe must be able to
ask why an engine cannot run without loading a library that may abort the process.
"""

import importlib
from typing import Any, Final

from services.asr_worker.engines.base import Engine

ENGINES: Final[dict[str, str]] = {
    "packaged": "services.asr_worker.engines.sherpa:SherpaEngine",
    "sherpa": "services.asr_worker.engines.sherpa:SherpaEngine",
    "scripted": "services.asr_worker.engines.scripted:ScriptedEngine",
}
"""``packaged``: what our packages carry, Moonshine for English."""


def load_engine(name: str, **options: Any) -> Engine:
    """Build an engine; the options are its constructor's.

    Raises:
        ValueError: there is no engine of this name.
        ModelUnavailable: its model is not here or not what it should be.
    """
    engine: Engine = _engine_class(name)(**options)
    return engine


def probe(name: str) -> str | None:
    """Why this engine cannot run here, in one line; None when it can. Loads no native library."""
    why: str | None = _engine_class(name).why_not()
    return why


def _engine_class(name: str) -> Any:
    if name not in ENGINES:
        raise ValueError(f"no engine {name!r}; there are {', '.join(sorted(ENGINES))}")
    module, _, class_name = ENGINES[name].partition(":")
    return getattr(importlib.import_module(module), class_name)
