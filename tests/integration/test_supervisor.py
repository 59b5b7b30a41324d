"""The supervisor over small fake children, and `auricle up` over fake services with real servers under them."""

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

from services.cli.errors import CommandFailed
from services.cli.net import free_port
from services.cli.process import Signals, Stopped
from services.cli.supervisor import ChildFailed, Part, supervised

ROOT = Path(__file__).parents[2]
QUIET = [sys.executable, "-S", "-c"]
"""A Python that starts fast."""
SERVE = "import time; print('ready {}', flush=True); time.sleep(60)"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SERVE


def part(role: str, script: str, *arguments: str, index: int = 0) -> Part:
    return Part(role=role, index=index, argv=[*QUIET, script, *arguments])


def note(diary: Path, *, last_words_after_s: float = 0.0) -> tuple[str, str]:
    """A script that notes its first argument when SIGTERM comes, and again when it ends."""
    script = (
        "import signal, sys, time\n"
        "def write(word): open(sys.argv[1], 'a').write(f'{sys.argv[2]} {word}\\n')\n"
        "def leave(*_):\n"
        "    write('asked')\n"
        f"    time.sleep({last_words_after_s})\n"
        "    write('gone')\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, leave)\n" + SERVE
    )
    return script, str(diary)


def listed(folder: Path) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads((folder / "processes.json").read_text())
    return entries


def is_alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


async def until(what: Callable[[], bool], limit_s: float = 10.0) -> None:
    """Wait for something that tells nobody when it happens."""
    async with asyncio.timeout(limit_s):
        while not what():
            await asyncio.sleep(0.01)


# --- starting -----------------------------------------------------------------------------------------------


async def test_start_returns_when_all_serve_and_lists_them(tmp_path: Path) -> None:
    ports = 'import time; print(\'ready {"ports": {"http": 8001}}\', flush=True); time.sleep(60)'
    slow = "import time; time.sleep(0.3); " + SERVE
    async with supervised(tmp_path) as supervisor:
        await supervisor.start(part("vad_worker", slow), part("ingress", ports, index=1))
        pids = [child.pid for child in supervisor.children]
        assert listed(tmp_path) == [
            {"role": "vad_worker", "index": 0, "pid": pids[0], "ports": {}},
            {"role": "ingress", "index": 1, "pid": pids[1], "ports": {"http": 8001}},
        ]
        assert all(child.ready.is_set() and is_alive(child.pid) for child in supervisor.children)
    assert not any(is_alive(pid) for pid in pids)
    assert not (tmp_path / "processes.json").exists()


async def test_a_probed_part_is_ready_when_the_probe_says_so(tmp_path: Path) -> None:
    asked = 0

    async def probe() -> bool:
        nonlocal asked
        asked += 1
        return asked == 3

    async with supervised(tmp_path) as supervisor:
        await supervisor.start(Part(role="nats", argv=["sleep", "60"], probe=probe, ports={"client": 1}))
        assert asked == 3
        assert listed(tmp_path)[0]["ports"] == {"client": 1}


async def start_after_nats(folder: Path, pids: list[int], *parts: Part) -> None:
    """Start a first stage, note its pids, and start these."""
    async with supervised(folder) as supervisor:
        await supervisor.start(part("nats", SERVE))
        pids += [child.pid for child in supervisor.children]
        await supervisor.start(*parts)


