"""`auricle up`: the whole service in the foreground, until a signal ends it in order."""

import logging
from contextlib import ExitStack

import typer

from services.cli.process import Signals, Stopped
from services.cli.supervisor import supervised
from services.cli.system import Layout, bring_up, check_ports, owned

logger = logging.getLogger(__name__)


async def up(layout: Layout) -> None:
    """Serve until the first signal, then drain; a second one kills.

    Raises:
        CommandFailed: something was in the way; nothing was left running.
    """
    signals = Signals()
    with ExitStack() as held:
        held.enter_context(owned(layout.data))
        check_ports(layout)
        try:
            async with supervised(layout.data) as supervisor:
                signals.hurry = supervisor.kill
                addresses = await signals.until_asked(bring_up(supervisor, layout))
                typer.echo(addresses[0].ready_line())
                await signals.raise_when_asked()
        except Stopped:
            logger.info("ended in order")
