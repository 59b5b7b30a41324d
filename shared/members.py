"""Who is alive: heartbeats in a bucket, judged by each observer's own clock.

No clock of another machine is read: a member lives as long as its entry keeps changing.
"""

import asyncio
import os
import re
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from shared import subjects
from shared.bus import Bucket, Bus
from shared.errors import BadMessage, TransientError
from shared.messages import Member, pack, unpack

BEAT_S = 0.5
DEAD_AFTER_S = 3.0


def process_name() -> str:
    """A name for this process that no other process, and no later life of it, has."""
    host = re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname())
    return f"{host}-{os.getpid()}-{secrets.token_hex(3)}"


@dataclass(frozen=True, slots=True)
class Sighting:
    member: Member
    revision: int
    since: float
    """This observer's clock when the revision was first seen."""


class Roll:
    """The members of one role, as seen by this process."""

    def __init__(self, bus: Bus, role: str) -> None:
        self._bucket = Bucket(bus, subjects.MEMBERS)
        self._role = role
        self._seen: dict[str, Sighting] = {}

    async def refresh(self) -> None:
        """Look once. Raises TransientError when JetStream does not answer: then nobody is judged."""
        entries = await self._bucket.all(f"{self._role}.*")
        now = time.monotonic()
        seen: dict[str, Sighting] = {}
        for entry in entries:
            old = self._seen.get(entry.key)
            if old is not None and old.revision == entry.revision:
                seen[entry.key] = old
                continue
            try:
                member: Member = unpack(Member, entry.value or b"")
            except BadMessage:
                continue
            seen[entry.key] = Sighting(member, entry.revision, now)
        self._seen = seen

    def alive(self) -> list[Member]:
        """Members whose heartbeat has been seen to change lately, and who are not leaving."""
        now = time.monotonic()
        return [
            sighting.member
            for sighting in self._seen.values()
            if now - sighting.since < DEAD_AFTER_S and not sighting.member.draining
        ]


async def beat(bus: Bus, describe: Callable[[int], Member]) -> None:
    """Send heartbeats until cancelled; ``describe`` gives the member for beat number n."""
    bucket = Bucket(bus, subjects.MEMBERS)
    n = 0
    while True:
        n += 1
        await send_beat(bucket, describe(n))
        await asyncio.sleep(BEAT_S)


async def send_beat(bucket: Bucket, member: Member) -> None:
    """One heartbeat, best effort: silence never stops anybody from working."""
    try:
        await bucket.put(subjects.member_key(member.role, member.name), pack(member))
    except TransientError:
        pass
