"""What the way through the service costs in accuracy: nothing but what cutting costs; and noise is silent."""

import asyncio
from collections.abc import Iterable, Iterator

import pytest

from services.asr_worker.engines.base import Engine, Job
from services.asr_worker.engines.registry import load_engine
from services.ingress.stabiliser import join_texts
from services.vad_worker.detectors.registry import load_detector
from services.vad_worker.offline import claimed_pcm, segment_pcm
from shared.audio import pcm16_to_float
from shared.messages import Segment, SessionSettings
from tests.client import check_order, connected
from tests.service import Service
from tests.speech import Clip, clips, word_error_rate

pytestmark = [pytest.mark.data, pytest.mark.timeout(600)]

AT_ONCE = 6
SILENCE_MS = 800
ALLOWED = 0.015


@pytest.fixture(scope="module")
def url(service: Service) -> Iterator[str]:
    """Unpaced audio needs no partial texts, and they cost CPU."""
    with service.another_ingress(streaming_chunk_size_sec=30, rate_limit_rps=1000) as url:
        yield url


async def recognised(url: str, clip: Clip) -> str:
    """The transcript of a file, sent as fast as it is taken."""
    detection = {"type": "server_vad", "silence_duration_ms": SILENCE_MS}
    async with connected(url) as client:
        await client.update(turn_detection=detection)
        await client.say(clip.pcm())
        check_order(await client.finished())
        return client.transcript()


async def all_recognised(url: str, files: Iterable[Clip]) -> dict[str, str]:
    """Texts by the files' ids, several sessions at once."""
    waiting = list(files)
    texts: dict[str, str] = {}

    async def work() -> None:
        while waiting:
            clip = waiting.pop()
            texts[clip.id] = await recognised(url, clip)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(work())
    return texts


def alone(engine: Engine, files: Iterable[Clip]) -> dict[str, str]:
    """The same cuts through the same engine, without anything between."""
    longest_ms = min(SessionSettings().max_segment_ms, int(engine.traits.max_audio_s * 1000))
    settings = SessionSettings(silence_ms=SILENCE_MS, max_segment_ms=longest_ms)
    detector = load_detector("silero")
    texts = {}
    for clip in files:
        pcm = clip.pcm()
        claims = [e.claim for e in segment_pcm(pcm, settings, detector) if isinstance(e, Segment)]
        jobs = [Job(audio=pcm16_to_float(claimed_pcm(pcm, claim))) for claim in claims]
        texts[clip.id] = join_texts(*(engine.transcribe(job).text for job in jobs))
    return texts


async def test_speech_through_the_service_is_recognised_as_by_the_engine_alone(url: str) -> None:
    files = [clip for clip in clips("en") if not clip.hard]
    assert len(files) >= 50
    through = await all_recognised(url, files)
    engine = load_engine("packaged")
    try:
        direct = alone(engine, files)
    finally:
        engine.close()
    rate = word_error_rate((clip.text, through[clip.id]) for clip in files)
    rate_alone = word_error_rate((clip.text, direct[clip.id]) for clip in files)
    other = [clip.id for clip in files if through[clip.id] != direct[clip.id]]
    print(f"word error rate of {len(files)} files: {rate:.2%}; engine alone, cut the same: {rate_alone:.2%}")
    print(f"texts that differ: {len(other)} {other}")
    assert rate <= rate_alone + ALLOWED


async def test_noise_is_silent(url: str) -> None:
    noises = [clip for clip in clips("noise") if clip.vad_speech <= 0.05 and "babble" not in clip.id]
    assert len(noises) >= 5
    heard = {name: text for name, text in (await all_recognised(url, noises)).items() if text}
    print(f"text on {len(heard)} of {len(noises)} noise files")
    assert not heard
