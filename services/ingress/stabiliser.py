"""Successive hypotheses for one item -> text that only grows, and a draft behind it.

A word is confirmed when two hypotheses in a row agree on it and both go on behind it. Where a later
hypothesis contradicts what was confirmed, the confirmed text stays and the hypothesis gives only what
follows: its words after the last place where the confirmed text's last words (four at most, then three, two,
one) stand in it near where they should; without such a place, after as many words as are confirmed.
"""

import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from itertools import takewhile
from typing import Literal, NamedTuple

Kind = Literal["space", "mark", "unspaced", "word", "attached"]

_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0xA4CF),  # radicals, kana, bopomofo, ideographs, Yi; and their punctuation
    (0xF900, 0xFAFF),  # compatibility ideographs
    (0xFE30, 0xFE4F),  # vertical punctuation
    (0xFF00, 0xFFEF),  # full-width forms
    (0x20000, 0x3FFFF),  # ideographs, later planes
)
"""Scripts written without spaces: there each character counts as a word."""
_INNER = frozenset("'’-.,:")
"""Marks that may stand inside a word or a number: don't, e-mail, 3.5, 10:30."""
_ANCHORS = (4, 3, 2, 1)
"""Lengths of runs of words by which a hypothesis is aligned."""


class Token(NamedTuple):
    text: str
    """With the space before it, so that tokens joined give the hypothesis."""
    word: str
    """For comparing; empty for punctuation."""


# --- text as tokens --------------------------------------------------------------------------------------


@lru_cache(maxsize=8192)
def kind_of(char: str) -> Kind:
    if char.isspace():
        return "space"
    category = unicodedata.category(char)
    if category in ("Mn", "Mc", "Me") or char == "\u200d":
        return "attached"
    if category[0] in "PS":
        return "mark"
    return "unspaced" if is_unspaced(char) else "word"


@lru_cache(maxsize=8192)
def is_unspaced(char: str) -> bool:
    code = ord(char)
    return any(low <= code <= high for low, high in _UNSPACED)


def tokenise(text: str) -> list[Token]:
    """Words, unspaced characters and punctuation marks, each with the space before it."""
    tokens: list[Token] = []
    start = at = 0
    while at < len(text):
        kind = kind_of(text[at])
        at += 1
        if kind == "space":
            continue
        if kind == "word":
            at = _word_end(text, at)
        while at < len(text) and kind_of(text[at]) == "attached":
            at += 1
        piece = text[start:at]
        tokens.append(Token(piece, "" if kind == "mark" else piece.strip().casefold()))
        start = at
    return tokens


def _word_end(text: str, at: int) -> int:
    while at < len(text):
        if kind_of(text[at]) in ("word", "attached"):
            at += 1
        elif text[at] in _INNER and kind_of(text[at + 1 : at + 2] or " ") == "word":
            at += 2
        else:
            break
    return at


def join_texts(*texts: str) -> str:
    """Texts of successive segments as one: with a space between, except next to an unspaced script."""
    joined = ""
    for text in texts:
        joined += separator(joined, text) + text
    return joined


def separator(before: str, after: str) -> str:
    """What belongs between two texts."""
    if not before or not after or before[-1].isspace() or after[0].isspace():
        return ""
    return "" if is_unspaced(before[-1]) or is_unspaced(after[0]) else " "


# --- one segment -----------------------------------------------------------------------------------------


class _Segment:
    """The confirmed text of one ordinal, and the newest draft behind it."""

    def __init__(self) -> None:
        self.confirmed: list[Token] = []
        self.draft: list[Token] = []
        self.end = -1
        self.closed = False

    @property
    def text(self) -> str:
        return _text(self.confirmed)

    @property
    def stash(self) -> str:
        return _text(self.draft)

    def hypothesis(self, text: str) -> None:
        draft = _continuation(self.confirmed, tokenise(text.strip()))
        agreed = _agreed(self.draft, draft)
        self.confirmed += draft[:agreed]
        self.draft = draft[agreed:]

    def close(self, text: str) -> None:
        """``text`` is final: all of it is confirmed that still fits."""
        self.confirmed += _continuation(self.confirmed, tokenise(text.strip()))
        self.draft = []
        self.closed = True


def _text(tokens: Sequence[Token]) -> str:
    return "".join(token.text for token in tokens)


def _agreed(before: Sequence[Token], now: Sequence[Token]) -> int:
    """How many tokens both start with, up to the last word of each: that one may still grow."""
    limit = min(_before_last_word(before), _before_last_word(now))
    pairs = zip(before[:limit], now, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0].text == pair[1].text, pairs))


