"""May this session start? Keys, rates, numbers, and refusal with a reason when the workers cannot keep up."""

import hashlib
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from services.ingress.dialects.base import Trouble
from services.ingress.fleet import Fleet

ANYBODY = "default"


@dataclass(slots=True)
class Bucket:
    """A token bucket: ``rate`` tokens a second, at most one second's worth in store."""

    rate: float
    tokens: float = field(init=False)
    at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.tokens = max(self.rate, 1.0)

    def take(self, now: float) -> bool:
        self.tokens = min(max(self.rate, 1.0), self.tokens + (now - self.at) * self.rate)
        self.at = now
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True


_BUCKETS_KEPT = 10_000


class Admission:
    """Decides at the door; holds no session."""

    def __init__(self, keys: Mapping[str, str], *, rate: float, per_key: int, fleet: Fleet) -> None:
        self._keys = keys
        self._rate = rate
        self._per_key = per_key
        self._fleet = fleet
        self._buckets: dict[str, Bucket] = {}
        self._open: Counter[str] = Counter()
        self.draining = False

    def tenant(self, key: str | None) -> str | None:
        """Whose key it is; None = nobody's. Without configured keys everybody is the same tenant."""
        if not self._keys:
            return ANYBODY
        if not key:
            return None
        return self._keys.get(hashlib.sha256(key.encode()).hexdigest())

    def too_many(self, tenant: str, address: str) -> bool:
        """Over the rate of new sessions, or over the number of sessions at once."""
        who = self._who(tenant, address)
        if who not in self._buckets and len(self._buckets) >= _BUCKETS_KEPT:
            self._buckets.pop(next(iter(self._buckets)))
        bucket = self._buckets.setdefault(who, Bucket(self._rate))
        return self._open[who] >= self._per_key or not bucket.take(time.monotonic())

    def trouble(self, pool: str) -> Trouble | None:
        """Why no new session of ``pool`` can be served well now."""
        if self.draining:
            return "draining"
        if self._fleet.storage_full():
            return "storage_full"
        if not self._fleet.can_serve(pool):
            return "overloaded"
        return None

    def _who(self, tenant: str, address: str) -> str:
        """Who is counted: the key's tenant; the address where nobody has keys."""
        return tenant if self._keys else address

    def entered(self, tenant: str, address: str) -> None:
        self._open[self._who(tenant, address)] += 1

    def left(self, tenant: str, address: str) -> None:
        who = self._who(tenant, address)
        self._open[who] -= 1
        if not self._open[who]:
            del self._open[who]

    @property
    def sessions(self) -> int:
        return self._open.total()
