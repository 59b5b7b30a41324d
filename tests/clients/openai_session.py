"""One transcription session with the official `openai` package, in an environment of its own.

    python openai_session.py BASE_URL PCM MODE [SPEED]

PCM: a file of raw PCM16 at 24 kHz. MODE: vad, manual, wrong-key or wrong-model. It prints every event as the
package understood it, a JSON line each; the last line says how the connection ended.
Nothing but the base URL differs from a program for the vendor.
"""

import asyncio
import base64
import json
import sys
from pathlib import Path

from openai import AsyncOpenAI
from websockets.exceptions import ConnectionClosed

RATE = 24_000
CHUNK = RATE * 2 // 10
COMPLETED = "conversation.item.input_audio_transcription.completed"
PATIENCE_S = 30


async def speak(connection, pcm, mode, speed):
    turn_detection = None if mode == "manual" else {"type": "server_vad", "silence_duration_ms": 600}
    await connection.session.update(
        session={
            "type": "transcription",
            "audio": {
                "input": {
                    "format": {"type": "audio/pcm", "rate": RATE},
                    "transcription": {"model": "gpt-4o-mini-transcribe", "language": "en"},
                    "turn_detection": turn_detection,
                }
            },
        }
    )
    for start in range(0, len(pcm), CHUNK):
        audio = base64.b64encode(pcm[start : start + CHUNK]).decode()
        await connection.input_audio_buffer.append(audio=audio)
        await asyncio.sleep(0.1 / speed if speed else 0)
    if mode == "manual":
        await connection.input_audio_buffer.commit()


async def hear(connection):
    """Events until the first transcript; each is what the SDK made of it."""
    async for event in connection:
        print(json.dumps({"class": type(event).__name__, **event.to_dict()}), flush=True)
        if event.type == COMPLETED:
            return


async def main(pcm, url, mode):
    speed = float(sys.argv[4]) if len(sys.argv) > 4 else 0.0
    client = AsyncOpenAI(base_url=url, api_key="wrong" if mode == "wrong-key" else "secret")
    query = {"intent": "transcription", **({"model": "gpt-9"} if mode == "wrong-model" else {})}
    try:
        async with client.realtime.connect(extra_query=query) as connection, asyncio.timeout(PATIENCE_S):
            if mode.startswith("wrong"):
                await hear(connection)
            else:
                silence = bytes(0 if mode == "manual" else RATE * 2)
                await asyncio.gather(speak(connection, pcm + silence, mode, speed), hear(connection))
    except ConnectionClosed as closed:
        print(json.dumps({"closed": [closed.rcvd.code, closed.rcvd.reason] if closed.rcvd else None}))
    else:
        print(json.dumps({"closed": None}))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[2]).read_bytes(), sys.argv[1], sys.argv[3]))
