"""The ingress: client sockets in, transcripts out. The only wiring of this service."""

import argparse
import asyncio
import contextlib
import logging
import sys
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI

from services.ingress.admission import Admission
from services.ingress.app import build_app
from services.ingress.connection import Services
from services.ingress.door import Deployment, Door
from services.ingress.fleet import Fleet
from services.ingress.hub import Hub
from services.ingress.log import Budget
from services.ingress.models import Models
from shared.bus import Bus
from shared.bus.topology import declare
from shared.members import process_name
from shared.messages import SessionSettings
from shared.session_view import SessionView
from shared.settings import Settings, load_settings
from shared.telemetry import announce_ready, configure_logging, run, stop_on_signals

FRAME_LIMIT_BYTES = 17 << 20
UNACKED_LIMIT_BYTES = 256 << 20
DRAIN_PATIENCE_S = 1.0
DRAIN_FLUSH_S = 8.0


class Server(uvicorn.Server):
    """uvicorn without its own signal handlers: the drain has an order of its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def defaults(settings: Settings) -> SessionSettings:
    """What a session is set to when its client says nothing."""
    return SessionSettings(
        mode="vad" if settings.vad_enabled else "manual",
        threshold=settings.vad_threshold,
        silence_ms=settings.vad_silence_duration_ms,
        partial_every_ms=int(settings.partial_every_s(settings.engines()[0]) * 1000),
        idle_timeout_s=settings.idle_timeout_s,
    )


def a_clients_fault(record: logging.LogRecord) -> bool:
    """A filter: uvicorn takes text that is not UTF-8 for an error of its own, and logs a traceback."""
    if record.exc_info and isinstance(record.exc_info[1], UnicodeDecodeError):
        record.exc_info, record.levelno, record.levelname = None, logging.INFO, "INFO"
    return True


async def serve(settings: Settings, index: int) -> None:
    """Serve until SIGTERM, then bring every session to its end."""
    stop = stop_on_signals()
    name = process_name()
    bus = await Bus.connect(settings.nats_url, name=name)
    await declare(bus, **settings.stream_limits())
    fleet = Fleet(bus, settings.engines())
    hub = Hub(bus, SessionView.connect(settings.redis_url), name)
    admission = Admission(
        settings.key_table(),
        rate=settings.rate_limit_rps,
        per_key=settings.max_sessions_per_key,
        fleet=fleet,
    )
    deployment = Deployment(
        name=name,
        partitions=settings.partitions,
        defaults=defaults(settings),
        models=Models(settings.pools, settings.engines()[0]),
    )
    door = Door(Services(bus=bus, hub=hub), admission, fleet, deployment, Budget(UNACKED_LIMIT_BYTES))

    def troubles() -> list[str]:
        return ["draining"] if admission.draining else fleet.troubles()

    server = Server(
        server_config(build_app(door, troubles), settings.server_host, settings.server_port + index)
    )
    async with asyncio.TaskGroup() as group:
        background = [group.create_task(hub.run()), group.create_task(fleet.run())]
        serving = group.create_task(server.serve())
        while not server.started:
            if serving.done():
                sys.exit(1)
            await asyncio.sleep(0.01)  # uvicorn has no event for it
        announce_ready(role="ingress", ports={"http": settings.server_port + index})
        await stop.wait()
        # Drain, in this order: go unready, let sessions end, bring the rest to their end, close.
        await door.drain(DRAIN_PATIENCE_S, DRAIN_FLUSH_S)
        server.should_exit = True
        await serving
        for task in background:
            task.cancel()
    await bus.close()


def server_config(app: FastAPI, host: str, port: int) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        ws="websockets-sansio",
        ws_max_size=FRAME_LIMIT_BYTES,
        ws_ping_interval=20,
        ws_ping_timeout=60,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m services.ingress", description=__doc__)
    parser.add_argument("--index", type=int, default=0, help="number of this process on its machine")
    arguments = parser.parse_args()
    settings = load_settings()
    configure_logging(f"ingress-{arguments.index}", settings.log_level)
    logging.getLogger("uvicorn.error").addFilter(a_clients_fault)
    run(serve(settings, arguments.index))


if __name__ == "__main__":
    main()
