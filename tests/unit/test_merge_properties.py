"""The merge under every schedule: facts shuffled, doubled, wiped, rolled back; clients that come back.

``Store`` stands for Redis (it may lose anything at any time), ``Client`` for a socket and its ingress. At the
end of each schedule one reconcile must bring the client exactly the session: I7 and I8 of the spec.
"""

import copy
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from services.ingress.facts import START, Cursor, Facts
from services.ingress.merge import Emitted, Merge
from shared.messages import (
    Abandoned,
    AnyVadEvent,
    Dropped,
    Outcome,
    Partial,
    Segment,
    Slot,
    Started,
    VadFinished,
)
from tests.unit.chains import Chain, Fact, OutcomeFact, apply, hash_of

NEEDS: list[tuple[Slot, ...]] = [("asr",), ("asr", "verify"), ("verify", "asr", "label"), ("label",), ()]
Received = tuple[Emitted, Cursor, tuple[int, int]]
"""An event, the cursor after it and the floor at that cursor."""


@dataclass
class Session:
    """A whole session: what JetStream holds at its end, and the order in which it came."""

    chain: Chain
    stream: list[Fact]


@st.composite
def sessions(draw: st.DrawFn) -> Session:
    chain = _chain(draw)
    # An outcome comes some time after its segment; segments are recognised side by side.
    came: list[tuple[int, int, Fact]] = [(10 * n, 0, fact) for n, fact in enumerate(chain.events)]
    at = {fact.event.k: fact.event.ev for fact in chain.events if isinstance(fact.event, Segment)}
    # The second ones stay out of the stream: a store that has lost the first cannot know better (RESULTS does:
    # it refuses a second one within its duplicate window). `chain` has them, for those who read all of it.
    for fact in winners(chain).values():
        came.append((10 * at[fact.outcome.k] + draw(st.integers(1, 60)), fact.seq, fact))
    return Session(chain, [fact for _, _, fact in sorted(came, key=lambda one: one[:2])])


def winners(chain: Chain) -> dict[tuple[int, str], OutcomeFact]:
    first: dict[tuple[int, str], OutcomeFact] = {}
    for fact in chain.outcomes:
        first.setdefault((fact.outcome.k, fact.outcome.slot), fact)
    return first


def _chain(draw: st.DrawFn) -> Chain:
    chain = Chain()
    for _ in range(draw(st.integers(2, 9))):
        if draw(st.booleans()):
            chain.notice()
        if not chain.item:
            chain.started()
        close = draw(st.sampled_from(["segment", "cut", "dropped", "abandoned"]))
        k = chain.closed
        if close in ("segment", "cut"):
            needs = draw(st.sampled_from(NEEDS))
            chain.segment(needs, ends_item=close == "segment")
            slots = draw(st.permutations(needs))
            if "asr" in needs and draw(st.integers(0, 3)) == 0:
                # Failed: nothing else need ever come, and what comes does not matter.
                slots = draw(st.permutations(slots[: draw(st.integers(0, len(slots)))]))
                chain.outcome(k, status=draw(st.sampled_from(["failed", "rejected"])))
                slots = [slot for slot in slots if slot != "asr"]
            for slot in slots:
                chain.outcome(k, slot)
                if draw(st.integers(0, 4)) == 0:
                    chain.outcome(k, slot, text="a second one must never win")
        elif close == "dropped":
            chain.dropped(ends_item=draw(st.booleans()))
        else:
            chain.abandoned()
    if draw(st.booleans()):
        chain.started()
        if draw(st.booleans()):
            chain.abandoned()
    chain.finished()
    return chain


@dataclass
class Store:
    """Facts that may vanish or go back."""

    facts: Facts = field(default_factory=lambda: Facts(window=10**6))
    snapshots: list[Facts] = field(default_factory=list)

    def read(self, fields: list[str]) -> dict[str, bytes]:
        held = hash_of(self.facts)
        return {name: held[name] for name in fields if name in held}


