"""Every record and event that crosses a process boundary, and the one codec.

All are frozen, packed with msgpack as maps. Readers ignore fields they do not know and new fields have
defaults, so that processes of two releases can talk. An unknown *kind* raises ``BadMessage``: a reader must
stop and say so, never skip. Positions and lengths are samples at 16 kHz unless a name says otherwise.
"""

from typing import Any, Literal

import msgpack
import msgspec

from shared.errors import BadMessage

VERSION = 1

Mode = Literal["vad", "manual"]
Slot = Literal["asr", "verify", "label"]
Cause = Literal["silence", "commit", "max", "finish", "batch", "register"]
Status = Literal["ok", "failed", "rejected"]


class Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """Base of all messages."""


# --- settings -----------------------------------------------------------------------------------------


class SessionSettings(Message, frozen=True, kw_only=True):
    """Everything that decides how a session is cut and recognised, resolved: no field means "default"."""

    mode: Mode = "vad"
    threshold: float = 0.5
    """Silero probability from which a window is speech."""
    silence_ms: int = 800
    """Silence that ends an item."""
    prefix_padding_ms: int = 300
    """Pre-roll before the first speech window."""
    min_speech_ms: int = 250
    """Speech within the last 400 ms that announces an item."""
    max_segment_ms: int = 30_000
    """Longest audio of one engine call; longer speech is cut at its best pause."""
    max_item_ms: int = 60_000
    """Longest utterance that a client sees as one item."""
    partial_every_ms: int = 500
    """Least new audio between two partials; 0 = no partials."""
    min_segment_ms: int = 0
    """Shorter segments are dropped (0 = keep all)."""
    min_rms: float = 0.0
    """Quieter segments are dropped: root mean square on [-1, 1]."""
    min_speech_ratio: float = 0.0
    """Segments with a smaller share of speech windows are dropped."""
    idle_timeout_s: int = 300
    """Seconds without a record after which the VAD worker finishes the session."""
    language: str = ""
    """ISO code that the client asked for; empty = detect."""
    context_hash: str = ""
    """Key of the context text in the blob bucket; empty = none."""
    min_text_length: int = 0
    needs: tuple[Slot, ...] = ("asr",)
    """Slots that every segment of the session waits for."""
    gated: bool = False
    """Segments wait for the speaker worker's pass."""
    user: str = ""
    """Whom to verify against."""
    store: bool = True
    """Keep the recording after the session."""


class AudioFormat(Message, frozen=True, kw_only=True):
    """What the client sends."""

    codec: str = "pcm"
    sample_rate: int = 16_000


# --- the session log: audio.<lane>.<p>.<sid> ------------------------------------------------------------


class Record(Message, frozen=True, kw_only=True, tag_field="kind"):
    """One entry of a session log. Records form a chain: ``prev`` is the stream sequence of the last one."""

    v: int = VERSION
    ep: int
    """Writer epoch: grows each time another ingress attaches."""
    ix: int
    """Index in the session, dense from 0."""
    prev: int
    """Stream sequence of the predecessor; 0 for the first."""
    pos: int
    """Samples of the session before this record."""
    t: int = 0
    """Wall-clock milliseconds at the writer; information only."""


class Source(Message, frozen=True, kw_only=True):
    """Where a session's audio comes from."""

    kind: Literal["live", "file", "replay"] = "live"
    session: str = ""
    from_sample: int = 0
    until_sample: int = 0


class Opened(Record, frozen=True, kw_only=True, tag="opened"):
    tenant: str
    dialect: str
    model: str
    pool: str
    settings: SessionSettings
    format: AudioFormat = AudioFormat()
    ingress: str = ""
    source: Source = Source()


class Attached(Record, frozen=True, kw_only=True, tag="attached"):
    """Another ingress took the session over; its converter starts anew."""

    ingress: str
    format: AudioFormat = AudioFormat()


class SettingsChanged(Record, frozen=True, kw_only=True, tag="settings"):
    """Full settings, never a delta; they apply from the next item on."""

    settings: SessionSettings
    event_id: str = ""


