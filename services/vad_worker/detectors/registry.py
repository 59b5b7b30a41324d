"""Detectors by name. Only the chosen one is imported, and with it its library."""

from importlib import import_module

from services.vad_worker.detectors.base import Detector

DETECTORS = {
    "silero": "services.vad_worker.detectors.silero:Silero",
    "energy": "services.vad_worker.detectors.energy:Energy",
}


def load_detector(name: str) -> Detector:
    """Build the detector of that name.

    Raises:
        ValueError: there is none of that name.
        PermanentError: its model is missing or not the one it should be.
    """
    if name not in DETECTORS:
        raise ValueError(f"detector {name!r} is none of {', '.join(DETECTORS)}")
    module, _, factory = DETECTORS[name].partition(":")
    detector: Detector = getattr(import_module(module), factory)()
    return detector
