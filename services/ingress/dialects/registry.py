"""Which dialect speaks on which path. Only the chosen one is imported."""

from collections.abc import Callable, Mapping
from importlib import import_module

from services.ingress.dialects.base import Dialect, Welcome

DIALECTS: Mapping[str, str] = {
    "dashscope": "services.ingress.dialects.dashscope:DashScope",
}
"""Name, as it stands in the session log -> import string of its class."""

PATHS: Mapping[str, str] = {
    "/api-ws/v1/realtime": "dashscope",
}
"""Path on the main port -> name."""

Factory = Callable[[Welcome], Dialect]


def dialect_at(path: str) -> str | None:
    """The name of the dialect at ``path``; users put a slash at the end."""
    return PATHS.get(path.rstrip("/"))


def load_dialect(name: str) -> Factory:
    """Import a dialect. Raises KeyError for a name that is not in ``DIALECTS``."""
    module, _, attribute = DIALECTS[name].partition(":")
    factory: Factory = getattr(import_module(module), attribute)
    return factory
