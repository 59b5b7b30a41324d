"""One segment through one engine, and its outcome to whom it concerns.

Order: RESULTS (acknowledged), then the segment's ack, then Redis. A crash between any two steps repeats the
work, and the result's Msg-Id makes that harmless: one ordinal and slot, one outcome.
"""

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor

from services.asr_worker.claims import Claims
from services.asr_worker.engines.base import Engine, Hypothesis, Job
from services.asr_worker.guards import passes_text_filter
from shared import subjects
from shared.audio import pcm16_to_float
from shared.bus import Bucket, Bus, Delivery
from shared.errors import AudioExpired, BadMessage, BusUnavailable, EngineError, TransientError
from shared.facts import FactWriter
from shared.messages import (
    Outcome,
    Partial,
    PartialRequest,
    Segment,
    pack,
    read_vad_event,
    unpack,
)

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 5


class Handler:
    """What an ASR worker does with a delivery."""

    def __init__(self, bus: Bus, facts: FactWriter, engine: Engine, threads: int) -> None:
        self._bus = bus
        self._facts = facts
        self._engine = engine
        self._claims = Claims(bus)
        self._blobs = Bucket(bus, subjects.BLOBS)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="engine")

    async def final(self, delivery: Delivery) -> None:
        """A VAD event or a passed segment: recognise it if it is ours to recognise."""
        sid = subjects.session_of(delivery.subject)
        try:
            event = read_vad_event(delivery.data)
        except BadMessage as error:
            logger.error("unreadable segment", extra={"subject": delivery.subject, "error": str(error)})
            await self._bury(delivery, sid)
            await delivery.ack()
            return
        passed = ".passed." in delivery.subject
        if not isinstance(event, Segment) or "asr" not in event.needs or (event.gated and not passed):
            await delivery.ack()
            return
        outcome = await self._outcome(delivery, sid, event)
        seq, body = await self._publish(sid, outcome)
        await delivery.ack()
        self._facts.outcome(sid, unpack(Outcome, body), seq, body)

    async def partial(self, delivery: Delivery) -> None:
        """An interim request: one try, and silence when it fails."""
        await delivery.ack()  # first of all: it makes room for the session's next request
        sid = subjects.session_of(delivery.subject)
        try:
            request: PartialRequest = unpack(PartialRequest, delivery.data)
            self._claims.learn(sid, request.fresh)
            pcm = await self._claims.pcm(sid, request.claim)
            context = await self._context(request.context_hash)
            hypothesis, _ = await self._transcribe(
                Job(
                    audio=pcm16_to_float(pcm),
                    language=request.language,
                    context=context,
                    final=False,
                    session=sid,
                    ordinal=request.k,
                )
            )
        except (BadMessage, AudioExpired, BusUnavailable, EngineError) as error:
            logger.info("no partial", extra={"session": sid, "error": repr(error)})
            return
        self._facts.partial(
            sid,
            Partial(
                k=request.k,
                item=request.item,
                end=request.end,
                text=hypothesis.text,
                language=hypothesis.language,
            ),
        )

    async def _outcome(self, delivery: Delivery, sid: str, segment: Segment) -> Outcome:
        if delivery.attempt > MAX_ATTEMPTS:
            # It has taken workers down, or hung them, often enough: answer without trying.
            logger.error("segment given up", extra={"session": sid, "k": segment.k})
            await self._bury(delivery, sid)
            return self._failed(segment, delivery, "poison")
        try:
            pcm = await self._fetch(sid, segment)
        except (AudioExpired, BadMessage) as error:
            logger.error("audio gone", extra={"session": sid, "k": segment.k, "error": str(error)})
            return self._failed(segment, delivery, "audio_expired")
        job = Job(
            audio=pcm16_to_float(pcm),
            language=segment.language,
            context=await self._context(segment.context_hash),
            session=sid,
            ordinal=segment.k,
        )
        try:
            hypothesis, took_ms = await self._transcribe(job)
        except EngineError as error:
            logger.error("engine failed", extra={"session": sid, "k": segment.k, "error": str(error)})
            return self._failed(segment, delivery, "engine_failed")
        text = hypothesis.text if passes_text_filter(hypothesis.text, segment.min_text_length) else ""
        return Outcome(
            k=segment.k,
            ev=segment.ev,
            text=text,
            language=hypothesis.language or segment.language,
            emotion=hypothesis.emotion,
            words=hypothesis.words,
            engine=self._engine.traits.name,
            attempt=delivery.attempt,
            engine_ms=took_ms,
        )

    async def _fetch(self, sid: str, segment: Segment) -> bytes:
        """Trouble with the broker never counts against a segment: hold it and ask again."""
        while True:
            try:
                return await self._claims.pcm(sid, segment.claim)
            except BusUnavailable as error:
                logger.info("audio not readable", extra={"session": sid, "error": str(error)})
                await asyncio.sleep(0.2)

    async def _transcribe(self, job: Job) -> tuple[Hypothesis, float]:
        def timed() -> tuple[Hypothesis, float]:
            began = time.perf_counter()
            hypothesis = self._engine.transcribe(job)
            return hypothesis, (time.perf_counter() - began) * 1000

        return await asyncio.get_running_loop().run_in_executor(self._pool, timed)

    async def _context(self, context_hash: str) -> str:
        if not context_hash or not self._engine.traits.context:
            return ""
        try:
            entry = await self._blobs.get(context_hash)
        except BusUnavailable:
            return ""  # a hint only: text without it beats no text
        return entry.value.decode() if entry is not None and entry.value is not None else ""

    def _failed(self, segment: Segment, delivery: Delivery, reason: str) -> Outcome:
        return Outcome(
            k=segment.k,
            ev=segment.ev,
            status="failed",
            reason=reason,
            engine=self._engine.traits.name,
            attempt=delivery.attempt,
        )

    async def _publish(self, sid: str, outcome: Outcome) -> tuple[int, bytes]:
        """Store the outcome, or learn which one was stored before; what is stored is the truth."""
        body = pack(outcome)
        msg_id = f"{sid}:{outcome.k}:{outcome.slot}"
        while True:
            try:
                ack = await self._bus.publish(subjects.results(sid), body, msg_id=msg_id)
                if not ack.duplicate:
                    return ack.seq, body
                stored = await self._bus.get(subjects.RESULTS, ack.seq)
                return ack.seq, stored.data if stored is not None else body
            except TransientError as error:
                logger.warning("result not stored yet", extra={"session": sid, "error": str(error)})
                await asyncio.sleep(0.2)

    async def _bury(self, delivery: Delivery, sid: str) -> None:
        try:
            await self._bus.publish(subjects.dead(subjects.SEGMENTS, sid), delivery.data)
        except TransientError as error:
            logger.error("not copied to DEAD", extra={"session": sid, "error": str(error)})
