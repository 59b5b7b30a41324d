#!/usr/bin/env bash
# Install one lock file into .venv, once: a stamp remembers which content is installed.
set -euo pipefail
cd "$(dirname "$0")/../.."
lock=$1
stamp=.venv/.installed-$lock
want=$(cat "$lock" pyproject.toml | sha256sum | cut -d' ' -f1)
[ -x .venv/bin/auricle ] && [ "$(cat "$stamp" 2>/dev/null)" = "$want" ] && exit 0
# The developers' lock contains everything of the other one.
[ "$lock" = requirements.lock ] && [ -x .venv/bin/auricle ] \
    && [ "$(cat .venv/.installed-requirements-dev.lock 2>/dev/null)" = "$(cat requirements-dev.lock pyproject.toml | sha256sum | cut -d' ' -f1)" ] && exit 0

uv=$(command -v uv || true)
[ -n "$uv" ] || { echo "uv is not on the PATH: pip install uv rust-just" >&2; exit 1; }
[ -d .venv ] || "$uv" venv -q --python '>=3.11' .venv
echo "auricle: installing $lock into .venv (once)" >&2
"$uv" pip sync -q --python .venv/bin/python --require-hashes "$lock"
"$uv" pip install -q --python .venv/bin/python --no-deps -e .
rm -f .venv/.installed-*
echo "$want" > "$stamp"
