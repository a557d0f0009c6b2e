"""Numbers without a pattern, alike in both backends."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array


def hash_noise(like: Array, seed: int | Array) -> Array:
    """Numbers in [-1, 1), as many as `like` has, alike in both backends: the index, hashed (Murmur3's finaliser)."""
    h = jnp.arange(like.shape[0], dtype=jnp.uint32) * jnp.uint32(2654435761) + jnp.asarray(
        seed, jnp.uint32
    ) * jnp.uint32(40503)
    h = (h ^ (h >> 16)) * jnp.uint32(2246822507)
    h = (h ^ (h >> 13)) * jnp.uint32(3266489909)
    return (h ^ (h >> 16)).astype(like.dtype) / 2.0**31 - 1
