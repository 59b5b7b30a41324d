"""Every stream, subject, bucket and consumer name, in one place."""

from dataclasses import dataclass
from typing import Literal

from shared.sessions import LANES, Lane, place_of

DEFAULT_PARTITIONS = 32

SEGMENTS = "SEGMENTS"
PARTIALS = "PARTIALS"
RESULTS = "RESULTS"
DEAD = "DEAD"

LEASES = "leases"
MEMBERS = "members"
CHECKPOINTS = "checkpoints"
BLOBS = "blobs"


def audio_stream(lane: Lane) -> str:
    return f"AUDIO_{lane.upper()}"


def audio(session_id: str) -> str:
    """The session log."""
    lane, partition = place_of(session_id)
    return f"audio.{lane}.{partition}.{session_id}"


def audio_partition(lane: Lane, partition: int) -> str:
    return f"audio.{lane}.{partition}.>"


def vad_events(session_id: str, pool: str) -> str:
    """The chain of VAD events; written by VAD workers only."""
    lane, partition = place_of(session_id)
    return f"segments.{lane}.{pool}.vad.{partition}.{session_id}"


def vad_partition(lane: Lane, partition: int) -> str:
    return f"segments.{lane}.*.vad.{partition}.>"


def vad_session(session_id: str) -> str:
    """The VAD events of a session whatever its pool."""
    lane, partition = place_of(session_id)
    return f"segments.{lane}.*.vad.{partition}.{session_id}"


def passed(session_id: str, pool: str) -> str:
    """Gated segments that the speaker worker let through; written by speaker workers only."""
    lane, partition = place_of(session_id)
    return f"segments.{lane}.{pool}.passed.{partition}.{session_id}"


def pool_segments(lane: Lane, pool: str) -> list[str]:
    """What an ASR worker of ``pool`` consumes."""
    return [f"segments.{lane}.{pool}.vad.>", f"segments.{lane}.{pool}.passed.>"]


def asr_consumer(lane: Lane, pool: str) -> str:
    return f"asr-{pool}-{lane}"


def partials(session_id: str, pool: str) -> str:
    return f"partials.{pool}.{session_id}"


def pool_partials(pool: str) -> str:
    return f"partials.{pool}.>"


def partials_consumer(pool: str) -> str:
    return f"partials-{pool}"


def results(session_id: str) -> str:
    return f"results.{session_id}"


def dead(stream: str, session_id: str) -> str:
    return f"dead.{stream}.{session_id}"


def session_of(subject: str) -> str:
    """The session id is the last token of every subject of ours."""
    return subject.rpartition(".")[2]


def lease_key(partition: int) -> str:
    return f"p.{partition}"


def member_key(role: str, name: str) -> str:
    return f"{role}.{name}"


def checkpoint_key(partition: int, session_id: str) -> str:
    return f"c.{partition}.{session_id}"


def low_water_key(lane: Lane, partition: int) -> str:
    return f"p.{partition}.{lane}"


def suspicion_key(partition: int) -> str:
    return f"s.{partition}.suspicion"


@dataclass(frozen=True, kw_only=True)
class StreamSpec:
    """A stream's declaration; ages in seconds, sizes in bytes, 0 = no limit."""

    name: str
    subjects: tuple[str, ...]
    storage: Literal["file", "memory"] = "file"
    discard: Literal["new", "old"] = "new"
    max_bytes: int = -1
    max_age_s: float = 0
    max_msgs_per_subject: int = -1
    keeps_place: bool = False
    """A work queue in which a second message of a subject is refused while the first one waits."""
    duplicate_window_s: float = 120
    allow_direct: bool = True


@dataclass(frozen=True, kw_only=True)
class BucketSpec:
    """A key-value bucket; ``ttl_s`` 0 = kept for ever."""

    name: str
    ttl_s: float = 0
    max_bytes: int = 256 << 20


def streams(max_bytes: int, max_age_s: float) -> list[StreamSpec]:
    """All streams. ``max_bytes`` and ``max_age_s`` bound the recording, which is what replay reads.

    Audio takes nearly all of the space: a live day of one session is 2.8 GB of PCM and a few MB of events.
    """
    return [
        *(
            StreamSpec(
                name=audio_stream(lane),
                subjects=(f"audio.{lane}.>",),
                max_bytes=int(max_bytes * (0.55 if lane == "live" else 0.25)),
                max_age_s=max_age_s,
            )
            for lane in LANES
        ),
        StreamSpec(name=SEGMENTS, subjects=("segments.>",), max_bytes=max_bytes // 10, max_age_s=max_age_s),
        StreamSpec(
            name=RESULTS,
            subjects=("results.>",),
            max_bytes=max_bytes // 20,
            duplicate_window_s=600,
            max_age_s=max_age_s,
        ),
        StreamSpec(
            name=PARTIALS,
            subjects=("partials.>",),
            storage="memory",
            max_bytes=64 << 20,
            max_age_s=3,
            max_msgs_per_subject=1,
            # Were a waiting request replaced, its session would lose its place in the queue each time: when the
            # engines are busy, some sessions would never see a draft.
            keeps_place=True,
            duplicate_window_s=1,
        ),
        StreamSpec(
            name=DEAD, subjects=("dead.>",), discard="old", max_bytes=max_bytes // 20, max_age_s=max_age_s
        ),
    ]


BUCKETS = [
    BucketSpec(name=LEASES),
    BucketSpec(name=MEMBERS, ttl_s=10),
    BucketSpec(name=CHECKPOINTS),
    BucketSpec(name=BLOBS),
]
