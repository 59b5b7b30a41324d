"""seeds/003, "使用WebSocket API", Python, as it stands there; lines, blank lines and quotes are ours.

    python raw_websocket_client.py BASE_URL PCM vad|manual [LANGUAGE]

The address, the file, the mode and the language are arguments; without the last one it asks for Chinese, as the
sample does. It writes omni_tester.log into the folder it runs in.
"""
# ruff: noqa: PLW0603 - the sample's own code

# pip install websocket-client
import base64
import json
import logging
import logging.handlers
import os
import sys
import threading
import time
from datetime import datetime

import websocket

BASE_URL, FILE, MODE, LANGUAGE = [*sys.argv[1:], "zh"][:4]

logger = logging.getLogger(__name__)
logger.setLevel(logging.DEBUG)

API_KEY = os.environ.get("DASHSCOPE_API_KEY", "sk-xxx")
QWEN_MODEL = "qwen3-asr-flash-realtime"
baseUrl = BASE_URL
url = f"{baseUrl}?model={QWEN_MODEL}"
print(f"Connecting to server: {url}")

# 注意: 如果是非vad模式,建议持续发送的音频时长累加不超过60s
enableServerVad = MODE == "vad"
is_running = True  # 增加运行标志位

headers = ["Authorization: Bearer " + API_KEY, "OpenAI-Beta: realtime=v1"]


def init_logger():
    formatter = logging.Formatter("%(asctime)s|%(levelname)s|%(message)s")
    f_handler = logging.handlers.RotatingFileHandler(
        "omni_tester.log", maxBytes=100 * 1024 * 1024, backupCount=3
    )
    f_handler.setLevel(logging.DEBUG)
    f_handler.setFormatter(formatter)

    console = logging.StreamHandler()
    console.setLevel(logging.DEBUG)
    console.setFormatter(formatter)

    logger.addHandler(f_handler)
    logger.addHandler(console)


def on_open(ws):
    logger.info("Connected to server.")

    # 会话更新事件
    event_manual = {
        "event_id": "event_123",
        "type": "session.update",
        "session": {
            "modalities": ["text"],
            "input_audio_format": "pcm",
            "sample_rate": 16000,
            "input_audio_transcription": {
                # 语种标识,可选,如果有明确的语种信息,建议设置
                "language": LANGUAGE
                # 语料,可选,如果有语料,建议设置以增强识别效果
                # "corpus": {
                #     "text": ""
                # }
            },
            "turn_detection": None,
        },
    }
    event_vad = {
        "event_id": "event_123",
        "type": "session.update",
        "session": {
            "modalities": ["text"],
            "input_audio_format": "pcm",
            "sample_rate": 16000,
            "input_audio_transcription": {"language": LANGUAGE},
            "turn_detection": {"type": "server_vad", "threshold": 0.2, "silence_duration_ms": 800},
        },
    }
    if enableServerVad:
        logger.info(f"Sending event: {json.dumps(event_vad, indent=2)}")
        ws.send(json.dumps(event_vad))
    else:
        logger.info(f"Sending event: {json.dumps(event_manual, indent=2)}")
        ws.send(json.dumps(event_manual))


def on_message(ws, message):
    global is_running
    try:
        data = json.loads(message)
        logger.info(f"Received event: {json.dumps(data, ensure_ascii=False, indent=2)}")
        if data.get("type") == "conversation.item.input_audio_transcription.completed":
            logger.info(f"Final transcript: {data.get('transcript')}")
            logger.info("Closing WebSocket connection after completion...")
            is_running = False  # 停止音频发送线程
            ws.close()
    except json.JSONDecodeError:
        logger.error(f"Failed to parse message: {message}")


def on_error(ws, error):
    logger.error(f"Error: {error}")


def on_close(ws, close_status_code, close_msg):
    logger.info(f"Connection closed: {close_status_code} - {close_msg}")


def send_audio(ws, local_audio_path):
    time.sleep(3)  # 等待会话更新完成
    global is_running

    with open(local_audio_path, "rb") as audio_file:
        logger.info(f"文件读取开始: {datetime.now().strftime('%Y-%m-%d %H:%M:%S.%f')[:-3]}")
        while is_running:
            audio_data = audio_file.read(3200)  # ~0.1s PCM16/16kHz
            if not audio_data:
                logger.info(f"文件读取完毕: {datetime.now().strftime('%Y-%m-%d %H:%M:%S.%f')[:-3]}")
                if not enableServerVad and ws.sock and ws.sock.connected:
                    commit_event = {"event_id": "event_789", "type": "input_audio_buffer.commit"}
                    ws.send(json.dumps(commit_event))
                break

            if not ws.sock or not ws.sock.connected:
                logger.info("WebSocket已关闭,停止发送音频。")
                break

            encoded_data = base64.b64encode(audio_data).decode("utf-8")
            eventd = {
                "event_id": f"event_{int(time.time() * 1000)}",
                "type": "input_audio_buffer.append",
                "audio": encoded_data,
            }
            ws.send(json.dumps(eventd))
            logger.info(f"Sending audio event: {eventd['event_id']}")
            time.sleep(0.1)  # 模拟实时采集


# 初始化日志
init_logger()
logger.info(f"Connecting to WebSocket server at {url}...")

local_audio_path = FILE

ws = websocket.WebSocketApp(
    url, header=headers, on_open=on_open, on_message=on_message, on_error=on_error, on_close=on_close
)

thread = threading.Thread(target=send_audio, args=(ws, local_audio_path))
thread.start()
ws.run_forever()
