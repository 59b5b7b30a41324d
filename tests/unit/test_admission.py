"""At the door: keys, rates, numbers, models."""

import hashlib
from typing import Any

import pytest

from services.ingress.admission import ANYBODY, Admission, Bucket
from services.ingress.door import key_of
from services.ingress.models import Models


class SomeFleet:
    def __init__(self, *, full: bool = False, able: bool = True) -> None:
        self.full, self.able = full, able

    def storage_full(self) -> bool:
        return self.full

    def can_serve(self, pool: str) -> bool:
        return self.able


def admission(keys: dict[str, str] | None = None, fleet: Any = None, **limits: Any) -> Admission:
    hashed = {hashlib.sha256(key.encode()).hexdigest(): tenant for key, tenant in (keys or {}).items()}
    return Admission(hashed, **{"rate": 5, "per_key": 3, "fleet": fleet or SomeFleet(), **limits})


def test_without_keys_everybody_is_let_in() -> None:
    assert admission().tenant(None) == admission().tenant("anything") == ANYBODY


def test_a_key_names_its_tenant_and_a_wrong_one_nobody() -> None:
    door = admission({"secret": "acme"})
    assert (door.tenant("secret"), door.tenant("Secret"), door.tenant(""), door.tenant(None)) == (
        "acme",
        None,
        None,
        None,
    )


def test_sessions_at_once_are_counted_by_tenant() -> None:
    door = admission({"k": "acme", "l": "other"}, rate=1000)
    for _ in range(3):
        assert not door.too_many("acme", "addr")
        door.entered("acme", "addr")
    assert door.too_many("acme", "addr")
    assert not door.too_many("other", "addr")
    door.left("acme", "addr")
    assert not door.too_many("acme", "addr")


def test_without_keys_sessions_are_counted_by_address() -> None:
    door = admission(per_key=1, rate=1000)
    door.entered(ANYBODY, "a")
    assert door.too_many(ANYBODY, "a")
    assert not door.too_many(ANYBODY, "b")


def test_without_keys_the_rate_is_by_address() -> None:
    door = admission(per_key=100)
    assert [door.too_many(ANYBODY, "a") for _ in range(7)] == [False] * 5 + [True] * 2
    assert not door.too_many(ANYBODY, "b")


def test_a_bucket_fills_up_with_time_and_not_above_its_size() -> None:
    bucket = Bucket(rate=2)
    start = bucket.at
    assert [bucket.take(start), bucket.take(start), bucket.take(start)] == [True, True, False]
    assert bucket.take(start + 0.5)
    assert [bucket.take(start + 100) for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize(
    ("fleet", "draining", "trouble"),
    [
        (SomeFleet(), False, None),
        (SomeFleet(able=False), False, "overloaded"),
        (SomeFleet(full=True, able=False), False, "storage_full"),
        (SomeFleet(), True, "draining"),
    ],
)
def test_trouble_has_a_name(fleet: SomeFleet, draining: bool, trouble: str | None) -> None:
    door = admission(fleet=fleet)
    door.draining = draining
    assert door.trouble("pool") == trouble


@pytest.mark.parametrize(
    ("headers", "query", "key"),
    [
        ({"authorization": "Bearer abc"}, {}, "abc"),
        ({"authorization": "bearer abc "}, {}, "abc"),
        ({"authorization": "Basic abc"}, {}, None),
        ({"authorization": "Bearer "}, {"api_key": "q"}, "q"),
        ({}, {"api_key": "q"}, "q"),
        ({"sec-websocket-protocol": "x, auricle-key.p"}, {}, "p"),
        ({}, {}, None),
    ],
)
def test_a_key_may_stand_in_three_places(
    headers: dict[str, str], query: dict[str, str], key: str | None
) -> None:
    assert key_of(headers, query) == key


def test_models_map_to_pools() -> None:
    models = Models({"fine-model": "vllm"}, "packaged")
    assert models.pool_of("fine-model") == "vllm"
    assert models.pool_of("qwen3-asr-flash-realtime") == "packaged"
    assert models.pool_of("qwen3-asr-flash-realtime-2026-02-10") == "packaged"
    assert models.pool_of("packaged") == "packaged"
    for name in ("gpt-4o-transcribe", "gpt-4o-mini-transcribe-2025-12-15", "gpt-transcribe", "whisper-1"):
        assert models.pool_of(name) == "packaged"
    assert models.pool_of("gpt-4o-transcribe-diarize") is None, "it would have to name speakers"
    assert models.pool_of("gpt-9") is models.pool_of("qwen3-asr-flash-realtime\n") is None
