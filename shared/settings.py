"""All settings, in one class, read from the environment and `.env`; nothing else in the tree reads them.

An empty or absent variable means the default. The sentence under a field is its documentation: `.env.example`
is generated from it (`auricle config --example`).
"""

import hashlib
import ipaddress
import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

from pydantic import ByteSize, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

Port = Annotated[int, Field(ge=1, le=65_535)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Table = Annotated[dict[str, str], NoDecode]


class StreamLimits(TypedDict):
    max_bytes: int
    max_age_s: float
    replicas: int


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True, use_attribute_docstrings=True
    )

    # --- the doors ------------------------------------------------------------------------------------

    server_host: str = "127.0.0.1"
    """Address to listen on; any but loopback needs API_KEYS, or ALLOW_ANONYMOUS=true."""
    server_port: Port = 8001
    """DashScope dialect and HTTP; ingress i listens on this + i, as on the next two."""
    ws_port: Port = 9200
    """FunASR dialect."""
    http_port: Port = 9201
    """Static pages."""
    api_keys: SecretStr = SecretStr("")
    """Who may connect: tenant:key,tenant:key; empty = everybody."""
    allow_anonymous: bool = False
    """Listen beyond loopback without API_KEYS."""
    rate_limit_rps: Positive = 20
    """New connections a second per key (or address)."""
    max_sessions_per_key: Count = 200
    """Sessions at once per key (or address)."""
    resume_window_s: Count = 60
    """Seconds for which a cut session can be resumed."""
    idle_timeout_s: Count = 300
    """Seconds without audio or event after which a session ends."""

    # --- cutting --------------------------------------------------------------------------------------

    vad_enabled: bool = True
    """False: a session that names no turn_detection is manual."""
    vad_threshold: Share = 0.5
    """Silero probability from which a window is speech, where a client names none."""
    vad_silence_duration_ms: Annotated[int, Field(ge=200, le=6000)] = 800
    """Silence that ends an utterance, where a client names none."""
    detector: str = "silero"
    """Speech detector of the VAD workers: silero, or energy (no model; for tests)."""
    vad_speech_frames: Count = 3
    """FunASR sessions: 20 ms frames of speech that begin an utterance."""
    vad_silence_frames: Count = 10
    """FunASR sessions: 20 ms frames of silence that end an utterance."""
    energy_threshold: Share = 0.01
    """FunASR sessions: utterances with less energy (root mean square) are dropped."""
    vad_speech_ratio_threshold: Share = 0.3
    """FunASR sessions: utterances with a smaller share of speech are dropped."""
    ns_enabled: bool = False
    """FunASR sessions: suppress noise before recognition."""
    asr_min_text_length: Annotated[int, Field(ge=0)] = 2
    """FunASR sessions: shorter texts are dropped."""

    # --- recognising ----------------------------------------------------------------------------------

    engine: str = "packaged"
    """Engine of the ASR workers: packaged, sherpa, vosk, vllm, dashscope or scripted."""
    pools: Table = {}
    """Several engines: model=engine,model=engine; empty = ENGINE for every model."""
    engine_options: Annotated[dict[str, Any], NoDecode] = {}
    """JSON object handed to the engine (the scripted engine's script, in tests)."""
    asr_slots: Count | None = None
    """Engine calls at once per ASR worker; empty = what the engine declares."""
    max_new_tokens: Count | None = None
    """Upper bound of generated tokens; empty = 16 + 12 per second of audio."""
    streaming_chunk_size_sec: Positive | None = None
    """Least new audio between two partials; empty = 2.0 for vllm, 0.5 otherwise."""
    qwen3_asr_model_path: str = "Qwen/Qwen3-ASR-1.7B"
    """Model of the vllm engine: a path or a hub name."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the GPU's memory that vllm may take."""
    model_dtype: Literal["half", "bfloat16", "float32", "auto"] = "half"
    """Number format of the vllm engine."""

    # --- who spoke ------------------------------------------------------------------------------------

    speaker_model_id: str = ""
    """Speaker embedder; empty = the packaged one."""
    speaker_threshold: Share | None = None
    """Least cosine that admits a speaker; empty = the embedder's own."""
    speaker_min_registration_duration: Positive = 3.0
    """Seconds of speech that a registration needs."""
    speaker_max_registration_duration: Positive = 30.0
    """Seconds of speech after which a registration ends."""
    speaker_db_path: Path | None = None
    """A speakers.json to import once."""
    speaker_verification_required: bool = False
    """Every FunASR session starts verified against SPEAKER_VERIFICATION_DEFAULT_USER."""
    speaker_verification_default_user: str = ""
    """Whom sessions are verified against when they name nobody."""

    # --- what is kept ---------------------------------------------------------------------------------

    recording_max_age_h: Positive = 24
    """Hours for which session logs are kept."""
    recording_max_bytes: ByteSize = ByteSize(20 << 30)
    """Space for session logs, their events and results (as 20GiB)."""
    data_dir: Path = Path("~/.local/share/auricle")
    """Where `auricle up` keeps its data when --data is not given."""

    # --- the machinery --------------------------------------------------------------------------------

    nats_url: str = "nats://127.0.0.1:4222"
    """The NATS server with JetStream; `auricle up` starts its own unless --nats-url names one."""
    redis_url: str = "redis://127.0.0.1:6379/0"
    """The Valkey or Redis server; `auricle up` starts its own unless --redis-url names one."""
    partitions: Annotated[int, Field(ge=1, le=1024)] = 32
    """Slices of sessions, each owned by one VAD worker at a time."""
    nats_replicas: Literal[1, 3, 5] = 1
    """Copies of each stream: 1 on one machine, 3 in a cluster."""
    jetstream_sync: Annotated[str, Field(pattern=r"^(always|\d+(ms|s|m))?$")] = ""
    """How often our own nats-server syncs to disk: always, or as 10s; empty = its default of 2 minutes."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe log lines that are written."""
    demo_lang: str = "en"
    """Language of `auricle demo`."""

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("nats_replicas", mode="before")
    @classmethod
    def _number(cls, value: object) -> object:
        return int(value) if isinstance(value, str) and value.isdecimal() else value

    @field_validator("pools", mode="before")
    @classmethod
    def _pairs(cls, value: object) -> object:
        return dict(_split(value, "=")) if isinstance(value, str) else value

    @field_validator("engine_options", mode="before")
    @classmethod
    def _object(cls, value: object) -> object:
        try:
            return json.loads(value) if isinstance(value, str) else value
        except json.JSONDecodeError as error:
            raise ValueError(f"not JSON: {error}") from error

    @field_validator("api_keys")
    @classmethod
    def _keys(cls, value: SecretStr) -> SecretStr:
        _split(value.get_secret_value(), ":")
        return value

    @model_validator(mode="after")
    def _guarded(self) -> "Settings":
        if not (self.allow_anonymous or self.api_keys.get_secret_value() or _is_loopback(self.server_host)):
            raise ValueError(
                f"SERVER_HOST: {self.server_host} is open to others: set API_KEYS, or ALLOW_ANONYMOUS=true"
            )
        return self

    def key_table(self) -> dict[str, str]:
        """Hashes of the keys (``key_hash``) and the tenant of each; empty = nobody needs a key."""
        pairs = _split(self.api_keys.get_secret_value(), ":")
        return {key_hash(key): tenant for tenant, key in pairs}

    def engines(self) -> list[str]:
        """The pools that ASR workers are needed for; the first serves models that POOLS does not name."""
        return list(dict.fromkeys(self.pools.values())) or [self.engine]

    def stream_limits(self) -> StreamLimits:
        """What the streams are declared with: ages in seconds, sizes in bytes."""
        return {
            "max_bytes": int(self.recording_max_bytes),
            "max_age_s": self.recording_max_age_h * 3600,
            "replicas": self.nats_replicas,
        }

    def partial_every_s(self, engine: str) -> float:
        return self.streaming_chunk_size_sec or (2.0 if engine == "vllm" else 0.5)


