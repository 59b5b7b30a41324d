"""One dialect between a client and a session that both may do anything, and what must hold whatever they do."""

import random
from collections.abc import Sequence

from services.ingress.dialects.base import (
    AudioIn,
    Close,
    Configure,
    FinishIn,
    ItemAbandoned,
    ItemCompleted,
    ItemFailed,
    ItemStarted,
    ItemStopped,
    ItemText,
    Noticed,
    Reply,
    Request,
    SessionEvent,
    SessionFinished,
    Trouble,
    Welcome,
)
from services.ingress.dialects.registry import load_dialect
from services.ingress.intake import Undecodable, converter_for
from shared.messages import Mode, SessionSettings
from tests.fuzz.documented import DOCUMENTED, Event, check_all

MODELS = {"dashscope": "qwen3-asr-flash-realtime", "openai": "gpt-4o-transcribe"}
DELTA = "conversation.item.input_audio_transcription.delta"
MAX_PCM_BYTES = 4 * 60_000 + 16_000
"""Its longest append is 60,000 bytes of G.711, and the resampler had held some back; Opus comes by the second."""


class Conversation:
    """Plays both ends of a dialect, and checks every word."""

    def __init__(self, name: str, mode: Mode = "vad", languages: tuple[str, ...] = ()) -> None:
        kind = load_dialect(name)
        settings = kind.defaults(SessionSettings(mode=mode), MODELS[name])
        self.dialect = kind(
            Welcome(
                session_id="sess_" + "a" * 21,
                model=MODELS[name],
                settings=settings,
                languages=languages,
                takes_context=not languages,
                serves=lambda model: model != "gpt-9",
            )
        )
        self.documented = DOCUMENTED[name]
        self.closed = self.finishing = False
        self._format = kind.audio
        self._converter = converter_for(kind.audio)
        self._items = 0
        self._open: list[str] = []
        self._told: dict[str, str] = {}
        """Confirmed text of open items."""
        self._deltas: dict[str, str] = {}
        self._shown = self._session()

    def _session(self) -> Event:
        """What the client would be shown now: looking changes nothing."""
        [event] = check_all(self.documented, self.dialect.open())
        session: Event = event["session"]
        return session

    # --- the client -------------------------------------------------------------------------------------

    def say(self, frame: str | bytes) -> None:
        requests = self.dialect.receive(frame)
        if self.closed:
            assert list(requests) == [], "it speaks after it has closed"
        if self.finishing:
            assert list(requests) == [], "an answer between session.finish and session.finished"
        for request in requests:
            self._check(request, last=request is requests[-1])
        shown = self._session()
        if not any(isinstance(request, Configure) for request in requests):
            assert shown == self._shown, "changed by something that it refused"
        self._shown = shown

    def _check(self, request: Request, *, last: bool) -> None:
        match request:
            case AudioIn():
                self._hear(request)
            case Configure():
                self._configure(request)
            case FinishIn():
                self.finishing = True
            case Reply():
                check_all(self.documented, request.frames)
            case Close():
                assert last
                self._close(request)

    def _configure(self, request: Configure) -> None:
        settings = request.settings
        assert settings.mode in ("vad", "manual")
        assert 0.0 < settings.threshold < 1.0
        assert 100 <= settings.silence_ms <= 10_000
        assert 0 <= settings.prefix_padding_ms <= 2_000
        if request.format != self._format:
            self._converter.flush()
            self._format = request.format
            self._converter = converter_for(request.format, self._converter.consumed)

    def _hear(self, request: AudioIn) -> None:
        assert request.data
        before = self._converter.consumed
        self._converter.skip(request.skipped)
        try:
            for pcm in self._converter.pieces(request.data):
                assert len(pcm) <= MAX_PCM_BYTES, (len(pcm), self._format)
                assert len(pcm) % 2 == 0
        except Undecodable as error:
            [event] = check_all(self.documented, self.dialect.invalid_audio(str(error), request.event_id))
            assert event["error"]["param"] == "audio"
        assert self._converter.consumed >= before

    def _close(self, close: Close) -> None:
        check_all(self.documented, close.frames)
        assert close.code in self.documented.closes
        assert len(close.reason.encode()) <= 123
        self.closed = True

    # --- the session ------------------------------------------------------------------------------------

    def happen(self, chance: random.Random) -> None:
        """Something that a session may do now."""
        draw = chance.random()
        if not self._open or draw < 0.15:
            self._start(chance)
        elif draw < 0.55:
            self._grow(chance)
        elif draw < 0.9:
            self._end(chance)
        else:
            code = chance.choice(("empty_commit", "cleared", "reset", "gap", "commit_in_vad_mode", "new"))
            self._tell(Noticed(code, chance.choice(("", "e1"))))

    def _start(self, chance: random.Random) -> None:
        self._items += 1
        item = f"item_{self._items}"
        self._open.append(item)
        self._told[item] = self._deltas[item] = ""
        self._tell(ItemStarted(item, 100, chance.choice(("vad", "manual"))))

    def _grow(self, chance: random.Random) -> None:
        item = chance.choice(self._open)
        self._told[item] += chance.choice(("", "a", " b", "字", ". "))
        self._tell(ItemText(item, self._told[item], chance.choice(("", "c")), chance.choice(("", "en"))))

    def _end(self, chance: random.Random) -> None:
        item = self._open.pop(0)
        text = self._told.pop(item) + chance.choice(("", " tail"))
        transcript = chance.choice((text, text, text.upper(), ""))
        mode: Mode = chance.choice(("vad", "manual"))
        ends: list[list[SessionEvent]] = [
            [ItemAbandoned(item)],
            [ItemStopped(item, 100, 900, mode, "silence"), ItemFailed(item, "engine_failed", "No.")],
            [
                ItemStopped(item, 100, 900, mode, "silence"),
                ItemCompleted(item, transcript, "", "", 100, 900, 1.0, text),
            ],
        ]
        for event in chance.choices(ends, (1, 1, 4))[0]:
            self._tell(event)
        joined = self._deltas.pop(item)
        if joined and isinstance(event, ItemCompleted):
            assert joined in (transcript, text)

    def _tell(self, event: SessionEvent) -> None:
        for told in check_all(self.documented, self.dialect.send(event)):
            if told["type"] == DELTA:
                assert told["delta"]
                self._deltas[told["item_id"]] += told["delta"]

    # --- the end ----------------------------------------------------------------------------------------

    def finish(self, reason: str) -> None:
        self._open.clear()
        events = check_all(self.documented, self.dialect.send(SessionFinished(reason)))
        kinds = [event["type"] for event in events]
        assert kinds in ([], ["error"], ["session.finished"])
        assert not (self.closed and kinds), "it speaks after it has closed"
        if self.finishing and reason != "error":
            assert kinds == ["session.finished"]
        self.finishing = False

    def fail(self, trouble: Trouble) -> None:
        self.finishing = False
        self._close(self.dialect.fail(trouble))


def play(name: str, frames: Sequence[str | bytes], seed: int) -> Conversation:
    """Frames of one client, which connects again when it is over, and sessions that do things in between."""
    chance = random.Random(seed)
    conversation = _connect(name, chance)
    for frame in frames:
        conversation.say(frame)
        draw = chance.random()
        if draw < 0.3:
            conversation.happen(chance)
        elif conversation.finishing and draw < 0.6:
            conversation.finish("client")
        elif conversation.closed:
            conversation = _connect(name, chance)
    return conversation


def _connect(name: str, chance: random.Random) -> Conversation:
    mode: Mode = chance.choice(("vad", "manual"))
    return Conversation(name, mode, chance.choice(((), ("en",), ("zh", "en"))))
