"""The merge by example: one test per rule. The properties are in test_merge_properties.py."""

import pytest

from services.ingress.facts import Cursor, Facts
from services.ingress.merge import Merge, Stuck
from shared.errors import BadMessage
from shared.messages import Outcome, pack
from tests.unit.chains import Chain, EventFact, apply, hash_of, short


def advance(merge: Merge, facts: Facts) -> str:
    return " ".join(short(event) for event in merge.advance(facts))


def one_item() -> tuple[Chain, Facts, Merge]:
    """started0 segment0, nothing else."""
    chain, facts = Chain(), Facts()
    apply(facts, chain.started(), chain.segment())
    return chain, facts, Merge()


# --- cursor ---------------------------------------------------------------------------------------------


def test_a_cursor_reads_back_what_it_writes() -> None:
    assert str(Cursor(7, 3, 2)) == "7.3.2"
    assert Cursor.parse("7.3.2") == Cursor(7, 3, 2)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1.1",
        "1.1.1.1",
        "-1.0.0",
        "1.2.1",
        "3.1.2",
        "01.0.0",
        "1.0.0 ",
        "1e3.0.0",
        "٣.0.0",
        "9" * 16 + ".0.0",
    ],
)
def test_what_cannot_be_a_cursor_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a cursor"):
        Cursor.parse(text)


# --- order ----------------------------------------------------------------------------------------------


def test_an_outcome_waits_for_the_event_that_closes_its_ordinal() -> None:
    chain, facts, merge = Chain(), Facts(), Merge()
    started, segment = chain.started(), chain.segment()
    apply(facts, started, chain.outcome(0))
    assert advance(merge, facts) == "started0"
    apply(facts, segment)
    assert advance(merge, facts) == "segment0 asr0"


def test_finals_come_in_ordinal_order_while_events_go_on() -> None:
    chain, facts, merge = one_item()
    apply(facts, chain.started(), chain.segment(), chain.outcome(1))
    assert advance(merge, facts) == "started0 segment0 started1 segment1"
    apply(facts, chain.outcome(0))
    assert advance(merge, facts) == "asr0 asr1"


def test_an_ordinal_waits_for_all_that_it_needs_and_the_text_comes_last() -> None:
    chain, facts, merge = Chain(), Facts(), Merge()
    apply(facts, chain.segment(("asr", "verify")), chain.outcome(0))
    assert advance(merge, facts) == "segment0"
    assert merge.stuck(facts) == Stuck(ordinal=0)
    apply(facts, chain.outcome(0, "verify"))
    assert advance(merge, facts) == "verify0 asr0"


@pytest.mark.parametrize("status", ["failed", "rejected"])
def test_a_failed_or_rejected_text_ends_the_wait_for_the_rest(status: str) -> None:
    for other_is_there in (False, True):
        chain, facts, merge = Chain(), Facts(), Merge()
        apply(facts, chain.segment(("asr", "verify")), chain.outcome(0, status=status))
        if other_is_there:
            apply(facts, chain.outcome(0, "verify"))
        assert advance(merge, facts) == "segment0 asr0"


def test_dropped_and_abandoned_are_their_own_outcome() -> None:
    chain, facts, merge = Chain(), Facts(), Merge()
    apply(facts, chain.started(), chain.dropped(), chain.started(), chain.abandoned(), chain.finished())
    assert advance(merge, facts) == "started0 dropped0 started1 abandoned1 finished"
    assert merge.cursor == Cursor(5, 2, 2)


def test_finished_waits_for_the_last_outcome_and_nothing_follows() -> None:
    chain, facts, merge = one_item()
    apply(facts, chain.finished())
    assert advance(merge, facts) == "started0 segment0"
    apply(facts, chain.outcome(0))
    assert advance(merge, facts) == "asr0 finished"
    assert merge.finished
    apply(facts, chain.partial(9))
    assert advance(merge, facts) == ""
    assert (merge.missing(facts), bool(merge.stuck(facts))) == ([], False)


