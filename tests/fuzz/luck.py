"""How much is tried, and from which seed. A failure names the seed; AURICLE_FUZZ_SEED tries it again."""

import os
import secrets

SEED = int(os.environ.get("AURICLE_FUZZ_SEED") or secrets.randbits(32))
TIMES = int(os.environ.get("AURICLE_FUZZ_TIMES") or 1)
"""Times the size of a CI run."""
PURE_FRAMES = 200_000 * TIMES
LIVE_FRAMES = 40_000 * TIMES
