"""The Lua function on a real server: it does to the hash what ``Facts`` does in memory, and wakes who listens."""

from collections.abc import Iterator
from importlib import resources
from itertools import count
from typing import Any

import msgpack
import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from services.ingress.facts import Facts
from tests.servers import ValkeyServer
from tests.unit.chains import hash_of

Op = tuple[str | int | bytes, ...]

SCRIPT = resources.files("shared").joinpath("commit.lua").read_text()
_numbers = count()


class Server:
    """One session's view of a shared server, spoken to as plainly as possible."""

    def __init__(self, port: int) -> None:
        self.redis = redis.Redis(port=port)
        self._commit = self.redis.register_script(SCRIPT)
        self.use_new_session()

    def use_new_session(self) -> None:
        self.sid = f"sess_{next(_numbers)}"
        self.key = f"f:{{{self.sid}}}"

    def commit(self, *ops: Op) -> int:
        return self._commit(keys=[self.key], args=[60, *(argument for op in ops for argument in op)])

    def state(self) -> dict[str, bytes]:
        return {field.decode(): value for field, value in self.redis.hgetall(self.key).items()}

    def listen(self, *channels: str) -> "Ear":
        return Ear(self.redis, channels)


class Ear:
    """A subscription. What a commit announced stands in it when the commit has returned: no waiting."""

    def __init__(self, client: redis.Redis, channels: tuple[str, ...]) -> None:
        self._client = client
        self._pubsub = client.pubsub(ignore_subscribe_messages=False)
        self._pubsub.subscribe(*channels, "fence")
        for _ in (*channels, "fence"):
            self._pubsub.get_message(timeout=5)

    def heard(self) -> list[tuple[str, Any]]:
        """(channel, content) of everything up to now."""
        self._client.publish("fence", b"")
        messages = []
        while (message := self._pubsub.get_message(timeout=5)) and message["channel"] != b"fence":
            channel, data = message["channel"].decode(), message["data"]
            messages.append((channel, data if channel == "w:orphans" else msgpack.unpackb(data, raw=True)))
        return messages


@pytest.fixture(scope="module")
def module_server(shared_valkey: ValkeyServer) -> Server:
    return Server(shared_valkey.port)


@pytest.fixture
def server(module_server: Server) -> Iterator[Server]:
    module_server.use_new_session()
    yield module_server
    module_server.redis.flushall()


# --- the twin of Facts ----------------------------------------------------------------------------------

small = st.integers(0, 6)
bodies = st.sampled_from([b"", b"a", b"|x|", b"\x00\xff\r\n"])
ops: st.SearchStrategy[Op] = st.one_of(
    st.tuples(st.just("v"), small, st.sampled_from([-1, -1, 0, 1, 2, 3]), bodies),
    st.tuples(st.just("o"), small, st.sampled_from(["asr", "verify", "label"]), st.integers(1, 9), bodies),
    st.tuples(st.just("p"), small, st.integers(0, 9), bodies),
    st.tuples(st.just("t"), st.integers(0, 9), small),
)


def apply_to(facts: Facts, op: Op) -> bool:
    match op:
        case "v", ev, closes, body:
            return facts.apply_event(ev, body, None if closes == -1 else closes)
        case "o", k, slot, seq, body:
            return facts.apply_outcome(k, slot, seq, body)
        case "p", k, end, body:
            return facts.apply_partial(k, end, body)
        case "t", ev, k:
            return facts.trim(ev, k)
    raise AssertionError(op)


@given(st.lists(st.lists(ops, min_size=1, max_size=5), max_size=12))
@settings(max_examples=300, deadline=None)
def test_the_hash_is_what_facts_are(module_server: Server, batches: list[list[Op]]) -> None:
    module_server.use_new_session()
    facts = Facts()
    for batch in batches:
        assert module_server.commit(*batch) == sum([apply_to(facts, op) for op in batch])
        assert module_server.state() == hash_of(facts)
    module_server.redis.delete(module_server.key)


def test_a_long_trim_after_a_wipe_looks_at_what_is_there(server: Server) -> None:
    server.commit(
        ("v", 5, -1, b"old"), ("o", 4, "verify", 1, b"old"), ("v", 10**9, -1, b"new"), ("w", 1, "in.1")
    )
    assert server.commit(("t", 10**9, 10**6)) == 1
    assert server.state() == {f"v:{10**9}": b"new", "lo": b"1000000000.1000000", "w": b"1|in.1"}


