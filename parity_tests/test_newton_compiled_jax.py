"""newton's loop in kernels: against the portable loop, and request by request."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chains import window
from minimisations import Landscape
from newton_cases import ENDS, HERE, LANDSCAPE
from newton_facts import naive, problem
from oracles import store
from problems import steering_stages

import bandhess_jax
from bandhess_common.kernels import call, view
from bandhess_common.kernels.interior import DERIVATIVES, DONE, VALUES
from bandhess_common.kernels.newton import BEST, HEAD, NUMBERS, VECTORS, Settings, settings
from bandhess_jax.optimise.newton.point import Facts

pytestmark = pytest.mark.usefixtures("compiled_kernels")
WELL = Landscape(tilt=0.1, curvature=-1, quartic=1, spring=0.5)
SIZES = 2.0 ** np.array([0, 3, -2, 1, -4, 2])


def both(fun: Any, x: Any, w: int, **options: Any) -> tuple[Any, Any]:
    """By kernels, and without."""
    given = jax.tree.map(jnp.asarray, x)
    by_kernels = bandhess_jax.newton(fun, given, w, history=True, **options)
    with bandhess_jax.portable():
        return by_kernels, bandhess_jax.newton(fun, given, w, history=True, **options)


def check_ends(one: Any, other: Any) -> None:
    """Rounding may cost some of many steps."""
    assert one.status == other.status
    assert abs(one.steps - other.steps) <= (0.1 * one.steps if one.steps >= 50 else 0)


def check_same(one: Any, other: Any, rtol: float = 1e-6) -> None:
    assert (one.status, one.steps) == (other.status, other.steps)
    if one.status != bandhess_jax.Status.UNBOUNDED:
        for a, b in zip(*map(jax.tree.leaves, (one.x, other.x)), strict=True):
            np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)
    for name in ("value", "grad_norm", "step", "radius"):
        steps = getattr(one.history, name), getattr(other.history, name)
        np.testing.assert_allclose(*steps, rtol=100 * rtol, atol=100 * rtol * np.abs(steps[1]).max(), err_msg=name)


@pytest.mark.parametrize("end", ENDS)
def test_the_same_ends(end: str) -> None:
    c, x, status = ENDS[end]
    one, other = both(LANDSCAPE["jax"], x, 1, args=(jnp.asarray(c.array()),))
    assert one.status.name == status
    check_ends(one, other)
    np.testing.assert_allclose(one.value, other.value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("scale", ["none", "diagonal", "given"])
@pytest.mark.parametrize("c", [WELL, Landscape(curvature=1, spring=2)], ids=["well", "convex"])
def test_the_same_steps(c: Landscape, scale: str) -> None:
    fun = lambda x, c: LANDSCAPE["jax"](x / SIZES, c)  # noqa: E731
    sizes = {"none": None, "diagonal": "diagonal", "given": jnp.asarray(SIZES)}[scale]
    check_same(*both(fun, 4 * HERE * SIZES, 1, args=(jnp.asarray(c.array()),), scale=sizes))


def test_the_same_steps_of_ragged_trees() -> None:
    problem = steering_stages(7, ragged=True)
    x = {name: np.asarray(leaf) for name, leaf in problem.x.items()}
    scale = {name: jnp.asarray(3 + np.abs(leaf)) for name, leaf in x.items()}
    for options in ({}, {"scale": scale}, {"scale": "diagonal"}):
        check_same(*both(problem.objective(jnp), x, 1, args=tuple(map(jnp.asarray, problem.args)), **options))


@pytest.mark.parametrize("max_steps", [0, 1, 3])
def test_the_same_where_steps_are_spent(max_steps: int) -> None:
    one, other = both(LANDSCAPE["jax"], 4 * HERE, 1, args=(jnp.asarray(WELL.array()),), max_steps=max_steps)
    assert one.status == bandhess_jax.Status.MAX_STEPS
    check_same(one, other)


def chain(x: Any, a: Any, b: Any) -> Any:
    return (jnp.sum(a * (x - 1) ** 2) + jnp.sum(b * (x[1:] - x[:-1] - 1) ** 2)) / 2


def band_of_chain(x: Any, a: Any, b: Any) -> Any:
    zero = jnp.zeros(1, x.dtype)
    return jnp.stack([a + jnp.concatenate([b, zero]) + jnp.concatenate([zero, b]), jnp.concatenate([-b, zero])])


@pytest.mark.parametrize("hessian", ["exact", "given"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_same_where_steps_are_refined(dtype: str, hessian: str) -> None:
    """A chain that hangs on its ends by so little that the band's rounding is larger."""
    n, eps = 6, np.finfo(dtype).eps
    a, b = np.full(n, eps / 2, dtype), np.full(n - 1, 1, dtype)
    kind = "exact" if hessian == "exact" else band_of_chain
    one, other = both(chain, HERE.astype(dtype), 1, args=(jnp.asarray(a), jnp.asarray(b)), hessian=kind)
    assert float(one.history.shift[1]) > 0
    assert (one.status, one.steps) == (other.status, other.steps)
    assert one.status == bandhess_jax.Status.PRECISION_FLOOR
    np.testing.assert_allclose(one.value, other.value, rtol=1e-3, atol=100 * eps)


