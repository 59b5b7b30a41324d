"""Guards on text: what loops become, and that nothing else is touched."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.asr_worker.guards import (
    collapse_repeats,
    is_subtitle_of_silence,
    passes_text_filter,
    speakable,
)
from tests.speech import clips

loopy_words = st.lists(
    st.sampled_from(["the", "best", "of", "Of,", "no", "No.", "five", "♪♪", "是", "—", "a"]), max_size=40
).map(" ".join)
loops = st.tuples(loopy_words, loopy_words, st.integers(1, 30), loopy_words).map(
    lambda parts: " ".join((parts[0], *[parts[1]] * parts[2], parts[3]))
)
any_text = st.one_of(st.text(max_size=80), loopy_words, loops, st.text("ab的 ", max_size=120))


LOOPS = {
    "best of the best of the best of": "best of the",
    "the best of the best of the best of the world": "the best of the world",
    "You, you, you, you, you,": "You,",
    "No, no, no.": "No.",
    "I want to be able to be able to be able to be able to": "I want to be able",
    "The first is the first is the first is the fir": "The first is",
    "So we were there, we were there, we were there, and then left": "So we were there, and then left",
    "nine " * 8: "nine",
    "啊" * 21 + "好": "啊好",
    "今天下午" * 20: "今天下午",
}
SPEECH = [
    "",
    "That's that, and that is that.",
    "again and again and again",
    "call five five five, one two three, one two three, one two three four",
    "0 0 0 0 0 0 0",
    "one of the best of the best of us",
    "啊" * 20,
    "对对对，今天下午三点开会。今天下午三点开会。",
    "  kept   as it is ",
]


@pytest.mark.parametrize("looped", LOOPS)
def test_a_loop_becomes_one_copy(looped: str) -> None:
    assert collapse_repeats(looped) == LOOPS[looped]


@pytest.mark.parametrize("text", SPEECH)
def test_what_people_say_stays(text: str) -> None:
    assert collapse_repeats(text) == text


@pytest.mark.data
def test_every_transcript_of_the_speech_set_stays() -> None:
    texts = [clip.text for clip in clips() if clip.text]
    assert texts
    assert [collapse_repeats(text) for text in texts] == texts


@given(any_text)
def test_collapsing_is_idempotent_and_never_lengthens(text: str) -> None:
    once = collapse_repeats(text)
    assert collapse_repeats(once) == once
    assert len(once) <= len(text)


@given(st.lists(st.text("abcdefghij", min_size=1, max_size=6), min_size=1, max_size=8), st.integers(3, 12))
def test_nothing_said_three_times_or_more_remains(gram: list[str], copies: int) -> None:
    assert len(collapse_repeats(" ".join(gram * copies)).split()) <= len(gram)


@given(st.lists(st.text(min_size=1, max_size=8), unique_by=str.casefold, max_size=60))
def test_text_whose_words_all_differ_stays(words: list[str]) -> None:
    text = " ".join(word for word in words if word.isalpha())
    assert collapse_repeats(text) == text


@given(any_text)
def test_speakable_text_is_empty_or_has_a_letter_or_digit(text: str) -> None:
    clean = speakable(text)
    assert clean == "" or any(map(str.isalnum, clean))
    assert speakable(clean) == clean


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("♪♪ ♪♪", ""),
        ("🎵❤🎵", ""),
        ("...", ""),
        ("♪ Hello there ♪", "Hello there"),
        (" Hi. ", "Hi."),
        ("2.", "2."),
    ],
)
def test_music_notes_and_marks_alone_are_no_text(text: str, clean: str) -> None:
    assert speakable(text) == clean


@pytest.mark.parametrize(
    "text", ["You", "you.", "Thank you.", "Thank you for watching!", "© transcript Emily Beynon"]
)
def test_subtitles_of_silence_are_known(text: str) -> None:
    assert is_subtitle_of_silence(text)


@pytest.mark.parametrize("text", ["", "You are right.", "Thank you, Mister Hale.", "谢谢"])
def test_other_text_is_no_subtitle_of_silence(text: str) -> None:
    assert not is_subtitle_of_silence(text)


@pytest.mark.parametrize(
    ("text", "min_length", "passes"),
    [
        ("", 0, True),
        ("", 2, False),
        ("好", 2, False),
        ("你好", 2, True),
        ("a", 1, True),
        ("。。。", 2, False),
        ("12345", 2, False),
        ("3 × 4 ÷ 2", 2, False),
        ("é!", 2, True),
        ("  a  ", 2, False),
        ("こん", 2, False),
        ("𠮷野", 2, True),
    ],
)
def test_the_text_filter_wants_length_and_a_chinese_or_latin_letter(
    text: str, min_length: int, passes: bool
) -> None:
    assert passes_text_filter(text, min_length) is passes
