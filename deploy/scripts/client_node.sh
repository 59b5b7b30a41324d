#!/usr/bin/env bash
# Prepare what the Node.js clients run on, once: tests/clients/node/package-lock.json into .clients/node.
#   client_node.sh          install, unless a stamp says that this very content is installed; print the folder
#   client_node.sh --lock   make the lock anew from package.json
# The browser comes out of an npm package, so nobody needs root: browser/chromium, with the libraries and
# fonts that a bare machine lacks.
set -euo pipefail
cd "$(dirname "$0")/../.."
command -v npm >/dev/null || { echo "npm is not on the PATH: install Node.js 20 or later" >&2; exit 1; }

source=tests/clients/node
if [ "${1:-}" = --lock ]; then
    rm -f "$source/package-lock.json"
    # Without the addresses of whatever registry this machine uses.
    exec npm install --prefix "$source" --package-lock-only --omit-lockfile-registry-resolved
fi

folder=.clients/node
want=$(cat "$source/package.json" "$source/package-lock.json" deploy/scripts/client_node.sh | sha256sum | cut -d' ' -f1)
if [ "$(cat "$folder/.installed" 2>/dev/null)" != "$want" ]; then
    mkdir -p .clients
    echo '*' > .clients/.gitignore
    exec 9> .clients/node.lock
    ! command -v flock >/dev/null || flock 9  # another test run may be at it
    if [ "$(cat "$folder/.installed" 2>/dev/null)" != "$want" ]; then
        echo "auricle: installing $source into $folder (once)" >&2
        rm -rf "$folder"
        mkdir -p "$folder/browser"
        cp "$source/package.json" "$source/package-lock.json" "$folder"
        npm ci --prefix "$folder" --ignore-scripts --no-audit --no-fund --loglevel=error >&2
        # Unpacked here and not by the package, which does it in /tmp and for AWS Lambda.
        unpack() {
            node -e 'process.stdin.pipe(zlib.createBrotliDecompress()).pipe(process.stdout)' \
                < "$folder/node_modules/@sparticuz/chromium/bin/$1.br"
        }
        unpack chromium > "$folder/browser/chromium"
        chmod +x "$folder/browser/chromium"
        unpack fonts.tar | tar -x -C "$folder/browser"
        unpack al2023.tar | tar -x -C "$folder/browser"
        # Chromium crashes where there is no font at all; the package's own list names folders of AWS.
        echo '<fontconfig><dir prefix="relative">fonts</dir></fontconfig>' > "$folder/browser/fonts.conf"
        echo "$want" > "$folder/.installed"
    fi
fi
echo "$PWD/$folder"