def test_gauss_newton_is_the_same() -> None:
    residuals = lambda x: jnp.concatenate([10 * (x[1:] - x[:-1] ** 2), 1 - x])  # noqa: E731
    check_same(*both(residuals, np.linspace(-1, 0.5, 9), 1, hessian="gauss_newton"))


@pytest.mark.parametrize(("n", "w"), [(3, 5), (40, 2), (61, 7)])
def test_other_widths_are_the_same(n: int, w: int) -> None:
    """A band of more rows than H among them."""
    fun = window(min(w, n - 1))(jnp)
    for dtype, rtol in (("float64", 1e-6), ("float32", 1e-2)):
        one, other = both(fun, np.linspace(-2, 2, n).astype(dtype), w)
        check_ends(one, other)
        np.testing.assert_allclose(one.x, other.x, rtol=rtol, atol=rtol)


def test_where_kernels_serve() -> None:
    """On plain bands; and then the program is that of the user's functions, and little more."""
    fun = window(2)(jnp)
    assert "bandhess_newton_begin" in str(jax.make_jaxpr(lambda x: bandhess_jax.newton(fun, x, 2).x)(jnp.ones(12)))
    ring = jax.make_jaxpr(lambda x: bandhess_jax.newton(lambda x: jnp.sum(x**2), x, 1, periodic=True).x)(jnp.ones(12))
    assert "bandhess_newton" not in str(ring)
    solve = lambda x: bandhess_jax.newton(fun, x, 2).x  # noqa: E731
    sizes = [jax.jit(solve).lower(jnp.ones(12)).compile().as_text().count(" fusion(")]
    with bandhess_jax.portable():
        sizes.append(jax.jit(lambda x: solve(x)).lower(jnp.ones(12)).compile().as_text().count(" fusion("))
    assert 0 < sizes[0] < sizes[1] / 2


# --- Request by request ----------------------------------------------------------------------------------------------


class Driven:
    """The kernels' state, in NumPy."""

    def __init__(self, x: np.ndarray, rows: int, **options: Any) -> None:
        self.dtype, n = x.dtype, x.shape[-1]
        batch = x.shape[:-1]
        shapes = (NUMBERS,), (VECTORS, n), (rows, n), (n,), (n,)
        self.arrays = [np.zeros((*batch, *shape), x.dtype) for shape in shapes]
        table = {"scaling": "none", "given": False, "checked": False} | options
        limits = [1.5e-8, 1.8e-12, 100]
        tables = [np.broadcast_to(np.array(a, x.dtype), (*batch, len(a))).copy() for a in (limits, settings(**table))]
        nothing = np.zeros((*batch, 0), x.dtype)
        self.given = [x, *tables, nothing, nothing]
        self.start(False)

    def start(self, begun: bool) -> None:
        flags = np.full(self.given[0].shape[:-1], begun, np.int32)
        call("newton_start", list(map(view, (*self.given, flags, *self.arrays[:3]))), list(map(view, self.arrays)))

    def tell(self, name: str, *brought: Any) -> None:
        operands = [*self.arrays[:3], *(np.array(a, self.dtype, order="C") for a in brought)]
        call(f"newton_{name}", list(map(view, operands)), list(map(view, self.arrays)))

    def number(self, name: str) -> Any:
        return self.arrays[0][..., HEAD.index(name)]

    @property
    def x(self) -> np.ndarray:
        return self.arrays[3].copy()

    @property
    def facts(self) -> Facts:
        start = len(HEAD) + len(Settings._fields) + 3 + 9  # limits, the region
        return Facts(*self.arrays[0][start : start + 9])


