"""The ingress's writing end: epochs, coalescing, bounds."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from services.ingress.log import (
    CONTROLS_BURST,
    CONTROLS_LIMIT,
    UNACKED_LIMIT_SAMPLES,
    Budget,
    Gone,
    SessionLog,
)
from services.vad_worker.endings import finish
from shared import subjects
from shared.bus import Bus
from shared.bus.tail import read_all
from shared.errors import BusUnavailable, Fenced
from shared.messages import AnyRecord, Attached, Audio, Clear, Finished, Opened, SessionSettings, read_record
from shared.sessions import new_session_id
from tests.pipeline import connected
from tests.servers import NatsServer

SPEECH = bytes(range(256)) * 4


def a_log(bus: Bus, sid: str, name: str) -> SessionLog:
    return SessionLog(bus, sid, name, Budget(1 << 30))


async def opened(bus: Bus, tenant: str = "t") -> SessionLog:
    log = a_log(bus, new_session_id("live", 2), "a")
    await log.open(tenant=tenant, dialect="test", model="m", pool="p", settings=SessionSettings())
    return log


async def records(bus: Bus, sid: str) -> list[AnyRecord]:
    found = await read_all(bus, "AUDIO_LIVE", [subjects.audio(sid)])
    chain = [read_record(stored.data) for stored in found]
    assert [record.prev for record in chain] == [0, *[stored.seq for stored in found]][:-1]
    assert [record.ix for record in chain] == list(range(len(chain)))
    return chain


async def test_a_session_is_one_chain_with_positions(nats_server: NatsServer) -> None:
    bus = await connected(nats_server)
    log = await opened(bus)
    writing = asyncio.create_task(log.run())
    for n in range(10):
        log.audio(SPEECH * 4, (n + 1) * len(SPEECH) * 4, 16_000)
    log.control(lambda common: Clear(**common, event_id="e"))
    log.audio(SPEECH, 0, 16_000)
    log.finish("client")
    log.audio(SPEECH, 0, 16_000)  # too late: nothing follows the end
    await writing
    chain = await records(bus, log.sid)
    audio = [record for record in chain if isinstance(record, Audio)]
    assert b"".join(record.pcm for record in audio) == SPEECH * 41
    assert [type(record) for record in chain if not isinstance(record, Audio)] == [Opened, Clear, Finished]
    pos = 0
    for record in chain:
        assert record.pos == pos
        pos += record.n if isinstance(record, Audio) else 0
    assert audio[-2].src_end == 10 * len(SPEECH) * 4
    await bus.close()


async def test_small_pieces_are_coalesced_and_long_ones_cut(nats_server: NatsServer) -> None:
    bus = await connected(nats_server)
    log = await opened(bus)
    writing = asyncio.create_task(log.run())
    log.audio(bytes(2 * 40_000), 80_000, 16_000)
    for n in range(100):
        log.audio(bytes(2 * 80), 80_000 + 160 * (n + 1), 16_000)
    log.finish("client")
    await writing
    sizes = [record.n for record in await records(bus, log.sid) if isinstance(record, Audio)]
    assert sizes == [16_000, 16_000, 16_000]
    assert sum(sizes) == 48_000
    await bus.close()


async def test_a_writer_is_fenced_once_another_has_attached(nats_server: NatsServer) -> None:
    """The old writer's next record has the index that the new writer's ``attached`` took."""
    bus = await connected(nats_server)
    old = await opened(bus)
    new = a_log(bus, old.sid, "b")
    await new.attach(bus, "t")
    old.audio(SPEECH * 4, len(SPEECH) * 4, 16_000)
    with pytest.raises(Fenced):
        await old.run()
    assert old.src_end == 0, "what was refused must not be counted as accepted"
    writing = asyncio.create_task(new.run())
    new.finish("client")
    await writing
    chain = await records(bus, old.sid)
    assert [(type(record), record.ep) for record in chain] == [(Opened, 0), (Attached, 1), (Finished, 1)]
    await bus.close()


async def test_three_ingresses_fight_over_a_session_and_lose_nothing_accepted(
    nats_server: NatsServer,
) -> None:
    """Every tenth ack is lost; whatever a writer was told is accepted stands in the log once."""
    accepted: list[bytes] = []
    first = await opened(await connected(nats_server))
    rounds = 0

    async def fight(me: int) -> None:
        nonlocal rounds
        bus = await connected(nats_server)
        _lose_acks(bus, every=10)
        for turn in range(15):
            log = a_log(bus, first.sid, str(me))
            await log.attach(bus, "t")
            for n in range(6):
                mark = b"%d-%d-%d." % (me, turn, n) * 400
                mark = mark[:3200]
                try:
                    log.audio(mark, 0, 16_000)
                    await log._write_audio()  # one at a time, so as to know which was accepted
                except Fenced:
                    rounds += 1
                    break
                accepted.append(mark)
        await bus.close()

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for me in range(3):
            group.create_task(fight(me))
    bus = await connected(nats_server)
    stored = [record.pcm for record in await records(bus, first.sid) if isinstance(record, Audio)]
    assert rounds > 0, "nobody was ever fenced: the test has shown nothing"
    assert sorted(stored) == sorted(set(stored)), "a record was stored twice"
    assert set(accepted) <= set(stored), "an accepted record is not in the log"
    await bus.close()


def _lose_acks(bus: Bus, every: int) -> None:
    publish, count = bus.publish, 0

    async def lossy(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        ack = await publish(*args, **kwargs)
        count += 1
        if count % every == 0:
            raise BusUnavailable("the ack was lost")
        return ack

    bus.publish = lossy  # type: ignore[method-assign]


async def test_attach_knows_what_was_accepted(nats_server: NatsServer) -> None:
    bus = await connected(nats_server)
    old = await opened(bus)
    writing = asyncio.create_task(old.run())
    old.audio(bytes(3200), 3200, 16_000)
    old.control(lambda common: Clear(**common))
    async with asyncio.timeout(10):
        while len(await records(bus, old.sid)) < 3:
            await asyncio.sleep(0)
    new = a_log(bus, old.sid, "b")
    await new.attach(bus, "t")
    assert (new.src_end, new.pos, new.ep) == (3200, 1600, 1)
    writing.cancel()
    await bus.close()


async def test_attach_refuses_strangers_and_the_dead(nats_server: NatsServer) -> None:
    bus = await connected(nats_server)
    log = await opened(bus, tenant="mine")
    with pytest.raises(Gone):
        await a_log(bus, log.sid, "b").attach(bus, "yours")
    with pytest.raises(Gone):
        await a_log(bus, new_session_id("live", 1), "b").attach(bus, "mine")
    log.finish("client")
    await log.run()
    with pytest.raises(Gone):
        await a_log(bus, log.sid, "b").attach(bus, "mine")
    await bus.close()


async def test_a_frozen_broker_bounds_what_is_taken_from_the_client(nats_server: NatsServer) -> None:
    bus = await connected(nats_server)
    log = await opened(bus)
    writing = asyncio.create_task(log.run())
    nats_server.freeze()
    second, taken = bytes(2 * 16_000), 0

    async def feed() -> None:
        nonlocal taken
        for _ in range(60):
            log.audio(second, 0, 16_000)
            taken += 16_000
            await log.room()

    feeding = asyncio.create_task(feed())
    async with asyncio.timeout(10):
        while taken < UNACKED_LIMIT_SAMPLES:
            await asyncio.sleep(0)
    for _ in range(1000):
        await asyncio.sleep(0)  # let it run on, if it does
    assert taken == UNACKED_LIMIT_SAMPLES
    nats_server.thaw()
    async with asyncio.timeout(30):
        await feeding
        log.finish("client")
        await writing
    samples = sum(record.n for record in await records(bus, log.sid) if isinstance(record, Audio))
    assert samples == 60 * 16_000
    await bus.close()


async def test_the_process_budget_holds_every_session_back() -> None:
    budget = Budget(1000)
    budget.take(1500)
    waiting = asyncio.create_task(budget.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    budget.give(600)
    async with asyncio.timeout(5):
        await waiting


async def test_idle_end_and_audio_race_and_exactly_one_wins(nats_server: NatsServer) -> None:
    """Whoever comes second is refused by the chain: no audio is accepted behind the end."""
    bus = await connected(nats_server)
    won = {"audio": 0, "idle": 0}

    async def speak_after(log: SessionLog, round_trips: int) -> None:
        for _ in range(round_trips):
            await bus.flush()
        await log._write_audio()

    for n in range(500):
        log = await opened(bus)
        tail = await bus.last("AUDIO_LIVE", subjects.audio(log.sid))
        assert tail is not None
        owner: Any = SimpleNamespace(
            sid=log.sid, stream="AUDIO_LIVE", upto=tail.seq, gone=False, position=None
        )
        log.audio(SPEECH * 4, 1, 16_000)
        ended = asyncio.gather(speak_after(log, n % 4), finish(bus, owner, "idle"), return_exceptions=True)
        fenced = any(isinstance(result, Fenced) for result in await ended)
        kinds = [type(record) for record in await records(bus, log.sid)]
        assert kinds in ([Opened, Audio], [Opened, Finished])
        assert fenced == (kinds[-1] is Finished)
        won["idle" if fenced else "audio"] += 1
    assert min(won.values()) > 10, won
    await bus.close()


async def test_a_flood_of_controls_waits_for_itself(nats_server: NatsServer) -> None:
    """The client is held back, not the workers flooded; what was taken from it is all in the log, in order."""
    bus = await connected(nats_server)
    log = await opened(bus)
    writing = asyncio.create_task(log.run())
    taken = 0

    async def flood() -> None:
        nonlocal taken
        for n in range(CONTROLS_BURST + CONTROLS_LIMIT + 50):
            log.control(lambda common, n=n: Clear(**common, event_id=str(n)))  # type: ignore[misc]
            taken += 1
            await log.room()

    flooding = asyncio.create_task(flood())
    async with asyncio.timeout(10):
        while len(await records(bus, log.sid)) <= CONTROLS_BURST:
            await asyncio.sleep(0)
    assert taken <= CONTROLS_BURST + CONTROLS_LIMIT + 5
    assert not flooding.done()
    flooding.cancel()
    ids = [record.event_id for record in await records(bus, log.sid) if isinstance(record, Clear)]
    assert ids == [str(n) for n in range(len(ids))]
    writing.cancel()
    await bus.close()


async def test_nobody_waits_for_a_writer_that_has_ended(nats_server: NatsServer) -> None:
    bus = await connected(nats_server)
    log = await opened(bus)
    log.audio(bytes(2 * UNACKED_LIMIT_SAMPLES), 0, 16_000)
    waiting = asyncio.create_task(log.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    log.release()
    async with asyncio.timeout(5):
        await waiting
    await bus.close()
