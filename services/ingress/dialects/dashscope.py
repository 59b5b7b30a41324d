"""The DashScope Qwen-ASR-Realtime protocol: one connection's state machine.

What a client may send in which state stands in ``ON_EVENT``; what is absent there is ``OTHERWISE``. Whether a
commit was empty, or where an item begins, is for the session to say.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Literal

from services.ingress.dialects.base import (
    AudioIn,
    ClearIn,
    Close,
    CommitIn,
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
from services.ingress.dialects.dashscope_audio import Intake, Piece
from services.ingress.dialects.dashscope_config import (
    engine_context,
    engine_language,
    initial,
    session_object,
    session_settings,
)
from services.ingress.dialects.dashscope_events import EMPTY_COMMIT, Events, refusal
from services.ingress.dialects.dashscope_requests import updated
from services.ingress.dialects.realtime import (
    ENDED_BY,
    MAX_BAD_FRAMES,
    AudioError,
    Fields,
    Invalid,
    NewId,
    NoEvent,
    client_id,
    close_reason,
    decode_audio,
    new_event_id,
    quoted,
    read_event,
)
from shared.messages import AudioFormat, SessionSettings

Requests = Sequence[Request]
Action = Literal["update", "append", "commit", "clear", "finish", "ignore", "unknown", "too_late"]


class State(Enum):
    LISTENING = "listening"
    FINISHING = "finishing"
    """The client has said that nothing follows; results are still to come."""
    FINISHED = "finished"
    CLOSED = "closed"


ON_EVENT: Mapping[State, Mapping[str, Action]] = {
    State.LISTENING: {
        "session.update": "update",
        "input_audio_buffer.append": "append",
        "input_audio_buffer.commit": "commit",
        "input_audio_buffer.clear": "clear",
        "session.finish": "finish",
    },
    State.FINISHING: {},
    State.FINISHED: {},
    State.CLOSED: {},
}
OTHERWISE: Mapping[State, Action] = {
    State.LISTENING: "unknown",
    # An error between session.finish and session.finished makes the SDK's end_session raise.
    State.FINISHING: "ignore",
    State.FINISHED: "too_late",
    State.CLOSED: "ignore",
}


class DashScope:
    """Implements Dialect, and its class DialectClass."""

    audio = AudioFormat()
    model = "qwen3-asr-flash-realtime"

    @staticmethod
    def defaults(settings: SessionSettings, _: str) -> SessionSettings:
        return settings

    refuse = staticmethod(refusal)

    def __init__(self, welcome: Welcome, new_id: NewId = new_event_id) -> None:
        self._welcome = welcome
        self._events = Events(new_id, welcome.settings.idle_timeout_s)
        self._state = State.LISTENING
        self._config = initial(welcome)
        self._format = self._config.format
        self._intake = Intake()
        self._bad_frames = 0
        self._last_committed: str | None = None
        self._told: Trouble | None = None
        self._actions: Mapping[Action, Callable[[Fields], Requests]] = {
            "update": self._update,
            "append": self._append,
            "commit": self._commit,
            "clear": self._clear,
            "finish": self._finish,
            "ignore": lambda event: (),
            "unknown": self._unknown,
            "too_late": self._too_late,
        }

    def open(self) -> Sequence[str]:
        return (self._events.created(session_object(self._config, self._welcome)),)

    # --- client -> session ------------------------------------------------------------------------------

    def receive(self, frame: str | bytes) -> Requests:
        try:
            event = read_event(frame)
        except NoEvent as error:
            return self._bad_frame(error.code, str(error))
        self._bad_frames = 0
        kind = event.get("type")
        action = ON_EVENT[self._state].get(kind) if isinstance(kind, str) else None
        return self._actions[action or OTHERWISE[self._state]](event)

    def _bad_frame(self, code: str, message: str) -> Requests:
        if self._state is not State.LISTENING:
            return self._actions[OTHERWISE[self._state]]({})
        self._bad_frames += 1
        frame = self._events.error(message, code=code)
        if self._bad_frames < MAX_BAD_FRAMES:
            return (Reply((frame,)),)
        return self._close(1007, "Too many invalid messages.", frame)

    def _update(self, event: Fields) -> Requests:
        try:
            config = updated(self._config, event.get("session"), self._welcome)
        except Invalid as invalid:
            return self._refuse(str(invalid), invalid.param, event)
        if config.format != self._config.format:
            # Otherwise a WAV file in hand keeps the format of its header.
            self._intake.restart()
            self._format = config.format
        self._config = config
        session = session_object(config, self._welcome)
        return (
            self._configure(client_id(event)),
            Reply((self._events.updated(session, list(config.warnings)),)),
        )

    def _configure(self, event_id: str = "") -> Configure:
        return Configure(
            settings=session_settings(self._config, self._welcome),
            format=self._format,
            context=engine_context(self._config, self._welcome),
            event_id=event_id,
        )

    def _append(self, event: Fields) -> Requests:
        audio = event.get("audio")
        if audio == "":
            return ()
        try:
            data = decode_audio(audio)
            if self._config.codec == "opus":
                return (AudioIn(data, event_id=client_id(event)),) if data else ()
            piece = self._intake.feed(data)
        except AudioError as error:
            return self._refuse(str(error), "audio", event)
        if piece is None:
            return ()
        heard = AudioIn(piece.audio, piece.skipped)
        if not (piece.rate or piece.first):
            return (heard,)
        return (*self._switch(piece), heard)

    def _switch(self, piece: Piece) -> Requests:
        """A WAV header decides over the format of its file, and no longer."""
        wanted = self._config.format
        if piece.rate:
            wanted = AudioFormat(codec=wanted.codec, sample_rate=piece.rate)
        if wanted == self._format:
            return ()
        self._format = wanted
        return (self._configure(),)

    def _commit(self, event: Fields) -> Requests:
        if self._config.turn is not None:
            message = (
                "Invalid value: 'input_audio_buffer.commit' is not available while turn_detection is set."
            )
            return self._refuse(message, "type", event)
        self._intake.restart()
        return (CommitIn(client_id(event)),)

    def _clear(self, event: Fields) -> Requests:
        self._intake.restart()
        return (ClearIn(client_id(event)),)

    def _finish(self, _: Fields) -> Requests:
        self._state = State.FINISHING
        return (FinishIn(),)

    def _unknown(self, event: Fields) -> Requests:
        supported = ", ".join(f"'{kind}'" for kind in ON_EVENT[State.LISTENING])
        message = f"Invalid value: {quoted(event.get('type'))}. Supported values are: {supported}."
        return self._refuse(message, "type", event)

    def _too_late(self, event: Fields) -> Requests:
        message = "The session is finished; open another connection."
        return self._close(1000, message, self._events.error(message, client_id=client_id(event)))

    def invalid_audio(self, message: str, event_id: str) -> Sequence[str]:
        return (self._events.error(message, param="audio", client_id=event_id),)

    def _refuse(self, message: str, param: str, event: Fields) -> Requests:
        return (Reply((self._events.error(message, param=param, client_id=client_id(event)),)),)

    def _close(self, code: int, reason: str, frame: str) -> Requests:
        self._state = State.CLOSED
        return (Close(code, close_reason(reason), (frame,)),)

    # --- session -> client ------------------------------------------------------------------------------

    def send(self, event: SessionEvent) -> Sequence[str]:
        match event:
            case ItemText():
                return (
                    self._events.text(event.item, self._language(event.language), event.text, event.stash),
                )
            case ItemStarted():
                return (self._events.started(event.item, event.start_ms),) if event.mode == "vad" else ()
            case ItemStopped():
                return self._stopped(event)
            case ItemCompleted():
                language = self._language(event.language)
                return (self._events.completed(event.item, language, event.emotion, event.transcript),)
            case ItemFailed():
                return (self._events.failed(event.item, event.code, event.message),)
            case Noticed():
                return self._noticed(event)
            case SessionFinished():
                return self._finished(event.reason)
            case ItemAbandoned():
                return ()

    def _stopped(self, event: ItemStopped) -> Sequence[str]:
        previous, self._last_committed = self._last_committed, event.item
        frames = (
            self._events.committed(event.item, previous),
            self._events.item_created(event.item, previous),
        )
        return (self._events.stopped(event.item, event.end_ms), *frames) if event.mode == "vad" else frames

    def _noticed(self, event: Noticed) -> Sequence[str]:
        """What is not named here (reset, gap) has no word in this protocol."""
        if event.code == "cleared":
            return (self._events.cleared(),)
        if event.code == "empty_commit":
            return (self._events.error(EMPTY_COMMIT, code=None, client_id=event.event_id),)
        return ()

    def _finished(self, reason: str) -> Sequence[str]:
        if self._state is State.CLOSED:
            return ()
        asked = self._state is State.FINISHING or reason == "client"
        self._state = State.FINISHED
        if asked and reason != "error":
            return (self._events.finished(),)
        self._told = ENDED_BY.get(reason)
        return (self._events.ending(self._told),) if self._told else ()

    def _language(self, heard: str) -> str:
        """An engine that was told a language names that one; one that could not be told must not contradict."""
        asked = self._config.language
        if asked and asked != engine_language(self._config, self._welcome):
            return asked
        return heard or asked

    def fail(self, trouble: Trouble) -> Close:
        said, self._state = self._state, State.CLOSED
        if said is State.FINISHED and self._told is None:
            return Close(1000, "")
        return self._events.closing(trouble, told=self._told == trouble)
