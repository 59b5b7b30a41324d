"""Random clients against the pure dialects: in bulk from one seed, and as a machine that hypothesis can shrink."""

import random
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from services.ingress.dialects.base import Trouble
from services.ingress.dialects.registry import DIALECTS
from tests.contract.test_dialects import FRAMES
from tests.fuzz.conversation import Conversation, play
from tests.fuzz.documented import DOCUMENTED
from tests.fuzz.frames import Fuzzer
from tests.fuzz.luck import PURE_FRAMES, SEED, TIMES

PER_CLIENT = 100
REASONS = ["client", "idle", "error", "closed", "admin"]
TROUBLES: list[Trouble] = list(get_args(Trouble))


def test_every_dialect_has_its_table() -> None:
    assert set(DOCUMENTED) == set(DIALECTS)


@pytest.mark.timeout(60 + 60 * TIMES)
@pytest.mark.parametrize("name", DIALECTS)
def test_in_bulk(name: str) -> None:
    closed = 0
    clients = PURE_FRAMES // len(DIALECTS) // PER_CLIENT
    for seed in range(SEED, SEED + clients):
        fuzzer = Fuzzer(seed, name)
        frames = [fuzzer.next() for _ in range(PER_CLIENT)]
        try:
            conversation = play(name, frames, seed)
            conversation.finish(REASONS[seed % len(REASONS)])
            conversation.say(frames[0])
            conversation.fail(TROUBLES[seed % len(TROUBLES)])
            conversation.say(frames[1])
        except Exception as error:
            error.add_note(f"client {seed - SEED}: AURICLE_FUZZ_SEED={seed}")
            raise
        closed += conversation.closed
    assert closed == clients


class Session(RuleBasedStateMachine):
    """Rules for one dialect; ``name`` is set by the subclass."""

    name = ""
    conversation: Conversation

    @initialize(mode=st.sampled_from(["vad", "manual"]), languages=st.sampled_from([(), ("en",)]))
    def connect(self, mode: Any, languages: tuple[str, ...]) -> None:
        self.conversation = Conversation(self.name, mode, languages)

    @rule(frame=FRAMES)
    def say(self, frame: str | bytes) -> None:
        self.conversation.say(frame)

    @rule(seed=st.integers(0, 2**32))
    def say_much(self, seed: int) -> None:
        fuzzer = Fuzzer(seed, self.name)
        for _ in range(12):
            self.conversation.say(fuzzer.next())

    @rule(seed=st.integers(0, 2**32))
    def happen(self, seed: int) -> None:
        self.conversation.happen(random.Random(seed))

    @precondition(lambda self: self.conversation.finishing)
    @rule(reason=st.sampled_from(REASONS))
    def finish(self, reason: str) -> None:
        self.conversation.finish(reason)

    @precondition(lambda self: not self.conversation.closed)
    @rule(trouble=st.sampled_from(TROUBLES))
    def fail(self, trouble: Trouble) -> None:
        self.conversation.fail(trouble)


def machine(dialect: str) -> Any:
    """The test case of a dialect's machine."""
    case = type(dialect, (Session,), {"name": dialect}).TestCase  # type: ignore[attr-defined]
    case.settings = settings(
        max_examples=150 * TIMES,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    return case


TestDashScope = machine("dashscope")
TestOpenAI = machine("openai")
