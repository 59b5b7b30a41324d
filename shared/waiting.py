"""Waiting for something, but not for ever."""

import asyncio


async def happens(event: asyncio.Event, within_s: float | None) -> bool:
    """Is ``event`` set within so many seconds? None = wait as long as it takes."""
    try:
        async with asyncio.timeout(within_s):
            await event.wait()
    except TimeoutError:
        return False
    return True
