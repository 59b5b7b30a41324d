"""The session view on a real server that is wiped, restarted, frozen, demoted or gone."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager

import pytest
import redis
from redis.asyncio.client import PubSub

from services.ingress.facts import Facts
from services.ingress.merge import Merge
from shared import session_view
from shared.errors import TransientError
from shared.messages import Dropped, Outcome, Partial, Segment, pack
from shared.session_view import ORPHANS, Listening, Orphan, SessionView, Wake, event_op, outcome_op
from tests.servers import ValkeyServer
from tests.unit.chains import Chain, EventFact, OutcomeFact, apply, hash_of, short

SID = "sess_AA0123456789012345678"
FAIL_FAST_S = 1.0


@pytest.fixture
async def view(valkey: ValkeyServer) -> AsyncIterator[SessionView]:
    async with SessionView.connect(valkey.url) as connected:
        yield connected


def server_side(valkey: ValkeyServer) -> redis.Redis:
    return redis.Redis(port=valkey.port)


async def commit(view: SessionView, *facts: EventFact | OutcomeFact) -> None:
    for fact in facts:
        if isinstance(fact, EventFact):
            await view.commit_event(SID, fact.event, pack(fact.event))
        else:
            await view.commit_outcome(SID, fact.outcome, fact.seq, pack(fact.outcome))


# --- facts in, facts out --------------------------------------------------------------------------------


async def test_a_session_goes_through_redis_to_the_client(view: SessionView) -> None:
    chain, facts, merge = Chain(), Facts(), Merge()
    await commit(view, chain.started(), chain.segment(("asr", "verify")), chain.outcome(0))
    await commit(view, chain.outcome(0, "verify"), chain.started())
    assert await view.commit_partial(SID, chain.partial(5).partial)
    await commit(view, chain.dropped(), chain.finished())
    seen = []
    while not merge.finished:
        for field, value in (await view.read(SID, merge.missing(facts))).items():
            facts.absorb(field, value)
        seen += [short(event) for event in merge.advance(facts)]
    assert seen == ["started0", "segment0", "started1", "dropped1", "verify0", "asr0", "finished"]


async def test_each_commit_says_whether_it_changed_anything(view: SessionView) -> None:
    chain = Chain()
    started, text = chain.started().event, Outcome(k=0)
    assert await view.commit_event(SID, started, pack(started))
    assert not await view.commit_event(SID, started, pack(started))
    assert await view.commit_partial(SID, Partial(k=0, item="i", end=5, text="draft"))
    assert not await view.commit_partial(SID, Partial(k=0, item="i", end=5, text="draft"))
    assert await view.commit_outcome(SID, text, 7, pack(text))
    assert not await view.commit_outcome(SID, text, 8, pack(text))
    assert not await view.commit_partial(SID, Partial(k=0, item="i", end=6, text="late"))
    assert await view.register(SID, 2, "in.2")
    assert not await view.register(SID, 1, "in.1")
    assert await view.trim(SID, 1, 1)
    assert not await view.trim(SID, 1, 0)
    assert await view.read(SID, ["v:0", "o:0:asr", "p", "lo", "w"]) == {"lo": b"1.1", "w": b"2|in.2"}
    assert await view.read(SID, []) == {}


async def test_a_reconcile_of_any_length_is_one_commit(view: SessionView) -> None:
    chain, facts = Chain(), Facts(window=10**6)
    for _ in range(300):
        chain.started()
        chain.segment()
        chain.outcome(chain.closed - 1)
    apply(facts, *chain.durable)
    ops = [event_op(fact.event, pack(fact.event)) for fact in chain.events]
    ops += [outcome_op(fact.outcome, fact.seq, pack(fact.outcome)) for fact in chain.outcomes]
    assert await view.commit(SID, ops) == 900
    assert await view.commit(SID, ops) == 0
    held = hash_of(facts)
    assert await view.read(SID, list(held)) == held


async def test_two_processes_that_race_leave_the_same_set(valkey: ValkeyServer, view: SessionView) -> None:
    chain, facts = Chain(), Facts()
    for _ in range(20):
        chain.started()
        chain.dropped() if chain.closed % 3 == 0 else chain.segment()
        if isinstance(chain.events[-1].event, Segment):
            chain.outcome(chain.closed - 1)
            chain.outcome(chain.closed - 1, text="second")
    apply(facts, *chain.durable)
    async with SessionView.connect(valkey.url) as other, asyncio.TaskGroup() as group:
        for fact in chain.durable:
            group.create_task(commit(view, fact))
        for fact in reversed(chain.durable):
            group.create_task(commit(other, fact))
    held = {field.decode(): value for field, value in server_side(valkey).hgetall(f"f:{{{SID}}}").items()}
    assert held == hash_of(facts)


# --- many callers, few round trips ----------------------------------------------------------------------


def count_round_trips(view: SessionView, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    sizes: list[int] = []
    original = view._round_trip

    async def counted(commands: list[session_view.Op]) -> list[object]:
        sizes.append(len(commands))
        return await original(commands)

    monkeypatch.setattr(view, "_round_trip", counted)
    return sizes


async def test_calls_at_the_same_time_share_round_trips(
    view: SessionView, monkeypatch: pytest.MonkeyPatch
) -> None:
    await view.commit_partial(SID, Partial(k=0, item="i", end=1, text=""))
    sizes = count_round_trips(view, monkeypatch)
    partials = [view.commit_partial(f"s{n}", Partial(k=n, item="i", end=1, text="")) for n in range(150)]
    assert await asyncio.gather(*partials) == [True] * 150
    assert sizes == [1, 64, 64, 21]  # the first waits for nobody
    held = await asyncio.gather(*(view.read(f"s{n}", ["p"]) for n in range(150)))
    assert [fields["p"].split(b"|")[0] for fields in held] == [b"%d" % n for n in range(150)]


async def test_a_cancelled_caller_takes_nobody_with_it(
    valkey: ValkeyServer, view: SessionView, monkeypatch: pytest.MonkeyPatch
) -> None:
    await view.alive()
    sizes = count_round_trips(view, monkeypatch)
    valkey.freeze()
    callers = [asyncio.ensure_future(view.register(f"s{n}", 1, "in.1")) for n in range(5)]
    for turn, size in ((0, 1), (1, 4)):  # the second sends for the last four
        while len(sizes) == turn:
            await asyncio.sleep(0)
        assert sizes[turn] == size
        callers[turn].cancel()
    await asyncio.wait(callers[:2])
    valkey.thaw()
    assert await asyncio.gather(*callers[2:]) == [True] * 3
    assert all(caller.cancelled() for caller in callers[:2])


# --- trouble --------------------------------------------------------------------------------------------


async def fails_fast(call: Callable[[], Awaitable[object]]) -> None:
    begin = time.monotonic()
    with pytest.raises(TransientError):
        await call()
    assert time.monotonic() - begin < FAIL_FAST_S


async def test_a_dead_server_fails_fast_and_a_new_one_is_found(
    valkey: ValkeyServer, view: SessionView
) -> None:
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: view.register(SID, 1, "in.1"),
        lambda: view.read(SID, ["w"]),
        view.run_id,
    ]
    for call in calls:
        await call()
    valkey.kill()
    for call in calls:
        await fails_fast(call)
    assert not await view.alive()
    valkey.start()
    for call in calls:
        await call()
    assert await view.alive()


async def test_a_hanging_server_fails_fast_for_all_who_wait(valkey: ValkeyServer, view: SessionView) -> None:
    await view.register(SID, 1, "in.1")
    valkey.freeze()
    async with asyncio.TaskGroup() as group:
        for n in range(100):
            group.create_task(fails_fast(lambda n=n: view.register(f"s{n}", 1, "in.1")))
    valkey.thaw()
    # No answer may be taken for that of an earlier call.
    assert await view.read(SID, ["w"]) == {"w": b"1|in.1"}
    assert await view.register(SID, 2, "in.2")


async def test_a_server_that_hangs_from_the_start_fails_fast(valkey: ValkeyServer, view: SessionView) -> None:
    valkey.freeze()
    await fails_fast(lambda: view.register(SID, 1, "in.1"))
    await fails_fast(lambda: view.register(SID, 1, "in.1"))


@pytest.mark.parametrize("wipe", ["flush all", "flush scripts", "restart"])
async def test_after_a_wipe_the_next_commit_just_works(
    valkey: ValkeyServer, view: SessionView, wipe: str
) -> None:
    assert await view.register(SID, 1, "in.1")
    if wipe == "flush all":
        server_side(valkey).flushall()
        server_side(valkey).script_flush()
    elif wipe == "flush scripts":
        server_side(valkey).script_flush()
    else:
        valkey.restart(hard=True)
    assert await asyncio.gather(*(view.register(f"s{n}", 2, "in.1") for n in range(5))) == [True] * 5
    assert await view.register(SID, 2, "in.1")


async def test_a_demoted_server_is_trouble_until_it_is_promoted(
    valkey: ValkeyServer, view: SessionView
) -> None:
    assert await view.register(SID, 1, "in.1")
    server_side(valkey).replicaof("127.0.0.1", "1")
    await fails_fast(lambda: view.register(SID, 2, "in.1"))
    server_side(valkey).replicaof("NO", "ONE")
    assert await view.register(SID, 2, "in.1")


async def test_the_run_id_tells_a_restart_and_a_failover(valkey: ValkeyServer, view: SessionView) -> None:
    first = await view.run_id()
    assert await view.run_id() == first
    server_side(valkey).replicaof("127.0.0.1", "1")
    server_side(valkey).replicaof("NO", "ONE")
    second = await view.run_id()
    valkey.restart()
    third = await view.run_id()
    assert len({first, second, third}) == 3


# --- wake-ups -------------------------------------------------------------------------------------------


@asynccontextmanager
async def listening(
    view: SessionView, *channels: str
) -> AsyncIterator[Callable[[], Awaitable[Wake | Orphan | Listening]]]:
    async with aclosing(view.listen(channels)) as wakes:
        assert isinstance(await anext(wakes), Listening)
        yield lambda: asyncio.wait_for(anext(wakes), 10)


async def test_wakes_carry_facts_as_fields(view: SessionView) -> None:
    chain = Chain()
    await view.register(SID, 4, "in.1")
    dropped = chain.dropped().event
    assert isinstance(dropped, Dropped)
    async with listening(view, "in.1", ORPHANS) as heard:
        await commit(view, EventFact(dropped), chain.outcome(1))
        first, second = await heard(), await heard()
        assert first == Wake(SID, 4, (("v:0", pack(dropped)), ("o:0:asr", b"0|")))
        assert isinstance(second, Wake)
        facts = Facts()
        assert all(facts.absorb(field, value) for field, value in [*first.facts, *second.facts])
        assert (1, "asr") in facts.outcomes


async def test_a_takeover_and_an_orphan_are_heard(valkey: ValkeyServer, view: SessionView) -> None:
    await view.register(SID, 1, "in.1")
    async with listening(view, "in.1", ORPHANS) as heard:
        await view.register(SID, 2, "in.2")
        assert await heard() == Wake(SID, 2, ())
        server_side(valkey).flushall()
        await commit(view, Chain().started())
        assert await heard() == Orphan(SID)


async def test_what_is_not_a_wake_is_skipped(valkey: ValkeyServer, view: SessionView) -> None:
    await view.register(SID, 1, "in.1")
    async with listening(view, "in.1", ORPHANS) as heard:
        for garbage in (b"", b"hello", b"\x93\x01\x02\x03", b"\xc1", b"\x93\xa1s\x01\x91\xa1f"):
            server_side(valkey).publish("in.1", garbage)
        server_side(valkey).publish(ORPHANS, b"\xff")
        await commit(view, Chain().started())
        wake = await heard()
        assert isinstance(wake, Wake)
        assert wake.session_id == SID


async def test_after_a_restart_the_subscription_comes_back_and_says_so(
    valkey: ValkeyServer, view: SessionView
) -> None:
    async with listening(view, "in.1") as heard:
        valkey.restart(hard=True)
        assert isinstance(await heard(), Listening)
        await view.register(SID, 1, "in.1")
        await commit(view, Chain().started())
        assert isinstance(await heard(), Wake)


async def test_a_subscription_to_a_hanging_server_is_given_up_and_comes_back(
    valkey: ValkeyServer, view: SessionView, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_view, "_QUIET_S", 0.02)
    given_up = asyncio.Event()
    monkeypatch.setattr(session_view.logger, "warning", lambda *_, **__: given_up.set())
    async with listening(view, "in.1") as heard:
        pending = asyncio.ensure_future(heard())
        valkey.freeze()
        await given_up.wait()
        valkey.thaw()
        assert isinstance(await pending, Listening)
        await view.register(SID, 1, "in.1")
        await commit(view, Chain().started())
        assert isinstance(await heard(), Wake)


async def test_a_quiet_subscription_lives_on(view: SessionView, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_view, "_QUIET_S", 0.01)
    pings: asyncio.Queue[None] = asyncio.Queue()
    original = PubSub.ping

    def counted(subscription: PubSub) -> Awaitable[bool]:
        pings.put_nowait(None)
        return original(subscription)

    monkeypatch.setattr(PubSub, "ping", counted)
    await view.register(SID, 1, "in.1")
    async with listening(view, "in.1") as heard:
        pending = asyncio.ensure_future(heard())
        for _ in range(3):  # each but the last was answered, else it would have been given up
            await pings.get()
        await commit(view, Chain().started())
        assert isinstance(await pending, Wake)
