"""The bus against a real nats-server: the chain's error table, readers that heal, credit."""

import asyncio

import pytest

from shared import subjects
from shared.bus import Bucket, Bus, Chain, Puller, Stored, Tail, WrongLast
from shared.bus.pull import declare_consumer
from shared.bus.tail import read_all
from shared.errors import BusUnavailable, Fenced, LogFull
from shared.sessions import new_session_id
from tests.pipeline import connected
from tests.servers import NatsServer

STREAM = "AUDIO_LIVE"


def a_subject() -> str:
    return subjects.audio(new_session_id("live", 3))


async def bodies(bus: Bus, subject: str) -> list[bytes]:
    return [stored.data for stored in await read_all(bus, STREAM, [subject])]


async def test_a_second_writer_of_a_chain_is_fenced(nats_server: NatsServer) -> None:
    bus, subject = await connected(nats_server), a_subject()
    first, second = Chain(bus, STREAM, subject), Chain(bus, STREAM, subject)
    await first.append(b"a")
    with pytest.raises(Fenced) as fenced:
        await second.append(b"b")
    assert fenced.value.tail == b"a"
    await first.append(b"c")
    assert await bodies(bus, subject) == [b"a", b"c"]
    await bus.close()


async def test_an_append_whose_ack_was_lost_is_found_at_the_tail(nats_server: NatsServer) -> None:
    bus, subject = await connected(nats_server), a_subject()
    chain = Chain(bus, STREAM, subject)
    publish, lost = bus.publish, 0

    async def lossy(*args: object, **kwargs: object) -> object:
        nonlocal lost
        ack = await publish(*args, **kwargs)  # type: ignore[arg-type]
        lost += 1
        if lost % 2:
            raise BusUnavailable("the ack was lost")
        return ack

    bus.publish = lossy  # type: ignore[method-assign,assignment]
    for n in range(6):
        await chain.append(b"%d" % n)
    assert await bodies(bus, subject) == [b"%d" % n for n in range(6)]
    await bus.close()


async def test_a_chain_goes_on_after_its_predecessor_has_expired(nats_server: NatsServer) -> None:
    bus, subject = await connected(nats_server), a_subject()
    chain = Chain(bus, STREAM, subject)
    await chain.append(b"old")
    other = Chain(bus, STREAM, a_subject())
    last = await other.append(b"young")
    await bus.api(f"STREAM.PURGE.{STREAM}", {"seq": last})
    await chain.append(b"new")
    assert await bodies(bus, subject) == [b"new"]
    await bus.close()


async def test_a_full_stream_is_back_pressure_and_not_loss(nats_server: NatsServer) -> None:
    bus, subject = await connected(nats_server), a_subject()
    info = (await bus.stream_state(STREAM))["config"]
    await bus.api(f"STREAM.UPDATE.{STREAM}", {**info, "max_bytes": 20_000})

    async def fill() -> None:
        while True:
            await bus.publish(subject, bytes(1000))

    with pytest.raises(LogFull):
        await fill()
    chain, refused = Chain(bus, STREAM, a_subject()), asyncio.Event()
    appending = asyncio.create_task(chain.append(bytes(1000), on_full=refused.set))
    await refused.wait()
    await bus.api(f"STREAM.PURGE.{STREAM}", {"filter": subject})
    await appending
    assert await bodies(bus, chain.subject) == [bytes(1000)]
    await bus.close()


async def test_an_append_waits_for_a_server_that_is_away(nats_server: NatsServer) -> None:
    bus, subject = await connected(nats_server), a_subject()
    chain = Chain(bus, STREAM, subject)
    await chain.append(b"before")
    nats_server.kill()
    appending = asyncio.create_task(chain.append(b"meanwhile"))
    nats_server.start()
    async with asyncio.timeout(20):
        await appending
    assert await bodies(bus, subject) == [b"before", b"meanwhile"]
    await bus.close()


async def test_a_reader_goes_on_after_the_server_was_killed(nats_server: NatsServer) -> None:
    bus, subject = await connected(nats_server), a_subject()
    seen: list[Stored] = []
    arrived = asyncio.Event()

    def on_message(stored: Stored) -> None:
        seen.append(stored)
        arrived.set()

    async def until(count: int) -> None:
        async with asyncio.timeout(20):
            while len(seen) < count:
                arrived.clear()
                await arrived.wait()

    tail = Tail(bus, STREAM, [subject], 1, on_message)
    reading = asyncio.create_task(tail.run())
    chain = Chain(bus, STREAM, subject)
    for n in range(5):
        await chain.append(b"%d" % n)
    await until(5)
    nats_server.restart(hard=True)
    for n in range(5, 10):
        await chain.append(b"%d" % n)
    await until(10)
    assert [stored.data for stored in seen] == [b"%d" % n for n in range(10)]
    reading.cancel()
    await bus.close()