async def test_refused_settings_end_everything_with_code_2(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    refuse = f"open({str(starts)!r}, 'a').write('x'); raise SystemExit(2)"
    pids: list[int] = []
    with pytest.raises(ChildFailed) as failed:
        await start_after_nats(tmp_path, pids, part("asr_worker", refuse), part("vad_worker", SERVE))
    assert failed.value.exit_code == 2
    assert starts.read_text() == "x"
    assert not any(is_alive(pid) for pid in pids)


async def test_a_part_that_never_gets_ready_is_given_up(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    crash = f"open({str(starts)!r}, 'a').write('x'); raise SystemExit(1)"
    with pytest.raises(ChildFailed) as failed:
        async with supervised(tmp_path) as supervisor:
            await supervisor.start(part("vad_worker", crash))
    assert failed.value.exit_code == 1
    assert "vad_worker 0" in str(failed.value)
    assert starts.read_text() == "xxx"


async def test_a_missing_program_leaves_nothing_behind(tmp_path: Path) -> None:
    pids: list[int] = []
    with pytest.raises(FileNotFoundError):
        await start_after_nats(tmp_path, pids, Part(role="valkey", argv=["/no/such/program"]))
    assert not any(is_alive(pid) for pid in pids)


# --- keeping alive ------------------------------------------------------------------------------------------


async def test_a_killed_child_is_started_again_and_listed(tmp_path: Path) -> None:
    """Listed at once, not when it is ready: who looks for a process must not find the dead one."""
    first = tmp_path / "first"
    once = (
        f"import pathlib, time; p = pathlib.Path({str(first)!r}); p.exists() and time.sleep(60); p.touch(); "
    )
    async with supervised(tmp_path) as supervisor:
        (child,) = await supervisor.start(part("asr_worker", once + SERVE))
        before = child.pid
        os.kill(before, signal.SIGKILL)
        await until(lambda: child.pid != before and is_alive(child.pid))
        await until(lambda: listed(tmp_path)[0]["pid"] == child.pid)


async def test_restarts_back_off(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    short = (
        f"import time; open({str(starts)!r}, 'a').write(f'{{time.time()}} '); print('ready {{}}', flush=True)"
    )
    async with supervised(tmp_path) as supervisor:
        await supervisor.start(part("asr_worker", short))
        await until(lambda: len(starts.read_text().split()) >= 4)
    moments = [float(word) for word in starts.read_text().split()]
    pauses = [later - earlier for earlier, later in pairwise(moments)]
    assert [pause >= least for pause, least in zip(pauses, (0.2, 0.4, 0.8), strict=False)] == [True] * 3


async def test_what_a_child_started_itself_goes_with_it(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = (
        "import subprocess; p = subprocess.Popen(['sleep', '60'])\n"
        f"open({str(pid_file)!r}, 'w').write(str(p.pid))\n" + SERVE
    )
    async with supervised(tmp_path) as supervisor:
        (child,) = await supervisor.start(part("asr_worker", script))
        grandchild = int(pid_file.read_text())
        os.kill(child.pid, signal.SIGKILL)
        await until(lambda: not is_alive(grandchild))


async def test_a_talkative_child_never_waits_for_us(tmp_path: Path) -> None:
    done = tmp_path / "done"
    script = (
        f"import time; print('ready {{}}'); print('x' * 10_000_000); open({str(done)!r}, 'w'); time.sleep(60)"
    )
    async with supervised(tmp_path) as supervisor:
        await supervisor.start(part("asr_worker", script))
        await until(done.exists)


async def test_a_terminal_signal_does_not_reach_children(tmp_path: Path) -> None:
    async with supervised(tmp_path) as supervisor:
        (child,) = await supervisor.start(part("ingress", SERVE))
        assert os.getsid(child.pid) == child.pid != os.getsid(0)


# --- ending -------------------------------------------------------------------------------------------------


async def test_the_drain_goes_from_the_door_to_the_servers(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    script, path = note(diary, last_words_after_s=0.05)
    roles = ["nats", "valkey", "asr_worker", "vad_worker", "ingress"]
    async with supervised(tmp_path) as supervisor:
        await supervisor.start(*(part(role, script, path, role) for role in roles))
    assert diary.read_text().splitlines() == [
        f"{role} {word}"
        for role in ("ingress", "vad_worker", "asr_worker", "valkey", "nats")
        for word in ("asked", "gone")
    ]


async def test_who_does_not_drain_in_time_is_killed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    began = time.monotonic()
    with caplog.at_level(logging.WARNING):
        async with supervised(tmp_path, grace_s=0.3) as supervisor:
            (child,) = await supervisor.start(part("asr_worker", DEAF))
    assert 0.3 <= time.monotonic() - began < 5
    assert not is_alive(child.pid)
    assert [record.message for record in caplog.records] == ["killed: did not drain in time"]


async def test_a_second_signal_ends_everything_at_once(tmp_path: Path) -> None:
    began = time.monotonic()
    async with supervised(tmp_path, grace_s=60) as supervisor:
        children = await supervisor.start(part("ingress", DEAF), part("nats", DEAF))
        asyncio.get_running_loop().call_later(0.2, supervisor.kill)
    assert time.monotonic() - began < 10
    assert not any(is_alive(child.pid) for child in children)


async def test_ending_does_not_wait_for_the_pause_before_a_restart(tmp_path: Path) -> None:
    async with supervised(tmp_path) as supervisor:
        (child,) = await supervisor.start(part("asr_worker", SERVE))
        os.kill(child.pid, signal.SIGKILL)
        await until(lambda: not is_alive(child.pid))
    assert child.gone.is_set()


async def test_an_error_in_the_command_drains_too(tmp_path: Path) -> None:
    script, path = note(tmp_path / "diary")

    async def command() -> None:
        async with supervised(tmp_path) as supervisor:
            await supervisor.start(part("ingress", script, path, "ingress"))
            raise CommandFailed("file is no audio")

    with pytest.raises(CommandFailed, match="file is no audio"):
        await command()
    assert (tmp_path / "diary").read_text() == "ingress asked\ningress gone\n"


async def test_a_signal_interrupts_what_is_being_done(tmp_path: Path) -> None:
    signals = Signals()
    asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGINT)
    with pytest.raises(Stopped) as stopped:
        await signals.until_asked(asyncio.sleep(60))
    assert stopped.value.exit_code == 130


def test_no_child_survives_a_killed_supervisor(tmp_path: Path) -> None:
    script = (
        "import asyncio, pathlib, sys\n"
        "from services.cli.supervisor import Part, supervised\n"
        "async def main():\n"
        f"    async with supervised(pathlib.Path({str(tmp_path)!r})) as supervisor:\n"
        f"        await supervisor.start(Part(role='nats', argv={[*QUIET, DEAF]!r}))\n"
        "        print(supervisor.children[0].pid, flush=True)\n"
        "        await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        pid = int(process.stdout.readline())
        assert is_alive(pid)
        process.kill()
    wait_until(lambda: not is_alive(pid))


# --- the whole command --------------------------------------------------------------------------------------

FAKE_INGRESS = """
import http.server, json, os, signal, sys
class Answer(http.server.BaseHTTPRequestHandler):
    asked = 0
    def do_GET(self):
        Answer.asked += 1  # not ready at once, as a real one
        self.send_response(200 if Answer.asked > 3 else 503); self.end_headers()
    def log_message(self, *_): pass
port = int(os.environ["SERVER_PORT"]) + int(sys.argv[2])
server = http.server.HTTPServer(("127.0.0.1", port), Answer)
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
print("ready " + json.dumps({"ports": {"http": port}}), flush=True)
server.serve_forever()
"""


def wait_until(what: Callable[[], bool], limit_s: float = 10.0) -> None:
    end = time.monotonic() + limit_s
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


class Up:
    """An `auricle up` in a folder whose ``services`` package is made of fakes."""

    def __init__(self, folder: Path, **scripts: str) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.port = free_port(count=4)
        fakes = {"ingress": FAKE_INGRESS, "vad_worker": SERVE, "asr_worker": SERVE, **scripts}
        for name, script in fakes.items():
            package = folder / "services" / name
            package.mkdir(parents=True)
            (package / "__main__.py").write_text(script)
        (folder / "services" / "__init__.py").touch()  # a namespace package would give way to the real one

    @contextmanager
    def running(self, *options: str) -> Iterator[subprocess.Popen[str]]:
        # -P: the fakes are what `python -m` finds first in this folder; the command itself is the real one.
        script = "from services.cli.__main__ import main; main()"
        command = [sys.executable, "-P", "-c", script, "up", "--data", str(self.data), *options]
        environment = {**os.environ, "SERVER_PORT": str(self.port), "PYTHONPATH": str(ROOT)}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, cwd=self.folder, env=environment, text=True, **pipes) as process:  # type: ignore[call-overload]
            try:
                yield process
            finally:
                process.kill()

    def pids(self) -> list[int]:
        return [entry["pid"] for entry in listed(self.data)]

    def pid_of(self, role: str) -> int:
        return next(entry["pid"] for entry in listed(self.data) if entry["role"] == role)


def ready_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline()


def test_up_serves_until_a_signal_and_leaves_nothing(tmp_path: Path) -> None:
    up = Up(tmp_path)
    with up.running("--asr-workers", "2", "--ingresses", "2") as process:
        base = f"127.0.0.1:{up.port}"
        assert ready_line(process) == f"auricle ready http=http://{base} ws=ws://{base}/api-ws/v1/realtime\n"
        assert urllib.request.urlopen(f"http://{base}/ready").status == 200
        entries = listed(up.data)
        names = [(entry["role"], entry["index"]) for entry in entries]
        assert names == [
            ("nats", 0),
            ("valkey", 0),
            ("vad_worker", 0),
            ("asr_worker", 0),
            ("asr_worker", 1),
            ("ingress", 0),
            ("ingress", 1),
        ]
        assert entries[-1]["ports"] == {"http": up.port + 1}
        assert {"client"} <= set(entries[0]["ports"])
        pids = up.pids()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert not any(is_alive(pid) for pid in pids)


def test_up_restarts_its_servers_on_the_same_ports_with_the_same_data(tmp_path: Path) -> None:
    up = Up(tmp_path)
    with up.running() as process:
        ready_line(process)
        before = {entry["role"]: entry for entry in listed(up.data)}
        os.kill(before["nats"]["pid"], signal.SIGKILL)
        os.kill(before["valkey"]["pid"], signal.SIGKILL)
        for role in ("nats", "valkey"):
            wait_until(lambda role=role: up.pid_of(role) != before[role]["pid"])
            after = next(entry for entry in listed(up.data) if entry["role"] == role)
            assert after["ports"] == before[role]["ports"]
        process.terminate()
        assert process.wait(10) == 0


def test_up_ends_with_the_line_of_a_child_that_refuses_its_settings(tmp_path: Path) -> None:
    refuse = "import sys; print('auricle: ENGINE: no such engine', file=sys.stderr); sys.exit(2)"
    up = Up(tmp_path, asr_worker=refuse)
    with up.running() as process:
        out, err = process.communicate(timeout=20)
    assert process.returncode == 2
    assert out == ""
    assert "auricle: ENGINE: no such engine" in err.splitlines()


def test_up_says_in_one_line_that_its_port_is_taken(tmp_path: Path) -> None:
    up = Up(tmp_path)
    with up.running() as first:
        ready_line(first)
        with up.running("--data", str(tmp_path / "other")) as second:
            _, err = second.communicate(timeout=20)
        assert second.returncode == 2
        assert len(err.splitlines()) == 1
        assert f"port {up.port} " in err


def test_up_refuses_a_folder_that_is_in_use(tmp_path: Path) -> None:
    up = Up(tmp_path)
    with up.running() as first:
        ready_line(first)
        with up.running() as second:
            _, err = second.communicate(timeout=20)
        assert second.returncode == 2
        assert str(up.data) in err
        assert all(is_alive(pid) for pid in up.pids())


def test_a_signal_during_start_up_leaves_nothing(tmp_path: Path) -> None:
    up = Up(tmp_path, vad_worker="import time; time.sleep(60)")
    with up.running() as process:
        wait_until(lambda: (up.data / "processes.json").exists() and len(up.pids()) == 4)
        pids = up.pids()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    assert not any(is_alive(pid) for pid in pids)


def test_a_second_signal_does_not_wait_for_a_deaf_child(tmp_path: Path) -> None:
    up = Up(tmp_path, vad_worker=DEAF)
    with up.running() as process:
        ready_line(process)
        pids = up.pids()
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: not is_alive(up.pid_of("ingress")))
        assert is_alive(up.pid_of("vad_worker"))
        process.send_signal(signal.SIGTERM)
        process.wait(5)
    assert not any(is_alive(pid) for pid in pids)
