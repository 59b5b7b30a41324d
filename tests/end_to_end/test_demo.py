"""`auricle demo` and `auricle up` as their users start them, with the real model."""

import re
import signal
import socket
import subprocess
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from services.cli.net import free_port
from shared.audio import SAMPLE_RATE
from tests.service import environment, family, start, survivors
from tests.speech import packaged_speech, word_errors

PASSAGE = (
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of "
    "foolishness, it was the epoch of belief, it was the epoch of incredulity, it was the season of "
    "Light, it was the season of Darkness, it was the spring of hope, it was the winter of despair, we "
    "had everything before us, we had nothing before us, we were all going direct to Heaven, we were all "
    "going direct the other way - in short, the period was so far like the present period, that some of "
    "its noisiest authorities insisted on its being received, for good or for evil, in the superlative "
    "degree of comparison only."
)
CAPTION = re.compile(r"\[(\d+:\d\d\.\d) – (\d+:\d\d\.\d)\] (.+)")
DELAY = re.compile(r"^\s*\d+:\d\d\.\d\s+\d+:\d\d\.\d\s+(-?\d+) ms\s+\d+ *$", re.MULTILINE)


class Demo:
    """A running `auricle demo`, and everything it prints."""

    def __init__(self, folders: list[Path], process: "subprocess.Popen[str]", errors: Path) -> None:
        self.process = process
        self.output = ""
        self.started: list[psutil.Process] = []
        self._folders = folders
        self._errors = errors

    def until(self, mark: str) -> None:
        """Read until a line contains ``mark``; the processes that run then are those it has to end."""
        assert self.process.stdout
        while line := self.process.stdout.readline():
            self.output += line
            if mark in line:
                self.started = family(self.process.pid)
                return
        pytest.fail(f"no {mark!r} in:\n{self.output}\n{self._errors.read_text()}")

    def ended(self) -> int:
        """Its exit code. Nothing of it is left, in memory or on disk."""
        assert self.process.stdout
        self.output += self.process.stdout.read()
        code = self.process.wait(30)
        assert len(self.started) >= 5, "itself, two servers, two workers"
        assert not survivors(self.started)
        for folder in self._folders:
            assert not list(folder.rglob("*")), f"left on disk:\n{self.output}"
        return code

    def captions(self) -> list[str]:
        return [text for _, _, text in CAPTION.findall(self.output)]


@contextmanager
def demo(folder: Path, *arguments: str, **settings: object) -> Iterator[Demo]:
    """Home and temporary folder are its own; lines are not wrapped."""
    temporary, home, errors = folder / "tmp", folder / "home", folder / "errors"
    temporary.mkdir()
    home.mkdir()
    env = environment(**settings) | {"TMPDIR": str(temporary), "HOME": str(home), "COLUMNS": "2000"}
    with errors.open("w") as stderr:
        process = start(["services.cli", "demo", *arguments], folder, env, stderr)
    try:
        yield Demo([temporary, home], process, errors)
    finally:
        process.kill()  # what it has started goes with it
        process.wait()


def utterances(file: Path, *seconds: tuple[float, float]) -> str:
    """A WAV file of parts of the passage, a second and a half of silence after each."""
    speech = packaged_speech("two_cities.wav")
    with wave.open(str(file), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(SAMPLE_RATE)
        for begin, end in seconds:
            out.writeframes(speech[2 * int(begin * SAMPLE_RATE) : 2 * int(end * SAMPLE_RATE)])
            out.writeframes(bytes(2 * int(1.5 * SAMPLE_RATE)))
    return str(file)


@contextmanager
def taken_port() -> Iterator[int]:
    """A port on which somebody else listens."""
    with socket.socket() as other:
        port = free_port()
        other.bind(("127.0.0.1", port))
        other.listen()
        yield port


def test_a_file_gives_captions_and_delays_and_leaves_nothing(tmp_path: Path) -> None:
    """Also when the usual port is taken."""
    file = utterances(tmp_path / "short.wav", (0.5, 2.9), (2.9, 4.8))
    with taken_port() as port, demo(tmp_path, file, server_port=port) as running:
        running.until("short.wav in real time through ws://")
        assert running.ended() == 0
    first, second = running.captions()
    assert word_errors("it was the best of times", first)[0] <= 1, first
    assert word_errors("it was the worst of times", second)[0] <= 1, second
    assert f"\n  {first} {second}" in running.output, "the transcript"
    assert len(DELAY.findall(running.output)) == 2
    assert re.search(r"2 finals, stop→final median \d+ ms, longest \d+ ms", running.output)


def test_ctrl_c_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    file = utterances(tmp_path / "long.wav", (0.5, 2.9), (2.9, 40.0))
    with demo(tmp_path, file) as running:
        running.until("] It was")
        running.process.send_signal(signal.SIGINT)
        assert running.ended() == 130
    assert len(running.captions()) == 1


def test_ctrl_c_while_it_starts_leaves_nothing(tmp_path: Path) -> None:
    with demo(tmp_path) as running:
        running.until("✓ asr_worker")
        running.process.send_signal(signal.SIGINT)
        assert running.ended() == 130


@pytest.mark.timeout(180)
def test_the_passage_has_at_most_6_of_119_words_wrong(tmp_path: Path) -> None:
    with demo(tmp_path) as running:
        running.until("two_cities.wav in real time")
        assert running.ended() == 0
    errors, words = word_errors(PASSAGE, " ".join(running.captions()))
    print(f"{errors} of {words} words wrong")
    assert words == 119
    assert errors <= 6, running.output


def test_a_file_that_is_no_audio_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "letter.wav").write_text("not audio")
    with demo(tmp_path, str(tmp_path / "letter.wav")) as running:
        assert running.process.wait(60) == 1
    assert (tmp_path / "errors").read_text().startswith("auricle: cannot read ")


def test_up_with_its_port_taken_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    with taken_port() as port:
        arguments = ["services.cli", "up", "--data", str(tmp_path / "data")]
        process = start(arguments, tmp_path, environment(server_port=port), subprocess.PIPE)
        output, errors = process.communicate(timeout=30)
    assert process.returncode == 2
    assert output == ""
    [line] = errors.splitlines()
    assert line.startswith("auricle: ")
    assert str(port) in line
