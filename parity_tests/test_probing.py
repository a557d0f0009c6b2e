"""Probes and products: which vectors are multiplied, how many, and that chunks change nothing."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from backends import BACKENDS, Backend
from problems import integers, reals, steering_stages, store, unique_coefficients, unstore

import bandhess_jax

SHAPES = [(9, 1, 0), (11, 1, 2), (6, 1, 5), (4, 1, 9), (7, 3, 1), (5, 2, 2), (6, 2, 0), (1, 3, 2), (1, 1, 0)]
shapes = pytest.mark.parametrize(("T", "d", "k"), SHAPES)


def banded(T: int, d: int, k: int) -> np.ndarray:
    """A symmetric matrix of distinct integers that couples stages at most k apart."""
    h = unique_coefficients(T * d, T * d, 0)
    stage = np.arange(T * d) // d
    h = np.where(abs(stage[:, None] - stage) <= k, h, 0)
    return np.tril(h) + np.tril(h, -1).T


@shapes
def test_probes_by_definition(backend: Backend, T: int, d: int, k: int) -> None:
    h, probes = banded(T, d, k), []

    def product(v: np.ndarray) -> np.ndarray:
        probes.append(np.array(v).ravel())
        return (h @ v.ravel()).reshape(v.shape)

    like = backend.array(np.zeros((T, d)))
    ab = backend.numpy(backend.package.from_matvec(backend.on_host(product), like, k, chunk_size=1))

    np.testing.assert_array_equal(ab, store(h, (k + 1) * d - 1), strict=True)
    assert len(probes) == min(2 * k + 1, T) * d
    # Every column is in exactly one probe, as 1 ...
    np.testing.assert_array_equal(np.unique(probes), [0, 1] if len(probes) > 1 else [1])
    np.testing.assert_array_equal(np.sum(probes, axis=0), np.ones(T * d))
    # ... and no two columns of one probe share a row of the matrix.
    for probe in probes:
        columns = np.flatnonzero(probe)
        for a in columns:
            for b in columns:
                assert a == b or not np.any((h[:, a] != 0) & (h[:, b] != 0))


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 1000, None, "auto"])
def test_chunks_change_nothing(backend: Backend, chunk_size: int | str | None) -> None:
    T, d, k = 9, 2, 2  # 10 probes: 2 divides them, 3 does not
    h = backend.array(banded(T, d, k))
    ab = backend.package.from_matvec(lambda v: h @ v, backend.array(np.zeros((T, d))).reshape(-1), (k + 1) * d - 1)
    chunked = backend.package.from_matvec(
        lambda v: (h @ v.reshape(-1)).reshape(v.shape), backend.array(np.zeros((T, d))), k, chunk_size=chunk_size
    )
    np.testing.assert_array_equal(chunked, store(banded(T, d, k), (k + 1) * d - 1))
    np.testing.assert_array_equal(chunked, ab)  # the same band, extracted as that of a vector


def test_chunk_size_bounds_the_batch(backend: Backend) -> None:
    """A batched product forms (probes, n) arrays: never more than chunk_size probes at a time."""
    n, k = 50, 10
    like, scale = backend.array(np.zeros(n)), backend.array(np.arange(1.0, 1 + 7 * n).reshape(7, n))

    def largest(chunk_size: int | None) -> int:
        # (7, n) per product: larger than the band's own arrays, so that the products decide. By running sums, which
        # nothing but probes goes through.
        def band(like):
            return backend.package.from_matvec(
                lambda v: backend.xp.cumsum(scale * v * scale, 0)[-1], like, k, chunk_size=chunk_size
            )

        return backend.largest_array(band, like)

    assert largest(4) == 4 * 7 * n
    assert largest(None) == (2 * k + 1) * 7 * n


def test_batches_of_probes_by_default() -> None:
    """In JAX on a CPU: many at once, few or wide ones one at a time, and so are products on the host."""

    def loops(matvec: Callable, n: int, k: int) -> bool:
        band = partial(bandhess_jax.from_matvec, matvec, bandwidth=k)
        return "scan[" in str(jax.make_jaxpr(band)(jnp.zeros(n)))

    opaque = jax.checkpoint(lambda v: 2 * v)  # as it stands, it would need no probes
    assert not loops(opaque, 50, 4)
    assert loops(opaque, 50, 3)
    assert not loops(opaque, 2**13, 3)
    assert loops(opaque, 2**18, 3)
    assert loops(jax.checkpoint(lambda v: jnp.sum(jnp.cos(jnp.outer(jnp.arange(32.0), v)), 0)), 2**13, 3)
    turns = lambda v: jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, 2 * c[1]), (0, v))[1]  # noqa: E731
    assert not loops(turns, 2**17, 4)  # a loop, shared by many probes
    assert loops(turns, 2**13, 3)
    on_host = BACKENDS["jax"].on_host(lambda v: 2 * v)
    assert loops(on_host, 50, 4)
    for product in (on_host, jax.checkpoint(on_host), lambda v: jax.lax.cond(v[0] < 9, on_host, on_host, v)):
        np.testing.assert_array_equal(bandhess_jax.from_matvec(product, jnp.zeros(50), 4)[0], 2 * np.ones(50))
    assert loops(lambda v: jax.ffi.ffi_call("never_called", jax.ShapeDtypeStruct(v.shape, v.dtype))(v), 50, 4)


def test_operator_on_trees(backend: Backend) -> None:
    """A block-diagonal operator on {"q": (T, 2), "u": (T - 1,)}: the missing end is a dummy with a unit diagonal."""
    T = 4
    like = {"q": backend.array(np.zeros((T, 2))), "u": backend.array(np.zeros(T - 1))}
    block = backend.array([[2.0, 3.0], [3.0, 5.0]])

    def operator(v):
        return {"q": v["q"] @ block, "u": 7 * v["u"]}

    ab = backend.numpy(backend.package.from_matvec(operator, like, 1))
    expected = np.zeros((6, 3 * T))
    expected[0] = [2, 5, 7] * (T - 1) + [2, 5, 1]
    expected[1] = [3, 0, 0] * T
    np.testing.assert_array_equal(ab, expected, strict=True)


def test_custom_probing(backend: Backend) -> None:
    """A probing is any object with the four methods: here, the direct one in reverse order."""
    direct = backend.package.extraction.probing.protocol.as_probing("direct")

    class Reversed:
        def count(self, T, d, k):
            return direct.count(T, d, k)

        def probe(self, c, T, d, k, like):
            return direct.probe(self.count(T, d, k) - 1 - c, T, d, k, like)

        def keep(self, c, y, T, d, k):
            return direct.keep(self.count(T, d, k) - 1 - c, y, T, d, k)

        def decode(self, kept, T, d, k):
            return direct.decode(backend.xp.flip(kept, (0,)), T, d, k)

    h = banded(8, 1, 2)
    matrix = backend.array(h)
    like = backend.array(np.zeros(8))
    ab = backend.package.from_matvec(lambda v: matrix @ v, like, 2, probing=Reversed())
    np.testing.assert_array_equal(ab, store(h, 2))


def test_float32(backend: Backend) -> None:
    h = backend.array(banded(6, 1, 1), "float32")
    ab = backend.package.from_matvec(lambda v: h @ v, backend.array(integers(6, 0), "float32"), 1)
    np.testing.assert_array_equal(backend.numpy(ab), store(banded(6, 1, 1), 1).astype("float32"), strict=True)


def test_bad_input(backend: Backend) -> None:
    like = backend.array(np.zeros(4))

    def extract(bandwidth=1, like=like, matvec=lambda v: v, **options):
        return lambda: backend.package.from_matvec(matvec, like, bandwidth, **options)

    bad = [
        (ValueError, "bandwidth must be an int >= 0, got -1", extract(-1)),
        (TypeError, "bandwidth must be an int >= 0, got 1.0", extract(1.0)),
        (TypeError, "bandwidth must be an int >= 0, got True", extract(True)),
        (TypeError, "bandwidth must be an int >= 0, got None", extract(None)),
        (ValueError, r"probing must be one of .*'direct'.*'other'", extract(probing="other")),
        (ValueError, "probing must be one of", extract(probing=None)),
        (
            ValueError,
            "probing must be one of",
            extract(probing=type(backend.package.extraction.probing.protocol.as_probing("direct"))),
        ),
        (ValueError, "chunk_size must be an int >= 1, got 0", extract(chunk_size=0)),
        (TypeError, 'chunk_size must be an int >= 1, None or "auto", got 1.5', extract(chunk_size=1.5)),
        (TypeError, "chunk_size must be an int >= 1, None or \"auto\", got 'all'", extract(chunk_size="all")),
        (TypeError, "like must have a real floating dtype", extract(like=backend.array([1, 2]))),
        (ValueError, "every leaf of like needs a leading stage axis", extract(like=backend.array(1.0))),
        (ValueError, r"expected a .*shape.*\(4,\).*\(3,\)", extract(matvec=lambda v: v[1:])),
    ]
    for error, message, call in bad:
        with pytest.raises(error, match=message):
            call()


# --- The four probings -----------------------------------------------------------------------------------------------

PROBINGS = ["direct", "substitution", "fourier", "random"]
ROUNDING = 64


def promised(probing: str, T: int, d: int, k: int) -> int:
    """Products, for k < T."""
    w = (k + 1) * d - 1
    return {
        "direct": min(2 * k + 1, T) * d,
        "substitution": (k + 1) * d,
        "fourier": min(2 * w + 1, T * d + (T * d + 1) % 2),
        "random": 2 * (2 * k + 1) * d,
    }[probing]


@pytest.mark.parametrize(("T", "d", "k"), [(11, 1, 2), (7, 3, 1), (4, 1, 9), (1, 3, 2), (6, 2, 0)])
@pytest.mark.parametrize("probing", PROBINGS[1:])
def test_products_and_band(backend: Backend, probing: str, T: int, d: int, k: int) -> None:
    """One product at a time by a function that can be neither vmapped nor differentiated: counted, and the band."""
    h, count = banded(T, d, k), 0

    def product(v: np.ndarray) -> np.ndarray:
        nonlocal count
        count += 1
        return (h @ v.ravel()).reshape(v.shape)

    like = backend.array(np.zeros((T, d)))
    ab = backend.numpy(backend.package.from_matvec(backend.on_host(product), like, k, probing=probing, chunk_size=1))
    expected = store(h, (k + 1) * d - 1)
    # Sums of integers are exact; a wave or a Gaussian is not.
    atol = 0 if probing == "substitution" else ROUNDING * np.finfo(float).eps * expected.max()
    np.testing.assert_allclose(ab, expected, rtol=0, atol=atol, strict=True)
    w = len(expected) - 1
    np.testing.assert_array_equal(ab[np.add.outer(np.arange(w + 1), np.arange(T * d)) >= T * d], 0)
    assert count == promised(probing, T, d, min(k, T - 1))


@pytest.mark.parametrize("probing", PROBINGS)
def test_ragged_tree_by_every_probing(backend: Backend, probing: str) -> None:
    problem = steering_stages(7, ragged=True)
    x, *args = (backend.tree_map(backend.array, part) for part in (problem.x, *problem.args))
    ab = backend.package.hessian(problem.objective(backend.xp), 1, probing=probing, chunk_size=3)(x, *args)
    np.testing.assert_allclose(ab, problem.band, rtol=0, atol=ROUNDING * np.finfo(float).eps * abs(problem.band).max())


def spread_band(T: int, d: int, k: int) -> np.ndarray:
    """Entries of size 1 within k stages."""
    rows, n = (k + 1) * d, T * d
    row, column = np.indices((rows, n))
    ab = np.random.default_rng(3).normal(size=(rows, n))
    return np.where((column + row < n) & ((column + row) // d - column // d <= k), ab, 0)


def recover(backend: Backend, ab: np.ndarray, d: int, k: int, probing: object, dtype: str = "float64") -> np.ndarray:
    """The band of the operator v -> ab v, which the package's own `matvec` applies."""
    band = backend.array(ab, dtype)
    like = backend.array(np.zeros((ab.shape[1] // d, d)), dtype)
    found = backend.package.from_matvec(
        lambda v: backend.package.matvec(band, v.reshape(-1)).reshape(v.shape), like, k, probing=probing
    )
    assert found.dtype == backend.dtype(dtype)
    return backend.numpy(found).astype(float)


T, D, K = 1200, 2, 2
# In eps of the largest entry; measured: 0, 4.5, 2.5, 1.1.
STATED = {"direct": 0, "substitution": (T / K) ** 0.5, "fourier": 8, "random": 10}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("probing", PROBINGS)
def test_stated_error(backend: Backend, probing: str, dtype: str) -> None:
    ab = spread_band(T, D, K).astype(dtype).astype(float)
    error = np.abs(recover(backend, ab, D, K, probing, dtype) - ab).max() / np.abs(ab).max()
    assert error <= STATED[probing] * np.finfo(dtype).eps


def one_ended(h: np.ndarray, w: int) -> np.ndarray:
    """Substitution by definition: row by row from the first, each new entry is what its product shows, less what is
    known of the other column of that colour by symmetry."""
    n = len(h)
    colour = np.arange(n) % (w + 1)
    products = h @ (colour[:, None] == np.arange(w + 1))
    found = np.zeros((n, n))
    for i in range(n):
        for j in range(i, min(i + w + 1, n)):
            other = j - (w + 1)
            known = found[other, i] if other >= 0 and j > i else 0.0
            found[i, j] = products[i, colour[j]] - known
    return store(found.T, w)


def test_substitution_by_definition(backend: Backend) -> None:
    ab = spread_band(40, 1, 3)
    np.testing.assert_allclose(recover(backend, ab, 1, 3, "substitution"), one_ended(unstore(ab), 3), atol=1e-14)


@pytest.mark.parametrize("end", ["first", "last", "middle"])
def test_badly_scaled_band(backend: Backend, end: str) -> None:
    """A tenth of the entries scaled by 1e8 costs the others nothing, wherever an end of the chain is free of them;
    summed from one end it leaves eight digits less."""
    n, w = 600, 2
    ab = spread_band(n, 1, w)
    start = {"first": 0, "middle": n // 2, "last": n - n // 10}[end]
    ab[:, start : start + n // 10] *= 1e8
    scale = np.array([1e8 if start - w <= j < start + n // 10 + w else 1 for j in range(n)])
    error = np.abs(recover(backend, ab, 1, w, "substitution") - ab) / scale
    assert error.max() <= 1e-13
    if end == "first":
        naive = np.abs(one_ended(unstore(ab), w) - ab) / scale
        assert naive.max() >= 1e-10, "this test could not fail"


def test_substitution_off_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accelerators sum by another formula than CPUs: the program for them, run here."""
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *args, default, **platforms: default(*args))
    ab = spread_band(40, 1, 3)
    ab[:, :4] *= 1e8
    found = recover(BACKENDS["jax"], ab, 1, 3, "substitution")
    np.testing.assert_allclose(found[:, 8:], ab[:, 8:], rtol=0, atol=1e-13)
    np.testing.assert_allclose(found, ab, rtol=0, atol=1e-6)


# --- Random probing --------------------------------------------------------------------------------------------------


class Noisy:
    """An operator with a Gaussian error of size sigma in every entry of every product."""

    def __init__(self, ab: np.ndarray, sigma: float) -> None:
        self.h, self.sigma, self.rng = unstore(ab), sigma, np.random.default_rng(5)

    def __call__(self, v: np.ndarray) -> np.ndarray:
        return self.h @ v + self.sigma * self.rng.normal(size=v.shape)


@pytest.mark.parametrize("oversampling", [None, 45])
def test_noisy_products(backend: Backend, oversampling: int | None) -> None:
    """The noise is estimated, and the errors of the entries are as the docstring says."""
    n, k, sigma = 900, 1, 1e-3
    ab = spread_band(n, 1, k)
    like = backend.array(np.zeros(n))
    probing = backend.package.Random(oversampling=oversampling, return_noise=True)
    found, noise = backend.package.from_matvec(
        backend.on_host(Noisy(ab, sigma)), like, k, probing=probing, chunk_size=1
    )
    assert float(noise) == pytest.approx(sigma, rel=0.05)
    spread = np.std(backend.numpy(found) - ab, axis=1, where=ab != 0)
    more = (2 * k + 1 if oversampling is None else oversampling) - 1
    np.testing.assert_allclose(spread, sigma / np.sqrt([more, 2 * more]), rtol=0.15)


def test_noise_of_exact_products_is_rounding(backend: Backend) -> None:
    A = banded(20, 1, 1)
    matrix, like = backend.array(A), backend.array(np.zeros(20))
    probing = backend.package.Random(return_noise=True)
    ab, noise = backend.package.from_matvec(lambda v: matrix @ v, like, 1, probing=probing)
    assert ab.dtype == noise.dtype == like.dtype
    assert 0 <= float(noise) <= ROUNDING * np.finfo(float).eps * A.max()
    plain = backend.package.from_matvec(lambda v: matrix @ v, like, 1, probing="random")
    np.testing.assert_array_equal(ab, plain)


def test_seed(backend: Backend) -> None:
    """The same seed gives the same probes, another one others; so do the colours among themselves."""
    like = backend.array(np.zeros(50))

    def probes(seed: int) -> list[np.ndarray]:
        seen: list = []

        def product(v: np.ndarray) -> np.ndarray:
            seen.append(np.array(v))
            return v

        backend.package.from_matvec(
            backend.on_host(product), like, 0, probing=backend.package.Random(oversampling=1, seed=seed), chunk_size=1
        )
        return seen

    first, again, other = probes(0), probes(0), probes(1)
    np.testing.assert_array_equal(first, again)
    assert len({tuple(v) for v in [*first, *other]}) == 4
    assert 0.7 < np.std(first) < 1.3


def test_random_in_parts(backend: Backend) -> None:
    """Rows solved five at a time give what all at once give."""
    ab = spread_band(24, 2, 1)
    parts = recover(backend, ab, 2, 1, backend.package.Random(stages_at_once=5))
    np.testing.assert_allclose(parts, ab, rtol=0, atol=ROUNDING * np.finfo(float).eps * np.abs(ab).max())


def test_undetermined_rows_raise_nothing(backend: Backend) -> None:
    """As many products as unknowns: float32 cannot solve all of 2000 random square systems, but the others."""
    ab = spread_band(2000, 1, 8)
    found = recover(backend, ab, 1, 8, backend.package.Random(oversampling=0), "float32")
    assert np.median(np.nan_to_num(abs(found - ab), nan=np.inf)) <= 1e-3


def test_random_arguments(backend: Backend) -> None:
    bad = [
        (ValueError, "oversampling must be an int >= 0, got -1", {"oversampling": -1}),
        (TypeError, "oversampling must be an int >= 0, got 1.5", {"oversampling": 1.5}),
        (ValueError, "seed must be an int >= 0, got -1", {"seed": -1}),
        (TypeError, "seed must be an int >= 0, got None", {"seed": None}),
        (ValueError, "stages_at_once must be an int >= 1, got 0", {"stages_at_once": 0}),
    ]
    for error, message, options in bad:
        with pytest.raises(error, match=message):
            backend.package.Random(**options)


# --- Probings of one's own -------------------------------------------------------------------------------------------


def test_names_and_objects(backend: Backend) -> None:
    """The strings stand for the objects; an object is hashable, so that a compiled extraction is found again."""
    package = backend.package
    for name in PROBINGS:
        probing = getattr(package, name.capitalize())()
        assert isinstance(probing, package.Probing)
        assert package.extraction.probing.protocol.as_probing(name) == probing
        assert hash(package.extraction.probing.protocol.as_probing(name)) == hash(probing)


class Columns:
    """A user's probing: every column by itself, and the trace as a note. Unhashable, as a user's objects may be."""

    def __init__(self, backend: Backend) -> None:
        self.backend, self.seen = backend, []

    def __eq__(self, other: object) -> bool:
        return self is other

    def count(self, T, d, k):
        return T * d

    def probe(self, c, T, d, k, like):
        self.seen.append((T, d, k))
        eye = self.backend.xp.eye(T * d, dtype=getattr(like, "dtype", like))
        return eye[c]

    def keep(self, c, y, T, d, k):
        return y

    def decode(self, kept, T, d, k):
        xp, rows = self.backend.xp, (k + 1) * d
        diagonals = [xp.diagonal(kept, -r) for r in range(rows)]
        padded = [xp.concatenate([a, xp.zeros_like(kept[0, : kept.shape[0] - a.shape[0]])]) for a in diagonals]
        return xp.stack(padded), xp.sum(diagonals[0])


def test_probing_of_a_user(backend: Backend) -> None:
    problem = steering_stages(7, ragged=True)
    x, *args = (backend.tree_map(backend.array, part) for part in (problem.x, *problem.args))
    probing = Columns(backend)
    ab, trace = backend.package.hessian(problem.objective(backend.xp), 1, probing=probing)(x, *args)
    np.testing.assert_allclose(ab, problem.band, rtol=0, atol=ROUNDING * np.finfo(float).eps * abs(problem.band).max())
    assert float(trace) == pytest.approx(problem.band[0].sum() - 2)  # without the dummies' unit diagonal
    assert set(probing.seen) == {(7, 5, 1)}


@pytest.mark.parametrize("name", ["Direct", "Substitution"])
def test_derived_probing(backend: Backend, name: str) -> None:
    """What a user's class overrides is called: probes four times as long, products halved."""

    class Longer(getattr(backend.package, name)):
        def probe(self, c, T, d, k, like):
            return 4 * super().probe(c, T, d, k, like)

        def keep(self, c, y, T, d, k):
            return super().keep(c, y, T, d, k) / 2

    h = backend.array(banded(9, 1, 2))
    ab = backend.package.from_matvec(lambda v: h @ v, backend.array(np.zeros(9)), 2, probing=Longer())
    np.testing.assert_array_equal(ab, 2 * store(banded(9, 1, 2), 2))


def test_notes_stay_out_of_the_optimiser(backend: Backend) -> None:
    x0 = backend.array(reals(6, 0))
    result = backend.package.newton(
        lambda x: backend.xp.sum((x - 1) ** 2), x0, 0, probing=backend.package.Random(return_noise=True)
    )
    np.testing.assert_allclose(backend.numpy(result.x), np.ones(6), atol=1e-12)


def test_band_of_another_shape_is_refused(backend: Backend) -> None:
    class Broken(Columns):
        def decode(self, kept, T, d, k):
            return kept[:, :3]

    with pytest.raises(ValueError, match=r"Broken.decode must return the band, shape \(2, 4\).*got shape \(4, 3\)"):
        backend.package.from_matvec(lambda v: v, backend.array(np.zeros(4)), 1, probing=Broken(backend))
