"""The programs that users start from, as they lie in examples/, against a server that wants a key.

They hear the same recording at the same time: each of them plays it as a microphone would.
"""

import json
import subprocess
import sys
import wave
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from shared.audio import BYTES_PER_SAMPLE, SAMPLE_RATE
from tests.client import MODEL
from tests.end_to_end.test_dashscope_sdk import python_of
from tests.end_to_end.test_vendor_samples import (
    INSTALL_S,
    SESSION_S,
    SILENCE_S,
    SPEECH_S,
    assert_understood,
    clean_environment,
    node_folder,
)
from tests.service import ROOT, Service
from tests.speech import packaged_speech

EXAMPLES = ROOT / "examples"
KEY = "a-key-of-somebody"

pytestmark = pytest.mark.timeout(2 * INSTALL_S + SESSION_S)


@pytest.fixture(scope="module")
def url(service: Service) -> Iterator[str]:
    with service.another_ingress(api_keys=f"somebody:{KEY}") as address:
        yield address


@pytest.fixture(scope="module")
def wav(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("examples") / "speech.wav"
    speech = packaged_speech("two_cities.wav")[: BYTES_PER_SAMPLE * int(SAMPLE_RATE * SPEECH_S)]
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(BYTES_PER_SAMPLE)
        out.setframerate(SAMPLE_RATE)
        out.writeframes(speech + bytes(BYTES_PER_SAMPLE * int(SAMPLE_RATE * SILENCE_S)))
    return path


def command_of(name: str, url: str, wav: Path, folder: Path) -> list[str]:
    if name == "browser.html":
        page = (EXAMPLES / name).as_uri()
        arguments = [str(node_folder() / "browser"), page, url, KEY, str(wav), str(folder / "screenshot.png")]
        return ["node", beside_its_packages(ROOT / "tests/clients/node/browser.mjs", folder), *arguments]
    if name == "node.mjs":
        return ["node", beside_its_packages(EXAMPLES / name, folder), str(wav)]
    python = python_of("dashscope-2.0.2") if name == "python_sdk.py" else sys.executable
    return [python, str(EXAMPLES / name), str(wav)]


def beside_its_packages(program: Path, folder: Path) -> str:
    """Node.js looks for packages beside a program and above it, so it is run where they are."""
    (folder / "node_modules").symlink_to(node_folder() / "node_modules")
    copy = folder / program.name
    copy.write_bytes(program.read_bytes())
    return str(copy)


@pytest.fixture(scope="module")
def running(url: str, wav: Path) -> Iterator[dict[str, "subprocess.Popen[str]"]]:
    env = {**clean_environment(), "AURICLE_URL": url, "DASHSCOPE_API_KEY": KEY}
    with ExitStack() as stack:
        processes = {}
        for name in ("python_sdk.py", "python_raw.py", "node.mjs", "browser.html"):
            folder = wav.parent / name
            folder.mkdir()
            command = command_of(name, url, wav, folder)
            # What they print fits into a pipe.
            process = subprocess.Popen(
                command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            processes[name] = stack.enter_context(process)
            stack.callback(process.kill)
        yield processes


def output_of(process: "subprocess.Popen[str]") -> str:
    output, errors = process.communicate(timeout=SESSION_S)
    assert (process.returncode, errors) == (0, "")
    return output


@pytest.mark.parametrize("name", ["python_sdk.py", "python_raw.py", "node.mjs"])
def test_example(running: dict[str, "subprocess.Popen[str]"], name: str) -> None:
    output = output_of(running[name])
    # Each caption begins by erasing the one before it.
    _, *drafts, final = output.split("\x1b[K")
    assert drafts, "no captions while it was spoken"
    assert final.endswith("\n")
    assert_understood(final)


def test_the_page(running: dict[str, "subprocess.Popen[str]"], url: str) -> None:
    """A Chromium opens the file itself, as somebody does who clicks on it."""
    told = json.loads(output_of(running["browser.html"]))
    assert told["drafted"]
    assert_understood(" ".join(told["captions"]))
    assert told["requests"] == [(EXAMPLES / "browser.html").as_uri(), f"{url}?model={MODEL}"]
    assert told["errors"] == []


def test_their_keys_are_looked_at(url: str, wav: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "python_raw.py"), str(wav)]
    env = {**clean_environment(), "AURICLE_URL": url, "DASHSCOPE_API_KEY": "another"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=SESSION_S, check=False)
    assert done.returncode != 0
    assert "HTTP 401" in done.stderr
