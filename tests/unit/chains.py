"""Builds sessions for the merge's tests: a chain of VAD events, outcomes, and their application to facts."""

from dataclasses import dataclass, field

from services.ingress.facts import Facts
from shared.messages import (
    Abandoned,
    AnyVadEvent,
    At,
    Claim,
    Dropped,
    Notice,
    Outcome,
    Partial,
    Segment,
    Slot,
    Started,
    Status,
    VadFinished,
    pack,
)

CLAIM = Claim(stream="AUDIO_LIVE", frames=(1, 1), offset=0, n=3200)


@dataclass(frozen=True)
class EventFact:
    event: AnyVadEvent

    def apply(self, facts: Facts) -> bool:
        event = self.event
        closes = event.k if isinstance(event, Dropped | Abandoned) else None
        return facts.apply_event(event.ev, pack(event), closes)


@dataclass(frozen=True)
class OutcomeFact:
    outcome: Outcome
    seq: int

    def apply(self, facts: Facts) -> bool:
        return facts.apply_outcome(self.outcome.k, self.outcome.slot, self.seq, pack(self.outcome))


@dataclass(frozen=True)
class PartialFact:
    partial: Partial

    def apply(self, facts: Facts) -> bool:
        return facts.apply_partial(self.partial.k, self.partial.end, pack(self.partial))


Fact = EventFact | OutcomeFact | PartialFact


@dataclass
class Chain:
    """A session as JetStream holds it. Each method appends one event or outcome and returns its fact."""

    events: list[EventFact] = field(default_factory=list)
    outcomes: list[OutcomeFact] = field(default_factory=list)
    closed: int = 0
    item: str = ""
    """The item that goes on."""
    seq: int = 0

    @property
    def durable(self) -> list[Fact]:
        return [*self.events, *self.outcomes]

    def started(self) -> EventFact:
        self.item = f"item{self.closed}"
        return self._event(Started(**self._at(), k=self.closed, item=self.item, start=0))

    def segment(self, needs: tuple[Slot, ...] = ("asr",), *, ends_item: bool = True) -> EventFact:
        item, k = self._close(ends_item)
        return self._event(
            Segment(
                **self._at(),
                k=k,
                item=item,
                start=0,
                end=1,
                cause="silence" if ends_item else "max",
                ends_item=ends_item,
                claim=CLAIM,
                needs=needs,
            )
        )

    def dropped(self, *, ends_item: bool = True) -> EventFact:
        item, k = self._close(ends_item)
        return self._event(
            Dropped(
                **self._at(),
                k=k,
                item=item,
                start=0,
                end=1,
                cause="silence",
                reason="quiet",
                ends_item=ends_item,
            )
        )

    def abandoned(self) -> EventFact:
        item, k = self._close(True)
        return self._event(Abandoned(**self._at(), k=k, item=item, reason="cleared"))

    def notice(self) -> EventFact:
        return self._event(Notice(**self._at(), code="empty_commit"))

    def finished(self) -> EventFact:
        return self._event(VadFinished(**self._at(), ordinals=self.closed, reason="client"))

    def outcome(
        self, k: int, slot: Slot = "asr", *, status: Status = "ok", text: str | None = None
    ) -> OutcomeFact:
        self.seq += 1
        text = f"{slot} of {k}" if text is None else text
        fact = OutcomeFact(Outcome(k=k, slot=slot, status=status, text=text), self.seq)
        self.outcomes.append(fact)
        return fact

    def partial(self, end: int, *, k: int | None = None, item: str | None = None) -> PartialFact:
        return PartialFact(
            Partial(
                k=self.closed if k is None else k, item=item or self.item, end=end, text=f"... up to {end}"
            )
        )

    def _at(self) -> dict[str, object]:
        return {"ev": len(self.events), "closed": self.closed, "at": At(seq=len(self.events) + 1, sample=0)}

    def _close(self, ends_item: bool) -> tuple[str, int]:
        item = self.item or f"item{self.closed}"
        self.item = "" if ends_item else item
        self.closed += 1
        return item, self.closed - 1

    def _event(self, event: AnyVadEvent) -> EventFact:
        fact = EventFact(event)
        self.events.append(fact)
        return fact


def apply(facts: Facts, *several: Fact) -> None:
    for fact in several:
        fact.apply(facts)


def hash_of(facts: Facts) -> dict[str, bytes]:
    """The facts as the fields of the session's hash in Redis."""
    fields = {f"v:{ev}": body for ev, body in facts.events.items()}
    fields |= {f"o:{k}:{slot}": b"%d|%s" % fact for (k, slot), fact in facts.outcomes.items()}
    if facts.partial:
        fields["p"] = b"%d|%d|%s" % facts.partial
    if facts.low != (0, 0):
        fields["lo"] = b"%d.%d" % facts.low
    return fields


def short(event: object) -> str:
    """An emitted event in a few letters: started0 segment0 asr0 partial0@5 finished."""
    if isinstance(event, Outcome):
        return f"{event.slot}{event.k}"
    if isinstance(event, Partial):
        return f"partial{event.k}@{event.end}"
    name = type(event).__name__.lower().removeprefix("vad")
    return name + str(getattr(event, "k", ""))
