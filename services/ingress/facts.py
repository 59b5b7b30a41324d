"""What is known of a session, in no order, and the place that a client has reached in it.

``Facts`` is a join: its operations may be repeated, reordered and raced, the set is the same. Its twin in
Redis is ``shared/commit.lua``; tests/integration/test_commit_lua.py holds the two together.
"""

import re
from dataclasses import dataclass

from shared.errors import BadMessage

WINDOW = 1024
"""Events, and ordinals, that are kept ahead of the reader; what lies further is read again later."""

_NUMBER = r"(0|[1-9][0-9]{0,14})"
_CURSOR = re.compile(rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}")


@dataclass(frozen=True, slots=True)
class Cursor:
    """What a client has: events below ``ev``, which closed ``closed`` ordinals, and outcomes below ``k``."""

    ev: int = 0
    closed: int = 0
    k: int = 0

    def __str__(self) -> str:
        return f"{self.ev}.{self.closed}.{self.k}"

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """Raises ValueError if ``text`` cannot be a cursor."""
        match = _CURSOR.fullmatch(text)
        if match is None:
            raise ValueError("not a cursor")
        cursor = cls(*(int(number) for number in match.groups()))
        if not cursor.k <= cursor.closed <= cursor.ev:  # an event closes at most one ordinal
            raise ValueError("not a cursor")
        return cursor


START = Cursor()


class Facts:
    """The facts that a reader at ``cursor`` may need. Each operation says whether it changed anything."""

    def __init__(self, cursor: Cursor = START, window: int = WINDOW) -> None:
        self.events: dict[int, bytes] = {}
        self.outcomes: dict[tuple[int, str], tuple[int, bytes]] = {}
        """(ordinal, slot) -> (stream sequence, body); sequence 0 = closed without an outcome to wait for."""
        self.partial: tuple[int, int, bytes] | None = None
        self.low = (0, 0)
        self.reader = cursor
        self.newest_ev = self.newest_k = -1
        """The highest numbers ever offered, kept or not: they tell a hole from the end."""
        self._window = window

    def apply_event(self, ev: int, body: bytes, closes: int | None = None) -> bool:
        """``closes``: the ordinal that the event closes as its own outcome (dropped, abandoned)."""
        self.newest_ev = max(self.newest_ev, ev)
        new = self.low[0] <= ev < self.reader.ev + self._window and ev not in self.events
        if new:
            self.events[ev] = body
        # Not tied to `ev`: a trim between two repetitions must not decide whether the outcome is there.
        outcome = closes is not None and self.apply_outcome(closes, "asr", 0, b"")
        return new or outcome

    def apply_outcome(self, k: int, slot: str, seq: int, body: bytes) -> bool:
        """The lowest sequence wins."""
        self.newest_k = max(self.newest_k, k)
        held = self.outcomes.get((k, slot))
        if not self.low[1] <= k < self.reader.k + self._window or (held is not None and held[0] <= seq):
            return False
        self.outcomes[k, slot] = seq, body
        if slot == "asr" and self.partial and self.partial[0] <= k:
            self.partial = None
        return True

    def apply_partial(self, k: int, end: int, body: bytes) -> bool:
        """The newest (k, end) wins; none once the ordinal has its outcome."""
        if k < self.low[1] or (k, "asr") in self.outcomes:
            return False
        if self.partial and (k, end) <= self.partial[:2]:
            return False
        self.partial = k, end, body
        return True

    def trim(self, ev: int, k: int) -> bool:
        """Forget what lies below; it is never taken up again."""
        low = max(self.low[0], ev), max(self.low[1], k)
        if low == self.low:
            return False
        self.low = low
        self.events = {n: body for n, body in self.events.items() if n >= low[0]}
        self.outcomes = {key: fact for key, fact in self.outcomes.items() if key[0] >= low[1]}
        if self.partial and self.partial[0] < low[1]:
            self.partial = None
        return True

    def absorb(self, field: str, value: bytes) -> bool:
        """Take a field of the session's hash, as a read or a wake gives it.

        Raises:
            BadMessage: it is no such field.
        """
        kind, _, rest = field.partition(":")
        try:
            if kind == "v":
                return self.apply_event(int(rest), value)
            if kind == "o":
                k, _, slot = rest.partition(":")
                seq, _, body = value.partition(b"|")
                return self.apply_outcome(int(k), slot, int(seq), body)
            if kind == "p":
                ordinal, end, body = value.split(b"|", 2)
                return self.apply_partial(int(ordinal), int(end), body)
        except ValueError as error:
            raise BadMessage(f"not a fact: {field}") from error
        return False  # `lo` and `w` are the store's own business
