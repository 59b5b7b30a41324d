"""Speech probabilities and control records in, VAD events out: how a session is cut into segments.

Pure: it counts samples and knows no clock. The log changes its statistics (``audio``, ``window``,
``control``, ``gap``), an event changes everything else (``apply``), and ``decide`` changes nothing: so
events that were published by another owner can be applied in the place of its own decisions.
"""

from typing import Any

from services.vad_worker import rules
from services.vad_worker.frames import FrameLedger
from services.vad_worker.state import OpenItem, State, Trigger, What, pack_state, read_state
from services.vad_worker.track import Track
from shared.audio import ms_to_samples
from shared.messages import (
    Abandoned,
    AnyRecord,
    AnyVadEvent,
    Clear,
    Commit,
    Dropped,
    Finished,
    ModeChanged,
    Notice,
    Opened,
    PartialRequest,
    Reset,
    Segment,
    SessionSettings,
    SettingsChanged,
    Started,
    VadFinished,
)

SEGMENTER_VERSION = 1

_DRAFT_SHARE = 8
_LOOK_BACK = ms_to_samples(2_400)
"""How far before now a new item can begin: the longest pre-roll (2 s), and the speech that announces it."""

_WHAT: dict[type, What] = {
    Commit: "commit",
    Clear: "clear",
    Reset: "reset",
    ModeChanged: "mode",
    SettingsChanged: "settings",
    Finished: "finished",
}


