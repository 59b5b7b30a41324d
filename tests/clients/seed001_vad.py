"""seeds/001, "VAD 模式": its session.update in the frame of its manual sample.

"持续发送音频，VAD 会自动检测语音边界": pieces of the file, header and all, then the documented session.finish.
"""
# ruff: noqa: ASYNC230 - the sample's own code

import asyncio
import base64
import json
import sys

import websockets

URL, FILE = sys.argv[1:]


async def recognize():
    async with websockets.connect(URL) as ws:
        await ws.recv()

        # 在 session.update 中启用 VAD
        await ws.send(
            json.dumps(
                {
                    "type": "session.update",
                    "session": {
                        "input_audio_format": "pcm",
                        "sample_rate": 16000,
                        "turn_detection": {
                            "type": "server_vad",
                            "threshold": 0.5,
                            "silence_duration_ms": 400,
                        },
                    },
                }
            )
        )

        # 持续发送音频
        with open(FILE, "rb") as f:
            while chunk := f.read(3200):
                audio_b64 = base64.b64encode(chunk).decode()
                await ws.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio_b64}))
        await ws.send(json.dumps({"type": "session.finish"}))

        while True:
            data = json.loads(await ws.recv())
            if data["type"] == "conversation.item.input_audio_transcription.completed":
                print(f"结果: {data['transcript']}")
            if data["type"] == "session.finished":
                break


asyncio.run(recognize())