def test_large_numbers_stay_exact(server: Server) -> None:
    seq = 2**53 - 1
    assert server.commit(("o", 0, "asr", seq, b"later")) == 1
    assert server.commit(("o", 0, "asr", seq - 1, b"earlier")) == 1
    assert server.commit(("t", 10**15 - 1, 0)) == 1
    assert server.state() == {"o:0:asr": b"%d|earlier" % (seq - 1), "lo": b"%d.0" % (10**15 - 1)}


def test_facts_outlive_their_last_change_by_the_given_time(server: Server) -> None:
    server.commit(("v", 0, -1, b"x"))
    assert 0 < server.redis.ttl(server.key) <= 60


def test_an_unknown_operation_is_an_error(server: Server) -> None:
    with pytest.raises(redis.ResponseError, match="unknown operation"):
        server.commit(("z", 1))


# --- who is told ----------------------------------------------------------------------------------------


def test_a_wake_carries_the_facts(server: Server) -> None:
    server.commit(("w", 3, "in.1"))
    ear = server.listen("in.1")
    server.commit(("v", 0, -1, b"started"))
    server.commit(("p", 0, 5, b"draft"))
    server.commit(("v", 1, 0, b"dropped"))
    server.commit(("o", 1, "asr", 7, b"text"), ("o", 1, "verify", 8, b"who"))
    sid = server.sid.encode()
    assert ear.heard() == [
        ("in.1", [sid, 3, [b"v:0", b"started"]]),
        ("in.1", [sid, 3, [b"p", b"0|5|draft"]]),
        ("in.1", [sid, 3, [b"v:1", b"dropped", b"o:0:asr", b"0|"]]),
        ("in.1", [sid, 3, [b"o:1:asr", b"7|text", b"o:1:verify", b"8|who"]]),
    ]


def test_a_repeated_fact_wakes_again_but_bare(server: Server) -> None:
    server.commit(("w", 1, "in.1"), ("v", 0, -1, b"x"), ("o", 0, "asr", 1, b"y"))
    ear = server.listen("in.1")
    server.commit(("v", 0, -1, b"x"))
    server.commit(("o", 0, "asr", 1, b"y"))
    assert ear.heard() == [("in.1", [server.sid.encode(), 1, []])] * 2


def test_what_is_no_news_wakes_nobody(server: Server) -> None:
    server.commit(("w", 1, "in.1"), ("o", 3, "asr", 1, b"y"))
    ear = server.listen("in.1", "w:orphans")
    server.commit(("p", 3, 9, b"late"))
    server.commit(("t", 1, 1))
    server.commit(("w", 1, "in.1"))
    assert ear.heard() == []


def test_a_flood_becomes_one_bare_wake(server: Server) -> None:
    server.commit(("w", 1, "in.1"))
    ear = server.listen("in.1")
    server.commit(*(("v", ev, -1, b"x") for ev in range(17)))
    assert ear.heard() == [("in.1", [server.sid.encode(), 1, []])]


def test_a_fact_without_listener_is_called_out(server: Server) -> None:
    server.commit(("w", 1, "in.1"))
    server.redis.flushall()
    ear = server.listen("in.1", "w:orphans")
    server.commit(("v", 5, -1, b"x"))
    assert ear.heard() == [("w:orphans", server.sid.encode())]
    server.commit(("w", 1, "in.1"))
    server.commit(("v", 6, -1, b"x"))
    assert [channel for channel, _ in ear.heard()] == ["in.1"]


def test_the_highest_epoch_listens_and_the_one_before_is_told(server: Server) -> None:
    ear = server.listen("in.1", "in.2")
    assert server.commit(("w", 1, "in.1")) == 1
    assert server.commit(("w", 2, "in.2")) == 1
    assert ear.heard() == [("in.1", [server.sid.encode(), 2, []])]
    assert server.commit(("w", 1, "in.1")) == 0
    assert server.commit(("w", 2, "in.2")) == 1  # it stands
    server.commit(("v", 0, -1, b"x"))
    assert [channel for channel, _ in ear.heard()] == ["in.2"]