def visited(ab: np.ndarray, g: np.ndarray, x: np.ndarray) -> Driven:
    state = Driven(x, len(ab))
    state.tell("trial", 1.5)
    state.tell("begin", g, ab, np.zeros((2, len(x))))
    return state


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("n", "w"), [(1, 0), (3, 5), (67, 2), (530, 1)])  # 530: two blocks of rows
def test_facts(n: int, w: int, dtype: str) -> None:
    ab, g, x, _ = problem(n, w, dtype)
    state = visited(ab, g, x)
    np.testing.assert_allclose(state.facts, naive(ab, g, x, 0 * x), rtol=100 * np.finfo(dtype).eps)
    np.testing.assert_array_equal(state.arrays[1][BEST], x)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("i", [0, 66, 69])  # within a block of 64, and in what is left of it
def test_facts_that_are_not_finite(i: int, bad: float) -> None:
    ab, g, x, _ = problem(70, 2)
    g[i], ab[0, i] = bad, bad
    state = visited(ab, g, x)
    assert state.number("status") == bandhess_jax.Status.NONFINITE
    np.testing.assert_equal(state.facts.grad_norm, abs(bad))
    assert np.isnan(state.facts.high)  # the radius is inf - inf


def quadratic(n: int) -> tuple[np.ndarray, np.ndarray]:
    """H and its band."""
    H = 4 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)
    return H, store(H, 1)


def test_a_quadratic_takes_one_step() -> None:
    """The requests: f at x0, its derivatives, f at the minimiser, the derivatives there; then the end."""
    n = 9
    H, ab = quadratic(n)
    x0 = np.linspace(-1, 1, n)
    state, asked = Driven(x0, 2), []
    while state.number("request") != DONE:
        asked.append(int(state.number("request")))
        x = state.x
        if asked[-1] == VALUES:
            state.tell("trial", x @ H @ x / 2 - x.sum())
        else:
            assert state.number("wants_band")
            state.tell("begin", H @ x - 1, ab, np.zeros((2, n)))
    assert asked == [VALUES, DERIVATIVES] * 2
    assert (state.number("status"), state.number("steps")) == (bandhess_jax.Status.CONVERGED, 1)
    np.testing.assert_allclose(state.arrays[1][BEST], np.linalg.solve(H, np.ones(n)), rtol=1e-12)


@pytest.mark.parametrize("wrong", [False, True])
def test_the_band_is_checked_with_noise(wrong: bool) -> None:
    n = 9
    H, ab = quadratic(n)
    H[0, -1] = H[-1, 0] = float(wrong)
    state = Driven(np.ones(n), 2, checked=True)
    state.tell("trial", 1.0)
    assert state.number("products") == 2
    probe = state.arrays[4]
    assert len({*probe.tolist()}) == n
    state.tell("begin", np.ones(n), ab, np.stack([H @ probe, H @ (np.pi * probe)]))
    assert (state.number("status") == bandhess_jax.Status.BAND_TOO_NARROW) == wrong


def test_what_was_not_asked_for_changes_nothing() -> None:
    n = 9
    _, ab = quadratic(n)
    state = Driven(np.ones(n), 2)
    for name, brought, other in (
        ("trial", (1.0,), ("begin", np.ones(n), ab, np.ones((2, n)))),
        ("begin", (np.ones(n), ab, np.ones((2, n))), ("trial", 3.0)),
    ):
        before = [a.copy() for a in state.arrays]
        state.tell(*other)
        for a, b in zip(before, state.arrays, strict=True):
            np.testing.assert_array_equal(a, b)
        state.tell(name, *brought)


def test_a_state_goes_on() -> None:
    state = visited(quadratic(9)[1], np.ones(9), np.ones(9))
    before = [a.copy() for a in state.arrays]
    state.given[0] = np.zeros(9)
    state.start(True)
    for a, b in zip(before[:3], state.arrays[:3], strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(state.x, before[3])
    state.start(False)
    np.testing.assert_array_equal(state.x, 0)


def test_a_batch_is_its_problems() -> None:
    """Turn by turn under vmap, where some have ended before."""
    fun, options = LANDSCAPE["jax"], {"args": (jnp.asarray(WELL.array()),), "callback": lambda info: None}
    starts = jnp.asarray(np.stack([4 * HERE, 0 * HERE + 1, HERE[::-1]]))
    together = jax.vmap(lambda x: bandhess_jax.newton(fun, x, 1, **options))(starts)
    alone = [bandhess_jax.newton(fun, x, 1, **options) for x in starts]
    assert [int(steps) for steps in together.steps] == [result.steps for result in alone]
    assert len({*together.steps.tolist()}) > 1
    np.testing.assert_allclose(together.x, np.stack([result.x for result in alone]), rtol=1e-9)
