# `just` lists the recipes. The first run of any recipe prepares what it needs.
set positional-arguments

export UV_PYTHON_DOWNLOADS := "never"
bin := justfile_directory() / ".venv/bin"

[private]
default:
    @just --list

# Prepare .venv from the hash-locked requirements (run time only)
setup: (_install "requirements.lock")

# Prepare .venv with the developers' tools as well
setup-dev: (_install "requirements-dev.lock")

# Install a lock file into .venv unless it is already there
[private]
_install lock:
    @deploy/scripts/install.sh {{ lock }}

# Real speech to live captions through the whole service: `just demo [FILE]`
demo *ARGS: setup
    @{{ bin }}/auricle demo "$@"

# Run the whole service on this machine
up *ARGS: setup
    @{{ bin }}/auricle up "$@"

# Format, lint, strict types, import contracts
[group('quality')]
check: setup-dev
    @{{ bin }}/ruff format --check .
    @{{ bin }}/ruff check .
    @{{ bin }}/mypy
    @{{ bin }}/lint-imports
    @deploy/scripts/house_rules.sh

# Apply the formatter and the safe fixes
[group('quality')]
fix: setup-dev
    @{{ bin }}/ruff format .
    @{{ bin }}/ruff check --fix .

# All tests, on a real nats-server and a real valkey-server
[group('quality')]
test *ARGS: setup-dev
    @{{ bin }}/pytest "$@"

# Kill real processes under live sessions
[group('quality')]
test-fault *ARGS: setup-dev
    @{{ bin }}/pytest tests/fault "$@"

# Random clients, many times as many as in CI; the seed is printed: `just fuzz [TIMES] [SEED]`
[group('quality')]
fuzz TIMES="10" SEED="": setup-dev
    @AURICLE_FUZZ_TIMES={{ TIMES }} AURICLE_FUZZ_SEED={{ SEED }} {{ bin }}/pytest tests/fuzz -s

# Take one mechanism out at a time; each time the test named in the patch must go red
[group('quality')]
test-mutants *ARGS: setup-dev
    @{{ bin }}/python -m tests.mutants "$@"

# Measure sessions, delays and CPU: `just bench --sessions 200 --engine scripted`
[group('quality')]
bench *ARGS: setup
    @{{ bin }}/auricle bench live "$@"

# Rebuild the hash-locked requirement files from pyproject.toml
lock:
    uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "just lock" -q -o requirements.lock
    uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "just lock" -q -o requirements-dev.lock