async def test_advance_moves_over_other_subjects_only(nats_server: NatsServer) -> None:
    bus, mine = await connected(nats_server), a_subject()
    other = Chain(bus, STREAM, a_subject())
    tail = Tail(bus, STREAM, [mine], 1, lambda stored: None)
    reading = asyncio.create_task(tail.run())
    await tail.caught_up.wait()
    last = await other.append(b"x")
    await tail.advance()
    assert tail.position == last
    reading.cancel()
    await bus.close()


async def test_a_puller_takes_no_more_than_its_credit(nats_server: NatsServer) -> None:
    bus = await connected(nats_server)
    sid = new_session_id("live", 3)
    subject = subjects.vad_events(sid, "x")
    await declare_consumer(bus, "SEGMENTS", "c", [subject], ack_wait_s=5)
    arrived = asyncio.Event()
    puller = Puller(bus, "SEGMENTS", "c", arrived.set)
    await puller.start()
    for n in range(5):
        await bus.publish(subject, b"%d" % n)
    await puller.want(2)
    async with asyncio.timeout(10):
        while len(puller.ready) < 2:
            arrived.clear()
            await arrived.wait()
    await puller.want(2)
    assert puller.outstanding() == 0
    assert [d.data for d in puller.ready] == [b"0", b"1"]
    await puller.ready[0].nak()
    puller.ready.popleft()
    await puller.ready.popleft().ack()
    await puller.want(4)
    async with asyncio.timeout(10):
        while len(puller.ready) < 4:
            arrived.clear()
            await arrived.wait()
    assert sorted((d.data, d.attempt) for d in puller.ready) == [(b"0", 2), (b"2", 1), (b"3", 1), (b"4", 1)]
    await bus.close()


async def test_a_bucket_lets_one_of_two_writers_win(nats_server: NatsServer) -> None:
    bus = await connected(nats_server)
    bucket = Bucket(bus, subjects.LEASES)
    revision = await bucket.put("p.1", b"a", revision=0)
    with pytest.raises(WrongLast):
        await bucket.put("p.1", b"b", revision=0)
    await bucket.put("p.1", b"c", revision=revision)
    assert [(e.key, e.value) for e in await bucket.all("p.*")] == [("p.1", b"c")]
    await bucket.delete("p.1")
    assert await bucket.all("p.*") == await bucket.scan(">") == []
    await bus.close()


async def test_reading_by_subject_ends_where_it_was_told_to(nats_server: NatsServer) -> None:
    bus, subject = await connected(nats_server), a_subject()
    chain, other = Chain(bus, STREAM, subject), Chain(bus, STREAM, a_subject())
    sequences = []
    for n in range(300):  # more than one batch
        sequences.append(await chain.append(b"%d" % n))
        await other.append(b"noise")
    found = await bus.read(STREAM, subject, sequences[10], sequences[289])
    assert [stored.seq for stored in found] == sequences[10:290]
    assert await bus.read(STREAM, subject, sequences[-1] + 1, sequences[-1] + 5) == []
    await bus.close()


async def test_interim_requests_keep_their_place_in_the_queue(nats_server: NatsServer) -> None:
    """A session that asks often must not lose its turn to itself, nor take that of others."""
    bus = await connected(nats_server)
    subject = {name: subjects.partials(new_session_id("live", 1), "pool") for name in "ab"}
    await declare_consumer(bus, "PARTIALS", "p", [subjects.pool_partials("pool")], ack_wait_s=5, tries=1)
    for name, body in (("a", b"a1"), ("b", b"b1"), ("a", b"a2")):
        await bus.fire(subject[name], body)
    arrived = asyncio.Event()
    puller = Puller(bus, "PARTIALS", "p", arrived.set)
    await puller.start()

    async def take() -> bytes:
        await puller.want(1)
        async with asyncio.timeout(10):
            while not puller.ready:
                arrived.clear()
                await arrived.wait()
        delivery = puller.ready.popleft()
        await delivery.ack()
        await bus.flush()
        return delivery.data

    assert await take() == b"a1"
    async with asyncio.timeout(10):
        while await bus.last("PARTIALS", subject["a"]) is not None:
            await asyncio.sleep(0)  # the acknowledgement has no answer of its own
    await bus.fire(subject["a"], b"a3")
    assert [await take(), await take()] == [b"b1", b"a3"]
    await bus.close()
