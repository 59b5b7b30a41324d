"""Which model names are served, and by which pool of ASR workers (pure)."""

import re
from collections.abc import Mapping

_VENDORS = re.compile(
    r"qwen3-asr-flash-realtime(-[A-Za-z0-9.-]+)?"
    r"|gpt-4o(-mini)?-transcribe(-\d{4}-\d{2}-\d{2})?|gpt-transcribe|gpt-live-transcribe"
    r"|gpt-realtime-whisper|whisper-1"
)
"""Names that clients of the vendors ask for: all of them get what is here."""


class Models:
    """``pools``: model name -> engine, as configured; every other known name goes to ``fallback``."""

    def __init__(self, pools: Mapping[str, str], fallback: str) -> None:
        self._pools = pools
        self._fallback = fallback

    def pool_of(self, model: str) -> str | None:
        """The pool that serves ``model``; None = a name that nobody here knows."""
        if model in self._pools:
            return self._pools[model]
        if _VENDORS.fullmatch(model) or model == self._fallback:
            return self._fallback
        return None