class Client:
    """Reads like an ingress: the next keys only, into its own facts; or all there is, each time anew."""

    def __init__(self, store: Store, *, anew: bool) -> None:
        self.store = store
        self.anew = anew
        self.received: list[Received] = []
        self.confirmed = 0
        self.connect(START)

    def connect(self, cursor: Cursor) -> None:
        self.merge, self.facts = Merge(cursor), Facts(cursor)
        self.draft = (-1, -1)

    def reconnect(self, percent: int) -> None:
        """With what it had at some point; never before what it confirmed, for that may be trimmed."""
        self.received = whole_ordinals(self.received[: self._at(percent)])
        self.connect(self.received[-1][1] if self.received else START)

    def confirm(self, percent: int) -> None:
        self.confirmed = len(whole_ordinals(self.received[: self._at(percent)]))
        if self.confirmed:
            self.store.facts.trim(*self.received[self.confirmed - 1][2])

    def _at(self, percent: int) -> int:
        return max(self.confirmed, len(self.received) * percent // 100)

    def sweep(self) -> None:
        """Read and merge until nothing new comes."""
        while True:
            if self.anew:
                self.facts = copy.deepcopy(self.store.facts)
                self.facts.low = (0, 0)
            else:
                for name, value in self.store.read([*self.merge.missing(self.facts), "p"]).items():
                    self.facts.absorb(name, value)
            before = str(self.merge.cursor), self.merge.missing(self.facts)
            for event in self.merge.steps(self.facts):
                self.received.append((event, self.merge.cursor, self.merge.floor))
                if isinstance(event, Partial):
                    assert (event.k, event.end) > self.draft
                    self.draft = event.k, event.end
            if before == (str(self.merge.cursor), self.merge.missing(self.facts)):
                return

    def durable(self) -> list[AnyVadEvent | Outcome]:
        return [event for event, _, _ in self.received if not isinstance(event, Partial)]


def whole_ordinals(received: list[Received]) -> list[Received]:
    """Outcomes of an ordinal of which the client has only some come again: the ordinal is one unit."""
    while received and isinstance(event := received[-1][0], Outcome) and received[-1][1].k == event.k:
        received = received[:-1]
    return received


def expected_outcomes(chain: Chain) -> list[tuple[int, str, str]]:
    """(k, slot, text) of what a client must get, from the definition rather than the merge."""
    first = {key: fact.outcome for key, fact in winners(chain).items()}
    wanted = []
    for fact in chain.events:
        if isinstance(fact.event, Segment):
            k, needs = fact.event.k, fact.event.needs
            failed = (k, "asr") in first and first[k, "asr"].status != "ok" and needs
            slots = ["asr"] if failed else sorted(needs, key=lambda slot: slot == "asr")
            wanted += [(k, slot, first[k, slot].text) for slot in slots]
    return wanted


def check_order(received: list[Received]) -> None:
    """Started, closed, completed of each item in this order, partials in between, finished last."""
    started: set[str] = set()
    closed: dict[int, str] = {}
    completed: set[int] = set()
    for event, cursor, _ in received:
        assert cursor.k <= cursor.closed <= cursor.ev
        completed.update(range(cursor.k))
        match event:
            case Started():
                started.add(event.item)
            case Segment() | Dropped() | Abandoned():
                assert event.item in started
                assert event.k == len(closed)
                closed[event.k] = event.item
            case Outcome():
                assert event.k in closed
            case Partial():
                assert event.item in started
                assert event.k not in completed
                assert event.k <= len(closed)
                earlier = [k for k, item in closed.items() if item == event.item and k < event.k]
                assert completed.issuperset(earlier), "the item's text would shrink"
            case VadFinished():
                assert event is received[-1][0]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(1, 8)),
        st.tuples(st.sampled_from(["lose", "again", "partial"]), st.integers(0, 9)),
        st.tuples(st.sampled_from(["confirm", "reconnect"]), st.integers(50, 100)),
        st.tuples(st.sampled_from(["wipe", "save", "roll back", "reconcile"]), st.just(0)),
        st.tuples(st.sampled_from(["sweep", "sweep and reconnect"]), st.integers(70, 100)),
    ),
    min_size=15,
    max_size=50,
)


