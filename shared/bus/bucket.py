"""Key-value with compare-and-set, on a JetStream stream that keeps one message per key."""

from dataclasses import dataclass

from shared.bus.client import Ack, Bus, Stored
from shared.bus.tail import read_all

_MARKER_TTL = {"KV-Operation": "PURGE", "Nats-Rollup": "sub", "Nats-TTL": "60s"}


@dataclass(frozen=True, slots=True)
class Entry:
    """A key's value and revision; ``value`` None = deleted."""

    key: str
    value: bytes | None
    revision: int


class Bucket:
    """One bucket. All methods raise BusUnavailable while it has no leader."""

    def __init__(self, bus: Bus, name: str) -> None:
        self._bus = bus
        self._stream = f"KV_{name}"
        self._prefix = f"$KV.{name}."

    def _entry(self, stored: Stored) -> Entry:
        gone = stored.headers is not None and "KV-Operation" in stored.headers
        return Entry(stored.subject.removeprefix(self._prefix), None if gone else stored.data, stored.seq)

    async def get(self, key: str) -> Entry | None:
        """The current value, from the leader. An emptied key answers with an empty value."""
        stored = await self._bus.last(self._stream, self._prefix + key)
        if stored is None:
            return None
        return Entry(key, stored.data or None, stored.seq)

    async def put(self, key: str, value: bytes, *, revision: int | None = None) -> int:
        """Set a key; with ``revision`` only if that is its current one (0 = it must not exist).

        Returns the new revision. Raises WrongLast when somebody else was faster.
        """
        ack: Ack = await self._bus.publish(self._prefix + key, value, expect_last=revision)
        return ack.seq

    async def delete(self, key: str, *, revision: int | None = None) -> None:
        """Remove a key; its marker vanishes after a minute, so that keys of the dead do not pile up."""
        await self._bus.publish(self._prefix + key, b"", expect_last=revision, headers=_MARKER_TTL)

    async def all(self, pattern: str) -> list[Entry]:
        """The current values of few keys (at most 1024) in one request; a replica may answer."""
        found = await self._bus.last_of_each(self._stream, [self._prefix + pattern])
        return [entry for entry in map(self._entry, found) if entry.value is not None]

    async def scan(self, pattern: str) -> list[Entry]:
        """The current values of any number of keys."""
        found = await read_all(self._bus, self._stream, [self._prefix + pattern], last_per_subject=True)
        return [entry for entry in map(self._entry, found) if entry.value is not None]
