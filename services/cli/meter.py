"""What a running service costs, and whether it keeps up: sampled from outside, once a second."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import psutil

from services.cli.net import http_get

_QUEUES = ("AUDIO_LIVE", "AUDIO_BATCH", "SEGMENTS")
"""Streams whose consumers are queues. What waits in PARTIALS may be shed: it is no debt."""


@dataclass
class Usage:
    """One process, or the line of processes that stood at its place."""

    cpu_s: float = 0.0
    """Since the first sample."""
    peak_rss_mb: float = 0.0


@dataclass
class Meter:
    """Reads processes.json for who runs, and the monitoring port of nats-server for what waits."""

    listing: Path
    usage: dict[str, Usage] = field(default_factory=dict)
    depths: list[tuple[float, int]] = field(default_factory=list)
    """Seconds since the start of the load, and messages that no consumer is done with."""
    _seen: dict[int, float] = field(default_factory=dict)
    """CPU seconds of each pid when last looked at."""

    async def sample(self, second: float) -> None:
        parts = json.loads(self.listing.read_text())
        for part in parts:
            self._take_process(f"{part['role']} {part['index']}", part["pid"], first=not self.depths)
        monitor = next((part["ports"].get("monitor") for part in parts if part["role"] == "nats"), None)
        if monitor:
            self.depths.append((second, await queue_depth(monitor)))

    def _take_process(self, name: str, pid: int, *, first: bool) -> None:
        usage = self.usage.setdefault(name, Usage())
        rss = 0
        try:
            for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
                times = process.cpu_times()
                used = times.user + times.system
                # What a process used before the load does not count; what a restarted one used does.
                usage.cpu_s += used - self._seen.get(process.pid, used if first else 0.0)
                self._seen[process.pid] = used
                rss += process.memory_info().rss
        except psutil.NoSuchProcess:
            pass  # it ended between the listing and the look
        usage.peak_rss_mb = max(usage.peak_rss_mb, rss / (1 << 20))


async def queue_depth(monitor: int) -> int:
    """Messages of the queue streams that are not delivered, or not settled yet."""
    _, body = await http_get(f"http://127.0.0.1:{monitor}/jsz?consumers=true&streams=true")
    return sum(
        consumer["num_pending"] + consumer["num_ack_pending"]
        for consumer in _queue_consumers(json.loads(body))
    )


def _queue_consumers(jsz: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for account in jsz.get("account_details") or []:
        for stream in account.get("stream_detail") or []:
            if stream["name"] in _QUEUES:
                yield from stream.get("consumer_detail") or []


def growth(samples: Sequence[tuple[float, float]], begin_s: float, end_s: float) -> float | None:
    """How much the mean grew from the first to the last third of this time; None = too short to tell."""
    third_s = (end_s - begin_s) / 3
    first = [value for second, value in samples if begin_s <= second < begin_s + third_s]
    last = [value for second, value in samples if end_s - third_s <= second <= end_s]
    if len(first) < 2 or len(last) < 2:
        return None
    return fmean(last) - fmean(first)
