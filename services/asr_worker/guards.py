"""Guards on recognised text: loops, subtitles of silence, and the minimum that a client may ask for.

Pure. The rule that keeps it sane: whatever a guard does to text that somebody really said must be harmless,
so thresholds lie beyond what speech does (numbers, which people do repeat, have one of their own).
"""

import re
from collections.abc import Sequence

LONGEST_LOOP = 8
"""Words in the longest n-gram that is looked at."""
LOOP_COPIES = 3
NUMBER_COPIES = 8
"""Digits are read out in runs ("five five five"): only a run that no number has is a loop."""

_NUMBERS = frozenset(
    ["oh", "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "double", "triple"]
)
_WORD_EDGES = re.compile(r"^\W+|\W+$")
_TRAILING_MARKS = re.compile(r"\W*$")
_CHARACTER_RUN = re.compile(r"(.)\1{20,}", re.DOTALL)
_PATTERN_RUN = re.compile(r"(.{2,20}?)\1{19,}", re.DOTALL)
_MUSIC = re.compile(r"[♩♪♫♬🎵🎶]+")
# Latin with its accented letters, without × and ÷; ideographs with their extensions.
_CHINESE_OR_LATIN = re.compile(
    r"[A-Za-z\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff"
    r"\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
_MARK_RUN = re.compile(r"([,;:，；：])\1+")
# What Moonshine and Whisper write on audio without speech: their training subtitles of silence.
_SUBTITLES_OF_SILENCE = frozenset(
    (
        *("you", "so", "the", "and", "oh", "okay", "yeah", "bye", "i'm"),
        *("thank you", "thank you for", "thank you for watching", "thanks for watching"),
        *("transcript emily beynon",),
    )
)


def collapse_repeats(text: str) -> str:
    """Loops of a decoder, reduced to one copy. Idempotent, never longer; normal text comes back as it is."""
    while True:
        shorter = _MARK_RUN.sub(r"\1", text)
        shorter = _CHARACTER_RUN.sub(r"\1", shorter)
        shorter = _PATTERN_RUN.sub(r"\1", shorter)
        shorter = _collapse_one_loop(shorter)
        if shorter == text:
            return text
        text = shorter


def speakable(text: str) -> str:
    """Text without music notes and loops; empty when neither letter nor digit is left."""
    if _MUSIC.search(text):
        text = " ".join(_MUSIC.sub(" ", text).split())
    text = collapse_repeats(text.strip())
    return text if any(map(str.isalnum, text)) else ""


def is_subtitle_of_silence(text: str) -> bool:
    """Is this what models write when nobody speaks? People say it too: ask only about doubtful audio."""
    return " ".join(key for key in map(_key, text.split()) if key) in _SUBTITLES_OF_SILENCE


def passes_text_filter(text: str, min_length: int) -> bool:
    """ASR_MIN_TEXT_LENGTH: so many characters, and at least one Chinese or Latin letter. 0 = no filter."""
    if min_length <= 0:
        return True
    return len(text.strip()) >= min_length and _CHINESE_OR_LATIN.search(text) is not None


def _collapse_one_loop(text: str) -> str:
    words = text.split()
    keys = [_key(word) or word for word in words]
    for size in range(1, min(LONGEST_LOOP, len(words) // 2) + 1):
        start = 0
        while start + 2 * size <= len(words):
            length = _run(keys, start, size)
            if length >= _loop_length(keys[start : start + size]):
                return " ".join(_without_loop(words, keys, start, size, length))
            start += max(1, length - size)  # no start inside this run can reach further than the run itself
    return text


def _key(word: str) -> str:
    return _WORD_EDGES.sub("", word).casefold()


def _run(keys: Sequence[str], start: int, size: int) -> int:
    """Words from ``start`` on that repeat with period ``size``."""
    end = start + size
    while end < len(keys) and keys[end] == keys[end - size]:
        end += 1
    return end - start


def _loop_length(gram: Sequence[str]) -> int:
    size = len(gram)
    if all(key in _NUMBERS or key.isdigit() for key in gram):
        return NUMBER_COPIES * size
    # A third copy that lacks its last word is the cut of a loop: "best of the best of the best of".
    return LOOP_COPIES * size - (1 if size >= LOOP_COPIES else 0)


def _without_loop(words: list[str], keys: list[str], start: int, size: int, length: int) -> list[str]:
    """Keep the first copy; what the last, incomplete copy began stays only where text follows it."""
    end, begun = start + length, length % size
    if end == len(words) - 1 and keys[end - size].startswith(keys[end]):
        end = len(words)  # the decoder's limit cut the loop within a word
    if end == len(words):
        begun = 0
    whole = start + length - length % size
    kept = words[start : start + size]
    # The last copy's punctuation, not the first's: "No, no, no." is "No."
    kept[-1] = _TRAILING_MARKS.sub("", kept[-1]) + _marks(words[whole - 1])
    return words[:start] + kept + words[whole : whole + begun] + words[end:]


def _marks(word: str) -> str:
    found = _TRAILING_MARKS.search(word)
    return found.group() if found else ""
