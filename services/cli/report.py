"""The figures of a load run (CONTRACTS.md §3): what clients and meter saw, as JSON and as a table."""

import os
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from services.cli.load import Item, Outcome
from services.cli.meter import Meter, growth
from services.cli.stats import percentile

STEADY_FROM_S = 10.0
"""From this second on the queue depth must not grow."""
_STEADY_MS = 250.0
_SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
_DELAYS = {
    "stop_to_final_ms": "stop→final",
    "queue_ms": "stopped→final (queue share + decoding)",
    "first_partial_ms": "first partial",
}


def figures(outcomes: Sequence[Outcome], meter: Meter, sessions: int, seconds: float) -> dict[str, Any]:
    """Everything that `--json` writes; None = could not be measured."""
    items = [item for outcome in outcomes for item in outcome.items]
    audio_s = sum(outcome.audio_s for outcome in outcomes)
    delays = [(item.second, item.stop_to_final_ms) for item in items if item.stop_to_final_ms is not None]
    deeper = growth(meter.depths, STEADY_FROM_S, seconds)
    later_ms = growth(delays, STEADY_FROM_S, seconds)
    result = {
        "sessions": sessions,
        "seconds": seconds,
        "cpus": os.cpu_count(),
        "audio_s": round(audio_s, 1),
        "finals": {"expected": len(items), "delivered": sum(item.delivered for item in items)},
        "sessions_finished": sum(outcome.finished for outcome in outcomes),
        "errors": sorted({outcome.error for outcome in outcomes if outcome.error})[:5],
        **{name: _spread(items, name) for name in _DELAYS},
        "engine_ms": None,  # the dialect does not carry it
        "client_lag_p99_ms": round(max((outcome.lag_ms for outcome in outcomes), default=0.0), 1),
        "queue_depth": meter.depths,
        "queue_growth": None if deeper is None else round(deeper, 1),
        "delay_growth_ms": None if later_ms is None else round(later_ms, 1),
        "processes": _processes(meter, audio_s),
    }
    return {**result, "kept_up": _kept_up(result)}


def _kept_up(result: dict[str, Any]) -> bool | None:
    """Every final delivered, and nothing growing from second 10 on.

    Not the depth of the queues alone: what waits in the memory of a worker, or in a socket, has left the
    queue and shows as delay only.
    """
    deeper, later_ms = result["queue_growth"], result["delay_growth_ms"]
    if deeper is None or later_ms is None:
        return None
    steady: bool = deeper <= max(2.0, 0.02 * result["sessions"]) and later_ms <= _STEADY_MS
    return steady and is_complete(result)


def _spread(items: Sequence[Item], name: str) -> dict[str, float] | None:
    values = [value for item in items if (value := getattr(item, name)) is not None]
    if not values:
        return None
    return {share: round(percentile(values, at), 1) for share, at in _SHARES.items()} | {"n": len(values)}


def _processes(meter: Meter, audio_s: float) -> dict[str, dict[str, float]]:
    return {
        name: {
            "cpu_ms_per_audio_s": round(usage.cpu_s * 1000 / audio_s, 3) if audio_s else 0.0,
            "cpu_s": round(usage.cpu_s, 2),
            "peak_rss_mb": round(usage.peak_rss_mb, 1),
        }
        for name, usage in meter.usage.items()
    }


def is_complete(result: dict[str, Any]) -> bool:
    """Every session came to its end, with all its finals."""
    finals = result["finals"]
    finished: bool = result["sessions_finished"] == result["sessions"]
    return finished and 0 < finals["expected"] == finals["delivered"]


def show(result: dict[str, Any], console: Console) -> None:
    """The same for a reader."""
    finals = result["finals"]
    console.print(
        f"\n{result['sessions']} sessions of {result['seconds']:.0f} s, engine {result['engine']}, "
        f"{result['cpus']} CPUs\n"
        f"finals {finals['delivered']} of {finals['expected']}, "
        f"sessions finished {result['sessions_finished']} of {result['sessions']}, "
        f"clients late by {result['client_lag_p99_ms']} ms (p99)"
    )
    for error in result["errors"]:
        console.print(f"error: {error}", style="red", markup=False)
    verdict = {True: "kept up", False: "NOT kept up", None: "too short to tell whether it keeps up"}
    console.print(
        f"{verdict[result['kept_up']]}; from second {STEADY_FROM_S:.0f} on the queue grew by "
        f"{result['queue_growth']} messages, stop→final by {result['delay_growth_ms']} ms\n"
    )
    console.print(_delay_table(result))
    console.print()
    console.print(_process_table(result))


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column(first)
    for heading in others:
        table.add_column(heading, justify="right")
    return table


def _delay_table(result: dict[str, Any]) -> Table:
    table = _table("milliseconds", *_SHARES, "n")
    for name, label in _DELAYS.items():
        spread = result[name] or {}
        table.add_row(label, *(str(spread.get(column, "–")) for column in (*_SHARES, "n")))
    return table


def _process_table(result: dict[str, Any]) -> Table:
    table = _table("process", "CPU ms per s of audio", "CPU s", "peak MB")
    total = [0.0, 0.0, 0.0]
    for name, usage in result["processes"].items():
        table.add_row(name, *(f"{value:.2f}" for value in usage.values()))
        total = [a + b for a, b in zip(total, usage.values(), strict=True)]
    if result["processes"]:
        table.add_row("together", *(f"{value:.2f}" for value in total), style="bold")
    return table
