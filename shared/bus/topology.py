"""Declares every stream and bucket. Every process calls it at its start; declaring twice changes nothing."""

import asyncio
import logging
from typing import Any

from shared.bus.client import ApiError, Bus
from shared.errors import BusUnavailable
from shared.subjects import BUCKETS, BucketSpec, StreamSpec, streams

logger = logging.getLogger(__name__)

_NS = 1_000_000_000
_PATIENCE = 100
_NO_SUCH_STREAM = 10059


async def declare(bus: Bus, *, max_bytes: int, max_age_s: float, replicas: int) -> None:
    """Create what is missing, update what differs. Raises ApiError when JetStream refuses for good."""
    for spec in streams(max_bytes, max_age_s):
        await _apply(bus, spec.name, _stream(spec, replicas))
    for bucket in BUCKETS:
        await _apply(bus, f"KV_{bucket.name}", _bucket(bucket, replicas))


def _stream(spec: StreamSpec, replicas: int) -> dict[str, Any]:
    return {
        "name": spec.name,
        "subjects": list(spec.subjects),
        "storage": spec.storage,
        "discard": spec.discard,
        "max_bytes": spec.max_bytes,
        "max_age": int(spec.max_age_s * _NS),
        "max_msgs_per_subject": spec.max_msgs_per_subject,
        "duplicate_window": int(spec.duplicate_window_s * _NS),
        "allow_direct": spec.allow_direct,
        "num_replicas": replicas,
        "retention": "workqueue" if spec.keeps_place else "limits",
        "discard_new_per_subject": spec.keeps_place,
    }


def _bucket(spec: BucketSpec, replicas: int) -> dict[str, Any]:
    return {
        "name": f"KV_{spec.name}",
        "subjects": [f"$KV.{spec.name}.>"],
        "storage": "file",
        "discard": "new",
        "max_bytes": spec.max_bytes,
        "max_age": int(spec.ttl_s * _NS),
        "max_msgs_per_subject": 1,
        "duplicate_window": 0 if not spec.ttl_s else int(min(spec.ttl_s, 120) * _NS),
        "allow_direct": True,
        "allow_rollup_hdrs": True,
        "allow_msg_ttl": True,
        "num_replicas": replicas,
    }


async def _apply(bus: Bus, name: str, config: dict[str, Any]) -> None:
    for attempt in range(_PATIENCE):
        try:
            await _create_or_update(bus, name, config)
        except BusUnavailable as error:
            # A cluster that has just started elects its leader first.
            if attempt == _PATIENCE - 1:
                raise
            logger.info("stream not declared yet", extra={"stream": name, "error": str(error)})
            await asyncio.sleep(min(0.1 * 2**attempt, 1.0))
        else:
            return


async def _create_or_update(bus: Bus, name: str, config: dict[str, Any]) -> None:
    # Asked first, because a repeated CREATE counts the stream's reservation of disk a second time.
    try:
        current = (await bus.stream_state(name))["config"]
    except ApiError as error:
        if error.code != _NO_SUCH_STREAM:
            raise
        await bus.api(f"STREAM.CREATE.{name}", config)
        return
    if any(current.get(key, default_of(value)) != value for key, value in config.items()):
        await bus.api(f"STREAM.UPDATE.{name}", {**current, **config})


def default_of(value: object) -> object:
    """JetStream leaves zero values out of what it reports."""
    return type(value)()
