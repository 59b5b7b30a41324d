"""What a segmenter knows of one session: everything that a decision may depend on, and nothing else.

It changes by what the log says (windows, controls, gaps) and by events, never by a decision: so a worker
that adopts the events of another one reaches the same state.
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from services.vad_worker.frames import FrameLedger
from services.vad_worker.track import Track
from shared.messages import Mode, SessionSettings

What = Literal["none", "window", "commit", "clear", "reset", "mode", "settings", "finished", "gap"]


class Trigger(msgspec.Struct, frozen=True, kw_only=True):
    """What the log said last: the next decision answers it."""

    what: What = "none"
    seq: int = 0
    sample: int = 0
    reach: int = 0
    """Sample up to which audio can be claimed: less than ``sample`` at a gap only."""
    event_id: str = ""
    reason: str = ""
    discard: bool = False


class OpenItem(msgspec.Struct, kw_only=True):
    """The item that has begun, and its open segment."""

    item: str
    mode: Mode
    begin: int
    """First sample of the item."""
    start: int
    """First sample of the open segment: later than ``begin`` once the item was cut."""
    voice: int
    """End of the last window that was not silence."""
    asked: int
    """Sample at which the last partial was asked for."""


class State(msgspec.Struct, kw_only=True):
    v: int
    session_id: str
    tenant: str
    pool: str
    settings: SessionSettings
    pending: SessionSettings | None = None
    """Settings for the next item."""
    ev: int = 0
    k: int = 0
    """Ordinal of the open segment, or of the next one."""
    closed: int = 0
    sample: int = 0
    floor: int = 0
    """Nothing that begins from now on begins before this sample."""
    carry: int = 0
    """After an item was ended by its length: end of the last voice, until a silence; else 0."""
    open: OpenItem | None = None
    trigger: Trigger = Trigger()
    answered: int = -1
    """Sequence of the last control record that got its answer."""
    bridged: int = -1
    """Sequence of the record before which the last gap got its notice."""
    finished: bool = False
    track: Track
    frames: FrameLedger


def pack_state(state: State) -> dict[str, Any]:
    """As plain values that msgpack can carry."""
    packed: dict[str, Any] = msgspec.to_builtins(state, builtin_types=(bytes,), enc_hook=_pack_part)
    return packed


def read_state(packed: Mapping[str, Any]) -> State:
    """Raises msgspec.ValidationError, or KeyError, if this is not a packed state."""
    return msgspec.convert(packed, State, builtin_types=(bytes,), dec_hook=_read_part)


def _pack_part(part: Any) -> Any:
    if isinstance(part, (Track, FrameLedger)):
        return part.pack()
    raise NotImplementedError(f"{type(part).__name__} has no place in a checkpoint")


def _read_part(kind: type, packed: Any) -> Any:
    if kind is Track:
        return Track.restore(packed)
    if kind is FrameLedger:
        return FrameLedger.restore(packed)
    raise NotImplementedError(f"{kind.__name__} has no place in a checkpoint")
