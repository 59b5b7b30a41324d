"""seeds/001, "Manual 模式", as it stands there; only the address and the file are arguments."""
# ruff: noqa: ASYNC230 - the sample's own code

import asyncio
import base64
import json
import sys

import websockets

URL, FILE = sys.argv[1:]


async def recognize():
    uri = URL

    async with websockets.connect(uri) as ws:
        # 1. 等待 session.created
        await ws.recv()

        # 2. 配置会话
        await ws.send(
            json.dumps(
                {
                    "type": "session.update",
                    "session": {
                        "input_audio_format": "pcm",
                        "sample_rate": 16000,
                        "turn_detection": None,  # Manual 模式
                    },
                }
            )
        )

        # 3. 发送音频
        with open(FILE, "rb") as f:
            audio_b64 = base64.b64encode(f.read()).decode()

        await ws.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio_b64}))

        # 4. 提交
        await ws.send(json.dumps({"type": "input_audio_buffer.commit"}))

        # 5. 获取结果
        while True:
            data = json.loads(await ws.recv())
            if data["type"] == "conversation.item.input_audio_transcription.completed":
                print(f"结果: {data['transcript']}")
                break


asyncio.run(recognize())
