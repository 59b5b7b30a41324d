"""The rules: which event a state calls for. Pure functions of the state that change nothing.

One rule per kind of trigger, in the table at the end. Each gives the *next* event; the caller applies it
and asks again, until there is none. A rule therefore looks at what is (an item open, a record answered),
never at what was decided a moment ago.
"""

import math
from collections.abc import Callable, Mapping

from services.vad_worker.detectors.base import WINDOW
from services.vad_worker.state import OpenItem, State, What
from services.vad_worker.track import Summary
from shared.audio import SAMPLE_RATE, ms_to_samples
from shared.messages import (
    Abandoned,
    AnyVadEvent,
    At,
    Cause,
    Claim,
    Dropped,
    Notice,
    Segment,
    SessionSettings,
    Started,
    VadFinished,
)
from shared.sessions import item_id

HYSTERESIS = 0.15
"""An open item hears voice from this much below the threshold on."""
TAIL = ms_to_samples(400)
"""Audio after the last voice that goes to the engine; the rest of the silence does not. Measured: 100 to
600 ms are alike within 0.5 points of word error rate, 400 was best."""
SPAN = ms_to_samples(400) // WINDOW
"""Windows that may hold the speech which announces an item."""
MIN_BUFFER = ms_to_samples(100)
"""Least audio of a manual item; at least this much stays behind a cut."""
_MIN_REST = SAMPLE_RATE
"""What a cut leaves of an item's length: shorter pieces are recognised badly."""
_MIN_PIECE = 8 * WINDOW
"""Every cut takes at least this much, whatever another version of this code has opened."""


def voice_threshold(settings: SessionSettings) -> float:
    """Probability below which a window of an open item is silence."""
    return max(settings.threshold - HYSTERESIS, settings.threshold / 2)


def claim_end(item: OpenItem, sample: int) -> int:
    """Where the audio worth recognising ends, as of ``sample``."""
    return min(sample, max(item.voice, item.start) + TAIL)


def decide(s: State) -> AnyVadEvent | None:
    """The next event that the trigger calls for, or None."""
    return None if s.finished else _RULES[s.trigger.what](s)


# --- one rule per trigger ---------------------------------------------------------------------------------


def _on_nothing(s: State) -> AnyVadEvent | None:
    return None


def _on_window(s: State) -> AnyVadEvent | None:
    item = s.open
    if item is None:
        return _announce(s)
    if item.mode == "vad" and s.trigger.reach - item.voice >= ms_to_samples(s.settings.silence_ms):
        return _close(s, item, s.trigger.reach, "silence")
    return _overlong(s, item)


def _on_commit(s: State) -> AnyVadEvent | None:
    if s.answered == s.trigger.seq:
        return None
    if s.open:
        return _overlong(s, s.open) or _close(s, s.open, s.trigger.reach, "commit")
    if started := _announce(s):
        return started
    if s.settings.mode == "vad":
        return _notice(s, "commit_in_vad_mode")
    return _notice(s, "empty_commit", s.trigger.reach - s.floor)


def _on_clear(s: State) -> AnyVadEvent | None:
    if s.answered == s.trigger.seq:
        return None
    code = "reset" if s.trigger.what == "reset" else "cleared"
    return _abandon(s, s.open, code) if s.open else _notice(s, code)


def _on_mode(s: State) -> AnyVadEvent | None:
    return None if s.answered == s.trigger.seq else _notice(s, "mode_error")


def _on_settings(s: State) -> AnyVadEvent | None:
    """A manual buffer has no silence to end at, so that a change to VAD ends it here."""
    if s.open and s.open.mode == "manual" and s.pending and s.pending.mode == "vad":
        return _overlong(s, s.open) or _close(s, s.open, s.trigger.reach, "commit")
    return None


def _on_gap(s: State) -> AnyVadEvent | None:
    if s.bridged == s.trigger.seq:
        return None
    if s.open:
        cause: Cause = "silence" if s.open.mode == "vad" else "max"
        return _overlong(s, s.open) or _close(s, s.open, max(s.trigger.reach, s.open.start), cause)
    return _notice(s, "gap", s.trigger.sample - s.trigger.reach)


def _on_finished(s: State) -> AnyVadEvent | None:
    if s.open and s.trigger.discard:
        return _abandon(s, s.open, "closed")
    if s.open:
        return _overlong(s, s.open) or _close(s, s.open, s.trigger.reach, "finish")
    started = None if s.trigger.discard else _announce(s)
    return started or VadFinished(ev=s.ev, closed=s.closed, at=_at(s), ordinals=s.k, reason=s.trigger.reason)


# --- what begins -------------------------------------------------------------------------------------------