class Segmenter:
    """The state of one session. For each trigger, in the order of the log::

    segmenter.window(...)  # or control(...), or gap(...)
    while event := segmenter.decide():
        segmenter.apply(event)
    """

    __slots__ = ("_s",)

    def __init__(self, session_id: str, opened: Opened, opened_seq: int) -> None:
        self._s = State(
            v=SEGMENTER_VERSION,
            session_id=session_id,
            tenant=opened.tenant,
            pool=opened.pool,
            settings=opened.settings,
            trigger=Trigger(seq=opened_seq),
            track=Track(),
            frames=FrameLedger(),
        )

    @classmethod
    def restore(cls, session_id: str, state: dict[str, Any]) -> "Segmenter":
        """From a checkpoint. Raises msgspec.ValidationError or KeyError if it is none."""
        segmenter = cls.__new__(cls)
        segmenter._s = read_state({**state, "v": SEGMENTER_VERSION, "session_id": session_id})
        return segmenter

    def snapshot(self) -> dict[str, Any]:
        """Everything, as values that msgpack can carry."""
        return pack_state(self._s)

    @property
    def finished(self) -> bool:
        """The session's last event has been applied."""
        return self._s.finished

    @property
    def ev(self) -> int:
        """Number of the next event."""
        return self._s.ev

    @property
    def k(self) -> int:
        """Ordinal of the open segment, or of the next one."""
        return self._s.k

    @property
    def closed(self) -> int:
        """Ordinals closed so far."""
        return self._s.closed

    @property
    def sample(self) -> int:
        """Samples of the session decided on so far."""
        return self._s.sample

    @property
    def open_item(self) -> str | None:
        """Id of the item that has begun and whose ordinal ``k`` is open."""
        return self._s.open.item if self._s.open else None

    @property
    def session_id(self) -> str:
        return self._s.session_id

    @property
    def pool(self) -> str:
        return self._s.pool

    @property
    def tenant(self) -> str:
        return self._s.tenant

    @property
    def settings(self) -> SessionSettings:
        """The active ones: those of the open item, or of the next."""
        return self._s.settings

    # --- what the log says ---------------------------------------------------------------------------------

    def audio(self, seq: int, pos: int, n: int, stream: str) -> None:
        """Record ``seq`` of ``stream`` holds the samples from ``pos`` up to ``pos + n``."""
        s = self._s
        horizon = s.open.start if s.open else max(s.floor, s.sample - _LOOK_BACK)
        s.frames.forget(horizon)
        s.track.forget(horizon)
        s.frames.add(seq, pos, n, stream)

    def window(self, seq: int, end: int, prob: float, rms: float) -> None:
        """The window that ends at sample ``end`` was completed by record ``seq``."""
        s = self._s
        s.sample = end
        s.trigger = Trigger(what="window", seq=seq, sample=end, reach=end)
        s.track.append(end, prob, rms)
        if s.open or s.carry:
            self._listen(end)

    def control(self, seq: int, record: AnyRecord) -> None:
        """Record ``seq`` is not audio."""
        s = self._s
        s.sample = max(s.sample, record.pos)
        s.trigger = Trigger(
            what=_WHAT.get(type(record), "none"),
            seq=seq,
            sample=s.sample,
            reach=s.sample,
            event_id=getattr(record, "event_id", ""),
            reason=getattr(record, "reason", ""),
            discard=getattr(record, "discard", False),
        )
        if isinstance(record, (Clear, Reset)):
            self._start_over()
        elif isinstance(record, SettingsChanged):
            self._take_settings(record.settings)

    def gap(self, seq: int, pos: int) -> None:
        """The unseen samples before ``pos`` are missing from the log; record ``seq`` comes next."""
        s = self._s
        reach = min(max(s.sample, s.frames.end), pos)
        s.sample = max(s.sample, pos)
        s.trigger = Trigger(what="gap", seq=seq, sample=s.sample, reach=reach)
        s.floor, s.carry = s.sample, 0

    def _listen(self, end: int) -> None:
        s = self._s
        heard = s.track.last >= rules.voice_threshold(s.settings)
        if s.open:
            s.open.voice = end if heard else s.open.voice
        elif heard:
            s.carry = end
        elif end - s.carry >= ms_to_samples(s.settings.silence_ms):
            s.carry = 0

    def _start_over(self) -> None:
        s = self._s
        s.floor, s.carry = s.sample, 0
        s.track.clear()

    def _take_settings(self, settings: SessionSettings) -> None:
        s = self._s
        if s.open:
            s.pending = settings
            return
        if s.settings.mode == "vad" and settings.mode == "manual":
            # What was said before and never announced is not part of the client's buffer.
            s.floor, s.carry = s.sample, 0
        s.settings = settings

    # --- what was decided ----------------------------------------------------------------------------------

    def decide(self) -> AnyVadEvent | None:
        """The next event that the last trigger calls for, or None."""
        return rules.decide(self._s)

    def apply(self, event: AnyVadEvent) -> None:
        """Take an event as a fact: an own decision, or one that another owner has published."""
        s = self._s
        s.ev, s.closed = event.ev + 1, event.closed
        match event:
            case Started():
                self._open(event)
            case Segment() | Dropped():
                self._closed(event)
            case Abandoned():
                self._ended(event.k, event.at.sample)
            case Notice():
                self._answered(event)
            case VadFinished():
                s.finished, s.open = True, None

    def _open(self, event: Started) -> None:
        s = self._s
        s.k, s.carry = event.k, 0
        # With no voice in our own track, the one who announced it heard some.
        default = event.at.sample if event.mode == "vad" else event.start
        s.open = OpenItem(
            item=event.item,
            mode=event.mode,
            begin=event.start,
            start=event.start,
            voice=s.track.heard(event.start, rules.voice_threshold(s.settings)) or default,
            asked=event.start,
        )

    def _closed(self, event: Segment | Dropped) -> None:
        s = self._s
        item = s.open
        if event.cause == "commit":
            s.answered = event.at.seq
        voice = item.voice if item else event.at.sample
        if event.ends_item:
            self._ended(event.k, event.end)
            if event.cause == "max" and event.mode == "vad":
                s.carry = voice
            return
        s.k, s.floor = event.k + 1, max(s.floor, event.end)
        s.open = OpenItem(
            item=event.item,
            mode=event.mode,
            begin=item.begin if item and item.item == event.item else event.start,
            start=event.end,
            voice=voice,
            asked=event.end,
        )

    def _ended(self, k: int, end: int) -> None:
        """Ordinal ``k`` was the last of its item, up to sample ``end``."""
        s = self._s
        s.k, s.open, s.carry = k + 1, None, 0
        s.floor = max(s.floor, end)
        s.settings, s.pending = s.pending or s.settings, None

    def _answered(self, event: Notice) -> None:
        if event.code == "gap":
            self._s.bridged = event.at.seq
        else:
            self._s.answered = event.at.seq

    # --- interim transcripts -------------------------------------------------------------------------------

    def partial(self) -> PartialRequest | None:
        """The interim request that is due now, or None. It counts as asked."""
        s = self._s
        item, every = s.open, ms_to_samples(s.settings.partial_every_ms)
        if item is None or every == 0 or item.voice <= item.asked:
            return None
        # A longer segment takes longer to decode: asking in proportion keeps the cost of drafts linear.
        if s.sample - item.asked < max(every, (s.sample - item.start) // _DRAFT_SHARE):
            return None
        item.asked = s.sample
        end = rules.claim_end(item, s.sample)
        return PartialRequest(
            k=s.k,
            item=item.item,
            end=end,
            claim=s.frames.claim(item.start, end),
            language=s.settings.language,
            context_hash=s.settings.context_hash,
            tenant=s.tenant,
        )
