"""Which bandwidth has a symmetric operator? A few products tell, and NumPy reads them.

Every product goes through one function v -> H v, whatever bandwidth is asked about: a framework compiles it once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .ring import Arcs

Multiply = Callable[[np.ndarray], np.ndarray]
"""H times each of the rows of `(m, n)`."""

SAMPLES = 8  # stages whose columns are looked at first
AT_ONCE = 8  # products in one call


class Found(NamedTuple):
    bandwidth: int  # in stages
    counts: np.ndarray  # ((k + 1) d, n), True on the cells of the band that count


class Refused(NamedTuple):
    """The bandwidth is past the limit."""

    hint: str | None  # what H is instead, where a few of its columns tell


def find(multiply: Multiply, T: int, d: int, limit: int, first: int = 0, *, closed: bool = False) -> Found | Refused:
    """The bandwidth of H, for T stages of d scalars, if it is not past limit. closed: the stages form a ring.

    The columns of a few stages, at random inside each, show how far these reach: no less than that is asked about,
    and no less than `first`. From there on doubling finds the bandwidth at which a random product shows nothing
    outside, and then zeros outside are dropped. Raises FloatingPointError where H is not finite.
    """
    v, Hv, again, samples = _sample(multiply, T, d)
    off = _ring_distance(T) if closed else np.abs
    k = max(first, *(int(np.max(off(rows - stage), initial=0)) for stage, rows in samples))
    while k <= limit:
        ab = band(multiply, T, d, k, closed)
        if (k == T - 1 and not closed) or not _narrow(ab, v, Hv, again, closed):
            counts = _counts(ab, closed)
            row, column = np.nonzero(counts)
            return Found(int(np.max((column % d + row) // d, initial=0)), counts)
        if k == limit:
            break
        # Past T / 2 every stage has its own probe: the full width costs no more of them.
        k = min(max(1, 2 * k) if 4 * k + 1 < T else T - 1, limit)
    return Refused(None if closed else _hint(samples, T, limit))


def _sample(multiply: Multiply, T: int, d: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, list]:
    """A random v, H v, the same by the product of a rescaled v, and for a few stages (stage, the stages it meets)."""
    noise = np.random.default_rng(0)
    v = noise.standard_normal(T * d)
    stages = np.unique(np.linspace(0, T - 1, SAMPLES).round().astype(int))
    probes = np.zeros((len(stages), T, d))
    probes[np.arange(len(stages)), stages] = noise.uniform(0.5, 1, (len(stages), d))
    Hv, rescaled, *columns = _finite(multiply(np.stack([v, np.pi * v, *probes.reshape(len(stages), T * d)])))
    return v, Hv, rescaled / np.pi, [(t, _met(y, Hv, d)) for t, y in zip(stages, columns, strict=True)]


def _ring_distance(T: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda off: np.minimum(off % T, -off % T)


def _hint(samples: list[tuple[int, np.ndarray]], T: int, limit: int) -> str | None:
    """A ring, or a band with a border, by the stages that those of a few columns meet."""
    if max(int(np.max(_ring_distance(T)(rows - stage), initial=0)) for stage, rows in samples) <= limit:
        return "its ends meet: give periodic=True"
    far = {int(stage): set(rows[np.abs(rows - stage) > limit].tolist()) for stage, rows in samples}
    border = {t for met in far.values() for t in met if sum(t in other for other in far.values()) > 2}
    if not 0 < len(border) <= SAMPLES or any(met - border for stage, met in far.items() if stage not in border):
        return None
    named = ", ".join(map(str, sorted(border)))
    return (
        f"stage {named} meets all others: make it a leaf of its own, and mark that as shared by None in stage_axes, as "
        'in stage_axes={"x": 0, "shared": None}'
    )


def band(multiply: Multiply, T: int, d: int, k: int, closed: bool = False) -> np.ndarray:
    """`((k + 1) d, n)` by direct probes: stages 2k + 1 apart share one, since no row of the band meets two of them."""
    n, index = T * d, np.arange(T * d)
    places = np.array([Arcs.of(T, k).colour(t) for t in range(T)]) if closed else np.arange(T) % (2 * k + 1)
    colours = places[index // d] * d + index % d
    every = np.arange(colours.max(initial=-1) + 1)
    parts = [every[i : i + AT_ONCE, None] == colours for i in range(0, len(every), AT_ONCE)]
    products = np.concatenate([_finite(multiply(probes.astype(float))) for probes in parts])
    ab = np.zeros(((k + 1) * d, n), products.dtype)
    for r in range(min(len(ab), n)):
        j = index if closed else index[: n - r]
        i = (j + r) % n
        ab[r, j] = np.where((i // d - j // d) % T <= k, products[colours[j], i], 0)
    return ab


def reordered(T: int, d: int, found: Found) -> tuple[np.ndarray, int]:
    """The order of the stages by reverse Cuthill-McKee, and the bandwidth in it; the natural one if that is as good."""
    from scipy.sparse import coo_array  # which take long to import
    from scipy.sparse.csgraph import reverse_cuthill_mckee

    row, column = np.nonzero(found.counts)
    low, high = column // d, (column + row) // d
    pattern = coo_array((np.ones(len(low)), (high, low)), shape=(T, T)).tocsr()
    permutation = reverse_cuthill_mckee(pattern + pattern.T, symmetric_mode=True)
    place = np.argsort(permutation)
    bandwidth = int(np.max(np.abs(place[high] - place[low]), initial=0))
    return (permutation, bandwidth) if bandwidth < found.bandwidth else (np.arange(T), found.bandwidth)


def _finite(products: np.ndarray) -> np.ndarray:
    if not np.isfinite(products).all():
        raise FloatingPointError("the Hessian is not finite at (or near) x; give an x inside the domain of fun")
    return products


def _met(y: np.ndarray, Hv: np.ndarray, d: int) -> np.ndarray:
    """The stages where a column of H has entries well above rounding beside its largest."""
    eps = np.finfo(y.dtype).eps
    size = np.abs(y)
    rows = np.nonzero((size > 4 * eps**0.5 * size.max()) & (size > 64 * eps * np.abs(Hv).max()))[0]
    return np.unique(rows // d)


def _product(ab: np.ndarray, v: np.ndarray, closed: bool) -> np.ndarray:
    y, n = ab[0] * v, ab.shape[1]
    for r in range(1, min(ab.shape)):
        if closed:
            y += np.roll(ab[r] * v, r) + ab[r] * np.roll(v, -r)
            continue
        y[r:] += ab[r, : n - r] * v[: n - r]
        y[: n - r] += ab[r, : n - r] * v[r:]
    return y


def _wrong(error: np.ndarray, scale: np.ndarray, noise: float = 0.0) -> np.ndarray:
    eps = np.finfo(error.dtype).eps
    return (error > max(eps**0.5, noise) * scale) & (error > 32 * eps * scale[np.isfinite(scale)].max(initial=0))


def _narrow(ab: np.ndarray, v: np.ndarray, Hv: np.ndarray, again: np.ndarray, closed: bool) -> bool:
    """As the optimisers' `too_narrow`: sqrt(eps) of its row, and what rounding changes in the product, are no sign of
    an entry outside; again is H v once more, by the product of a rescaled v."""
    v = v.astype(ab.dtype)
    scale, change = _product(np.abs(ab), np.abs(v), closed), np.abs(Hv - again)
    noise = 64 * np.max(np.divide(change, scale, out=np.zeros_like(scale), where=scale > 0), initial=0)
    return bool(_wrong(np.abs(Hv - _product(ab, v, closed)), scale, noise).any())


def _counts(ab: np.ndarray, closed: bool) -> np.ndarray:
    """A cell counts if it does in its row or in its column."""
    n, reach = ab.shape[1], min(ab.shape)
    rows = _product(np.abs(ab), np.ones(n, ab.dtype), closed)
    beyond = [rows[:r] if closed else np.full(r, np.inf, ab.dtype) for r in range(reach)]
    below = np.stack([np.append(rows[r:], beyond[r]) for r in range(reach)])
    eps = np.finfo(ab.dtype).eps
    size, scale = np.abs(ab[:reach]), np.minimum(rows, below)
    return (size > eps**0.5 * scale) & (size > 32 * eps * rows.max(initial=0))
