"""The four probings: right entries, promised products and accuracy, transforms, programs, objects of one's own."""

from dataclasses import dataclass
from typing import Any

import default_session
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from backends import BACKENDS, Backend
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import (
    PROBINGS,
    assert_unused_cells_are_zero,
    block_banded,
    counted_quadratic,
    error_in_eps,
    multiply,
    operator,
)
from problems import (
    Problem,
    integers,
    reals,
    rosenbrock,
    rosenbrock_chain,
    steering_stages,
    store,
    unique_coefficients,
    window,
    window_chain,
)

probings = pytest.mark.parametrize("probing", PROBINGS)

# Errors in eps times the largest entry, several times what was measured: direct probing reads entries off as they
# stand; substitution adds and subtracts them (without error, where they are integers); a Fourier transform and a
# least-squares solve round at every step.
ROUNDING = {"direct": 0, "substitution": 0, "fourier": 12, "random": 24}
ROUNDING_REAL = ROUNDING | {"substitution": 24}
# For bands of functions: their own rounding comes on top.
ROUNDING_HESSIAN = {"direct": 64, "substitution": 128, "fourier": 64, "random": 256}


def extract(
    backend: Backend, h: np.ndarray, shape: tuple[int, ...], k: int, dtype: str = "float64", **options: Any
) -> Any:
    matvec = operator(backend, multiply, backend.array(h, dtype))
    return backend.package.from_matvec(matvec, backend.array(np.zeros(shape), dtype), k, **options)


def inputs(backend: Backend, problem: Problem, dtype: str = "float64") -> tuple:
    x = backend.tree_map(lambda leaf: backend.array(leaf, dtype), problem.x)
    return x, *(backend.array(arg, dtype) for arg in problem.args)


def count(name: str, T: int, d: int, k: int) -> int:
    """The promised number of products. Blocks further off than T - 1 stages do not exist."""
    n, k = T * d, min(k, T - 1)
    if name == "direct":
        return min(2 * k + 1, T) * d
    if name == "substitution":
        return min(k + 1, T) * d
    if name == "fourier":
        return min(2 * (k + 1) * d - 1, n if n % 2 else n + 1)
    return 2 * (2 * k + 1) * d


# --- Right entries in the right places -------------------------------------------------------------------------------


@probings
@settings(max_examples=6)
@given(data=st.data())
def test_band_by_definition(backend: Backend, probing: str, data: st.DataObject) -> None:
    T, d, k = data.draw(
        st.tuples(st.sampled_from([2, 5, 9, 14]), st.sampled_from([1, 2, 3]), st.sampled_from([0, 1, 3]))
    )
    dtype = data.draw(st.sampled_from(["float64", "float32"]))
    chunk_size = data.draw(st.sampled_from([1, 3, None]))
    h = block_banded(T, d, k)
    ab = backend.numpy(extract(backend, h, (T, d), k, dtype, probing=probing, chunk_size=chunk_size))
    assert ab.dtype == dtype
    assert error_in_eps(ab, store(h, (k + 1) * d - 1)) <= ROUNDING[probing]
    assert_unused_cells_are_zero(ab)


@probings
@pytest.mark.parametrize(("T", "d", "k"), [(0, 2, 1), (1, 3, 2), (3, 1, 12), (4, 2, 3)])
def test_extreme_sizes(backend: Backend, probing: str, T: int, d: int, k: int) -> None:
    """No stage, one stage, as many diagonals as there are, and more."""
    h = block_banded(T, d, k)
    ab = backend.numpy(extract(backend, h, (T, d), k, probing=probing))
    assert error_in_eps(ab, store(h, (k + 1) * d - 1)) <= ROUNDING[probing]
    assert_unused_cells_are_zero(ab)


@pytest.mark.parametrize("probing", ["substitution", "random"])
def test_vector_is_a_stage_of_one(backend: Backend, probing: str) -> None:
    h = block_banded(11, 1, 3)
    bands = [backend.numpy(extract(backend, h, shape, 3, probing=probing)) for shape in [(11,), (11, 1)]]
    np.testing.assert_array_equal(*bands, strict=True)


