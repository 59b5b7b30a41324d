"""Small things about sockets: free ports, one HTTP GET, does somebody answer."""

import asyncio
import random
import socket
from urllib.parse import urlsplit

# Below the range from which systems take ports for outgoing connections: a client that keeps trying a port
# of that range while its server is away may, by chance, connect to itself and keep the server from it.
_FREE = range(12_000, 28_000)
_given: set[int] = set()
"""Ports we have promised to somebody who may not listen yet."""


def is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port(*, host: str = "127.0.0.1", wish: int = 0, count: int = 1) -> int:
    """``wish`` if it is free, else the first of ``count`` free ports in a row."""
    for attempt in range(1000):
        first = random.randrange(_FREE.start, _FREE.stop - count) if attempt or not wish else wish
        ports = range(first, first + count)
        if _given.isdisjoint(ports) and all(is_free(host, port) for port in ports):
            _given.update(ports)
            return first
    raise OSError("no free port")


async def http_get(url: str, timeout_s: float = 5.0) -> tuple[int, bytes]:
    """Status and body. Raises OSError when nobody answers in time."""
    parts = urlsplit(url)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80)
        try:
            writer.write(f"GET {path or '/'} HTTP/1.0\r\nHost: {parts.netloc}\r\n\r\n".encode())
            head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
        finally:
            writer.close()
    if not head.startswith(b"HTTP/"):
        raise ConnectionError("no HTTP answer")
    return int(head.split(b" ", 2)[1]), body


async def http_ok(url: str) -> bool:
    try:
        return (await http_get(url))[0] == 200
    except OSError:  # TimeoutError is one
        return False


async def answers(host: str, port: int, question: bytes, answer: bytes) -> bool:
    """Does a line protocol at this address answer as expected?"""
    try:
        async with asyncio.timeout(1):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(question)
                return (await reader.readline()).startswith(answer)
            finally:
                writer.close()
    except OSError:
        return False
