"""Packets out of an Ogg byte stream (RFC 3533), for one logical stream that carries Opus. Decodes nothing.

A page is taken when all of it is there and its checksum holds; what of a page that was cut off is whole is
taken by ``rest``. Where the stream makes no sense, bytes are skipped up to the next page, and counted.
"""

import struct
import zlib
from collections.abc import Iterator
from itertools import accumulate

MAGIC = b"OggS"
OPUS_HEAD = b"OpusHead"
MAX_PACKET = 1 << 16
"""No Opus packet is nearly as long, its comments (which are not audio) may be: those are cut."""
MAX_PAGE = 27 + 255 + 255 * 255
_HEADER = struct.Struct("<4sBBqIIIB")
_CONTINUED, _FIRST = 1, 2
_MAX_FALSE_PAGES = 16
"""In one feed; each may cost the checksum of 64 KiB, and a hostile client can put one every few bytes."""
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def checksum(page: bytes) -> int:
    """Ogg's CRC is that of zlib with the bits of everything in reverse, and begins with 0."""
    crc = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(crc.to_bytes(4, "little").translate(_REVERSED), "big")


class _Page:
    """The header of a page, and how much of the page was taken."""

    def __init__(self, held: bytearray) -> None:
        fields: tuple[int, ...] = _HEADER.unpack_from(held)[1:]
        self.version, self.flags, _, self.serial, _, self.checksum, count = fields
        self.lacing = bytes(held[_HEADER.size : _HEADER.size + count])
        self.body = _HEADER.size + count
        self.size = self.body + sum(self.lacing)
        self.ends = list(accumulate(self.lacing, initial=self.body))
        self.taken = 0
        """Segments."""

    def holds(self, held: bytearray) -> bool:
        """Whether the checksum, computed with its own field as zero, is right."""
        page = bytes(held[:22]) + bytes(4) + bytes(held[26 : self.size])
        return self.version == 0 and checksum(page) == self.checksum


class Packets:
    """Bytes in, packets out. A stream that begins anew (``OpusHead`` on a first page) follows the old one."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._page: _Page | None = None
        """The page that ``_held`` begins with, once its header is there."""
        self._packet = b""
        """The beginning of a packet that goes on in the next page."""
        self._dropping = False
        """What follows belongs to a packet whose beginning is not there."""
        self._serial: int | None = None
        self._at = 0
        """Bytes before ``_held``."""
        self.consumed = 0
        """Up to here nothing is needed any more: the start of a page, always."""
        self.skipped = 0
        """Bytes that made no sense."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Packets that are complete now."""
        if self._held and data.startswith(MAGIC):
            yield from self.rest()  # the file in hand was cut off, and another one follows
            self._drop(len(self._held))
        self._held += data
        false_pages = 0
        while self._at_page():
            page = self._page
            if page is None or len(self._held) < page.size:
                return
            if page.holds(self._held):
                yield from self._take(page, page.size)
                self._drop(page.size)
                if not self._packet:
                    self.consumed = self._at
                continue
            false_pages += 1
            self._skip(len(MAGIC) if false_pages < _MAX_FALSE_PAGES else len(self._held))

    def rest(self) -> Iterator[bytes]:
        """The whole packets of a page that is not all there; should the page go on, so do they."""
        if self._page is not None:
            yield from self._take(self._page, len(self._held))

    def trim(self) -> None:
        """Forget what is more than a page: whoever fed it did not want all of its packets."""
        if len(self._held) > MAX_PAGE:
            self._skip(len(self._held))

    def _at_page(self) -> bool:
        """Whether ``_held`` begins like a page, after what makes no sense was skipped."""
        if self._page is None and not self._held.startswith(MAGIC):
            found = self._held.find(MAGIC)
            self._skip(found if found >= 0 else len(self._held) - _beginning(self._held))
        if not self._held.startswith(MAGIC):
            return False
        if self._page is None and len(self._held) >= _HEADER.size:
            if len(self._held) < _HEADER.size + self._held[_HEADER.size - 1]:
                return False
            self._page = _Page(self._held)
        return self._page is not None

    def _take(self, page: _Page, available: int) -> Iterator[bytes]:
        """Packets of ``page`` that end within ``available`` bytes and were not taken before."""
        if page.taken == 0 and not self._begin(page):
            page.taken = len(page.lacing)
        while page.taken < len(page.lacing) and page.ends[page.taken + 1] <= available:
            start, end = page.ends[page.taken], page.ends[page.taken + 1]
            if len(self._packet) < MAX_PACKET:
                self._packet += self._held[start:end]
            page.taken += 1
            if end - start < 255:
                packet, self._packet = self._packet, b""
                dropped, self._dropping = self._dropping, False
                if not dropped:
                    yield packet

    def _begin(self, page: _Page) -> bool:
        """Whether the page belongs to our stream; the first one with Opus in it, and what follows that."""
        head = self._held[page.body : page.body + len(OPUS_HEAD)]
        first = bool(page.flags & _FIRST)
        # A stream that is sent again from its middle has no head any more.
        if head == OPUS_HEAD if first else self._serial is None:
            self._serial = page.serial
        if page.serial != self._serial:
            return False
        goes_on = bool(page.flags & _CONTINUED)
        self._dropping = goes_on and not self._packet
        if not goes_on:
            self._packet = b""
        return True

    def _drop(self, count: int) -> None:
        del self._held[:count]
        self._at += count
        self._page = None

    def _skip(self, count: int) -> None:
        self._drop(count)
        self.skipped += count
        if count and not self._packet:
            self.consumed = self._at


def _beginning(held: bytearray) -> int:
    """How many bytes at the end may be the beginning of a page."""
    return next((size for size in (3, 2, 1) if held.endswith(MAGIC[:size])), 0)