def _announce(s: State) -> Started | None:
    """The item that is due to begin, while none is open."""
    if s.settings.mode == "manual":
        return _started(s, s.floor) if s.trigger.reach - s.floor >= MIN_BUFFER else None
    threshold = s.settings.threshold
    if s.carry and s.track.summary(s.floor, s.sample, threshold).speech:
        return _started(s, s.floor)
    if s.track.last < threshold:
        return None
    need = math.ceil(ms_to_samples(s.settings.min_speech_ms) / WINDOW)
    onset = s.track.onset(s.floor, threshold, min(max(need, 1), SPAN), SPAN)
    if onset is None:
        return None
    return _started(s, max(onset - ms_to_samples(s.settings.prefix_padding_ms), s.floor))


def _started(s: State, start: int) -> Started:
    item = item_id(s.session_id, s.k)
    mode = s.settings.mode
    return Started(ev=s.ev, closed=s.closed, at=_at(s), k=s.k, item=item, start=start, mode=mode)


# --- what ends ---------------------------------------------------------------------------------------------


def _overlong(s: State, item: OpenItem) -> AnyVadEvent | None:
    """Cut the open segment at its best pause if it is longer than a segment or its item may be.

    In VAD mode an item ends with the cut if a third of a segment would not fit in any more: better a new
    item at a good pause than a scrap at a bad one. In manual mode the client's buffer is one item as long
    as it may be.
    """
    segment = ms_to_samples(s.settings.max_segment_ms)
    item_end = item.begin + ms_to_samples(s.settings.max_item_ms)
    limit = max(min(item.start + segment, item_end), item.start + _MIN_PIECE)
    if s.trigger.reach <= limit:
        return None
    ends_item = item_end <= item.start + segment
    upper = min(limit, s.trigger.reach - MIN_BUFFER)
    if not ends_item:
        upper = min(upper, item_end - min(_MIN_REST, segment // 3))
    lower = item.start + (limit - item.start) * 2 // 3
    upper = max(upper, lower + 1)
    cut = s.track.pause(lower, upper) or s.track.boundary(upper)
    if item.mode == "vad" and cut + segment // 3 > item_end:
        ends_item = True
    return _close(s, item, cut, "max", ends_item=ends_item)


def _close(s: State, item: OpenItem, end: int, cause: Cause, *, ends_item: bool = True) -> Segment | Dropped:
    stop = end
    if item.mode == "vad" and cause != "max":
        stop = min(claim_end(item, end), item.start + ms_to_samples(s.settings.max_segment_ms))
    claim = s.frames.claim(item.start, stop)
    summary = s.track.summary(item.start, stop, s.settings.threshold)
    if reason := _unfit(s.settings, item, end, claim, summary):
        return _dropped(s, item, end, cause, ends_item, reason)
    return Segment(
        ev=s.ev,
        closed=s.closed + 1,
        at=_at(s),
        k=s.k,
        item=item.item,
        start=item.start,
        end=end,
        cause=cause,
        ends_item=ends_item,
        mode=item.mode,
        claim=claim,
        tenant=s.tenant,
        language=s.settings.language,
        context_hash=s.settings.context_hash,
        user=s.settings.user,
        min_text_length=s.settings.min_text_length,
        needs=s.settings.needs,
        gated=s.settings.gated,
        speech=summary.speech * WINDOW,
    )


def _unfit(settings: SessionSettings, item: OpenItem, end: int, claim: Claim, summary: Summary) -> str:
    """Why the segment is not worth an engine's time; empty = it is.

    Speech announced an item in VAD mode, perhaps by another version of this code: its first segment always
    counts as speech.
    """
    if claim.n == 0:
        return "gap"
    if summary.speech == 0 and (item.mode == "manual" or item.start > item.begin):
        return "no_speech"
    if end - item.start < ms_to_samples(settings.min_segment_ms):
        return "too_short"
    if summary.rms < settings.min_rms:
        return "too_quiet"
    if summary.speech < settings.min_speech_ratio * summary.windows:
        return "low_speech"
    return ""


def _dropped(s: State, item: OpenItem, end: int, cause: Cause, ends_item: bool, reason: str) -> Dropped:
    return Dropped(
        ev=s.ev,
        closed=s.closed + 1,
        at=_at(s),
        k=s.k,
        item=item.item,
        start=item.start,
        end=end,
        cause=cause,
        reason=reason,
        ends_item=ends_item,
        mode=item.mode,
    )


def _abandon(s: State, item: OpenItem, reason: str) -> Abandoned:
    return Abandoned(ev=s.ev, closed=s.closed + 1, at=_at(s), k=s.k, item=item.item, reason=reason)


def _notice(s: State, code: str, n: int = 0) -> Notice:
    return Notice(ev=s.ev, closed=s.closed, at=_at(s), code=code, event_id=s.trigger.event_id, n=n)


def _at(s: State) -> At:
    return At(seq=s.trigger.seq, sample=s.trigger.sample)


_RULES: Mapping[What, Callable[[State], AnyVadEvent | None]] = {
    "none": _on_nothing,
    "window": _on_window,
    "commit": _on_commit,
    "clear": _on_clear,
    "reset": _on_clear,
    "mode": _on_mode,
    "settings": _on_settings,
    "finished": _on_finished,
    "gap": _on_gap,
}