def test_the_lowest_sequence_wins() -> None:
    chain, facts, merge = one_item()
    first, second = chain.outcome(0, text="first"), chain.outcome(0, text="second")
    apply(facts, second, first)
    assert [e.text for e in merge.advance(facts) if isinstance(e, Outcome)] == ["first"]


# --- partials -------------------------------------------------------------------------------------------


def test_a_partial_needs_a_started_item_and_comes_after_it() -> None:
    chain, facts, merge = Chain(), Facts(), Merge()
    started = chain.started()
    apply(facts, chain.partial(5))
    assert advance(merge, facts) == ""
    apply(facts, started)
    assert advance(merge, facts) == "started0 partial0@5"


def test_partials_only_get_newer() -> None:
    chain, facts, merge = Chain(), Facts(), Merge()
    apply(facts, chain.started(), chain.partial(5))
    assert advance(merge, facts) == "started0 partial0@5"
    assert advance(merge, facts) == ""
    wiped = Facts()
    apply(wiped, chain.partial(4))
    assert advance(merge, wiped) == ""
    apply(wiped, chain.partial(6))
    assert advance(merge, wiped) == "partial0@6"


def test_a_partial_may_come_until_the_final_but_not_after() -> None:
    chain, facts, merge = one_item()
    late = chain.partial(5, k=0, item="item0")
    apply(facts, late)
    assert advance(merge, facts) == "started0 segment0 partial0@5"
    apply(facts, chain.outcome(0))
    assert advance(merge, facts) == "asr0"
    wiped = Facts()
    apply(wiped, chain.partial(6, k=0, item="item0"))
    assert advance(merge, wiped) == ""


def test_a_partial_of_a_cut_item_waits_for_the_text_before_it() -> None:
    chain, facts, merge = Chain(), Facts(), Merge()
    apply(facts, chain.started(), chain.segment(ends_item=False), chain.partial(9))
    assert advance(merge, facts) == "started0 segment0"
    apply(facts, chain.outcome(0))
    assert advance(merge, facts) == "asr0 partial1@9"


def test_a_partial_that_is_ahead_of_the_events_waits_for_them() -> None:
    chain, facts, merge = Chain(), Facts(), Merge()
    apply(facts, chain.started(), chain.partial(9, k=1))
    assert advance(merge, facts) == "started0"
    apply(facts, chain.segment(ends_item=False), chain.outcome(0))
    assert advance(merge, facts) == "segment0 asr0 partial1@9"


def test_a_partial_of_the_next_item_does_not_wait_for_the_last_final() -> None:
    chain, facts, merge = one_item()
    apply(facts, chain.started(), chain.partial(9))
    assert advance(merge, facts) == "started0 segment0 started1 partial1@9"


# --- resuming -------------------------------------------------------------------------------------------


def test_a_resumed_merge_never_guesses_what_an_ordinal_needs() -> None:
    chain, facts = Chain(), Facts(Cursor(1, 1, 0))
    segment = chain.segment(("asr", "verify"))
    apply(facts, chain.outcome(0))
    merge = Merge(Cursor(1, 1, 0))
    assert advance(merge, facts) == ""
    assert "v:0" in merge.missing(facts)
    apply(facts, segment)
    assert advance(merge, facts) == ""
    apply(facts, chain.outcome(0, "verify"))
    assert advance(merge, facts) == "verify0 asr0"


def test_needs_may_be_told_where_the_past_has_expired() -> None:
    chain, facts = Chain(), Facts(Cursor(500, 9, 8))
    apply(facts, chain.outcome(8))
    merge = Merge(Cursor(500, 9, 8), needs={8: ("asr",)})
    assert advance(merge, facts) == "asr8"
    assert merge.cursor == Cursor(500, 9, 9)
    assert [key for key in merge.missing(facts) if key.startswith("v")] == [
        f"v:{ev}" for ev in range(500, 506)
    ]


