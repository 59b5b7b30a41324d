"""Fixtures for all tests: real servers.

``valkey`` and ``nats_server`` are fresh for each test, which may stop, kill and freeze them; the ``shared_``
ones live as long as the run: leave them as you find them, and use session ids of your own.
"""

import os
from collections.abc import Generator, Iterator
from typing import Any

import pytest

from tests.servers import NatsServer, ValkeyServer


@pytest.fixture
def valkey() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


@pytest.fixture
def nats_server() -> Iterator[NatsServer]:
    with NatsServer() as server:
        yield server


@pytest.fixture(scope="session")
def shared_valkey() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


@pytest.fixture(scope="session")
def shared_nats() -> Iterator[NatsServer]:
    with NatsServer() as server:
        yield server


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """In CI a skipped test is a failed one, but for those that need the speech set."""
    report = yield
    if os.environ.get("CI") and report.skipped and item.get_closest_marker("data") is None:
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {report.longrepr}"
    return report
