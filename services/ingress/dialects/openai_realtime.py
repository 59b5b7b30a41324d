"""OpenAI's Realtime transcription sessions (the GA protocol): one connection's state machine.

Deltas only ever add: what is confirmed goes out as it grows, the rest right before ``completed``, so that they
join to the transcript. Where the final pass corrects what is out already, they join to the same words as they
were told, and ``completed.transcript`` is the truth.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import orjson

from services.ingress.dialects.base import (
    AudioIn,
    ClearIn,
    Close,
    CommitIn,
    Configure,
    Denied,
    ItemAbandoned,
    ItemCompleted,
    ItemFailed,
    ItemStarted,
    ItemStopped,
    ItemText,
    Noticed,
    Refusal,
    Reply,
    Request,
    SessionEvent,
    SessionFinished,
    Trouble,
    Welcome,
)
from services.ingress.dialects.openai_config import (
    RATES,
    context_of,
    defaults,
    initial,
    language_of,
    session_object,
    session_settings,
)
from services.ingress.dialects.openai_requests import updated
from services.ingress.dialects.realtime import (
    ENDED_BY,
    ERROR_GRACE_MS,
    MAX_BAD_FRAMES,
    AudioError,
    Fields,
    Frames,
    Invalid,
    NewId,
    NoEvent,
    client_id,
    close_reason,
    decode_audio,
    new_event_id,
    quoted,
    read_event,
    user_item,
)
from shared.messages import AudioFormat

Requests = Sequence[Request]
Action = Literal["update", "append", "commit", "clear"]

ON_EVENT: Mapping[str, Action] = {
    "session.update": "update",
    "input_audio_buffer.append": "append",
    "input_audio_buffer.commit": "commit",
    "input_audio_buffer.clear": "clear",
}
"""There is one state: a client that has had enough hangs up."""
EMPTY_COMMIT = (
    "Error committing input audio buffer: buffer too small. Expected at least 100ms of audio, "
    "but buffer only has {ms:.2f}ms of audio."
)
_LEAST_MS = 100
_BUFFER = "input_audio_buffer."
_TRANSCRIPTION = "conversation.item.input_audio_transcription."
_CLOSED_BY: Mapping[Refusal, tuple[int, str, str]] = {
    "key": (3000, "invalid_api_key", "Incorrect API key provided."),
    "model": (4004, "model_not_found", "The model {model} does not exist or you do not have access to it."),
}
"""Why nobody is let in -> close code, code and message of the error before it."""
_DENIED_BY: Mapping[Refusal, tuple[int, str, str]] = {
    "limit": (429, "rate_limit_exceeded", "Rate limit reached: too many requests or too many sessions."),
    "path": (404, "not_found", "The requested path does not exist."),
}


class OpenAIRealtime:
    """Implements Dialect, and its class DialectClass."""

    audio = AudioFormat(sample_rate=RATES[0])
    model = "gpt-4o-transcribe"

    defaults = staticmethod(defaults)

    @staticmethod
    def refuse(why: Refusal, *, model: str = "", request_id: str = "") -> Denied | Close:
        if why in _DENIED_BY:
            status, code, message = _DENIED_BY[why]
            error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
            return Denied(status, orjson.dumps({"error": error, "request_id": request_id}).decode())
        closing, code, message = _CLOSED_BY[why]
        param = "model" if why == "model" else None
        frame = Frames(new_event_id).error(message.format(model=quoted(model)), code=code, param=param)
        return Close(closing, f"invalid_request_error.{code}", (frame,), ERROR_GRACE_MS)

    def __init__(self, welcome: Welcome, new_id: NewId = new_event_id) -> None:
        self._welcome = welcome
        self._frames = Frames(new_id, welcome.settings.idle_timeout_s)
        self._config = initial(welcome)
        self._closed = False
        self._told: Trouble | None = None
        self._bad_frames = 0
        self._last_committed: str | None = None
        self._deltas: dict[str, str] = {}
        """Open items -> what of their text is out."""
        self._buffered_ms = 0.0
        """Audio since the last commit or clear."""
        self._short_commits: deque[float] = deque(maxlen=100)
        """Milliseconds of commits that will be refused; only their messages hang on it."""
        self._actions: Mapping[Action, Callable[[Fields], Requests]] = {
            "update": self._update,
            "append": self._append,
            "commit": self._commit,
            "clear": self._clear,
        }

    def open(self) -> Sequence[str]:
        return (self._frames.frame("session.created", session=self._session()),)

    def _session(self) -> Fields:
        return session_object(self._config, self._welcome)

    # --- client -> session ------------------------------------------------------------------------------

    def receive(self, frame: str | bytes) -> Requests:
        if self._closed:
            return ()
        try:
            event = read_event(frame)
        except NoEvent as error:
            return self._bad_frame(self._frames.error(str(error), code=error.code))
        self._bad_frames = 0
        kind = event.get("type")
        action = ON_EVENT.get(kind) if isinstance(kind, str) else None
        return self._actions[action](event) if action else self._unknown(event)

    def _bad_frame(self, frame: str) -> Requests:
        self._bad_frames += 1
        if self._bad_frames < MAX_BAD_FRAMES:
            return (Reply((frame,)),)
        self._closed = True
        return (Close(1007, close_reason("Too many invalid messages."), (frame,)),)

    def _update(self, event: Fields) -> Requests:
        try:
            config = updated(self._config, event.get("session"), self._welcome)
        except Invalid as invalid:
            return self._refuse(str(invalid), invalid.param, event)
        self._config = config
        context = context_of(config.transcription) if self._welcome.takes_context else ""
        settings = session_settings(config, self._welcome)
        more = {"warnings": config.warnings} if config.warnings else {}
        return (
            Configure(settings, config.audio, context, client_id(event)),
            Reply((self._frames.frame("session.updated", session=self._session(), **more),)),
        )

    def _append(self, event: Fields) -> Requests:
        try:
            data = decode_audio(event.get("audio"))
        except AudioError as error:
            return self._refuse(str(error), "audio", event)
        self._buffered_ms += len(data) * 1000 / self._bytes_per_s()
        return (AudioIn(data),) if data else ()

    def _commit(self, event: Fields) -> Requests:
        if self._buffered_ms < _LEAST_MS and self._config.turn_detection is None:
            self._short_commits.append(self._buffered_ms)
        self._buffered_ms = 0.0
        return (CommitIn(client_id(event)),)

    def _bytes_per_s(self) -> int:
        audio = self._config.audio
        return audio.sample_rate * (2 if audio.codec == "pcm" else 1)

    def _clear(self, event: Fields) -> Requests:
        self._buffered_ms = 0.0
        return (ClearIn(client_id(event)),)

    def _unknown(self, event: Fields) -> Requests:
        supported = ", ".join(f"'{kind}'" for kind in ON_EVENT)
        message = f"Invalid value: {quoted(event.get('type'))}. Supported values are: {supported}."
        return self._refuse(message, "type", event)

    def invalid_audio(self, message: str, event_id: str) -> Sequence[str]:
        return (self._frames.error(message, param="audio", client_id=event_id),)

    def _refuse(self, message: str, param: str, event: Fields) -> Requests:
        return (Reply((self._frames.error(message, param=param, client_id=client_id(event)),)),)

    # --- session -> client ------------------------------------------------------------------------------

    def send(self, event: SessionEvent) -> Sequence[str]:
        match event:
            case ItemText():
                return self._grown(event.item, event.text)
            case ItemStarted():
                return self._started(event) if event.mode == "vad" else ()
            case ItemStopped():
                return self._stopped(event)
            case ItemCompleted():
                return self._completed(event)
            case ItemFailed():
                self._deltas.pop(event.item, None)
                error = {"type": "server_error", "code": event.code, "message": event.message, "param": None}
                return (self._about(event.item, _TRANSCRIPTION + "failed", content_index=0, error=error),)
            case ItemAbandoned():
                self._deltas.pop(event.item, None)
                return ()
            case Noticed():
                return self._noticed(event)
            case SessionFinished():
                if self._closed:
                    return ()
                self._closed, self._told = True, ENDED_BY.get(event.reason)
                return (self._frames.ending(self._told),) if self._told else ()

    def _about(self, item: str, kind: str, **fields: object) -> str:
        return self._frames.frame(kind, item_id=item, **fields)

    def _grown(self, item: str, text: str) -> Sequence[str]:
        """The part of ``text`` that is not out yet, if what is out is its beginning."""
        out = self._deltas.get(item, "")
        if text == out or not text.startswith(out):
            return ()
        self._deltas[item] = text
        return (self._about(item, _TRANSCRIPTION + "delta", content_index=0, delta=text[len(out) :]),)

    def _started(self, event: ItemStarted) -> Sequence[str]:
        return (self._about(event.item, _BUFFER + "speech_started", audio_start_ms=event.start_ms),)

    def _stopped(self, event: ItemStopped) -> Sequence[str]:
        previous, self._last_committed = self._last_committed, event.item
        item = user_item(event.item)
        frames = (
            self._about(event.item, _BUFFER + "committed", previous_item_id=previous),
            self._frames.frame("conversation.item.added", previous_item_id=previous, item=item),
            self._frames.frame("conversation.item.done", previous_item_id=previous, item=item),
        )
        if event.mode != "vad":
            return frames
        return (self._about(event.item, _BUFFER + "speech_stopped", audio_end_ms=event.end_ms), *frames)

    def _completed(self, event: ItemCompleted) -> Sequence[str]:
        fits = event.transcript.startswith(self._deltas.get(event.item, ""))
        rest = self._grown(event.item, event.transcript if fits else event.text)
        self._deltas.pop(event.item, None)
        language = event.language or language_of(self._config)
        more = {"languages": [{"code": language}]} if language else {}
        usage = {"type": "duration", "seconds": (event.end_ms - event.start_ms) / 1000}
        whole = self._about(
            event.item,
            _TRANSCRIPTION + "completed",
            content_index=0,
            transcript=event.transcript,
            usage=usage,
            **more,
        )
        return (*rest, whole)

    def _noticed(self, event: Noticed) -> Sequence[str]:
        """What is not named here (reset, gap) has no word in this protocol."""
        if event.code == "cleared":
            return (self._frames.frame(_BUFFER + "cleared"),)
        if event.code not in ("empty_commit", "commit_in_vad_mode"):
            return ()
        # While turns are detected, a commit ends the one that is open; where there is none, nothing was said.
        counted = event.code == "empty_commit" and self._short_commits
        ms = self._short_commits.popleft() if counted else 0.0
        code = "input_audio_buffer_commit_empty"
        return (self._frames.error(EMPTY_COMMIT.format(ms=ms), code=code, client_id=event.event_id),)

    def fail(self, trouble: Trouble) -> Close:
        self._closed = True
        return self._frames.closing(trouble, told=self._told == trouble)
