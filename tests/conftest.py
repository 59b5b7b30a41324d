"""Fixtures for all tests: real servers.

``valkey`` and ``nats_server`` are fresh for each test, which may stop, kill and freeze them; the ``shared_``
ones live as long as the run: leave them as you find them, and use session ids of your own.
"""

from collections.abc import Iterator

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
