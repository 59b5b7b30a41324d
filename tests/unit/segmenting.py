"""A session log without PCM, and an owner who reads it as the VAD worker's handler does."""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import msgpack
import msgspec

from services.vad_worker.detectors.base import WINDOW
from services.vad_worker.segmenter import Segmenter
from shared.audio import FRAME_SAMPLES, ms_to_samples
from shared.messages import (
    AnyRecord,
    AnyVadEvent,
    At,
    Audio,
    Claim,
    Clear,
    Commit,
    Dropped,
    Finished,
    ModeChanged,
    Opened,
    PartialRequest,
    Reset,
    Segment,
    SessionSettings,
    SettingsChanged,
    frame_sequences,
)

SID = "sess_" + "A" * 21
FIRST_SEQ, STEP = 10, 3


class Log:
    """Records of one session with what a detector would say about their audio. Methods chain."""

    def __init__(self, settings: SessionSettings | None = None, frame: int = FRAME_SAMPLES, **changes: Any):
        self.settings = msgspec.structs.replace(settings or SessionSettings(), **changes)
        self.frame = frame
        self.pos = 0
        self.holes: set[int] = set()
        """Sequences of records whose predecessor is missing."""
        self.records: list[tuple[int, AnyRecord]] = []
        self._sound: list[tuple[int, float, float]] = []
        place = {"tenant": "acme", "dialect": "test", "model": "m", "pool": "p"}
        self._add(Opened, settings=self.settings, **place)

    def _add(self, kind: type, **fields: Any) -> "Log":
        ix = len(self.records)
        seq = FIRST_SEQ + STEP * ix
        prev = seq - STEP if ix else 0
        self.records.append((seq, kind(ep=1, ix=ix, prev=prev, pos=self.pos, **fields)))
        return self

    def play(self, samples: int, prob: float, rms: float = 0.1) -> "Log":
        end = self.pos + samples
        self._sound.append((end, prob, rms))
        while self.pos < end:
            n = min(self.frame, end - self.pos)
            self._add(Audio, n=n, pcm=b"")
            self.pos += n
        return self

    def say(self, ms: float, prob: float = 0.9, rms: float = 0.1) -> "Log":
        return self.play(ms_to_samples(ms), prob, rms)

    def hush(self, ms: float, prob: float = 0.0) -> "Log":
        return self.play(ms_to_samples(ms), prob, 0.001)

    def lose(self, samples: int) -> "Log":
        """That much audio is missing before the record that comes next."""
        self.pos += samples
        self._sound.append((self.pos, 0.0, 0.0))
        self.holes.add(FIRST_SEQ + STEP * len(self.records))
        return self

    def commit(self, event_id: str = "c") -> "Log":
        return self._add(Commit, event_id=event_id)

    def clear(self, event_id: str = "x") -> "Log":
        return self._add(Clear, event_id=event_id)

    def reset(self, event_id: str = "r") -> "Log":
        return self._add(Reset, event_id=event_id)

    def mode(self, event_id: str = "m") -> "Log":
        return self._add(ModeChanged, mode="batch_start", event_id=event_id)

    def change(self, **changes: Any) -> "Log":
        self.settings = msgspec.structs.replace(self.settings, **changes)
        return self._add(SettingsChanged, settings=self.settings)

    def finish(self, *, discard: bool = False) -> "Log":
        return self._add(Finished, reason="closed" if discard else "client", discard=discard)

    def sound(self, sample: int) -> tuple[float, float]:
        """Probability and RMS at a sample."""
        return next((prob, rms) for end, prob, rms in self._sound if sample < end)

    def range_of(self, claim: Claim) -> tuple[int, int]:
        """The samples that a claim names, if the log has no holes."""
        spans = {seq: (r.pos, r.pos + r.n) for seq, r in self.records if isinstance(r, Audio)}
        frames = [spans[seq] for seq in frame_sequences(claim)]
        if not frames:
            return (0, 0)
        assert all(a[1] == b[0] for a, b in pairwise(frames)), "frames of a claim follow"
        start = frames[0][0] + claim.offset
        assert start < frames[0][1], "the first frame is needed"
        assert frames[-1][0] < start + claim.n <= frames[-1][1], "the last frame is needed, and enough"
        return (start, start + claim.n)


