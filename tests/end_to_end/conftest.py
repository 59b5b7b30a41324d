"""The service that the end-to-end tests share: real servers, real models, one worker of each kind."""

from collections.abc import Generator, Iterator

import pytest

from tests.service import Service


@pytest.fixture(scope="session")
def service() -> Iterator[Service]:
    """Leave it as you find it: tests that break things start their own."""
    with Service(engine="packaged") as running:
        yield running
        assert "Traceback" not in running.log(), running.log()[-8000:]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows what the shared service logged meanwhile."""
    report = yield
    running = getattr(item, "funcargs", {}).get("service")
    if report.failed and isinstance(running, Service):
        report.sections.append(("log of the service", running.log()[-6000:]))
    return report
