"""One session between its log and its events: what was read, what is decided, what waits to be published.

No I/O here. The handler feeds records and probabilities in; decided events collect in ``outbox``. After a
takeover ``forced`` holds what an earlier owner has published: while it lasts, own decisions are suppressed,
because the published chain is the truth (SPEC.md M2).
"""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from services.vad_worker.detectors.base import Detector, DetectorState, Window
from services.vad_worker.segmenter import SEGMENTER_VERSION, Segmenter
from services.vad_worker.windows import Windows
from shared.bus import Chain, Stored
from shared.errors import BadMessage, PermanentError
from shared.messages import (
    AnyRecord,
    AnyVadEvent,
    Audio,
    Checkpoint,
    Clear,
    Frame,
    Opened,
    PartialRequest,
    Reset,
    frame_sequences,
    read_record,
)
from shared.sessions import place_of

_FRESH_FRAMES = 24
"""Frames that are remembered for the next interim request: 2 s and the pre-roll."""
_EVENTS_AT_ONCE = 64
"""More events of one window or record are a bug, which must not hold up other sessions."""


class Hole(Exception):
    """A record does not follow the last one that was read: fetch what lies between, or note the gap."""


class NoBeginning(PermanentError):
    """A session without checkpoint whose ``opened`` record is gone."""


class Position(NamedTuple):
    """The place behind the last record that could be read."""

    ep: int
    ix: int
    pos: int


OnPartial = Callable[[PartialRequest], None]