class Owner:
    """Reads a log from ``index`` on; ``forced`` is what earlier owners have published since then."""

    def __init__(self, log: Log, *, forced: Iterable[AnyVadEvent] = (), reborn: bool = False) -> None:
        self.log = log
        self.index = 1
        self.base = 0
        self.segmenter = Segmenter(SID, log.records[0][1], log.records[0][0])
        self.forced = list(forced)
        self.events: list[AnyVadEvent] = []
        """Events that were applied: forced ones and own ones."""
        self.partials: list[PartialRequest] = []
        self._reborn = reborn
        """Store and restore the segmenter before each step."""

    def snapshot(self) -> tuple[int, int, bytes]:
        return (self.index, self.base, msgpack.packb(self.segmenter.snapshot()))

    @classmethod
    def restored(cls, log: Log, saved: tuple[int, int, bytes], forced: Iterable[AnyVadEvent]) -> "Owner":
        owner = cls(log, forced=forced)
        owner.index, owner.base, packed = saved
        owner.segmenter = Segmenter.restore(SID, msgpack.unpackb(packed))
        return owner

    def run(self, until: int | None = None) -> "Owner":
        while self.index < (len(self.log.records) if until is None else until):
            seq, record = self.log.records[self.index]
            self._read(seq, record)
            self.index += 1
        return self

    def _read(self, seq: int, record: AnyRecord) -> None:
        if seq in self.log.holes:
            self.segmenter.gap(seq, record.pos)
            self._settle(seq, record.pos)
            self.base = record.pos
        if not isinstance(record, Audio):
            self.segmenter.control(seq, record)
            self._settle(seq, record.pos)
            if isinstance(record, Clear | Reset):
                self.base = record.pos
            return
        self.segmenter.audio(seq, record.pos, record.n, "S")
        while self.base + WINDOW <= record.pos + record.n:
            self.base += WINDOW
            self.segmenter.window(seq, self.base, *self.log.sound(self.base - WINDOW // 2))
            self._settle(seq, self.base)

    def _settle(self, seq: int, sample: int) -> None:
        while self.forced and self.forced[0].at <= At(seq=seq, sample=sample):
            self._apply(self.forced.pop(0))
        if self.forced:
            return
        self._rebirth()
        before = len(self.events)
        while event := self.segmenter.decide():
            assert self.segmenter.decide() == event, "decide changes nothing"
            assert len(self.events) - before < 100, "a trigger is answered at some time"
            self._apply(event)
        if partial := self.segmenter.partial():
            self.partials.append(partial)
            assert self.segmenter.partial() is None, "it counts as asked"

    def _apply(self, event: AnyVadEvent) -> None:
        self.segmenter.apply(event)
        self.events.append(event)
        self._rebirth()

    def _rebirth(self) -> None:
        if self._reborn:
            packed = msgpack.unpackb(msgpack.packb(self.segmenter.snapshot()))
            self.segmenter = Segmenter.restore(SID, packed)


def events_of(log: Log) -> list[AnyVadEvent]:
    return Owner(log).run().events


def of_kind(events: Iterable[AnyVadEvent], kind: type) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def shape(events: Iterable[AnyVadEvent]) -> list[str]:
    """Each event in a few words, for tests that are about order."""
    return [_word(event) for event in events]


def _word(event: AnyVadEvent) -> str:
    match event:
        case Segment():
            return f"segment {event.k} {event.cause}" + ("" if event.ends_item else " on")
        case Dropped():
            return f"dropped {event.k} {event.reason}" + ("" if event.ends_item else " on")
        case _:
            name = type(event).__name__.lower()
            detail = getattr(event, "code", None) or getattr(event, "reason", None) or ""
            number = "" if not hasattr(event, "k") else f" {event.k}"
            return f"{name}{number} {detail}".strip()
