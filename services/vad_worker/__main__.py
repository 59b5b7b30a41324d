"""The VAD worker: session logs in, VAD events out. The only wiring of this service."""

import argparse
import asyncio

from services.vad_worker.detectors.registry import load_detector
from services.vad_worker.handler import Handler
from services.vad_worker.partitions import Partitions
from shared.bus import Bus
from shared.bus.topology import declare
from shared.facts import FactWriter
from shared.members import process_name
from shared.session_view import SessionView
from shared.settings import Settings, load_settings
from shared.telemetry import announce_ready, configure_logging, run, stop_on_signals


async def serve(settings: Settings, name: str) -> None:
    """Work until SIGTERM, then hand everything over."""
    stop = stop_on_signals()
    detector = load_detector(settings.detector)
    bus = await Bus.connect(settings.nats_url, name=name)
    await declare(bus, **settings.stream_limits())
    facts = FactWriter(SessionView.connect(settings.redis_url))
    handler = Handler(bus, facts, detector)
    partitions = Partitions(bus, name, settings.partitions, handler.gained, handler.release, handler.lost)
    async with asyncio.TaskGroup() as group:
        working = group.create_task(handler.run())
        owning = group.create_task(partitions.run())
        announce_ready(role="vad_worker")
        await stop.wait()
        # Drain, in this order: take no more, publish and write down what is decided, free the leases.
        owning.cancel()
        await partitions.leave()
        await facts.drained(timeout=2)
        working.cancel()
    await bus.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m services.vad_worker", description=__doc__)
    parser.add_argument("--index", type=int, default=0, help="number of this process on its machine")
    arguments = parser.parse_args()
    settings = load_settings()
    configure_logging(f"vad_worker-{arguments.index}", settings.log_level)
    run(serve(settings, process_name()))


if __name__ == "__main__":
    main()
