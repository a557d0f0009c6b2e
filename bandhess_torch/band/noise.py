"""Numbers without a pattern, the hashed ones alike in both backends."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def hash_noise(like: Tensor, seed: int) -> Tensor:
    """Numbers in [-1, 1), as many as `like` has, alike in both backends: the index, hashed (Murmur3's finaliser)."""
    mask = 2**32 - 1
    h = (torch.arange(len(like), device=like.device) * 2654435761 + seed * 40503) & mask
    h = ((h ^ (h >> 16)) * 2246822507) & mask
    h = ((h ^ (h >> 13)) * 3266489909) & mask
    return (h ^ (h >> 16)).to(like.dtype) / 2**31 - 1


def gaussian(n: int, seed: Any, like: Tensor) -> Tensor:
    """Drawn by NumPy: torch.func.vmap allows no random operation of torch's own inside."""
    dtype = np.float64 if like.dtype == torch.float64 else np.float32
    return torch.as_tensor(np.random.default_rng(seed).standard_normal(n, dtype), dtype=like.dtype, device=like.device)