class Audio(Record, frozen=True, kw_only=True, tag="audio"):
    n: int
    pcm: bytes
    src_end: int = 0
    """Bytes (or packets) of the client's own format up to the end of this record."""


class Commit(Record, frozen=True, kw_only=True, tag="commit"):
    event_id: str = ""


class Clear(Record, frozen=True, kw_only=True, tag="clear"):
    event_id: str = ""


class Reset(Record, frozen=True, kw_only=True, tag="reset"):
    event_id: str = ""


class ModeChanged(Record, frozen=True, kw_only=True, tag="mode"):
    mode: Literal["batch_start", "batch_end", "register_start", "register_end"]
    user: str = ""
    language: str = ""
    event_id: str = ""


class Finished(Record, frozen=True, kw_only=True, tag="finished"):
    """The last record of every session."""

    reason: Literal["client", "closed", "idle", "error", "admin"]
    discard: bool = False
    """Drop the open item instead of recognising it."""


AnyRecord = Opened | Attached | SettingsChanged | Audio | Commit | Clear | Reset | ModeChanged | Finished


# --- VAD events: segments.<lane>.<pool>.vad.<p>.<sid> ---------------------------------------------------


class At(Message, frozen=True, kw_only=True, order=True):
    """A place in the session log: the record being read, and the sample reached."""

    seq: int
    sample: int


class Claim(Message, frozen=True, kw_only=True):
    """Audio by reference: frames of the session log that hold it."""

    stream: str
    frames: tuple[int, ...]
    """Stream sequences: the first, then differences."""
    offset: int
    """Samples to skip in the first frame."""
    n: int
    """Samples to take."""


class VadEvent(Message, frozen=True, kw_only=True, tag_field="kind"):
    """One link of a session's chain of VAD events."""

    v: int = VERSION
    ev: int
    """Number of the event, dense from 0."""
    closed: int
    """Ordinals closed up to and with this event."""
    at: At
    """Where in the log it was decided."""


class Started(VadEvent, frozen=True, kw_only=True, tag="started"):
    """An item has begun."""

    k: int
    item: str
    start: int
    mode: Mode = "vad"


class Segment(VadEvent, frozen=True, kw_only=True, tag="segment"):
    """Ordinal ``k`` is closed and waits for its outcome."""

    k: int
    item: str
    start: int
    end: int
    """Sample at which the segment was closed; trailing silence included."""
    cause: Cause
    ends_item: bool = True
    """False: the item was cut and goes on in ordinal k + 1."""
    mode: Mode = "vad"
    claim: Claim
    tenant: str = ""
    language: str = ""
    context_hash: str = ""
    user: str = ""
    min_text_length: int = 0
    needs: tuple[Slot, ...] = ("asr",)
    gated: bool = False
    speech: int = 0
    """Samples in speech windows."""


class Dropped(VadEvent, frozen=True, kw_only=True, tag="dropped"):
    """Ordinal ``k`` is closed and was filtered out: its outcome is the empty text."""

    k: int
    item: str
    start: int
    end: int
    cause: Cause
    reason: str
    ends_item: bool = True
    mode: Mode = "vad"


class Abandoned(VadEvent, frozen=True, kw_only=True, tag="abandoned"):
    """Ordinal ``k`` is closed without outcome for the client: cleared, reset or closed."""

    k: int
    item: str
    reason: str


class Notice(VadEvent, frozen=True, kw_only=True, tag="notice"):
    """An answer to something in the log: empty_commit, cleared, reset, gap."""

    code: str
    event_id: str = ""
    n: int = 0


class VadFinished(VadEvent, frozen=True, kw_only=True, tag="finished"):
    """Nothing follows; ``ordinals`` outcomes belong to the session."""

    ordinals: int
    reason: str


AnyVadEvent = Started | Segment | Dropped | Abandoned | Notice | VadFinished


# --- partials and results -----------------------------------------------------------------------------


class Frame(Message, frozen=True, kw_only=True):
    """Audio of one record, by value."""

    seq: int
    pos: int
    pcm: bytes


