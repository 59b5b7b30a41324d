"""Audio by reference: fetched, checked, and never anybody else's."""

import asyncio

import pytest

from services.asr_worker.claims import Claims
from services.ingress.log import Budget, SessionLog
from shared import subjects
from shared.bus import Bus
from shared.bus.tail import read_all
from shared.errors import AudioExpired
from shared.messages import Audio, Claim, SessionSettings, read_record
from shared.sessions import new_session_id
from tests.pipeline import connected
from tests.servers import NatsServer

PCM = bytes(range(250)) * 128  # 16,000 samples


async def recorded(bus: Bus) -> tuple[str, list[int]]:
    """A session with a second of audio in frames of 100 ms; the frames' sequences."""
    log = SessionLog(bus, new_session_id("live", 1), "a", Budget(1 << 30))
    await log.open(tenant="t", dialect="d", model="m", pool="p", settings=SessionSettings())
    writing = asyncio.create_task(log.run())
    for start in range(0, len(PCM), 3200):
        log.audio(PCM[start : start + 3200], start + 3200, 16_000)
        while log.unacked_samples:
            await asyncio.sleep(0)
    writing.cancel()
    found = await read_all(bus, "AUDIO_LIVE", [subjects.audio(log.sid)])
    return log.sid, [stored.seq for stored in found if isinstance(read_record(stored.data), Audio)]


def claim_of(sequences: list[int], offset: int, n: int) -> Claim:
    deltas = [later - earlier for earlier, later in zip([0, *sequences], sequences, strict=False)]
    return Claim(stream="AUDIO_LIVE", frames=tuple(deltas), offset=offset, n=n)


async def test_a_claim_names_exactly_its_samples(nats_server: NatsServer) -> None:
    bus = await connected(nats_server)
    sid, frames = await recorded(bus)
    claims = Claims(bus)
    for _ in range(2):  # the second time from memory
        assert await claims.pcm(sid, claim_of(frames[2:5], 100, 4000)) == PCM[2 * 3300 : 2 * 7300]
    await bus.close()


async def test_frames_of_another_session_are_not_given_out(nats_server: NatsServer) -> None:
    bus = await connected(nats_server)
    mine, my_frames = await recorded(bus)
    _, others_frames = await recorded(bus)
    claims = Claims(bus)
    with pytest.raises(AudioExpired):
        await claims.pcm(mine, claim_of(others_frames, 0, 1600))
    await claims.pcm(mine, claim_of(my_frames, 0, 1600))
    with pytest.raises(AudioExpired):  # what is in memory is not given out either
        await claims.pcm(new_session_id("live", 1), claim_of(my_frames, 0, 1600))
    await bus.close()


async def test_what_has_expired_is_said_to_have(nats_server: NatsServer) -> None:
    bus = await connected(nats_server)
    sid, frames = await recorded(bus)
    await bus.api("STREAM.PURGE.AUDIO_LIVE", {"seq": frames[3]})
    with pytest.raises(AudioExpired):
        await Claims(bus).pcm(sid, claim_of(frames, 0, 16_000))
    await bus.close()


async def test_frames_that_do_not_follow_each_other_are_no_claim(nats_server: NatsServer) -> None:
    bus = await connected(nats_server)
    sid, frames = await recorded(bus)
    with pytest.raises(AudioExpired):
        await Claims(bus).pcm(sid, claim_of([frames[0], frames[2]], 0, 3200))
    with pytest.raises(AudioExpired):
        await Claims(bus).pcm(sid, claim_of(frames, 0, 16_001))
    await bus.close()