@probings
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_accuracy_on_real_entries(backend: Backend, probing: str, dtype: str) -> None:
    T, d, k = 80, 2, 2
    h = block_banded(T, d, k, seed=1).astype(dtype)
    ab = backend.numpy(extract(backend, h, (T, d), k, dtype, probing=probing))
    assert error_in_eps(ab, store(h, (k + 1) * d - 1)) <= ROUNDING_REAL[probing]


@pytest.mark.parametrize("probing", ["direct", "substitution"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_integers_are_exact_and_equal_in_both(probing: str, dtype: str) -> None:
    h = block_banded(13, 2, 2)
    bands = [BACKENDS[name].numpy(extract(BACKENDS[name], h, (13, 2), 2, dtype, probing=probing)) for name in BACKENDS]
    np.testing.assert_array_equal(bands[0], bands[1], strict=True)
    np.testing.assert_array_equal(bands[0], store(h, 5).astype(dtype), strict=True)


@probings
@pytest.mark.parametrize(
    "problem", [rosenbrock_chain(17), window_chain(20, 2), steering_stages(7, ragged=True)], ids=str
)
def test_hessian(backend: Backend, probing: str, problem: Problem) -> None:
    hessian = backend.package.hessian(problem.objective(backend.xp), problem.bandwidth, probing=probing)
    ab = backend.numpy(hessian(*inputs(backend, problem)))
    exact = problem.exact and ROUNDING[probing] == 0
    assert error_in_eps(ab, problem.band) <= (0 if exact else ROUNDING_HESSIAN[probing])
    assert_unused_cells_are_zero(ab)


@probings
def test_objects_are_their_names(backend: Backend, probing: str) -> None:
    """`Direct()` and the others are what the strings stand for, in every function that takes a probing."""
    thing = getattr(backend.package, probing.capitalize())()
    assert isinstance(thing, backend.package.Probing)
    assert thing == getattr(backend.package, probing.capitalize())()
    h = block_banded(7, 2, 1)
    by_object, by_name = (backend.numpy(extract(backend, h, (7, 2), 1, probing=one)) for one in (thing, probing))
    np.testing.assert_array_equal(by_object, by_name)


# --- The promised products -------------------------------------------------------------------------------------------


@probings
@pytest.mark.parametrize(("T", "d", "k"), [(9, 1, 2), (5, 1, 12), (4, 2, 1), (2, 1, 1)])
def test_products(backend: Backend, probing: str, T: int, d: int, k: int) -> None:
    h, products = block_banded(T, d, k), []

    def product(v: np.ndarray) -> np.ndarray:
        products.append(np.array(v))
        return multiply(h, v)

    like = backend.array(np.zeros((T, d)))
    ab = backend.package.from_matvec(backend.on_host(product), like, k, probing=probing, chunk_size=1)
    assert error_in_eps(backend.numpy(ab), store(h, (k + 1) * d - 1)) <= ROUNDING[probing]
    assert len(products) == count(probing, T, d, k)
    assert {product.shape for product in products} == {(T, d)}


@pytest.mark.parametrize("oversampling", [5])
def test_products_with_oversampling(backend: Backend, oversampling: int) -> None:
    h, products = block_banded(6, 2, 1), []

    def product(v: np.ndarray) -> np.ndarray:
        products.append(None)
        return multiply(h, v)

    probing = backend.package.Random(oversampling=oversampling)
    like = backend.array(np.zeros((6, 2)))
    backend.numpy(backend.package.from_matvec(backend.on_host(product), like, 1, probing=probing, chunk_size=1))
    assert len(products) == 3 * 2 + oversampling


@probings
def test_products_of_a_hessian(backend: Backend, probing: str) -> None:
    n, k = 12, 2
    A, products = block_banded(n, 1, k), []
    fun = counted_quadratic(backend, A, products)
    ab = backend.numpy(backend.package.hessian(fun, k, probing=probing)(backend.array(integers(n, 0))))
    assert error_in_eps(ab, store(A, k)) <= ROUNDING[probing]
    assert len(products) == count(probing, n, 1, k)


# --- Substitution on badly scaled bands ------------------------------------------------------------------------------


def naive_substitution(products: np.ndarray) -> np.ndarray:
    """Powell and Toint's recurrence from the first row on: `products[c] = H y_c`, for k + 1 colours."""
    colours, n = products.shape
    k = colours - 1
    below = np.zeros((n, colours))  # below[i, f] = H[i, i - f]
    for i in range(n):
        below[i, 0] = products[i % colours, i]
        for f in range(1, min(k, i) + 1):
            # Row i - f sees two columns of this colour: i, and i - k - 1.
            other = below[i - f, k + 1 - f] if i - k - 1 >= 0 else 0
            below[i, f] = products[i % colours, i - f] - other
    return np.array([np.pad(below[f:, f], (0, f)) for f in range(colours)])


def multiply_band(ab: np.ndarray, x: np.ndarray) -> np.ndarray:
    n = ab.shape[1]
    y = ab[0] * x
    for f in range(1, len(ab)):
        y[f:] += ab[f, : n - f] * x[: n - f]
        y[: n - f] += ab[f, : n - f] * x[f:]
    return y


@pytest.mark.parametrize("tenth", [0, 4, 9])
@pytest.mark.parametrize("k", [1, 3])
def test_substitution_keeps_small_entries(backend: Backend, k: int, tenth: int) -> None:
    """A tenth of the entries is larger by 1e8. Summed from one end, its rounding errors go on to the other end."""
    n = 20_000
    ab = np.random.default_rng(k).normal(size=(k + 1, n))
    large = slice(tenth * n // 10, (tenth + 1) * n // 10)
    ab[:, large] *= 1e8
    ab[np.arange(k + 1)[:, None] + np.arange(n) >= n] = 0
    # Two diagonals at the border, where one row holds small and large entries, are out of reach for any probing
    # that sees them added up.
    far = np.ones(n, bool)
    far[max(large.start - k - 1, 0) : large.stop + k + 1] = False

    matvec = operator(backend, backend.package.matvec, backend.array(ab))
    got = backend.package.from_matvec(matvec, backend.array(np.zeros(n)), k, probing="substitution")
    assert np.abs(backend.numpy(got) - ab)[:, far].max() < 1e-12
    products = np.array([multiply_band(ab, (np.arange(n) % (k + 1) == c).astype(float)) for c in range(k + 1)])
    naive = np.abs(naive_substitution(products) - ab)
    assert naive[:, ~far].max() < 1e-5, "the oracle is wrong"
    assert naive[:, far].max() > (1e-9 if tenth < 9 else 0), "this test could not fail"


def test_substitution_keeps_small_entries_in_stages(backend: Backend) -> None:
    T, d, k = 5_000, 2, 2
    n, C = T * d, (k + 1) * d
    ab = np.random.default_rng(0).normal(size=(C, n))
    ab[:, : n // 10] *= 1e8
    row, column = np.arange(C)[:, None], np.arange(n)
    ab[(row + column >= n) | (row + column % d >= C)] = 0

    def matvec(ab: Any, v: Any) -> Any:
        return backend.package.matvec(ab, v.reshape(-1)).reshape(v.shape)

    like = backend.array(np.zeros((T, d)))
    got = backend.package.from_matvec(operator(backend, matvec, backend.array(ab)), like, k, probing="substitution")
    assert np.abs(backend.numpy(got) - ab)[:, n // 10 + C :].max() < 1e-12


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_substitution_error_grows_slowly(backend: Backend, dtype: str) -> None:
    """Some sqrt(n / k) eps times the largest entry: the errors along a chain add up like a random walk."""
    n, k = 30_000, 2
    ab = np.random.default_rng(7).uniform(-1, 1, (k + 1, n)).astype(dtype)
    ab[np.arange(k + 1)[:, None] + np.arange(n) >= n] = 0
    matvec = operator(backend, backend.package.matvec, backend.array(ab))
    got = backend.package.from_matvec(matvec, backend.array(np.zeros(n), dtype), k, probing="substitution")
    assert error_in_eps(backend.numpy(got), ab) <= 2 * np.sqrt(n / k)


# --- Fourier phases --------------------------------------------------------------------------------------------------


def test_fourier_phases_in_float32(backend: Backend) -> None:
    n, k = 1_000_000, 1
    ab = np.random.default_rng(3).uniform(-1, 1, (k + 1, n)).astype("float32")
    ab[1, -1] = 0
    matvec = operator(backend, backend.package.matvec, backend.array(ab))
    got = backend.package.from_matvec(matvec, backend.array(np.zeros(n), "float32"), k, probing="fourier")
    for diagonal in range(k + 1):
        assert error_in_eps(backend.numpy(got)[diagonal], ab[diagonal]) <= ROUNDING["fourier"]

    j = np.arange(n)
    direct = np.float32(2 * np.pi / 3) * j.astype("float32")
    assert np.abs(np.cos(direct) - np.cos(2 * np.pi / 3 * (j % 3))).max() > 0.01, "no reduction needed at this n"


# --- Random probes ---------------------------------------------------------------------------------------------------


def noisy(backend: Backend, h: np.ndarray, sigma: float, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return backend.on_host(lambda v: multiply(h, v) + sigma * rng.normal(size=v.shape))


def from_noisy(backend: Backend, sigma: float, oversampling: int | None, T: int = 80, d: int = 2, k: int = 1) -> tuple:
    """`(error, noise)`: of the band, cell by cell, and as estimated."""
    h = block_banded(T, d, k, seed=5)
    probing = backend.package.Random(oversampling=oversampling, return_noise=True)
    ab, noise = backend.package.from_matvec(
        noisy(backend, h, sigma), backend.array(np.zeros((T, d))), k, probing=probing, chunk_size=1
    )
    return backend.numpy(ab) - store(h, (k + 1) * d - 1), float(noise)


def test_noise_estimate(backend: Backend) -> None:
    sigma = 1e-3
    _, noise = from_noisy(backend, sigma, None)
    assert abs(noise / sigma - 1) < 0.2


@pytest.mark.parametrize(("T", "k"), [(3, 2), (2, 4)])
def test_noise_estimate_where_windows_are_cut(backend: Backend, T: int, k: int) -> None:
    """Near the ends rows have fewer unknowns: with few stages that decides."""
    sigma, d, oversampling = 1e-2, 2, 150
    _, noise = from_noisy(backend, sigma, oversampling, T, d, k)
    assert abs(noise / sigma - 1) < 0.2


def test_noise_estimate_without_noise(backend: Backend) -> None:
    error, noise = from_noisy(backend, 0.0, None)
    assert 0 <= noise < 1e-13
    assert np.abs(error).max() < 1e-12
    assert np.isnan(from_noisy(backend, 1.0, 0, T=1, d=1, k=0)[1]), "nothing is left to estimate it from"


def test_averaging(backend: Backend) -> None:
    """Entries off the diagonal are estimated twice: 1 / sqrt(2) of the error. More products: 1 / sqrt(oversampling)."""
    sigma = 1e-2
    size = {}
    for oversampling in (10, 40):
        error, _ = from_noisy(backend, sigma, oversampling, T=150, d=1)
        size[oversampling] = np.sqrt(np.mean(error[0] ** 2)), np.sqrt(np.mean(error[1, :-1] ** 2))
        # The inverse of a Gaussian matrix' Gram matrix has mean 1 / (oversampling - 1).
        assert abs(size[oversampling][0] / (sigma / np.sqrt(oversampling - 1)) - 1) < 0.25
        assert abs(size[oversampling][1] / size[oversampling][0] - np.sqrt(0.5)) < 0.15
    for few, many in zip(size[10], size[40], strict=True):
        assert abs(few / many - np.sqrt(39 / 9)) < 0.4


def test_noise_beside_the_band_of_a_hessian(backend: Backend) -> None:
    probing = backend.package.Random(return_noise=True)
    x = backend.array(integers(9, 0))

    def with_aux(x: Any) -> Any:
        return rosenbrock(backend.xp)(x), x[:2]

    plain = backend.package.hessian(rosenbrock(backend.xp), 1, probing="random")(x)
    ab, noise = backend.package.hessian(rosenbrock(backend.xp), 1, probing=probing)(x)
    np.testing.assert_array_equal(ab, plain)
    assert noise.shape == ()
    assert 0 <= float(noise) < 1e-9
    (ab, noise), aux = backend.package.hessian(with_aux, 1, has_aux=True, probing=probing)(x)
    np.testing.assert_allclose(ab, plain, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(aux, integers(9, 0)[:2])
    ab, noise = backend.package.gauss_newton(lambda x: x[1:] - x[:-1], 1, probing=probing)(x)
    np.testing.assert_allclose(ab[1, :-1], -np.ones(8), rtol=1e-12)


def test_newton_with_a_probing_that_returns_its_noise(backend: Backend) -> None:
    x0 = backend.array(np.zeros(9))
    result = backend.package.newton(rosenbrock(backend.xp), x0, 1, probing=backend.package.Random(return_noise=True))
    np.testing.assert_allclose(result.x, np.ones(9), atol=1e-6)


def probes_of(backend: Backend, probing: Any) -> np.ndarray:
    T, d, k = 6, 1, 1
    like = backend.dtype("float64") if backend.name == "jax" else backend.array(0.0)
    probes = [probing.probe(c, T, d, k, like) for c in range(probing.count(T, d, k))]
    return np.array([backend.numpy(probe) for probe in probes])


def test_seed(backend: Backend) -> None:
    """Every seed its own probes, the same each time; no two probes alike."""
    Random = backend.package.Random
    seeds = [0, 1, 2, -1, 2**12, 2**20, 2**31 + 5, 2**40]
    probes = np.array([probes_of(backend, Random(seed=seed)) for seed in seeds])
    np.testing.assert_array_equal(probes[1], probes_of(backend, Random(seed=seeds[1])))
    np.testing.assert_array_equal(probes[0], probes_of(backend, Random()))
    first = probes[..., 0]
    alike = [(seeds[a], seeds[b]) for a in range(len(seeds)) for b in range(a) if np.any(np.isin(first[a], first[b]))]
    assert alike == []
    assert len(np.unique(probes)) == probes.size


def test_seed_decides_the_band(backend: Backend) -> None:
    h = block_banded(7, 1, 1)
    rng = np.random.default_rng(0)
    mess = 0.1 * rng.normal(size=h.shape)  # outside the band: every seed makes something else of it
    bands = [
        backend.numpy(extract(backend, h + mess, (7,), 1, probing=probing))
        for probing in ("random", backend.package.Random(seed=0), backend.package.Random(seed=1))
    ]
    np.testing.assert_array_equal(bands[0], bands[1])
    assert np.abs(bands[0] - bands[2]).max() > 1e-3


def test_stages_at_once_changes_nothing(backend: Backend) -> None:
    h = block_banded(7, 2, 1)
    whole = backend.numpy(extract(backend, h, (7, 2), 1, probing=backend.package.Random()))
    for stages in (3,):
        parts = extract(backend, h, (7, 2), 1, probing=backend.package.Random(stages_at_once=stages))
        assert error_in_eps(backend.numpy(parts), whole) <= ROUNDING["random"]


@pytest.mark.parametrize(
    ("error", "option"),
    [
        (ValueError, {"oversampling": -1}),
        (TypeError, {"oversampling": 1.5}),
        (TypeError, {"oversampling": "many"}),
        (TypeError, {"seed": 1.5}),
        (ValueError, {"stages_at_once": 0}),
    ],
    ids=str,
)
def test_bad_random(backend: Backend, error: type[Exception], option: dict) -> None:
    (name,) = option
    with pytest.raises(error, match=name):
        backend.package.Random(**option)


# --- Probings of one's own -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Columns:
    """One probe per column: the dense matrix. `like` gives the dtype: it is one in JAX, and a tensor in torch."""

    xp: Any
    scale: float = 2.0

    def count(self, T: int, d: int, k: int) -> int:
        return T * d

    def probe(self, c: Any, T: int, d: int, k: int, like: Any) -> Any:
        return self.xp.zeros(T * d, dtype=getattr(like, "dtype", like)) + self.scale * (self.xp.arange(T * d) == c)

    def keep(self, c: Any, y: Any, T: int, d: int, k: int) -> Any:
        return self.xp.concatenate([y, self.xp.zeros_like(y)])

    def decode(self, kept: Any, T: int, d: int, k: int) -> Any:
        row, column = np.arange((k + 1) * d)[:, None], np.arange(T * d)
        return kept[column + 0 * row, column + row] / self.scale


@pytest.mark.parametrize("chunk_size", [1, 4, None])
def test_own_probing(backend: Backend, chunk_size: int | None) -> None:
    T, d, k = 5, 2, 1
    h = block_banded(T, d, k)
    probing = Columns(backend.xp)
    assert isinstance(probing, backend.package.Probing)
    ab = backend.numpy(extract(backend, h, (T, d), k, probing=probing, chunk_size=chunk_size))
    np.testing.assert_array_equal(ab, store(h, (k + 1) * d - 1))


class Unhashable(Columns):
    __hash__ = None


@pytest.mark.parametrize("kind", [Columns, Unhashable])
def test_own_probing_everywhere(backend: Backend, kind: type) -> None:
    """In every function that takes a probing; whether or not the object can be hashed."""
    probing = kind(backend.xp)
    fun = rosenbrock(backend.xp)
    band = rosenbrock_chain(8).band
    x = backend.array(rosenbrock_chain(8).x)
    np.testing.assert_array_equal(backend.package.hessian(fun, 1, probing=probing)(x), band)
    np.testing.assert_array_equal(backend.package.value_grad_hessian(fun, 1, probing=probing)(x)[2], band)
    gram = backend.package.gauss_newton(lambda x: x[1:] - x[:-1], 1, probing=probing)(x)
    np.testing.assert_array_equal(gram, [[1, *[2] * 6, 1], [*[-1] * 7, 0]])
    if kind is Unhashable:
        result = backend.package.newton(rosenbrock(backend.xp), backend.array(np.zeros(8)), 1, probing=probing)
        np.testing.assert_allclose(result.x, np.ones(8), atol=1e-6)


def test_unknown_probing(backend: Backend) -> None:
    class Half:
        def count(self, T: int, d: int, k: int) -> int:
            return T * d

    for probing in ("fft", "Direct", "", None, 3, Half(), backend.package.Direct):
        for call in (
            lambda p: backend.package.hessian(backend.xp.sum, 1, probing=p),
            lambda p: backend.package.value_grad_hessian(backend.xp.sum, 1, probing=p),
            lambda p: backend.package.gauss_newton(backend.xp.sum, 1, probing=p),
            lambda p: backend.package.from_matvec(lambda v: v, backend.array(np.zeros(3)), 1, probing=p),
            lambda p: backend.package.newton(backend.xp.sum, backend.array(np.zeros(3)), 1, probing=p),
        ):
            with pytest.raises(ValueError, match=r"probing must be one of.*direct.*fourier.*random.*substitution"):
                call(probing)


# --- Transforms ------------------------------------------------------------------------------------------------------


@probings
def test_vmap(backend: Backend, probing: str) -> None:
    x = reals(3 * 12, 0).reshape(3, 12)
    hessian = backend.package.hessian(rosenbrock(backend.xp), 1, probing=probing)
    batched = backend.numpy(backend.jit(backend.vmap(hessian))(backend.array(x)))
    for lane, row in zip(batched, x, strict=True):
        assert error_in_eps(lane, backend.numpy(hessian(backend.array(row)))) <= ROUNDING_HESSIAN[probing]


@probings
def test_derivatives_of_the_band(backend: Backend, probing: str) -> None:
    """The gradient of a weighted band is that of the weighted dense Hessian; so is its derivative along a line."""
    n = 9
    fun = window(2)(backend.xp)
    x = backend.array(reals(n, 4))
    weight = unique_coefficients(3, n, 1)
    weight[np.arange(3)[:, None] + np.arange(n) >= n] = 0
    lower = np.zeros((n, n))
    for r in range(3):
        lower += np.diag(weight[r, : n - r], -r)
    on_band, on_dense = backend.array(weight), backend.array(lower)

    hessian = backend.package.hessian(fun, 2, probing=probing)
    by_band = backend.numpy(backend.jit(backend.grad(lambda x: backend.xp.sum(on_band * hessian(x))))(x))
    by_dense = backend.grad(lambda x: backend.xp.sum(on_dense * backend.dense_hessian(fun)(x)))
    assert error_in_eps(by_band, backend.numpy(backend.jit(by_dense)(x))) <= ROUNDING_HESSIAN[probing]
    tangent = reals(n, 6)
    _, along = backend.jvp(hessian, (x,), (backend.array(tangent),))
    np.testing.assert_allclose(np.sum(weight * backend.numpy(along)), tangent @ by_band, rtol=1e-10)


@probings
def test_derivative_in_the_operator(backend: Backend, probing: str) -> None:
    """The band is linear in the operator: the derivative along a direction is the band of the direction."""
    h, change = block_banded(6, 2, 1), block_banded(6, 2, 1, seed=2)
    like = backend.array(np.zeros((6, 2)))

    def band(matrix: Any) -> Any:
        return backend.package.from_matvec(operator(backend, multiply, matrix), like, 1, probing=probing)

    _, along = backend.jvp(band, (backend.array(h),), (backend.array(change),))
    assert error_in_eps(backend.numpy(along), store(change, 3)) <= ROUNDING_REAL[probing]


@pytest.mark.parametrize("probing", ["substitution", "random"])
def test_newton(backend: Backend, probing: str) -> None:
    result = backend.package.newton(rosenbrock(backend.xp), backend.array(np.zeros(8)), 1, probing=probing)
    assert result.status in (backend.package.Status.CONVERGED, backend.package.Status.PRECISION_FLOOR)
    np.testing.assert_allclose(result.x, np.ones(8), atol=1e-7)


# --- Programs and configuration --------------------------------------------------------------------------------------


def constants(text: str, n: int) -> list[str]:
    """Constants of n or more elements that a lowered program spells out (a splat, `dense<0.0>`, holds one number)."""
    found = []
    for line in text.splitlines():
        if "constant" not in line or not any(sign in line for sign in ("dense<[", 'dense<"', "dense_resource")):
            continue
        sizes = line.rsplit("tensor<", 1)[1].split(">", 1)[0].split("x")[:-1]
        if np.prod([int(size) for size in sizes]) >= n:
            found.append(line[:80])
    return found


@pytest.mark.parametrize("probing", ["direct", "substitution", "fourier"])
@pytest.mark.parametrize("chunk_size", [1, None])
def test_no_constant_of_the_size_of_x(probing: str, chunk_size: int | None) -> None:
    """It would be embedded in the program, and folded, seconds long, when that is compiled. Lowered, not compiled."""
    n = 999_983
    package = BACKENDS["jax"].package

    def lowered(fun: Any) -> str:
        return jax.jit(fun).lower(jax.ShapeDtypeStruct((n,), "float64")).as_text()

    text = lowered(package.hessian(window(2)(jnp), 2, probing=probing, chunk_size=chunk_size))
    assert f"{n}xf64" in text
    assert constants(text, n // 10) == []
    embedded = jnp.arange(float(n))
    assert constants(lowered(lambda x: x + embedded), n), "this test could not fail"


@probings
def test_default_configuration_of_jax(probing: str) -> None:
    """With x64 off, as JAX comes, and warnings as errors: float32 bands, and no setting changed."""
    outcomes = default_session.outcomes()
    direct, outcome = (outcomes[f"hessian {name}"] for name in ("direct", probing))
    assert outcome["error"] is None
    assert outcome["dtype"] == "float32"
    ab = np.array(outcome["values"], "float32")
    assert error_in_eps(ab, np.array(direct["values"])) <= ROUNDING_HESSIAN[probing]
    assert outcomes["configuration"]["x64"] is False
    assert outcomes["configuration"]["changed"] == []
