"""The stabiliser: confirmed text only grows, and text + stash is what the reader sees."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingress.stabiliser import Stabiliser, join_texts, tokenise

WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "Hello,",
    "don't",
    "3.5",
    "今天",
    "天气",
    "不错，",
    "。",
    "ไทย",
    "é",
]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=7).map(" ".join) | st.text(max_size=20)


def preview(stabiliser: Stabiliser) -> str:
    return stabiliser.confirmed + stabiliser.draft


def run(*texts: str) -> list[tuple[str, str] | None]:
    stabiliser = Stabiliser()
    return [stabiliser.hypothesis(0, 100 * (at + 1), text) for at, text in enumerate(texts)]


# --- words -----------------------------------------------------------------------------------------------


def test_a_word_is_confirmed_by_two_hypotheses_that_both_go_on_behind_it() -> None:
    assert run("the", "the cat", "the cat sat", "the cat sat on") == [
        ("", "the"),
        ("", "the cat"),
        ("the", " cat sat"),
        ("the cat", " sat on"),
    ]


def test_the_last_word_is_never_confirmed_even_with_punctuation_behind_it() -> None:
    assert run("I am go", "I am go.", "I am going home.")[1:] == [("I am", " go."), ("I am", " going home.")]


def test_characters_of_unspaced_scripts_count_as_words() -> None:
    assert run("今天", "今天天气", "今天天气不错", "今天天气不错，阳光")[1:] == [
        ("今", "天天气"),
        ("今天天", "气不错"),
        ("今天天气不", "错，阳光"),
    ]


def test_a_shrinking_draft_loses_nothing_confirmed() -> None:
    assert run("a b c d", "a b c d e", "a b") == [("", "a b c d"), ("a b c", " d e"), ("a b c", "")]


def test_the_same_preview_twice_is_no_news() -> None:
    assert run("one", "one", "one")[1:] == [None, None]


@pytest.mark.parametrize("stale", [(0, 200), (0, 100)])
def test_stale_hypotheses_are_ignored(stale: tuple[int, int]) -> None:
    stabiliser = Stabiliser()
    stabiliser.hypothesis(0, 200, "one two")
    assert stabiliser.hypothesis(*stale, "other words here") is None
    assert preview(stabiliser) == "one two"


# --- contradictions --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("confirming", "contradiction", "stash"),
    [
        ("Hello, how are", "hello how are you", " are you"),
        ("the cat sat on", "a the cat sat on mats", " on mats"),
        ("the cat sat on", "cat sat on mats", " on mats"),
        ("the cat sat on", "dogs bark some loud", " loud"),
        ("今天天气好", "明天天气好吗", "好吗"),
        ("不错，阳光好", "不错。阳光好", "好"),
    ],
)
def test_a_contradiction_keeps_what_is_confirmed_and_goes_on_behind_it(
    confirming: str, contradiction: str, stash: str
) -> None:
    stabiliser = Stabiliser()
    stabiliser.hypothesis(0, 1, confirming)
    stabiliser.hypothesis(0, 2, confirming)
    confirmed = stabiliser.confirmed
    assert confirmed
    stabiliser.hypothesis(0, 3, contradiction)
    assert (stabiliser.confirmed, stabiliser.draft) == (confirmed, stash)


def test_punctuation_that_came_to_be_doubted_is_not_doubled() -> None:
    stabiliser = Stabiliser()
    for end, text in enumerate(("well, no", "well, no", "well. no more")):
        stabiliser.hypothesis(0, end, text)
    assert (stabiliser.confirmed, stabiliser.draft) == ("well,", " no more")


def test_a_hypothesis_for_an_earlier_segment_is_stale() -> None:
    stabiliser = Stabiliser(first=0)
    stabiliser.hypothesis(1, 200, "two")
    assert stabiliser.hypothesis(0, 300, "one") is None


# --- segments --------------------------------------------------------------------------------------------


def test_finals_of_earlier_segments_are_a_confirmed_prefix() -> None:
    stabiliser = Stabiliser()
    stabiliser.hypothesis(4, 10, "hello there")
    assert stabiliser.final(4, "Hello there.") == ("Hello there.", "")
    assert stabiliser.hypothesis(5, 20, "how are") == ("Hello there.", " how are")
    assert stabiliser.hypothesis(5, 30, "how are you") == ("Hello there. how", " are you")


def test_a_later_segment_stays_a_draft_until_the_earlier_one_is_final() -> None:
    stabiliser = Stabiliser(first=0)
    stabiliser.hypothesis(1, 10, "two three four")
    assert stabiliser.hypothesis(1, 20, "two three four five") == ("", "two three four five")
    assert stabiliser.final(0, "One") == ("One two three", " four five")


def test_segments_in_chinese_are_joined_without_a_space() -> None:
    stabiliser = Stabiliser()
    stabiliser.final(0, "今天天气不错。")
    stabiliser.hypothesis(1, 10, "阳光")
    assert preview(stabiliser) == "今天天气不错。阳光"


def test_a_final_replaces_the_draft_and_a_hypothesis_after_it_is_late() -> None:
    stabiliser = Stabiliser()
    stabiliser.hypothesis(0, 1, "some draft")
    assert stabiliser.final(0, "Some text.") == ("Some text.", "")
    assert stabiliser.hypothesis(0, 2, "some text again") is None


def test_a_failed_segment_keeps_only_what_was_confirmed() -> None:
    stabiliser = Stabiliser()
    stabiliser.hypothesis(0, 1, "one two three")
    stabiliser.hypothesis(0, 2, "one two three")
    assert stabiliser.final(0, "") == ("one two", "")


@pytest.mark.parametrize(
    ("texts", "joined"),
    [
        (("a", "b"), "a b"),
        (("a", "", "b"), "a b"),
        (("今天。", "好"), "今天。好"),
        (("今天", "ok"), "今天ok"),
        (("안녕", "하세요"), "안녕 하세요"),
        ((), ""),
    ],
)
def test_join_texts(texts: tuple[str, ...], joined: str) -> None:
    assert join_texts(*texts) == joined


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Don't pay $3.50, ok?", ["Don't", " pay", " $", "3.50", ",", " ok", "?"]),
        ("今天 ok，走", ["今", "天", " ok", "，", "走"]),
        ("cafe\u0301 ที่", ["cafe\u0301", " ที่"]),
        ("e-mail: x", ["e-mail", ":", " x"]),
    ],
)
def test_tokens(text: str, tokens: list[str]) -> None:
    assert [token.text for token in tokenise(text)] == tokens


# --- properties ------------------------------------------------------------------------------------------


@given(st.text(max_size=60))
def test_tokens_joined_give_the_text(text: str) -> None:
    assert "".join(token.text for token in tokenise(text)) == text.rstrip()


FACTS = st.lists(
    st.tuples(st.booleans(), st.integers(0, 3), st.integers(0, 30), TEXTS),
    max_size=25,
)


@given(FACTS, st.sampled_from([None, 0, 1]))
def test_whatever_comes_in_whatever_order_confirmed_text_only_grows(
    facts: list[tuple[bool, int, int, str]], first: int | None
) -> None:
    stabiliser = Stabiliser(first)
    for is_final, k, end, text in facts:
        before = stabiliser.confirmed, stabiliser.draft
        told = stabiliser.final(k, text) if is_final else stabiliser.hypothesis(k, end, text)
        after = stabiliser.confirmed, stabiliser.draft
        assert after[0].startswith(before[0])
        assert told == (None if after == before else after)


@given(st.lists(TEXTS, min_size=1, max_size=10))
def test_what_is_not_confirmed_stands_in_the_stash(texts: list[str]) -> None:
    stabiliser = Stabiliser()
    for end, text in enumerate(texts):
        confirmed = stabiliser.confirmed
        stabiliser.hypothesis(0, end, text)
        if text.strip().startswith(confirmed):
            assert preview(stabiliser) == text.strip()
            assert stabiliser.draft or not text.strip()[len(confirmed) :]


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=12), st.data())
def test_a_growing_hypothesis_is_confirmed_up_to_its_last_words_and_its_final_is_its_text(
    words: list[str], data: st.DataObject
) -> None:
    stabiliser, text = Stabiliser(), " ".join(words)
    for end, size in enumerate(sorted(data.draw(st.lists(st.integers(1, len(words)), max_size=6)))):
        stabiliser.hypothesis(0, end, " ".join(words[:size]))
    stabiliser.final(0, text)
    assert (stabiliser.confirmed, stabiliser.draft) == (text, "")


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9), TEXTS), max_size=12))
def test_repeated_hypotheses_change_nothing(facts: list[tuple[int, int, str]]) -> None:
    once, twice = Stabiliser(0), Stabiliser(0)
    for k, end, text in facts:
        once.hypothesis(k, end, text)
        for _ in range(2):
            twice.hypothesis(k, end, text)
    assert (once.confirmed, once.draft) == (twice.confirmed, twice.draft)