def _before_last_word(tokens: Sequence[Token]) -> int:
    return max((at for at, token in enumerate(tokens) if token.word), default=0)


def _continuation(confirmed: Sequence[Token], hypothesis: list[Token]) -> list[Token]:
    """What ``hypothesis`` says after ``confirmed``."""
    size = len(confirmed)
    if [token.text for token in hypothesis[:size]] == [token.text for token in confirmed]:
        return hypothesis[size:]
    rest = hypothesis[_aligned(confirmed, hypothesis) :]
    if not confirmed[-1].word:
        # Punctuation is confirmed here already; another mark would stand beside it.
        rest = rest[next((at for at, token in enumerate(rest) if token.word), len(rest)) :]
    if rest:
        gap = separator(_text(confirmed), rest[0].text) if rest[0].word else ""
        rest[0] = rest[0]._replace(text=gap + rest[0].text)
    return rest


def _aligned(confirmed: Sequence[Token], hypothesis: Sequence[Token]) -> int:
    """The index in ``hypothesis`` behind the last confirmed word."""
    known = [token.word for token in confirmed if token.word]
    places = [at for at, token in enumerate(hypothesis) if token.word]
    heard = [hypothesis[at].word for at in places]
    words = _words_covered(known, heard)
    return places[words - 1] + 1 if words else 0


def _words_covered(known: Sequence[str], heard: Sequence[str]) -> int:
    """How many words of ``heard`` say what ``known`` says."""
    for size in _ANCHORS:
        anchor = known[-size:]
        if len(anchor) < size:
            continue
        # A lone word is found by chance far away, a run of four hardly ever.
        ends = range(max(size, len(known) - 2 * size), min(len(heard), len(known) + 2 * size) + 1)
        found = [end for end in ends if heard[end - size : end] == anchor]
        if found:
            return min(found, key=lambda end: abs(end - len(known)))
    return min(len(known), len(heard))


# --- an item ---------------------------------------------------------------------------------------------


class Stabiliser:
    """One item: its segments' hypotheses and finals, in any order, as confirmed text and draft."""

    def __init__(self, first: int | None = None) -> None:
        """``first``: the ordinal that the item begins with; if not given, the first one that is heard of.

        Ordinals before it are no part of the item, those that are skipped are still to come.
        """
        self._first = first
        self._segments: dict[int, _Segment] = {}
        self._newest = -1
        self.confirmed = ""
        self.draft = ""

    def hypothesis(self, k: int, end: int, text: str) -> tuple[str, str] | None:
        """A hypothesis for ordinal ``k`` up to sample ``end``; None if it is stale or changes nothing."""
        segment = self._open(k)
        if segment is None or k < self._newest or end <= segment.end:
            return None
        self._newest, segment.end = k, end
        segment.hypothesis(text)
        return self._compose()

    def final(self, k: int, text: str) -> tuple[str, str] | None:
        """The text that ordinal ``k`` came to (empty if it has none); None if that changes nothing."""
        segment = self._open(k)
        if segment is None:
            return None
        segment.close(text)
        return self._compose()

    def _open(self, k: int) -> _Segment | None:
        """The segment ``k``, unless it is closed."""
        if self._first is None:
            self._first = k
        segment = self._segments.setdefault(k, _Segment())
        return None if segment.closed else segment

    def _compose(self) -> tuple[str, str] | None:
        """Confirmed text ends in the first segment that has no final; all that stands behind it is draft."""
        first = self._first or 0
        ordered = [self._segments.get(k, _NOTHING) for k in range(first, max(self._segments) + 1)]
        closed = len(list(takewhile(lambda segment: segment.closed, ordered)))
        text = join_texts(*(segment.text for segment in ordered[: closed + 1]))
        drafts = [segment.text + segment.stash for segment in ordered[closed + 1 :]]
        stash = ""
        if closed < len(ordered) and ordered[closed].stash:
            # Within a segment the spaces are there already; only its very first word needs one.
            gap = "" if ordered[closed].text else separator(text, ordered[closed].stash)
            stash = gap + ordered[closed].stash
        for draft in drafts:
            stash += separator(text + stash, draft) + draft
        if (text, stash) == (self.confirmed, self.draft):
            return None
        self.confirmed, self.draft = text, stash
        return text, stash


_NOTHING = _Segment()
"""Stands for a segment that nothing is known of yet."""
