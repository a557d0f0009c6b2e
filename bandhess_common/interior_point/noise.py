"""Numbers without a pattern, alike in both engines."""

from __future__ import annotations

import numpy as np


def noise(count: int, seed: int) -> np.ndarray:
    """`count` numbers in [-1, 1), as `band/noise.py` has them: the index, hashed (Murmur3's finaliser). Seed 1 serves
    for the size of W, 2 for the second point of scaling and against symmetric paths, 3 for negative curvature, 4 for
    dependent rows."""
    h = np.arange(count, dtype=np.uint32) * np.uint32(2654435761) + np.uint32(seed * 40503)
    h = (h ^ (h >> np.uint32(16))) * np.uint32(2246822507)
    h = (h ^ (h >> np.uint32(13))) * np.uint32(3266489909)
    return (h ^ (h >> np.uint32(16))).astype(np.float64) / 2.0**31 - 1