@pytest.mark.parametrize("lost", ["events", "outcomes"])
def test_a_resumed_merge_knows_a_dropped_ordinal_from_its_event_or_its_outcome(lost: str) -> None:
    chain, facts = Chain(), Facts(Cursor(1, 1, 0))
    apply(facts, chain.dropped())
    getattr(facts, lost).clear()
    merge = Merge(Cursor(1, 1, 0))
    assert advance(merge, facts) == ""
    assert merge.cursor == Cursor(1, 1, 1)


def test_the_past_may_come_in_any_order() -> None:
    chain, facts = Chain(), Facts(Cursor(3, 1, 0))
    past = [chain.started(), chain.segment(), chain.started()]
    apply(facts, *reversed(past), chain.outcome(0), chain.partial(5))
    assert advance(Merge(Cursor(3, 1, 0)), facts) == "asr0 partial1@5"


def test_an_item_that_was_open_at_the_cursor_gets_its_partials() -> None:
    chain, facts = Chain(), Facts(Cursor(2, 0, 0))
    apply(facts, chain.started(), chain.notice(), chain.partial(5))
    assert advance(Merge(Cursor(2, 0, 0)), facts) == "partial0@5"


def test_a_cursor_after_the_end_is_finished() -> None:
    chain, facts = Chain(), Facts(Cursor(1, 0, 0))
    apply(facts, chain.finished())
    merge = Merge(Cursor(1, 0, 0))
    assert advance(merge, facts) == ""
    assert merge.finished


def test_a_cursor_of_another_session_is_refused() -> None:
    chain, facts = Chain(), Facts(Cursor(1, 0, 0))
    apply(facts, chain.dropped())
    with pytest.raises(BadMessage):
        Merge(Cursor(1, 0, 0)).advance(facts)


def test_while_stepping_the_cursor_is_the_one_after_the_event() -> None:
    chain, facts, merge = Chain(), Facts(), Merge()
    apply(facts, chain.started(), chain.segment(("verify", "asr")))
    apply(facts, chain.outcome(0), chain.outcome(0, "verify"), chain.finished())
    steps = [f"{short(event)} {merge.cursor}" for event in merge.steps(facts)]
    # A client that has only `verify0` gets it again: the ordinal is one unit.
    assert steps == ["started0 1.0.0", "segment0 2.1.0", "verify0 2.1.0", "asr0 2.1.1", "finished 3.1.1"]


def test_a_merge_that_was_paused_goes_on_where_it_was() -> None:
    chain, facts, merge = Chain(), Facts(), Merge()
    apply(facts, chain.segment(("verify", "asr")), chain.outcome(0), chain.outcome(0, "verify"))
    seen = []
    for _ in range(3):
        for event in merge.steps(facts):
            seen.append(short(event))
            break
    assert seen == ["segment0", "verify0", "asr0"]


# --- what to read, when to worry, what to forget --------------------------------------------------------


def test_missing_names_the_next_keys_only() -> None:
    chain, facts, merge = one_item()
    assert merge.missing(facts)[:2] == ["o:0:asr", "o:1:asr"]
    assert advance(merge, facts) == "started0 segment0"
    keys = merge.missing(facts)
    assert keys[0] == "o:0:asr"
    assert [key for key in keys if key.startswith("v")] == [f"v:{ev}" for ev in range(2, 8)]
    assert len(keys) <= 16
    apply(facts, chain.outcome(0))
    assert "o:0:asr" not in merge.missing(facts)


def test_stuck_tells_a_hole_from_the_end() -> None:
    chain, facts, merge = Chain(), Facts(), Merge()
    assert not merge.stuck(facts)
    started, segment, more = chain.started(), chain.segment(), chain.started()
    apply(facts, more)
    assert advance(merge, facts) == ""
    assert merge.stuck(facts) == Stuck(hole=0)
    apply(facts, started, segment)
    assert advance(merge, facts) == "started0 segment0 started1"
    assert merge.stuck(facts) == Stuck(ordinal=0)


