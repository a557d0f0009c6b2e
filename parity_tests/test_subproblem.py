"""The trust-region subproblem against its solution by dense eigenvectors, in both backends and by every program."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from oracles import store, unstore

import bandhess_jax
from bandhess_jax.linalg import solve as jax_solve
from bandhess_jax.optimise.newton import subproblem as by_jax
from bandhess_torch.linalg import solve as torch_solve
from bandhess_torch.optimise.newton import subproblem as by_torch

N = 43  # two tiles of the compiled kernel
EPS = np.finfo("float64").eps


def definite(w: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    H, g = indefinite(w, seed)
    return H + (0.5 - np.linalg.eigvalsh(H)[0]) * np.eye(N), g


def indefinite(w: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return unstore(store(rng.normal(size=(N, N)), w)), rng.normal(size=N)


def hard(w: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The gradient has no part in the lowest eigenvectors: no shift makes the step long enough."""
    H, g = indefinite(w, seed)
    vectors = np.linalg.eigh(H)[1][:, :3]
    return H, g - vectors @ (vectors.T @ g)


def stationary(w: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    H, g = indefinite(w, seed)
    return H, 0 * g


CASES = {
    # name: (problem, radius)
    "Newton step": (definite, 100.0),
    "cut short": (definite, 0.1),
    "indefinite": (indefinite, 2.0),
    "indefinite, near": (indefinite, 1e-4),
    "indefinite, far": (indefinite, 1e3),
    "hard": (hard, 50.0),
    "stationary": (stationary, 1.0),
}


def solution(H: np.ndarray, g: np.ndarray, radius: float) -> tuple[float, float]:
    """The least shift and the model's largest decrease, by bisection on eigenvalues."""
    values, vectors = np.linalg.eigh(H)
    c = vectors.T @ g

    def length(shift: float) -> float:
        return float(np.linalg.norm(c[np.abs(c) > 1e-12] / (values[np.abs(c) > 1e-12] + shift)))

    least = max(0.0, -values[0])
    low, high = least, least + np.linalg.norm(g) / radius + 1e-12
    if length(low + 1e-13) <= radius:  # inside; or hard, and an eigenvector makes up for what is missing
        missing = radius**2 - length(low + 1e-13) ** 2 if least else 0
        p = np.where(np.abs(c) > 1e-12, -c / (values + low + 1e-13), 0)
        return low, float(-(c @ p) - p @ (values * p) / 2 + least * missing / 2)
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if length(middle) > radius else (low, middle)
    p = -c / (values + high)
    return high, float(-(c @ p) - p @ (values * p) / 2)


def ask(H: np.ndarray, g: np.ndarray, radius: float, **numbers: Any) -> dict[str, Any]:
    """The query that the trust-region method would make at a new point."""
    sums = np.abs(H).sum(1) - np.abs(np.diag(H))
    low, high = (np.diag(H) - sums).min(), (np.diag(H) + sums).max()
    wanted = np.linalg.norm(g) / radius
    shift = max(0.0, -np.diag(H).min(), wanted - max(-low, high))
    bracket = {"low": shift, "high": max(shift, wanted + max(0.0, -low))}
    return {
        "radius": radius, "shift": shift, **bracket, "guess": wanted, "soft": EPS**0.5 * max(-low, high),
        "enough": -1.0, "grow": False,
    } | numbers  # fmt: skip


START = np.cos(np.arange(N) ** 2)
serial = jax.jit(by_jax.minimise_model)
parallel = jax.jit(lambda *operands: by_jax.minimise_model(*operands))


@contextlib.contextmanager
def everywhere(module: Any) -> Iterator[None]:
    module.PARTITION_EVERYWHERE = True
    try:
        yield
    finally:
        module.PARTITION_EVERYWHERE = False


def answer_of(program: str, dtype: str, H: np.ndarray, g: np.ndarray, w: int, query: dict) -> tuple[np.ndarray, Any]:
    arrays = [a.astype(dtype) for a in (g, store(H, w), START)]
    partition = "partition" in program
    if program.startswith("torch"):
        with everywhere(torch_solve) if partition else contextlib.nullcontext():
            p, answer = by_torch.minimise_model(*map(torch.tensor, arrays), by_torch.Query(**query))
        return p.numpy(), answer
    asked = by_jax.Query(**{name: np.dtype(dtype).type(a) for name, a in query.items()}, idle=0)
    pure = bandhess_jax.portable() if program == "jax, pure" else contextlib.nullcontext()
    with everywhere(jax_solve) if partition else pure:
        p, answer = (parallel if partition else serial)(*map(jnp.asarray, arrays), asked)
    return np.asarray(p), by_jax.Answer(*np.asarray(answer))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("program", ["jax", "jax, pure", "jax, partition", "torch", "torch, partition"])
def test_by_eigenvectors(program: str, case: str) -> None:
    problem, radius = CASES[case]
    for w in (3,) if "partition" in program else (1, 3):
        for seed in range(3):
            H, g = problem(w, seed)
            query = ask(H, g, radius)
            p, answer = answer_of(program, "float64", H, g, w, query)
            shift, decrease = solution(H, g, radius)
            assert answer.found
            assert not answer.settled
            # What is said of p is so.
            model = -(g @ p) - p @ H @ p / 2
            np.testing.assert_allclose(answer.predicted, model, rtol=1e-8)
            np.testing.assert_allclose(answer.slope, g @ p, rtol=1e-10, atol=1e-13)
            np.testing.assert_allclose(answer.size, np.linalg.norm(p), rtol=1e-10)
            shifted = H + answer.shift * np.eye(N)
            plain = -np.linalg.solve(shifted, g)
            np.testing.assert_allclose(answer.length, np.linalg.norm(plain), rtol=1e-6)
            np.testing.assert_allclose(answer.bend, plain @ np.linalg.solve(shifted, plain), rtol=1e-5, atol=1e-300)
            # H + shift I is positive definite, p fits, and is as good as promised.
            assert np.linalg.eigvalsh(shifted)[0] > 0
            assert answer.size <= (1 + by_torch.NEAR) * radius
            assert answer.shift >= 0
            assert (1 - by_torch.NEAR) * decrease * 0.97 <= model <= (1 + by_torch.NEAR) ** 2 * decrease
            if case == "Newton step":
                assert answer.shift == shift == 0
                np.testing.assert_allclose(p, plain, rtol=0, atol=1e-12)


@functools.cache
def expected(w: int, seed: int, case: str) -> tuple[np.ndarray, Any]:
    problem, radius = CASES[case]
    H, g = problem(w, seed)
    return answer_of("torch", "float64", H, g, w, ask(H, g, radius))


@pytest.mark.parametrize("program", ["jax", "jax, pure"])
@pytest.mark.parametrize("case", CASES)
def test_programs_agree(program: str, case: str) -> None:
    """One algorithm: the same trials to the same step."""
    problem, radius = CASES[case]
    for w in (1, 3):
        for seed in range(3):
            H, g = problem(w, seed)
            p, answer = answer_of(program, "float64", H, g, w, ask(H, g, radius))
            reference, known = expected(w, seed, case)
            np.testing.assert_allclose(answer.shift, known.shift, rtol=1e-6)
            np.testing.assert_allclose(p, reference, rtol=0, atol=1e-5 * radius)


@pytest.mark.parametrize("program", ["jax", "jax, pure", "torch"])
def test_what_else_ends_it(program: str) -> None:
    H, g = definite(1, 0)
    ask_for = functools.partial(ask, H, g)
    # The radius grows to the Newton step, where that is asked for.
    newton = np.linalg.norm(np.linalg.solve(H, g))
    p, answer = answer_of(program, "float64", H, g, 1, ask_for(newton / 10, shift=0, low=0, grow=True))
    np.testing.assert_allclose([answer.radius, np.linalg.norm(p)], newton, rtol=1e-12)
    assert answer.shift == 0
    # A step that is not worth making settles the matter, however long.
    decrement = g @ np.linalg.solve(H, g)
    for factor, settled in ((2.001, False), (1.999, True)):
        _, answer = answer_of(
            program, "float64", H, g, 1, ask_for(newton / 10, shift=0, low=0, enough=decrement / factor)
        )
        assert bool(answer.settled) == settled
        assert answer.found
    # A shift that fails for good: nothing is found, and p is 0. (No bracket may hold such a band; NaN does.)
    p, answer = answer_of(program, "float64", np.nan * H, g, 1, ask_for(1.0))
    assert not answer.found
    np.testing.assert_array_equal(p, 0 * g)


@pytest.mark.parametrize("program", ["jax", "jax, pure", "torch"])
@pytest.mark.parametrize("case", CASES)
def test_float32(program: str, case: str) -> None:
    problem, radius = CASES[case]
    H, g = problem(3, 0)
    p, answer = answer_of(program, "float32", H, g, 3, ask(H, g, radius, soft=1e-3))
    _, decrease = solution(H, g, radius)
    assert p.dtype == np.float32
    assert answer.found
    model = -(g @ p) - p @ H @ p / 2
    assert 0.9 * decrease <= model <= 1.1 * decrease


@pytest.mark.parametrize("program", ["jax", "jax, pure", "torch"])
def test_out_of_range(program: str) -> None:
    """Squares that overflow: a vector of inverse iteration that is lost spoils no step, and nothing is raised."""
    H, g = indefinite(3, 0)
    query = ask(1e-25 * H, 1e-25 * g, 1.0, soft=1e-28)
    p, answer = answer_of(program, "float32", 1e-25 * H, 1e-25 * g, 3, query | {"shift": query["high"]})
    assert answer.found
    np.testing.assert_allclose([answer.size, answer.slope * 1e25], [np.linalg.norm(p), g @ p], rtol=1e-4)
    p, answer = answer_of(program, "float64", H, g, 3, ask(H, g, 1e155))
    assert answer.found
    assert np.isfinite(p).all()


def test_batch() -> None:
    """Lanes end after trials of their own, and an idle one at once."""
    systems = [(*CASES[case][0](3, 0), CASES[case][1]) for case in CASES]
    queries = [by_jax.Query(**ask(*system), idle=lane == 2) for lane, system in enumerate(systems)]
    query = by_jax.Query(*[jnp.array(column, float) for column in zip(*queries, strict=True)])
    g = jnp.stack([jnp.asarray(g) for _, g, _ in systems])
    ab = jnp.stack([jnp.asarray(store(H, 3)) for H, _, _ in systems])
    batched = jax.jit(jax.vmap(by_jax.minimise_model, in_axes=(0, 0, None, 0)))
    steps, answers = batched(g, ab, jnp.asarray(START), query)
    for lane, case in enumerate(CASES):
        answer = by_jax.Answer(*answers[lane])
        if lane == 2:
            assert not answer.found
            np.testing.assert_array_equal(steps[lane], np.zeros(N))
            np.testing.assert_array_equal(answer.radius, CASES[case][1])
        else:
            np.testing.assert_allclose(steps[lane], expected(3, 0, case)[0], rtol=0, atol=1e-5 * CASES[case][1])


@pytest.mark.parametrize("program", ["jax", "jax, pure", "jax, partition", "torch", "torch, partition"])
def test_from_a_bound_that_is_attained(program: str) -> None:
    """A stationary point whose least eigenvalue is Gershgorin's bound, -1, and a search that begins far below: when a
    shift serves at last, many are spent, and the step is not none but goes along the eigenvector."""
    i = np.arange(N)
    H = np.where(np.abs(i[:, None] - i) == 1, -1.0, 0) + np.eye(N)
    H[0, 0] = H[-1, -1] = 0  # rows that sum to -1: the eigenvector is (1, 1, ..)
    query: dict = {"radius": 1.0, "shift": 0.0, "low": 0.0, "high": 1.0, "guess": 0.0, "soft": 4e-14}
    query |= {"enough": 1e-12, "grow": True}
    p, answer = answer_of(program, "float64", H, np.zeros(N), 1, query)
    assert answer.found
    np.testing.assert_allclose(np.linalg.norm(p), 1, rtol=1e-6)
    np.testing.assert_allclose(answer.predicted, -p @ H @ p / 2, rtol=1e-6)
    assert answer.predicted > 0.4
