"""The official SDK, unchanged but for its URL, each version in its own environment.

What it received is compared with golden/*.jsonl: ids and times masked, drafts left out, transcripts by their
words. AURICLE_GOLDEN=write writes these files anew.
"""

import json
import os
import subprocess
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import pytest

from shared.audio import SAMPLE_RATE
from tests.client import TEXT, Event, check_order, masked, transcript
from tests.service import ROOT, Service, environment
from tests.speech import packaged_speech, word_errors

GOLDEN = Path(__file__).parent / "golden"
SESSION = ROOT / "tests" / "clients" / "sdk_session.py"
SPEED = "4"
INSTALL_S, SESSION_S = 300, 60


@cache
def python_of(client: str) -> str:
    """The Python of a client's environment, which is made the first time."""
    script = [str(ROOT / "deploy" / "scripts" / "client_env.sh"), client]
    done = subprocess.run(script, stdout=subprocess.PIPE, text=True, timeout=INSTALL_S, check=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds."""
    file = tmp_path_factory.mktemp("sdk") / "speech.pcm"
    file.write_bytes(packaged_speech("two_cities.wav")[: 2 * SAMPLE_RATE * 10])
    return file


@pytest.fixture
def converse(service: Service, speech: Path) -> Callable[[str, str], list[Event]]:
    def run(client: str, mode: str) -> list[Event]:
        command = [python_of(client), str(SESSION), service.url, str(speech), mode, SPEED]
        # None of our own modules may help it.
        env = {name: value for name, value in environment().items() if name != "PYTHONPATH"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=SESSION_S, env=env)
        assert done.returncode == 0, done.stderr
        events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        assert f"session {events[0]['session']['id']}" in done.stderr.splitlines()
        return events

    return run


@pytest.mark.timeout(INSTALL_S + SESSION_S)
@pytest.mark.parametrize("mode", ["vad", "manual", "bare", "config"])
def test_sdk_2_0_2(converse: Callable[[str, str], list[Event]], mode: str) -> None:
    events = converse("dashscope-2.0.2", mode)
    assert events[-1]["type"] == "session.finished"
    check(events, f"dashscope-2.0.2-{mode}")


@pytest.mark.timeout(INSTALL_S + SESSION_S)
@pytest.mark.parametrize("mode", ["vad", "manual", "bare"])
def test_sdk_1_25_3(converse: Callable[[str, str], list[Event]], mode: str) -> None:
    """It has no end_session: it hangs up after the transcript."""
    check(converse("dashscope-1.25.3", mode), f"dashscope-1.25.3-{mode}")


def check(events: list[Event], name: str) -> None:
    check_order(events, "manual" if name.endswith("manual") else "vad")
    assert any(event["type"] == TEXT for event in events), "no partial text at all"
    told = list(masked(events, times=True))
    file = GOLDEN / f"{name}.jsonl"
    if os.environ.get("AURICLE_GOLDEN") == "write":
        file.parent.mkdir(exist_ok=True)
        lines = (json.dumps(event, ensure_ascii=False, sort_keys=True) for event in told)
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    golden = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert without_words(told) == without_words(golden)
    errors, words = word_errors(transcript(golden), transcript(told))
    assert errors <= 0.1 * words, transcript(told)  # another CPU may round another way


def without_words(events: Iterable[Event]) -> list[Event]:
    return [{**event, "transcript": ""} if "transcript" in event else event for event in events]
