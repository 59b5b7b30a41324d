"""Settings: what is read, what is refused and in which words, and that nothing secret is shown."""

import json
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.settings import Settings, child_environment, example, key_hash, listing, load_settings
from shared.telemetry import HumanLines, JsonLines

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No setting of the developer's shell or `.env` reaches these tests."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return


def load_with(monkeypatch: pytest.MonkeyPatch, **values: str) -> Settings:
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return load_settings()


def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], **values: str) -> str:
    """The one line that a wrong value ends the process with."""
    with pytest.raises(SystemExit) as ended:
        load_with(monkeypatch, **values)
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_defaults_are_those_of_the_contract() -> None:
    settings = load_settings()
    assert (settings.server_host, settings.server_port) == ("127.0.0.1", 8001)
    assert (settings.ws_port, settings.http_port) == (9200, 9201)
    assert (settings.vad_threshold, settings.vad_silence_duration_ms) == (0.5, 800)
    assert settings.recording_max_bytes == 20 * 1024**3
    assert settings.engines() == ["packaged"]
    assert settings.key_table() == {}


def test_an_empty_variable_means_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_with(monkeypatch, SERVER_PORT="", ASR_SLOTS="", POOLS="", API_KEYS="", ENGINE="")
    assert settings == load_settings() == Settings(_env_file=None)  # type: ignore[call-arg]
    assert settings.engine == "packaged"


def test_the_environment_beats_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("SERVER_PORT=7001\nENGINE=vosk\nSOMEBODY_ELSES=1\n")
    settings = load_with(monkeypatch, SERVER_PORT="7002")
    assert (settings.server_port, settings.engine) == (7002, "vosk")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SERVER_PORT", "99999"),
        ("SERVER_PORT", "eight"),
        ("VAD_THRESHOLD", "1.5"),
        ("VAD_SILENCE_DURATION_MS", "100"),
        ("NATS_REPLICAS", "2"),
        ("LOG_LEVEL", "loud"),
        ("ALLOW_ANONYMOUS", "perhaps"),
        ("POOLS", "model"),
        ("ENGINE_OPTIONS", "{"),
        ("ENGINE_OPTIONS", "[1]"),
        ("JETSTREAM_SYNC", "sometimes"),
        ("RECORDING_MAX_BYTES", "much"),
        ("API_KEYS", "no-tenant"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    assert refusal(monkeypatch, capsys, **{name: value}).startswith(f"auricle: {name}: ")


def test_a_refused_key_list_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "hush" not in refusal(monkeypatch, capsys, API_KEYS="acme:fine,hush")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "asr.example"])
def test_an_open_door_needs_keys_or_consent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], host: str
) -> None:
    line = refusal(monkeypatch, capsys, SERVER_HOST=host)
    assert line.startswith("auricle: SERVER_HOST: ")
    assert "API_KEYS" in line
    assert load_with(monkeypatch, API_KEYS="acme:k1").server_host == host
    monkeypatch.delenv("API_KEYS")
    assert load_with(monkeypatch, ALLOW_ANONYMOUS="true").server_host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_loopback_needs_nothing(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    assert load_with(monkeypatch, SERVER_HOST=host).server_host == host


def test_keys_are_kept_as_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_with(monkeypatch, API_KEYS="acme:s3cret, globex:a:b")
    assert settings.key_table() == {key_hash("s3cret"): "acme", key_hash("a:b"): "globex"}


def test_nothing_secret_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_with(
        monkeypatch,
        API_KEYS="acme:s3cret",
        NATS_URL="nats://me:s3cret@queue:4222",
        REDIS_URL="redis://:s3cret@r",
    )
    assert "s3cret" not in listing(settings)
    assert "API_KEYS=*" in listing(settings)
    assert "@queue:4222" in listing(settings)
    assert settings.nats_url == "nats://me:s3cret@queue:4222"


@pytest.mark.parametrize("formatter", [JsonLines("up"), HumanLines("up")])
def test_a_log_line_withholds_what_was_said(formatter: logging.Formatter) -> None:
    fields = {"transcript": "hush", "api_key": "hush", "frame": b"hush", "item": "item_1"}
    line = formatter.format(logging.makeLogRecord({"msg": "said", "args": (), **fields}))
    assert "hush" not in line
    assert "item_1" in line


def test_a_log_line_of_a_machine_is_one_json_object() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        record = logging.makeLogRecord({"msg": "failed", "name": "x", "exc_info": sys.exc_info(), "n": 3})
    line = JsonLines("asr_worker-0").format(record)
    assert "\n" not in line
    fields = json.loads(line)
    assert (fields["message"], fields["role"], fields["n"]) == ("failed", "asr_worker-0", 3)
    assert "ValueError" in fields["exception"]


def test_pools_name_the_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_with(monkeypatch, POOLS="qwen3-asr-flash-realtime=vllm, small=sherpa,large=vllm")
    assert settings.pools == {"qwen3-asr-flash-realtime": "vllm", "small": "sherpa", "large": "vllm"}
    assert settings.engines() == ["vllm", "sherpa"]


def test_least_new_audio_of_a_partial_depends_on_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (load_settings().partial_every_s("vllm"), load_settings().partial_every_s("sherpa")) == (2.0, 0.5)
    assert load_with(monkeypatch, STREAMING_CHUNK_SIZE_SEC="1").partial_every_s("vllm") == 1.0


def test_a_child_sees_our_environment_and_the_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINE", "vosk")
    monkeypatch.setenv("SERVER_PORT", "7000")
    seen = child_environment({"SERVER_PORT": "7001"})
    assert (seen["ENGINE"], seen["SERVER_PORT"]) == ("vosk", "7001")


def test_the_listing_is_an_env_file_of_the_same_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    odd = {"POOLS": "a=b,c=d", "ENGINE_OPTIONS": '{"fixed_ms": 5}', "RECORDING_MAX_BYTES": "1234567"}
    settings = load_with(monkeypatch, **odd, VAD_ENABLED="false", NATS_REPLICAS="3", ASR_SLOTS="4")
    (tmp_path / "copy.env").write_text(listing(settings))
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    assert Settings(_env_file=tmp_path / "copy.env") == settings  # type: ignore[call-arg]


def test_env_example_is_current() -> None:
    assert (ROOT / ".env.example").read_text() == example(), "run: auricle config --example > .env.example"


def test_env_example_states_the_defaults(tmp_path: Path) -> None:
    values = re.findall(r"^# ([A-Z][A-Z0-9_]*=.*)$", example(), re.MULTILINE)
    assert len(values) == len(Settings.model_fields)
    (tmp_path / "all.env").write_text("\n".join(values))
    assert Settings(_env_file=tmp_path / "all.env") == load_settings()  # type: ignore[call-arg]


def test_every_setting_has_a_sentence() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
