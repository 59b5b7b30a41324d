#!/usr/bin/env bash
# Prepare the environment of one foreign client, once: tests/clients/NAME.lock into .clients/NAME.
#   client_env.sh NAME          install, unless a stamp says that this very content is installed; print its Python
#   client_env.sh --lock NAME   make the lock anew; NAME is package-version
set -euo pipefail
cd "$(dirname "$0")/../.."
need_uv() {
    command -v uv >/dev/null || { echo "uv is not on the PATH: pip install uv rust-just" >&2; exit 1; }
}

if [ "$1" = --lock ]; then
    need_uv
    echo "${2%-*}==${2##*-}" | uv pip compile - --no-config --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-emit-find-links --no-annotate --no-header -q -o "tests/clients/$2.lock"
    exit
fi

name=$1
lock=tests/clients/$name.lock
folder=.clients/$name
want=$(sha256sum < "$lock" | cut -d' ' -f1)
if [ "$(cat "$folder/.installed" 2>/dev/null)" != "$want" ]; then
    need_uv
    mkdir -p .clients
    echo '*' > .clients/.gitignore
    exec 9> ".clients/$name.lock"
    ! command -v flock >/dev/null || flock 9  # another test run may be at it
    if [ "$(cat "$folder/.installed" 2>/dev/null)" != "$want" ]; then
        echo "auricle: installing $lock into $folder (once)" >&2
        rm -rf "$folder"
        # The Python of the service, whatever the system's is: the locks are made for it and later ones.
        uv venv -q --python .venv/bin/python "$folder"
        uv pip sync -q --python "$folder/bin/python" --require-hashes "$lock"
        echo "$want" > "$folder/.installed"
    fi
fi
echo "$PWD/$folder/bin/python"
