"""The ASR worker: segments in, text out. The only wiring of this service."""

import argparse
import asyncio
import sys
from collections.abc import Callable

from services.asr_worker.engines.base import Traits
from services.asr_worker.engines.registry import load_engine, probe
from services.asr_worker.handler import Handler
from shared import subjects
from shared.bus import Bus, Puller
from shared.bus.pull import declare_consumer
from shared.bus.topology import declare
from shared.facts import FactWriter
from shared.members import beat, process_name
from shared.messages import Member
from shared.session_view import SessionView
from shared.sessions import LANES
from shared.settings import Settings, load_settings
from shared.telemetry import announce_ready, configure_logging, run, stop_on_signals
from shared.worker import Lanes, Worker

ACK_WAIT_S = 3.0
TIME_LIMIT_S = 120.0


async def serve(settings: Settings, pool: str) -> None:
    """Work until SIGTERM, then finish what is running."""
    stop = stop_on_signals()
    engine = load_engine(pool, **settings.engine_options)
    slots = settings.asr_slots or engine.traits.slots
    name = process_name()
    bus = await Bus.connect(settings.nats_url, name=name)
    await declare(bus, **settings.stream_limits())
    facts = FactWriter(SessionView.connect(settings.redis_url))
    # A final may start beside an interim request that computes already: hence two threads for each slot.
    handler = Handler(bus, facts, engine, threads=2 * slots)
    lanes = await open_lanes(bus, pool, settings.nats_replicas, lambda: worker.changed())
    worker = Worker(lanes, slots, handler.final, handler.partial, time_limit_s=TIME_LIMIT_S)
    async with asyncio.TaskGroup() as group:
        background = [
            group.create_task(facts.run()),
            group.create_task(beat(bus, lambda n: describe(name, n, pool, slots, engine.traits))),
        ]
        announce_ready(role="asr_worker", pool=pool)
        await worker.run(stop)
        await facts.drained(timeout=2)
        for task in background:
            task.cancel()
    engine.close()
    await bus.close()


def describe(name: str, n: int, pool: str, slots: int, traits: Traits) -> Member:
    return Member(
        name=name,
        role="asr_worker",
        beat=n,
        pools=(pool,),
        slots=slots,
        languages=traits.languages,
        takes_context=traits.context,
        detects_language=traits.language_id,
        max_audio_s=traits.max_audio_s,
    )


async def open_lanes(bus: Bus, pool: str, replicas: int, changed: Callable[[], None]) -> Lanes:
    """Declare this pool's consumers and open a puller at each."""
    for lane in LANES:
        await declare_consumer(
            bus,
            subjects.SEGMENTS,
            subjects.asr_consumer(lane, pool),
            subjects.pool_segments(lane, pool),
            ack_wait_s=ACK_WAIT_S,
            replicas=replicas,
        )
    await declare_consumer(
        bus,
        subjects.PARTIALS,
        subjects.partials_consumer(pool),
        [subjects.pool_partials(pool)],
        ack_wait_s=ACK_WAIT_S,
        tries=1,
        replicas=replicas,
    )
    live = Puller(bus, subjects.SEGMENTS, subjects.asr_consumer("live", pool), changed)
    batch = Puller(bus, subjects.SEGMENTS, subjects.asr_consumer("batch", pool), changed)
    partials = Puller(bus, subjects.PARTIALS, subjects.partials_consumer(pool), changed)
    for puller in (live, batch, partials):
        await puller.start()
    return Lanes(live=live, partials=partials, batch=batch)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m services.asr_worker", description=__doc__)
    parser.add_argument("--index", type=int, default=0, help="number of this process on its machine")
    parser.add_argument("--pool", help="the engine to serve (default: ENGINE)")
    arguments = parser.parse_args()
    settings = load_settings()
    configure_logging(f"asr_worker-{arguments.index}", settings.log_level)
    pool = arguments.pool or settings.engines()[0]
    try:
        trouble = probe(pool)
    except ValueError as error:
        trouble = str(error)
    if trouble:
        sys.stderr.write(f"auricle: engine {pool}: {trouble}\n")
        raise SystemExit(2)
    run(serve(settings, pool))


if __name__ == "__main__":
    main()
