"""Ogg: pages out of bytes however they are cut, packets out of pages; what makes no sense is skipped cheaply."""

import pytest

from services.ingress import ogg
from services.ingress.ogg import Packets, checksum
from tests.opus import ogg_opus, opus_head, page

PACKETS = [bytes([number]) * 40 for number in range(5)]


def test_checksum() -> None:
    file = ogg_opus(bytes(3200))  # ffmpeg's; its first page holds one packet, the head
    first = file[:22] + bytes(4) + file[26 : 28 + file[27]]
    assert checksum(first) == int.from_bytes(file[22:26], "little")


def test_a_packet_over_pages_is_one_packet() -> None:
    long = bytes(range(255))
    made = Packets()
    data = page([opus_head()], flags=2) + page([long * 2], open_end=True) + page([b"end"], flags=1)
    assert list(made.feed(data)) == [opus_head(), long * 2 + b"end"]


def test_a_packet_whose_beginning_is_not_there_is_left_out() -> None:
    made = Packets()
    assert list(made.feed(page([b"end", b"next"], flags=1))) == [b"next"]
    assert list(made.feed(page([bytes(255)], open_end=True) + page([b"other"]))) == [b"other"]


def test_other_streams_in_the_same_file_are_left_out() -> None:
    data = page([b"fishead"], flags=2, serial=7) + page([opus_head()], flags=2, serial=8)
    data += page([b"bones"], serial=7) + page(PACKETS, serial=8)
    assert list(Packets().feed(data)) == [opus_head(), *PACKETS]


def test_a_packet_that_goes_on_holds_the_position_back() -> None:
    made = Packets()
    first = page([opus_head()], flags=2)
    list(made.feed(first + page([bytes(255)], open_end=True)))
    assert made.consumed == len(first)


def test_pages_that_are_none_cost_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """One every 28 bytes, each saying that it is 64 KiB long."""
    checked: list[int] = []

    def counted(data: bytes) -> int:
        checked.append(len(data))
        return checksum(data)

    monkeypatch.setattr(ogg, "checksum", counted)
    false_page = page([b""])[:26] + b"\xff\xff"
    made = Packets()
    assert list(made.feed(false_page * 100_000)) == []
    assert made.skipped == len(false_page) * 100_000
    assert len(checked) < 20
