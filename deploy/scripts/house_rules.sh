#!/usr/bin/env bash
# Rules that no linter knows: unbounded queues, bare tasks, sleeps in tests' logic, addresses of this machine.
set -euo pipefail
cd "$(dirname "$0")/../.."
status=0
complain() { echo "house rule: $1" >&2; echo "$2" >&2; status=1; }

found=$(git grep -nE 'asyncio\.Queue\(\)|queue\.Queue\(\)' -- 'services/*.py' 'shared/*.py' || true)
[ -z "$found" ] || complain "an unbounded queue" "$found"

found=$(git grep -nE '(asyncio|loop)\.(create_task|ensure_future)\(' -- 'services/*.py' 'shared/*.py' \
    | grep -vE 'allowed: ' || true)
[ -z "$found" ] || complain "a task outside a task group (say why after '# allowed: ')" "$found"

found=$(git grep -nE '^\s*global |^\s*print\(' -- 'services/*.py' 'shared/*.py' || true)
[ -z "$found" ] || complain "global or print" "$found"

found=$(git grep -nIE 'https?://[^/ "]+/(simple|packages/[0-9a-f][0-9a-f])/|index-url|find-links' -- . ':!justfile' ':!deploy/scripts' ':!.gitignore' || true)
[ -z "$found" ] || complain "the address of a package index" "$found"

# One file holds the whole vocabulary on purpose: shared/messages.py.
long=$(git ls-files -z -- 'services/*.py' 'shared/*.py' ':!shared/messages.py' | xargs -0 -r wc -l | awk '$2 != "total" && $1 > 400 {print $1, $2}')
[ -z "$long" ] || complain "a file of more than 400 lines" "$long"
exit $status
