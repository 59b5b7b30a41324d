"""Take one mechanism out at a time; the test named in the patch must go red.

A mutant is a patch whose first lines say ``# mechanism:`` and ``# test:`` (a pytest node id). It is applied to a
worktree of HEAD; a mutant that no longer applies, a test that stays green, or one that does not run at all is
a failure. Usage: python -m tests.mutants [NAME ...]
"""

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RED = 1
"""pytest's exit status when tests ran and some failed."""


@dataclass(frozen=True)
class Mutant:
    name: str
    mechanism: str
    test: str
    patch: Path


def read(patch: Path) -> Mutant:
    fields = dict(
        line.removeprefix("# ").split(": ", 1)
        for line in patch.read_text().splitlines()
        if line.startswith("# ")
    )
    return Mutant(patch.stem, fields["mechanism"], fields["test"], patch)


def try_out(mutant: Mutant) -> str:
    """Why the mutant survived; empty when its test went red."""
    with tempfile.TemporaryDirectory(prefix="auricle-mutant-") as folder:
        tree = Path(folder) / "tree"
        _git("worktree", "add", "--detach", "--quiet", str(tree), "HEAD")
        try:
            applied = subprocess.run(
                ["git", "apply", str(mutant.patch)], cwd=tree, capture_output=True, text=True, check=False
            )
            if applied.returncode:
                return f"the patch does not apply: {applied.stderr.strip()}"
            status, output = _run_test(mutant, tree)
        finally:
            _git("worktree", "remove", "--force", str(tree))
    if status == RED:
        return ""
    return f"pytest ended with {status}, not with a failed test\n{output[-2000:]}"


def _run_test(mutant: Mutant, tree: Path) -> tuple[int, str]:
    env = {**os.environ, "PYTHONPATH": str(tree), "HYPOTHESIS_STORAGE_DIRECTORY": str(tree / ".hypothesis")}
    arguments = ["-q", "-x", "-p", "no:cacheprovider", "--timeout", "100", mutant.test]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=tree,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def _git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True)


def main(names: list[str]) -> int:
    mutants = [read(patch) for patch in sorted(Path(__file__).parent.glob("*.patch"))]
    chosen = [mutant for mutant in mutants if not names or mutant.name in names]
    with ThreadPoolExecutor(2) as pool:
        verdicts = list(pool.map(try_out, chosen))
    for mutant, verdict in zip(chosen, verdicts, strict=True):
        mark = "SURVIVED" if verdict else "killed"
        sys.stdout.write(f"{mark:<9} {mutant.name:<14} {mutant.mechanism} ({mutant.test})\n")
        if verdict:
            sys.stdout.write(f"          {verdict}\n")
    survived = sum(map(bool, verdicts))
    sys.stdout.write(f"{len(chosen)} mutants, {survived} survived\n")
    return 1 if survived or not chosen else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
