"""Every report of a fuzz run says how it can be repeated."""

from tests.fuzz.luck import SEED, TIMES


def pytest_report_header() -> str:
    return f"fuzz: AURICLE_FUZZ_SEED={SEED} AURICLE_FUZZ_TIMES={TIMES}"