class Session:
    """State of one session in its owner's memory."""

    def __init__(
        self, sid: str, stream: str, chain: Chain, detector: Detector, on_partial: OnPartial
    ) -> None:
        self.sid = sid
        self.place = place_of(sid)
        self.stream = stream
        self.chain = chain
        self.inbox: deque[Stored] = deque()
        self.queued_bytes = 0
        self.first_seen = 0
        self.last_seen = 0
        self.outbox: deque[AnyVadEvent] = deque()
        self.forced: deque[AnyVadEvent] = deque()
        self.loading = True
        self.publishing = False
        self.gone = False
        """Dropped from memory: what is still in flight for it must not touch anything."""
        self.dirty_since: float | None = None
        self.saved_upto: int | None = None
        self.saved_revision = 0
        self.touched = 0.0
        self.upto = 0
        self.ep = 0
        self.ix = -1
        self.pos = 0
        self.seg: Segmenter | None = None
        self._detector = detector
        self._on_partial = on_partial
        self.speech: DetectorState = detector.fresh()
        self._windows = Windows()
        self._pending: deque[tuple[int, Window, float]] = deque()
        self._reading: Stored | None = None
        self._gap_before = 0
        self._fresh: deque[Frame] = deque(maxlen=_FRESH_FRAMES)

    # --- reading ---------------------------------------------------------------------------------------

    @property
    def quiet(self) -> bool:
        """Everything read so far is decided and published: the state may be written down."""
        return not (self._pending or self.outbox or self.forced or self.loading or self.publishing)

    @property
    def position(self) -> Position:
        return Position(self.ep, self.ix, self.pos)

    @property
    def finished(self) -> bool:
        return self.seg is not None and self.seg.finished

    def enqueue(self, stored: Stored) -> None:
        """A record that the tail reader delivered."""
        self.inbox.append(stored)
        self.queued_bytes += len(stored.data)
        self.first_seen = self.first_seen or stored.seq
        self.last_seen = stored.seq

    def prepend(self, found: list[Stored]) -> None:
        """Older records, in order; what the inbox holds already is left out."""
        if self.inbox:
            found = [stored for stored in found if stored.seq < self.inbox[0].seq]
        if not found:
            return
        self.inbox.extendleft(reversed(found))
        self.queued_bytes += sum(len(stored.data) for stored in found)
        self.first_seen = min(self.first_seen or found[0].seq, found[0].seq)
        self.last_seen = max(self.last_seen, found[-1].seq)

    def forget_read(self) -> None:
        """Take records out of the inbox that the checkpoint reflects already."""
        while self.inbox and self.inbox[0].seq <= self.upto:
            self._take()

    def _take(self) -> Stored:
        stored = self.inbox.popleft()
        self.queued_bytes -= len(stored.data)
        return stored

    def next_window(self) -> Window | None:
        """The next 512 samples to be judged; None when everything that was read is done.

        Raises Hole, NoBeginning or BadMessage; the record in question stays the first of ``inbox``.
        """
        while not self._pending:
            self._conclude()
            if not self.inbox or self.finished:
                return None
            self._begin(self.inbox[0])
            self._take()
        return self._pending[0][1]

    def judged(self, probability: float) -> None:
        """The probability of the window that ``next_window`` gave out."""
        end, _, rms = self._pending.popleft()
        assert self.seg is not None
        assert self._reading is not None
        self.seg.window(self._reading.seq, end, probability, rms)
        self._settle(self._reading.seq, end)
        if not self._pending:
            self._conclude()

    def abandon_reading(self) -> bool:
        """Read no further, but know where the chain stands. False: not even ``opened`` can be read."""
        self.loading = True
        self._pending.clear()
        if self.seg is None:
            try:
                opened = read_record(self.inbox[0].data) if self.inbox else None
            except BadMessage:
                opened = None
            if not isinstance(opened, Opened):
                return False
            self.seg = Segmenter(self.sid, opened, self.inbox[0].seq)
        while self.forced:
            self.seg.apply(self.forced.popleft())
        return True

    def accept_gap(self) -> None:
        """The records before the first of ``inbox`` are gone for good: go on behind them."""
        self._gap_before = self.inbox[0].seq

    def _begin(self, stored: Stored) -> None:
        record = read_record(stored.data)
        self._check(stored, record)
        self._reading = stored
        if self.seg is None:
            assert isinstance(record, Opened)
            self.seg = Segmenter(self.sid, record, stored.seq)
            self._windows.reset(record.pos)
        elif isinstance(record, Audio):
            self.seg.audio(stored.seq, record.pos, record.n, self.stream)
            self._fresh.append(Frame(seq=stored.seq, pos=record.pos, pcm=record.pcm))
            self._pending.extend(self._windows.push(record.pos, record.pcm))
        else:
            self._control(stored.seq, record)
        self.ep, self.ix = record.ep, record.ix
        self.pos = record.pos + (record.n if isinstance(record, Audio) else 0)

    def _check(self, stored: Stored, record: AnyRecord) -> None:
        if self.seg is None:
            if not isinstance(record, Opened):
                raise NoBeginning(f"first record is {type(record).__name__}")
        elif record.prev != self.upto:
            if self._gap_before != stored.seq:
                raise Hole
            self._jump(stored.seq, record.pos)

    def _jump(self, seq: int, pos: int) -> None:
        assert self.seg is not None
        self.seg.gap(seq, pos)
        self._settle(seq, pos)
        self._restart_detector(pos)

    def _control(self, seq: int, record: AnyRecord) -> None:
        assert self.seg is not None
        self.seg.control(seq, record)
        self._settle(seq, record.pos)
        if isinstance(record, Clear | Reset):
            self._restart_detector(record.pos)

    def _restart_detector(self, pos: int) -> None:
        self.speech = self._detector.fresh()
        self._windows.reset(pos)

    def _conclude(self) -> None:
        if self._reading is not None:
            self.upto = self._reading.seq
            self._reading = None

    def _settle(self, seq: int, sample: int) -> None:
        seg = self.seg
        assert seg is not None
        while self.forced and (self.forced[0].at.seq, self.forced[0].at.sample) <= (seq, sample):
            seg.apply(self.forced.popleft())
        if self.forced:
            return
        for _ in range(_EVENTS_AT_ONCE):
            if (event := seg.decide()) is None:
                break
            seg.apply(event)
            self.outbox.append(event)
        else:
            raise RuntimeError("the segmenter does not come to an end")
        if (partial := seg.partial()) is not None:
            first = frame_sequences(partial.claim)[0]
            fresh = tuple(frame for frame in self._fresh if frame.seq >= first)
            self._fresh.clear()
            self._on_partial(msgspec.structs.replace(partial, fresh=fresh))

    # --- checkpoints -----------------------------------------------------------------------------------

    def checkpoint(self) -> Checkpoint:
        """The state after ``upto``. Only while ``quiet``."""
        assert self.seg is not None
        return Checkpoint(
            upto=self.upto,
            ep=self.ep,
            ix=self.ix,
            pos=self.pos,
            vad_hash=self._detector.hash,
            segmenter_version=SEGMENTER_VERSION,
            chain_seq=self.chain.tail,
            detector=self.speech.pack(),
            segmenter={"state": self.seg.snapshot(), "windows": self._windows.snapshot()},
        )

    def restore(self, saved: Checkpoint) -> None:
        """Go on from a checkpoint. A model's state of another hash is not compatible; positions are.

        Raises BadMessage, and changes nothing, if it was written by a version that keeps other things.
        """
        try:
            seg = Segmenter.restore(self.sid, saved.segmenter["state"])
            windows = Windows.restore(saved.segmenter["windows"])
        except (KeyError, TypeError, ValueError) as error:
            raise BadMessage(
                f"checkpoint of segmenter version {saved.segmenter_version}: {error!r}"
            ) from error
        self.seg, self._windows = seg, windows
        self.upto = saved.upto
        self.last_seen = max(self.last_seen, saved.upto)
        self.saved_upto = saved.upto
        self.ep, self.ix, self.pos = saved.ep, saved.ix, saved.pos
        self.chain.tail = saved.chain_seq
        if saved.vad_hash == self._detector.hash:
            self.speech = self._detector.load(saved.detector)
        else:
            self._restart_detector(saved.pos)
