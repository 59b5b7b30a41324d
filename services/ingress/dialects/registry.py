"""Which dialect speaks on which path. Only the chosen one is imported."""

from collections.abc import Mapping
from importlib import import_module

from services.ingress.dialects.base import DialectClass

DIALECTS: Mapping[str, str] = {
    "dashscope": "services.ingress.dialects.dashscope:DashScope",
    "openai": "services.ingress.dialects.openai_realtime:OpenAIRealtime",
}
"""Name, as it stands in the session log -> import string of its class."""
DEFAULT = "dashscope"
"""Whose words are used where nobody's are asked for."""

PATHS: Mapping[str, str] = {
    "/api-ws/v1/realtime": "dashscope",
    "/v1/realtime": "openai",
}
"""Path on the main port -> name."""


def dialect_at(path: str) -> str | None:
    """The name of the dialect at ``path``; users put a slash at the end."""
    return PATHS.get(path.rstrip("/"))


def load_dialect(name: str) -> DialectClass:
    """Import a dialect. Raises KeyError for a name that is not in ``DIALECTS``."""
    module, _, attribute = DIALECTS[name].partition(":")
    dialect: DialectClass = getattr(import_module(module), attribute)
    return dialect