def test_an_outcome_of_an_ordinal_that_nobody_closed_is_a_hole() -> None:
    chain, facts, merge = Chain(), Facts(), Merge()
    chain.segment()
    apply(facts, chain.outcome(0))
    assert advance(merge, facts) == ""
    assert merge.stuck(facts) == Stuck(hole=0)


def test_the_floor_keeps_what_a_resume_needs() -> None:
    chain, facts, merge = Chain(), Facts(), Merge()
    apply(facts, chain.started(), chain.segment(), chain.started(), chain.notice())
    merge.advance(facts)
    assert merge.floor == (1, 0)  # the event that closed ordinal 0
    apply(facts, chain.outcome(0))
    merge.advance(facts)
    assert merge.floor == (2, 1)  # the event that began the open item
    apply(facts, chain.segment(), chain.outcome(1), chain.notice())
    merge.advance(facts)
    assert merge.floor == (4, 2)


def test_facts_are_bounded_and_what_was_refused_is_a_hole() -> None:
    chain, facts, merge = Chain(), Facts(window=8), Merge()
    for _ in range(50):
        chain.dropped()
    apply(facts, *chain.durable)
    assert (len(facts.events), len(facts.outcomes)) == (8, 8)
    merge.advance(facts)
    assert merge.stuck(facts) == Stuck(hole=8)
    assert not facts.events
    for _ in range(6):
        apply(facts, *chain.durable)
        merge.advance(facts)
    assert merge.cursor == Cursor(50, 50, 50)


def test_events_that_are_applied_again_do_not_pile_up_while_the_past_is_missing() -> None:
    chain, facts = Chain(), Facts(Cursor(1, 1, 0))
    chain.segment()
    apply(facts, chain.started(), chain.notice())
    merge = Merge(Cursor(1, 1, 0))
    assert advance(merge, facts) == "started1 notice"
    for _ in range(3):
        apply(facts, *chain.events[1:])
        assert advance(merge, facts) == ""
    assert not [ev for ev in facts.events if ev < 1]


# --- what cannot be --------------------------------------------------------------------------------------


def test_facts_under_the_wrong_number_are_an_error() -> None:
    facts = Facts()
    facts.apply_event(0, pack(Chain().started().event).replace(b"\xa2ev\x00", b"\xa2ev\x01"))
    with pytest.raises(BadMessage):
        Merge().advance(facts)
    _, facts, merge = one_item()
    facts.apply_outcome(0, "asr", 1, pack(Outcome(k=1)))
    with pytest.raises(BadMessage):
        merge.advance(facts)


def test_a_finish_that_could_never_come_is_an_error_not_a_silence() -> None:
    chain, facts, merge = Chain(), Facts(), Merge()
    finished = chain.finished().event
    apply(facts, EventFact(type(finished)(ev=0, closed=0, at=finished.at, ordinals=3, reason="")))
    with pytest.raises(BadMessage):
        merge.advance(facts)


# --- facts as fields -------------------------------------------------------------------------------------


def test_facts_absorb_their_own_fields() -> None:
    chain, facts = Chain(), Facts()
    apply(facts, chain.started(), chain.segment(("asr", "verify")), chain.outcome(0, "verify"))
    apply(facts, chain.started(), chain.partial(7), chain.dropped())
    copy = Facts()
    for field, value in (hash_of(facts) | {"lo": b"0.0", "w": b"1|x"}).items():
        copy.absorb(field, value)
    assert hash_of(copy) == hash_of(facts)


@pytest.mark.parametrize(
    ("field", "value"),
    [("v:x", b""), ("o:1:asr", b"nope"), ("p", b"1|2"), ("o:x:asr", b"1|"), ("p", b"a|1|")],
)
def test_what_is_no_fact_is_an_error(field: str, value: bytes) -> None:
    with pytest.raises(BadMessage):
        Facts().absorb(field, value)