@dataclass
class Play:
    """A session that goes on while its store and its client have their troubles."""

    session: Session
    anew: bool
    published: int = 0

    def __post_init__(self) -> None:
        self.store = Store()
        self.client = Client(self.store, anew=self.anew)

    def step(self, what: str, n: int) -> None:
        store, client, past = self.store, self.client, self.session.stream[: self.published]
        if what in ("publish", "lose"):
            self.published = min(self.published + n, len(self.session.stream))
            if what == "publish":
                apply(store.facts, *self.session.stream[len(past) : self.published])
        elif what == "again":
            apply(store.facts, *past[-n:])
        elif what == "partial":
            # Of any ordinal around the open one, old or new: partials arrive when they like.
            k = max(0, client.merge.cursor.closed + n % 4 - 2)
            apply(
                store.facts, self.session.chain.partial(n * 7 % 5, k=k, item=item_of(self.session.chain, k))
            )
        elif what == "wipe":
            store.facts = Facts(window=10**6)
        elif what == "save":
            store.snapshots.append(copy.deepcopy(store.facts))
        elif what == "roll back" and store.snapshots:
            store.facts = copy.deepcopy(store.snapshots[-1])
        elif what == "reconcile":
            apply(store.facts, *past)
        elif what == "confirm":
            client.confirm(n)
        elif what == "sweep":
            client.sweep()
        if "reconnect" in what:
            client.sweep() if "sweep" in what else None
            client.reconnect(n)


def item_of(chain: Chain, k: int) -> str:
    items = {
        fact.event.k: fact.event.item for fact in chain.events if isinstance(fact.event, Segment | Dropped)
    }
    return items.get(k, f"item{k}")


@given(sessions(), steps, st.booleans())
@settings(max_examples=300, deadline=None)
def test_every_schedule_gives_the_session_exactly_once_in_order(
    session: Session, schedule: list[tuple[str, int]], anew: bool
) -> None:
    play, chain = Play(session, anew), session.chain
    for what, n in schedule:
        play.step(what, n)
        check_order(play.client.received)
    play.step("lose", len(session.stream))
    play.step("reconcile", 0)
    play.step("sweep", 0)
    check_order(play.client.received)
    durable = play.client.durable()
    assert [e for e in durable if not isinstance(e, Outcome)] == [fact.event for fact in chain.events]
    assert [(e.k, e.slot, e.text) for e in durable if isinstance(e, Outcome)] == expected_outcomes(chain)
    assert play.client.merge.finished
    assert not play.client.merge.stuck(play.client.facts)


@given(sessions(), st.data())
@settings(max_examples=150, deadline=None)
def test_from_every_prefix_the_rest_is_the_same(session: Session, data: st.DataObject) -> None:
    chain = session.chain
    facts = Facts()
    apply(facts, *chain.durable)
    whole: list[Received] = []
    merge = Merge()
    for event in merge.steps(facts):
        whole.append((event, merge.cursor, merge.floor))
    outcomes = [event for event, _, _ in whole if isinstance(event, Outcome)]
    assert [(e.k, e.slot, e.text) for e in outcomes] == expected_outcomes(chain)
    had = whole[: data.draw(st.integers(0, len(whole)))]
    cursor, floor = had[-1][1:] if had else (START, (0, 0))
    # Only what lies above the floor, in any order: this is what a trimmed store still has.
    facts = Facts(Cursor.parse(str(cursor)))
    kept = data.draw(st.permutations(chain.durable))
    facts.trim(*floor)
    apply(facts, *kept)
    resumed = Merge(cursor).advance(facts)
    assert resumed == [event for event, _, _ in whole[len(whole_ordinals(had)) :]]


@given(sessions(), st.data())
@settings(max_examples=150, deadline=None)
def test_facts_are_a_join(session: Session, data: st.DataObject) -> None:
    """Any order, any repetition, trims in between: the same set."""
    operations: list[Fact | tuple[int, int]] = [*session.chain.durable]
    operations += data.draw(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 8)), max_size=3))
    sets = []
    for _ in range(2):
        facts = Facts()
        again = data.draw(st.lists(st.sampled_from(operations), max_size=10))
        for operation in data.draw(st.permutations([*operations, *again])):
            facts.trim(*operation) if isinstance(operation, tuple) else operation.apply(facts)
        sets.append(hash_of(facts))
    assert sets[0] == sets[1]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=20), st.sets(st.integers(0, 3)))
def test_the_newest_partial_wins_and_none_after_its_final(
    partials: list[tuple[int, int]], done: set[int]
) -> None:
    facts = Facts()
    for k in done:
        facts.apply_outcome(k, "asr", 1, b"")
    for k, end in partials:
        facts.apply_partial(k, end, b"")
    newest = max((partial for partial in partials if partial[0] not in done), default=None)
    assert (facts.partial and facts.partial[:2]) == newest
