"""Session ids: an id carries its lane and partition, and 114 random bits.

``sess_`` and 21 characters of the URL-safe base64 alphabet: two for the place (2 bits lane, 10 bits
partition), nineteen random. Because the place stands in the id, changing the number of partitions
never moves a session that exists.
"""

import hashlib
import re
import secrets
from typing import Literal, NamedTuple, get_args

Lane = Literal["live", "batch"]
LANES: tuple[Lane, ...] = get_args(Lane)
MAX_PARTITIONS = 1 << 10

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_VALUE = {c: i for i, c in enumerate(_ALPHABET)}
_ID = re.compile(r"sess_[A-Za-z0-9_-]{21}")


class Place(NamedTuple):
    lane: Lane
    partition: int


def new_session_id(lane: Lane, partition: int) -> str:
    """Make an id for a session in ``lane`` and ``partition`` (0 to 1023)."""
    if not 0 <= partition < MAX_PARTITIONS:
        raise ValueError(f"partition {partition} is not in 0..{MAX_PARTITIONS - 1}")
    place = LANES.index(lane) << 10 | partition
    return "sess_" + _ALPHABET[place >> 6] + _ALPHABET[place & 63] + random_token(19)


def random_token(length: int) -> str:
    """``length`` random characters of the id alphabet (6 bits each)."""
    return "".join(_ALPHABET[b & 63] for b in secrets.token_bytes(length))


def place_of(session_id: str) -> Place:
    """Read lane and partition out of an id. Raises ValueError if it is not one of ours."""
    if not _ID.fullmatch(session_id):
        raise ValueError("not a session id")
    place = _VALUE[session_id[5]] << 6 | _VALUE[session_id[6]]
    lane = place >> 10
    if lane >= len(LANES):
        raise ValueError("not a session id")
    return Place(LANES[lane], place & (MAX_PARTITIONS - 1))


def item_id(session_id: str, item: int) -> str:
    """The client-visible id of an item: a keyed hash, so that ids of other sessions cannot be guessed.

    ``item`` is the ordinal of the item's first segment.
    """
    digest = hashlib.blake2b(item.to_bytes(8, "big"), digest_size=16, key=session_id.encode()).digest()
    bits = int.from_bytes(digest, "big")
    return "item_" + "".join(_ALPHABET[bits >> shift & 63] for shift in range(0, 126, 6))
