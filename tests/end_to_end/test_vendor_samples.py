"""The raw samples of the vendor's guide (seeds/003), Python and Node.js: rebuilt from its text, and unchanged but
for the address, the file and the language.

They print every event they receive, and hang up after the first transcript. All of them run at the same time: they
pace themselves, and wait 3 s before they speak.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from shared.audio import SAMPLE_RATE
from tests.client import COMPLETED, Event, transcript
from tests.end_to_end.test_dashscope_sdk import check, python_of
from tests.service import ROOT, Service, environment
from tests.speech import packaged_speech, word_errors

CLIENTS = ROOT / "tests" / "clients"
SAID = "it was the best of times it was the worst of times"
SPEECH_S, SILENCE_S = 4.8, 1.3
"""Two sentences, and the silence that ends an utterance: the samples send none of their own."""
INSTALL_S, SESSION_S = 300, 60
ENGLISH, AS_IT_STANDS = "en", "zh"

pytestmark = pytest.mark.timeout(2 * INSTALL_S + SESSION_S)


@cache
def node_folder() -> Path:
    """Where the Node.js clients find their packages; they are installed the first time."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("no Node.js with npm on this machine")
    script = [str(ROOT / "deploy" / "scripts" / "client_node.sh")]
    done = subprocess.run(script, stdout=subprocess.PIPE, text=True, timeout=INSTALL_S, check=True)
    return Path(done.stdout.strip())


def clean_environment() -> dict[str, str]:
    """None of our own modules may help a foreign client."""
    return {name: value for name, value in environment().items() if name != "PYTHONPATH"}


@dataclass(frozen=True)
class Sample:
    """One of them, running."""

    process: subprocess.Popen[bytes]
    output: Path
    """All that it prints. (A pipe that nobody reads yet would stop it.)"""

    @classmethod
    def start(cls, client: str, arguments: list[str], folder: Path) -> "Sample":
        """``folder`` is empty; it writes a log of its own there."""
        folder.mkdir()
        if client == "node":
            # A program finds its packages beside it, or above.
            (folder / "node_modules").symlink_to(node_folder() / "node_modules")
            program = folder / "sample.js"
            program.write_bytes((CLIENTS / "node" / "sample.js").read_bytes())
            command = ["node", str(program)]
        else:
            command = [python_of("websocket-client"), str(CLIENTS / "raw_websocket_client.py")]
        output = folder / "output"
        with output.open("wb") as out:
            process = subprocess.Popen(
                [*command, *arguments], cwd=folder, env=clean_environment(), stdout=out, stderr=out
            )
        return cls(process, output)

    def ended(self) -> str:
        """What it printed until it ended."""
        self.process.wait(SESSION_S)
        output = self.output.read_text(encoding="utf-8")
        assert self.process.returncode == 0, output
        return output


def received(output: str) -> Iterator[Event]:
    """The events in what a sample printed: each stands, as indented JSON, after these words."""
    for piece in output.replace("[Received Event]: ", "Received event: ").split("Received event: ")[1:]:
        event, _ = json.JSONDecoder().raw_decode(piece)
        yield event


RUNS = [
    ("websocket_client", "vad", ENGLISH),
    ("websocket_client", "manual", ENGLISH),
    ("node", "vad", ENGLISH),
    ("node", "manual", ENGLISH),
    ("node", "vad", AS_IT_STANDS),
]


@pytest.fixture(scope="module")
def samples(
    service: Service, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[tuple[str, ...], Sample]]:
    folder = tmp_path_factory.mktemp("samples")
    speech = folder / "speech.pcm"
    pcm = packaged_speech("two_cities.wav")[: 2 * int(SAMPLE_RATE * SPEECH_S)]
    speech.write_bytes(pcm + bytes(2 * int(SAMPLE_RATE * SILENCE_S)))
    with ExitStack() as stack:
        running = {}
        for run in RUNS:
            client, mode, language = run
            arguments = [service.url, str(speech), mode, language]
            running[run] = sample = Sample.start(client, arguments, folder / "-".join(run))
            stack.enter_context(sample.process)
            stack.callback(sample.process.kill)
        yield running


@pytest.mark.parametrize("mode", ["vad", "manual"])
@pytest.mark.parametrize("client", ["websocket_client", "node"])
def test_sample(samples: dict[tuple[str, ...], Sample], client: str, mode: str) -> None:
    output = samples[client, mode, ENGLISH].ended()
    events = list(received(output))
    assert events[-1]["type"] == COMPLETED, "it hangs up there"
    assert_understood(transcript(events))
    check(events, f"{client}_{mode}")
    if client == "node":
        # Its own code comes back; without an answer the package would wait for 30 s, and say 1006.
        assert "[WebSocket] Connection closed: 1000 - " in output


def test_an_engine_without_chinese_says_so_and_the_sample_works_all_the_same(
    samples: dict[tuple[str, ...], Sample],
) -> None:
    """The letter of the sample: its session.update is refused as a whole, and what was before it stays: VAD."""
    events = list(received(samples["node", "vad", AS_IT_STANDS].ended()))
    [error] = [event["error"] for event in events if event["type"] == "error"]
    assert (error["code"], error["event_id"]) == ("invalid_value", "event_123")
    assert error["param"] == "session.input_audio_transcription.language"
    assert_understood(transcript(events))


def assert_understood(heard: str) -> None:
    errors, _ = word_errors(SAID, heard)
    assert errors <= 1, heard