class PartialRequest(Message, frozen=True, kw_only=True):
    """Please transcribe the open segment so far; worthless once a newer one is out."""

    v: int = VERSION
    k: int
    item: str
    end: int
    """Sample up to which the claim reaches: the revision of the partial."""
    claim: Claim
    fresh: tuple[Frame, ...] = ()
    """Frames that came since the last request: who has the earlier ones need not fetch anything."""
    language: str = ""
    context_hash: str = ""
    tenant: str = ""


class Partial(Message, frozen=True, kw_only=True):
    """An interim hypothesis for ordinal ``k``; lives in Redis only."""

    k: int
    item: str
    end: int
    text: str
    language: str = ""
    decodes: int = 1


class Word(Message, frozen=True, kw_only=True):
    text: str
    start: int
    end: int
    confidence: float = 1.0


class Outcome(Message, frozen=True, kw_only=True):
    """What became of slot ``slot`` of ordinal ``k``. The lowest stream sequence wins."""

    v: int = VERSION
    k: int
    slot: Slot = "asr"
    ev: int = -1
    """The segment event that it answers."""
    status: Status = "ok"
    text: str = ""
    language: str = ""
    emotion: str = ""
    words: tuple[Word, ...] = ()
    engine: str = ""
    attempt: int = 1
    reason: str = ""
    """For failed and rejected: audio_expired, engine_failed, poison, ..."""
    engine_ms: float = 0.0
    """Decode time."""


# --- ownership and checkpoints --------------------------------------------------------------------------


class Member(Message, frozen=True, kw_only=True):
    """Heartbeat of a process."""

    name: str
    role: str
    beat: int
    pools: tuple[str, ...] = ()
    slots: int = 1
    draining: bool = False
    languages: tuple[str, ...] = ()
    """ISO codes that the engine knows; empty = any."""
    takes_context: bool = False
    detects_language: bool = False
    max_audio_s: float = 30.0
    """Longest audio of one engine call."""


class Lease(Message, frozen=True, kw_only=True):
    """Who works on a partition. ``beat`` makes each renewal a new value; an empty owner = free."""

    owner: str
    beat: int


class LowWater(Message, frozen=True, kw_only=True):
    """All sessions of a partition and lane are reflected in their checkpoints up to ``upto``."""

    upto: int


class Suspicion(Message, frozen=True, kw_only=True):
    """How often a partition was taken over without progress, and which session was being read."""

    stalls: int = 0
    suspect: str = ""


class Checkpoint(Message, frozen=True, kw_only=True):
    """VAD state of one session after record ``upto``."""

    v: int = VERSION
    upto: int
    ep: int
    ix: int
    pos: int
    vad_hash: str
    segmenter_version: int
    chain_seq: int
    """Stream sequence of the session's last VAD event; 0 = none."""
    detector: bytes = b""
    """State of the speech detector, packed by the detector."""
    segmenter: dict[str, Any] = {}
    """State of the segmenter, as it gives it."""
    finished: bool = False


_BYTES = (bytes,)


def pack(message: msgspec.Struct) -> bytes:
    """A message as msgpack map. Equal messages give equal bytes."""
    packed: bytes = msgpack.packb(msgspec.to_builtins(message, builtin_types=_BYTES))
    return packed


def unpack(kind: Any, data: bytes) -> Any:
    """Read a message of type ``kind`` (a class or a union of tagged classes).

    Raises:
        BadMessage: not msgpack, a missing or wrong field, or an unknown kind.
    """
    try:
        return msgspec.convert(msgpack.unpackb(data), kind, builtin_types=_BYTES)
    except (msgspec.ValidationError, ValueError, msgpack.UnpackException, TypeError) as error:
        raise BadMessage(str(error)) from error


def read_record(data: bytes) -> AnyRecord:
    record: AnyRecord = unpack(AnyRecord, data)
    return record


def read_vad_event(data: bytes) -> AnyVadEvent:
    event: AnyVadEvent = unpack(AnyVadEvent, data)
    return event


def frame_sequences(claim: Claim) -> list[int]:
    """The stream sequences of a claim's frames, differences undone."""
    sequences: list[int] = []
    total = 0
    for delta in claim.frames:
        total += delta
        sequences.append(total)
    return sequences
