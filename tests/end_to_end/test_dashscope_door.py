"""Who is let in, who is turned away and how, what a hostile client gets (PROTOCOLS A.1, A.7; CONTRACTS 4)."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from services.cli.system import REALTIME_PATH
from shared.audio import SAMPLE_RATE
from tests.client import COMPLETED, STARTED, Client, connected
from tests.service import Service
from tests.speech import packaged_speech

MIB = 1 << 20
NO_EVENTS: tuple[str | bytes, ...] = ("{", "[]", "7", b"\x00\x01", "", '"x"', "null", "{}x", "nul")


async def refusal(url: str, key: str = "") -> tuple[int, dict[str, str]]:
    """Status and body of an upgrade that is refused."""
    with pytest.raises(InvalidStatus) as refused:
        async with connected(url, key=key):
            pass
    return refused.value.response.status_code, json.loads(refused.value.response.body)


async def error_of(client: Client, count: int = 1) -> dict[str, object]:
    error: dict[str, object] = (await client.until("error", count=count))["error"]
    return error


async def assert_serves(client: Client) -> None:
    """The session lives: it answers, and ends as it should."""
    await client.update(sample_rate=SAMPLE_RATE)
    assert (await client.finished())[-1]["type"] == "session.finished"


# --- HTTP ---------------------------------------------------------------------------------------------------


def test_http(service: Service) -> None:
    ready = httpx.get(f"{service.http}/ready")
    assert (ready.status_code, ready.json()) == (200, {"ready": True, "reasons": []})
    health = httpx.get(f"{service.http}/health").json()
    assert health["status"] == "healthy"
    datetime.fromisoformat(health["timestamp"])
    about = httpx.get(f"{service.http}/").json()
    assert about["service"] == "auricle"
    assert REALTIME_PATH in about["websockets"]


def test_the_ready_line_and_the_list_of_processes(service: Service) -> None:
    words = dict(word.split("=", 1) for word in service.ready_line.split()[2:])
    assert words["http"] == service.http
    assert words["ws"] == service.url
    roles = [(entry["role"], entry["index"]) for entry in service.processes()]
    assert sorted(roles) == [(role, 0) for role in ("asr_worker", "ingress", "nats", "vad_worker", "valkey")]
    assert service.entry("ingress")["ports"]["http"] == service.port


# --- before the upgrade -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/api-ws/v1/asr", "/", "/api-ws/v1/realtime/more", "/v1"])
async def test_an_unknown_path_is_404(service: Service, path: str) -> None:
    status, _ = await refusal(service.url.replace(REALTIME_PATH, path))
    assert status == 404


async def test_a_slash_at_the_end_is_forgiven(service: Service) -> None:
    async with connected(service.url + "/") as client:
        await assert_serves(client)


@pytest.fixture(scope="module")
def guarded(service: Service) -> Iterator[str]:
    """An ingress that wants keys, and few sessions of each."""
    settings = {"api_keys": "acme:secret, other:key", "rate_limit_rps": 1000, "max_sessions_per_key": 2}
    with service.another_ingress(**settings) as url:
        yield url


async def test_a_missing_or_wrong_key_is_401(guarded: str) -> None:
    for key in ("", "wrong", "Secret", "acme"):
        status, body = await refusal(guarded, key)
        assert (status, body["code"]) == (401, "InvalidApiKey")
        assert body["message"] == "Invalid API-key provided."
        assert body["request_id"]


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_a_key_in_the_header_opens(guarded: str, scheme: str) -> None:
    headers = {"Authorization": f"{scheme} secret", "OpenAI-Beta": "realtime=v1", "Origin": "http://x"}
    async with connect(guarded, additional_headers=headers, proxy=None) as socket:
        assert json.loads(await socket.recv())["type"] == "session.created"


async def test_a_key_where_headers_cannot_be_set(guarded: str) -> None:
    async with connected(guarded, api_key="secret") as client:
        await assert_serves(client)
    async with connect(guarded, subprotocols=["auricle-key.key"], proxy=None) as socket:  # type: ignore[list-item]
        assert json.loads(await socket.recv())["type"] == "session.created"


async def test_too_many_sessions_of_a_key_are_429_and_cut_ones_do_not_count(guarded: str) -> None:
    async with connected(guarded, key="secret") as first, connected(guarded, key="secret"):
        status, body = await refusal(guarded, "secret")
        assert (status, body["code"]) == (429, "Throttling.RateQuota")
        async with connected(guarded, key="key"):
            pass  # another tenant's
        first.socket.transport.abort()
        await let_in(guarded, "secret")


async def test_without_keys_each_address_has_its_own_limit(service: Service) -> None:
    with service.another_ingress(max_sessions_per_key=1) as url:
        async with connected(url):
            assert (await refusal(url))[0] == 429
            async with connected(url, source="127.0.0.2"):
                pass


async def let_in(url: str, key: str) -> None:
    """Try until it is noticed that a client has gone."""
    async with asyncio.timeout(10):
        while True:
            try:
                async with connected(url, key=key):
                    return
            except InvalidStatus as refused:
                status = refused.response.status_code
            assert status == 429


async def test_too_many_new_sessions_a_second_are_429(service: Service) -> None:
    with service.another_ingress(rate_limit_rps=1) as url:
        async with connected(url):
            assert (await refusal(url))[0] == 429


# --- after the upgrade --------------------------------------------------------------------------------------


async def test_an_unknown_model_is_told_and_closed_with_1007(service: Service) -> None:
    async with connected(service.url, model="gpt-9") as client:
        code, reason = await client.until_closed()
        [event] = client.events()
    assert (event["type"], event["error"]["code"]) == ("error", "model_not_found")
    assert event["error"]["param"] == "model"
    assert code == 1007
    assert "gpt-9" in reason


async def test_the_model_is_echoed_as_it_was_asked(service: Service) -> None:
    for model, shown in (
        ("qwen3-asr-flash-realtime-2025-10-27", "qwen3-asr-flash-realtime-2025-10-27"),
        ("", "qwen3-asr-flash-realtime"),
    ):
        async with connected(service.url, model=model) as client:
            assert client.events()[0]["session"]["model"] == shown


async def test_what_is_no_event_is_told_and_ten_in_a_row_end_the_connection(service: Service) -> None:
    async with connected(service.url) as client:
        for count, frame in enumerate(NO_EVENTS, 1):
            await client.socket.send(frame)
            error = await error_of(client, count)
            assert error["type"] == "invalid_request_error"
            assert error["code"] in ("invalid_json", "invalid_value")
        await client.update(sample_rate=SAMPLE_RATE)  # the count begins anew
        for _ in range(10):
            await client.socket.send("{")
        assert (await client.until_closed())[0] == 1007


async def test_events_that_make_no_sense_are_told_with_the_clients_id(service: Service) -> None:
    wrong: tuple[tuple[str, dict[str, object], str], ...] = (
        ("response.create", {}, "type"),
        ("input_audio_buffer.append", {"audio": "*"}, "audio"),
        ("input_audio_buffer.append", {"audio": 7}, "audio"),
        ("input_audio_buffer.commit", {}, "type"),
        ("session.update", {"session": {"sample_rate": 44_100}}, "session.sample_rate"),
    )
    async with connected(service.url) as client:
        for count, (kind, fields, param) in enumerate(wrong, 1):
            await client.send(kind, event_id=f"mine_{count}", **fields)
            error = await error_of(client, count)
            assert (error["code"], error["param"]) == ("invalid_value", param)
            assert error["event_id"] == f"mine_{count}"
        await assert_serves(client)


# --- sizes --------------------------------------------------------------------------------------------------


async def test_an_append_of_15_mib_is_accepted_and_a_longer_one_refused(service: Service) -> None:
    async with connected(service.url) as client:
        await client.send("input_audio_buffer.append", audio="A" * (15 * MIB))
        await client.send("input_audio_buffer.append", audio="A" * (15 * MIB + 4))
        error = await error_of(client)
        assert (error["code"], error["param"]) == ("invalid_value", "audio")
        await client.say(packaged_speech("two_cities.wav")[: 2 * SAMPLE_RATE * 4])
        await assert_serves(client)
        assert len(client.events("error")) == 1
        [start] = client.events(STARTED)
    silence_ms = 15 * MIB * 3 // 4 * 1000 // (2 * SAMPLE_RATE)
    assert 300 <= start["audio_start_ms"] - silence_ms <= 1500, "all of it was heard, once"


async def test_a_frame_over_17_mib_is_closed_with_1009(service: Service) -> None:
    async with connected(service.url) as client:
        with suppress(ConnectionClosed):  # it may come while we are still sending
            await client.send("input_audio_buffer.append", audio="A" * (17 * MIB))
        assert (await client.until_closed())[0] == 1009


async def test_a_client_that_never_reads_harms_nobody(service: Service) -> None:
    speech = packaged_speech("two_cities.wav")[: 2 * SAMPLE_RATE * 4]
    async with connected(service.url) as deaf, connected(service.url) as other:
        deaf.socket.transport.pause_reading()
        for client in (deaf, other):
            await client.say(speech)
            await client.finish()
        await other.until("session.finished")
        assert len(other.events(STARTED)) == len(other.events(COMPLETED)) == 1
        assert len(deaf.events()) == 1
        deaf.socket.transport.resume_reading()
        await deaf.until("session.finished")
    assert deaf.transcript() == other.transcript()