def key_hash(key: str) -> str:
    """Keys are stored and compared as SHA-256, so that neither memory nor timing tells one."""
    return hashlib.sha256(key.encode()).hexdigest()


def load_settings() -> Settings:
    """The effective settings; a wrong value ends the process with one line and exit code 2."""
    try:
        return Settings()
    except ValidationError as error:
        sys.stderr.write(f"auricle: {_one_line(error)}\n")
        raise SystemExit(2) from None


def child_environment(overrides: Mapping[str, str]) -> dict[str, str]:
    """What a child process sees: our environment, and ``overrides`` on top. No library may phone home."""
    return {"ORT_DISABLE_TELEMETRY": "1", **os.environ, **overrides}


def listing(settings: Settings) -> str:
    """The effective settings as NAME=value lines, secrets masked."""
    return "".join(
        f"{name.upper()}={_shown(name, getattr(settings, name))}\n" for name in Settings.model_fields
    )


def example() -> str:
    """The text of `.env.example`: every setting with its sentence and its default."""
    lines = ["# Generated by `auricle config --example`. Empty or absent = the default shown.\n"]
    for name, field in Settings.model_fields.items():
        lines.append(f"\n# {field.description}\n# {name.upper()}={_shown(name, field.default)}\n")
    return "".join(lines)


def _shown(name: str, value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case ByteSize():
            unit, letter = (1 << 30, "GiB") if value % (1 << 30) == 0 else (1, "")
            return f"{value // unit}{letter}"
        case dict() if name == "pools":
            return ",".join(f"{model}={engine}" for model, engine in value.items())
        case dict():
            return json.dumps(value) if value else ""
        case str():
            return re.sub("(?<=//)[^/@]+(?=@)", "**********", value)  # the password of a URL
        case _:
            return str(value)


def _split(text: str, mark: str) -> list[tuple[str, str]]:
    """``a<mark>b,c<mark>d`` as pairs. The message must not repeat the text: it may hold keys."""
    pairs = [part.strip().partition(mark) for part in text.split(",") if part.strip()]
    if not all(left and right for left, _, right in pairs):
        raise ValueError(f"expected name{mark}value,name{mark}value")
    return [(left.strip(), right.strip()) for left, _, right in pairs]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _one_line(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_input=False, include_context=False)[0]
    message = found["msg"].removeprefix("Value error, ")
    name = str(found["loc"][0]).upper() if found["loc"] else ""
    return " ".join((f"{name}: {message}" if name else message).split())
