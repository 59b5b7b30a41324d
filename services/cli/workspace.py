"""A folder that is gone afterwards, and a log that is shown only when something fails."""

import logging
import shutil
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from services.cli.errors import CommandFailed
from shared.telemetry import HumanLines

LOG = "auricle.log"
_TAIL = 12
"""Lines of the log that are shown when something fails."""
_WIDEST = 450


@contextmanager
def workspace(purpose: str, console: Console) -> Iterator[Path]:
    """A temporary folder for a quiet service; all log lines of this process go to its ``LOG``."""
    with tempfile.TemporaryDirectory(prefix=f"auricle-{purpose}-") as name:
        log = Path(name) / LOG
        handler = logging.FileHandler(log)
        handler.setFormatter(HumanLines(purpose))
        logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
        try:
            yield Path(name)
        except CommandFailed as error:
            if error.exit_code < 128:  # a signal needs no explanation
                _keep_log(log, console)
            raise
        finally:
            logging.root.removeHandler(handler)
            handler.close()


def _keep_log(log: Path, console: Console) -> None:
    """Show the end of the log, and save all of it from the folder that is about to go."""
    with log.open(errors="replace") as lines:
        tail = deque(lines, maxlen=_TAIL)
    if tail:
        kept = shutil.move(log, f"{log.parent}.log")
        console.print(f"\nThe last lines of {kept}:", style="bold")
        for line in tail:  # of a traceback in JSON, the beginning and the end
            text = line.rstrip()
            shown = text if len(text) < _WIDEST else f"{text[: _WIDEST // 3]} … {text[-2 * _WIDEST // 3 :]}"
            console.print(shown, markup=False, soft_wrap=True)
