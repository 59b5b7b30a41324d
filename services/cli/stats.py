"""Percentiles, and how figures are shown."""

from collections.abc import Sequence


def percentile(values: Sequence[float], share: float) -> float:
    """By linear interpolation; ``values`` need not be sorted, and must not be empty."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * share
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
