"""Live captions of a WAV file with Alibaba's own SDK: nothing but the URL differs from a program for DashScope.

    pip install dashscope
    python python_sdk.py speech.wav

The file: PCM16, mono, 16 or 8 kHz. A key goes into DASHSCOPE_API_KEY, if the server wants one.
"""
# ruff: noqa: T201 - captions are printed

import base64
import os
import sys
import time
import wave

from dashscope.audio.qwen_omni import MultiModality, OmniRealtimeCallback, OmniRealtimeConversation
from dashscope.audio.qwen_omni.omni_realtime import TranscriptionParams

URL = os.environ.get("AURICLE_URL", "ws://localhost:8001/api-ws/v1/realtime")
KEY = os.environ.get("DASHSCOPE_API_KEY", "none")
LANGUAGE = "en"


class Captions(OmniRealtimeCallback):
    """Called in a thread of the SDK."""

    def on_event(self, event):
        match event["type"].rpartition(".")[2]:
            case "text":  # text is settled, stash may still change
                print(f"\r\033[K{event['text']}{event['stash']}", end="", flush=True)
            case "completed":
                print(f"\r\033[K{event['transcript']}")
            case "failed" | "error":
                print(f"\r\033[K{event['error']['message']}", file=sys.stderr)


def main(path):
    conversation = OmniRealtimeConversation(
        model="qwen3-asr-flash-realtime", callback=Captions(), url=URL, api_key=KEY
    )
    with wave.open(path) as audio:
        conversation.connect()
        rate = audio.getframerate()
        conversation.update_session(
            output_modalities=[MultiModality.TEXT],
            transcription_params=TranscriptionParams(
                language=LANGUAGE, sample_rate=rate, input_audio_format="pcm"
            ),
        )
        while chunk := audio.readframes(rate // 10):
            conversation.append_audio(base64.b64encode(chunk).decode())
            time.sleep(0.1)  # as a microphone would; a file may also be sent as fast as it is read
    conversation.end_session()  # waits until everything is transcribed (since dashscope 1.25.8)
    conversation.close()


if __name__ == "__main__":
    main(sys.argv[1])
