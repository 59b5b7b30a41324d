"""Which model names are served, and by which pool of ASR workers (pure)."""

import re
from collections.abc import Mapping

DEFAULT_MODEL = "qwen3-asr-flash-realtime"
_VENDOR = re.compile(r"qwen3-asr-flash-realtime(-[A-Za-z0-9.-]+)?")


class Models:
    """``pools``: model name -> engine, as configured; every other known name goes to ``fallback``."""

    def __init__(self, pools: Mapping[str, str], fallback: str) -> None:
        self._pools = pools
        self._fallback = fallback

    def pool_of(self, model: str) -> str | None:
        """The pool that serves ``model``; None = a name that nobody here knows."""
        if model in self._pools:
            return self._pools[model]
        if _VENDOR.fullmatch(model) or model == self._fallback:
            return self._fallback
        return None
