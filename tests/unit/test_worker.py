"""The worker's loop: finals before partials before batch, no more than can start, and an orderly end."""

import asyncio
from collections import deque
from typing import Any

import pytest

from shared.worker import Deadline, Lanes, Worker


class Item:
    """A delivery that remembers what was done with it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.naks = 0

    async def nak(self, delay_s: float = 0) -> None:
        self.naks += 1

    async def ack(self) -> None: ...

    async def working(self) -> None: ...


class Lane:
    """A puller with everything there already, handed out by credit."""

    def __init__(self, *names: str) -> None:
        self.stored = deque(Item(name) for name in names)
        self.ready: deque[Any] = deque()
        self.most = 0

    async def want(self, credit: int) -> None:
        self.most = max(self.most, credit)
        while self.stored and len(self.ready) < credit:
            self.ready.append(self.stored.popleft())


class Bench:
    """Runs a worker over lanes and records what starts when."""

    def __init__(self, slots: int, live: Lane, partials: Lane, batch: Lane, limit_s: float = 30) -> None:
        self.started: list[str] = []
        self.running = self.most = 0
        self.gates: dict[str, asyncio.Event] = {}
        self.stop = asyncio.Event()
        lanes: Any = Lanes(live=live, partials=partials, batch=batch)  # type: ignore[arg-type]
        self.worker = Worker(lanes, slots, self.handle, self.handle, time_limit_s=limit_s)

    async def handle(self, delivery: Any) -> None:
        self.started.append(delivery.name)
        self.running += 1
        self.most = max(self.most, self.running)
        if (gate := self.gates.get(delivery.name)) is not None:
            await gate.wait()
        self.running -= 1

    async def until(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.started) < count:
                await asyncio.sleep(0)

    async def end(self, running: "asyncio.Task[None]") -> None:
        self.stop.set()
        async with asyncio.timeout(5):
            await running


async def test_live_finals_come_first_and_batch_last() -> None:
    bench = Bench(1, Lane("f1", "f2"), Lane("p1"), Lane("b1", "b2"))
    running = asyncio.create_task(bench.worker.run(bench.stop))
    await bench.until(5)
    await bench.end(running)
    assert [name[0] for name in bench.started].index("b") > max(
        place for place, name in enumerate(bench.started) if name[0] == "f"
    )
    assert sorted(bench.started) == ["b1", "b2", "f1", "f2", "p1"]


async def test_no_more_runs_than_there_are_slots_but_for_a_final_beside_a_partial() -> None:
    live, partials = Lane(), Lane("p1")
    bench = Bench(1, live, partials, Lane())
    bench.gates = {"p1": asyncio.Event(), "f1": asyncio.Event()}
    running = asyncio.create_task(bench.worker.run(bench.stop))
    await bench.until(1)
    live.stored.extend([Item("f1"), Item("f2")])
    bench.worker.changed()
    await bench.until(2)
    for _ in range(20):
        await asyncio.sleep(0)
    assert bench.started == ["p1", "f1"], "a second final must wait for a slot"
    bench.gates["f1"].set()
    await bench.until(3)
    bench.gates["p1"].set()
    await bench.end(running)
    assert bench.most == 2
    assert live.most == 1


async def test_what_was_taken_and_not_begun_is_handed_back() -> None:
    live = Lane("f1")
    bench = Bench(1, live, Lane(), Lane())
    bench.gates = {"f1": asyncio.Event()}
    running = asyncio.create_task(bench.worker.run(bench.stop))
    await bench.until(1)
    waiting = Item("f2")
    live.ready.append(waiting)
    bench.stop.set()
    for _ in range(20):
        await asyncio.sleep(0)
    assert not running.done(), "what runs is finished first"
    bench.gates["f1"].set()
    await bench.end(running)
    assert (bench.started, waiting.naks) == (["f1"], 1)


async def test_a_job_that_never_ends_ends_the_process() -> None:
    bench = Bench(1, Lane("f1"), Lane(), Lane(), limit_s=0.01)
    bench.gates = {"f1": asyncio.Event()}
    with pytest.raises(ExceptionGroup) as crash:
        await bench.worker.run(bench.stop)
    assert crash.group_contains(Deadline)
