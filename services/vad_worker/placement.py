"""Which partitions belong to which worker: bounded rendezvous hashing (pure).

Every worker computes the same answer from the same list of members. Rendezvous hashing moves only the
partitions of a worker that comes or goes; the bound keeps anybody from holding more than its share.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Collection


def assign(members: Collection[str], partitions: int) -> dict[int, str]:
    """Partition -> member. Empty when there are no members."""
    if not members:
        return {}
    share = math.ceil(partitions / len(members))
    load: Counter[str] = Counter()
    owners: dict[int, str] = {}
    for partition in range(partitions):
        ranked = sorted(members, key=lambda member: _weight(member, partition), reverse=True)
        owner = next(member for member in ranked if load[member] < share)
        load[owner] += 1
        owners[partition] = owner
    return owners


def _weight(member: str, partition: int) -> bytes:
    return hashlib.blake2b(f"{member}/{partition}".encode(), digest_size=8).digest()
