"""One session with the official SDK, in an environment of its own: prints every event it receives as a JSON line.

    python sdk_session.py URL PCM MODE [SPEED]

PCM: a file of raw PCM16 at 16 kHz. MODE: vad, manual, bare (no transcription_params: the SDK then says pcm16 and
no rate) or config (the newer way to name the format). Nothing but the URL differs from a program for the vendor.
"""

import base64
import json
import sys
import threading
import time
from pathlib import Path

from dashscope.audio.qwen_omni import MultiModality, OmniRealtimeCallback, OmniRealtimeConversation
from dashscope.audio.qwen_omni.omni_realtime import TranscriptionParams

MODEL = "qwen3-asr-flash-realtime"
CHUNK = 3200
SILENCE = bytes(CHUNK)
PATIENCE_S = 30


class Callback(OmniRealtimeCallback):
    def __init__(self):
        self.completed = threading.Event()

    def on_event(self, message):
        print(json.dumps(message, ensure_ascii=False), flush=True)
        if message["type"] == "conversation.item.input_audio_transcription.completed":
            self.completed.set()


def configure(conversation, mode):
    options = {"transcription_params": TranscriptionParams(language="en", corpus_text="Dickens")}
    if mode == "bare":
        options = {}
    if mode == "config":
        from dashscope.audio.qwen_omni.omni_realtime import AudioFormatConfig

        options = {"input_audio_config": AudioFormatConfig(type="pcm", sample_rate=16000)}
    conversation.update_session(
        output_modalities=[MultiModality.TEXT], enable_turn_detection=mode != "manual", **options
    )


def speak(conversation, pcm, speed):
    for start in range(0, len(pcm), CHUNK):
        conversation.append_audio(base64.b64encode(pcm[start : start + CHUNK]).decode("ascii"))
        if speed:
            time.sleep(len(SILENCE) / 2 / 16000 / speed)


def main():
    url, file, mode = sys.argv[1:4]
    speed = float(sys.argv[4]) if len(sys.argv) > 4 else 0.0
    callback = Callback()
    conversation = OmniRealtimeConversation(model=MODEL, callback=callback, url=url, api_key="none")
    conversation.connect()
    configure(conversation, mode)
    speak(conversation, Path(file).read_bytes(), speed)
    if mode == "manual":
        conversation.commit()
    if hasattr(conversation, "end_session"):
        conversation.end_session()
    else:  # before 1.25.8: silence ends the utterance, and the program waits for its transcript
        if mode != "manual":
            speak(conversation, 10 * SILENCE, speed)
        if not callback.completed.wait(PATIENCE_S):
            sys.exit("no transcript")
    session_id = conversation.get_session_id()
    conversation.close()
    print(f"session {session_id}", file=sys.stderr)


if __name__ == "__main__":
    main()
