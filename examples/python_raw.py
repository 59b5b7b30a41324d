"""Live captions of a WAV file over a bare WebSocket: the whole protocol that a client needs, on one page.

    pip install websockets
    python python_raw.py speech.wav

The file: PCM16, mono, 16, 8, 24 or 48 kHz. A key goes into DASHSCOPE_API_KEY, if the server wants one.
"""
# ruff: noqa: T201 - captions are printed

import asyncio
import base64
import json
import os
import sys
import wave

from websockets.asyncio.client import ClientConnection, connect

URL = os.environ.get("AURICLE_URL", "ws://localhost:8001/api-ws/v1/realtime")
KEY = os.environ.get("DASHSCOPE_API_KEY", "none")
MODEL = "qwen3-asr-flash-realtime"


async def speak(socket: ClientConnection, path: str) -> None:
    async def send(kind: str, **fields: object) -> None:
        await socket.send(json.dumps({"type": kind, **fields}))

    with wave.open(path) as audio:
        rate = audio.getframerate()
        # Left out, turn_detection keeps the server's: it finds the utterances. None = they end where you commit.
        await send("session.update", session={"input_audio_format": "pcm", "sample_rate": rate})
        while chunk := audio.readframes(rate // 10):
            await send("input_audio_buffer.append", audio=base64.b64encode(chunk).decode())
            await asyncio.sleep(0.1)  # as a microphone would; a file may also be sent as fast as it is read
    await send("session.finish")  # what was said is still transcribed; then session.finished comes


async def caption(socket: ClientConnection) -> None:
    async for frame in socket:
        event = json.loads(frame)
        match event["type"].rpartition(".")[2]:
            case "text":  # text is settled, stash may still change
                print(f"\r\033[K{event['text']}{event['stash']}", end="", flush=True)
            case "completed":
                print(f"\r\033[K{event['transcript']}")
            case "failed" | "error":
                print(f"\r\033[K{event['error']['message']}", file=sys.stderr)
            case "finished":
                return


async def main(path: str) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    async with (
        connect(f"{URL}?model={MODEL}", additional_headers=headers) as socket,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(speak(socket, path))
        await caption(socket)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
