"""Derivatives of `solve` and of a factor's solutions: the gradient convention, both modes, their cost."""

import numpy as np
import pytest
from backends import Backend
from matrices import EPS, poisoned, positive_band, rhs, ways_to_solve
from oracles import store, unstore


@pytest.mark.parametrize(
    ("name", "n", "w", "columns"), [("solve", 5, 1, 2), ("factor.solve", 3, 4, None), ("logdet", 5, 2, None)]
)
def test_derivatives(backend: Backend, name: str, n: int, w: int, columns: int | None) -> None:
    """First and second order, both modes, against finite differences."""
    ab, b = positive_band(n, w), rhs(n, columns)
    p = backend.package
    if name == "logdet":
        backend.check_derivatives(backend.jit(lambda ab: p.factor(ab).logdet()), ab)
    else:
        fun = p.solve if name == "solve" else lambda ab, b: p.factor(ab).solve(b)
        backend.check_derivatives(backend.jit(fun), ab, b)


@pytest.mark.parametrize(("n", "w", "columns"), [(6, 0, None), (6, 2, 2), (3, 5, None)])
def test_gradient_convention(backend: Backend, n: int, w: int, columns: int | None) -> None:
    """v = solve(ab, xbar): bbar = v, abbar[0, j] = -v_j x_j, abbar[d, j] = -(v_{j+d} x_j + v_j x_{j+d})."""
    ab, b, xbar = positive_band(n, w), rhs(n, columns), rhs(n, columns, 2)
    x, v = np.linalg.solve(unstore(ab), b), np.linalg.solve(unstore(ab), xbar)
    outer = v.reshape(n, -1) @ x.reshape(n, -1).T
    expected = -store(outer + outer.T - np.diag(np.diag(outer)), w)
    for solve in ways_to_solve(backend):

        def loss(ab, b, solve=solve):
            return backend.xp.sum(backend.array(xbar) * solve(ab, b))

        def gradients(ab, b, loss=loss):
            return backend.grad(loss)(ab, b), backend.grad(lambda b: loss(ab, b))(b)

        by_ab, by_b = backend.jit(gradients)(backend.array(poisoned(ab)), backend.array(b))
        np.testing.assert_allclose(backend.numpy(by_ab), expected, rtol=0, atol=1024 * EPS)
        np.testing.assert_allclose(backend.numpy(by_b), v, rtol=0, atol=1024 * EPS)


@pytest.mark.cpu_only("calls of LAPACK are counted")
def test_one_factorisation_and_a_solve_per_pass(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reverse pass adds one solve and no factorisation; so does a forward pass, and one over the other."""
    ab, b, p = backend.array(positive_band(6, 2)), backend.array(rhs(6, None)), backend.package

    def loss(ab):
        return backend.xp.sum(p.solve(ab, b) ** 2)

    def reuse(ab):
        factored = p.factor(ab)
        return backend.xp.sum(factored.solve(factored.solve(b)) ** 2)

    for fun, solves in ((loss, 1), (reuse, 2)):
        grad = backend.grad(fun)
        cases = [
            (fun, solves),
            (grad, 2 * solves),
            (lambda ab, fun=fun: backend.jvp(fun, (ab,), (ab,)), 2 * solves),
            (lambda ab, grad=grad: backend.jvp(grad, (ab,), (ab,)), 4 * solves),
        ]
        for case, expected in cases:
            assert backend.count_solves(monkeypatch, case, ab) == (1, expected)


def test_second_derivatives_through_solve(backend: Backend) -> None:
    """A dense Hessian through `solve`: for H = diag(h), d^2 (b^T H^-1 b) / dh^2 = 2 b^2 / h^3."""
    h, b = np.array([1.0, 2.0, 4.0]), np.array([1.0, -1.0, 3.0])
    hessian = backend.dense_hessian(lambda h: backend.array(b) @ backend.package.solve(h[None], backend.array(b)))
    np.testing.assert_allclose(
        backend.numpy(backend.jit(hessian)(backend.array(h))), np.diag(2 * b**2 / h**3), atol=16 * EPS
    )


def test_forward_mode(backend: Backend) -> None:
    """The tangent of x solves H dx = db - dH x."""
    ab, b, dab, db = positive_band(7, 2), rhs(7, None), store(unstore(positive_band(7, 2, 5)), 2), rhs(7, None, 3)
    for solve in ways_to_solve(backend):
        x, dx = backend.jvp(solve, (backend.array(ab), backend.array(b)), (backend.array(dab), backend.array(db)))
        expected = np.linalg.solve(unstore(ab), db - unstore(dab) @ backend.numpy(x))
        np.testing.assert_allclose(backend.numpy(dx), expected, rtol=0, atol=1024 * EPS)


def test_hessian_of_a_bilevel_problem(backend: Backend) -> None:
    """Extraction inside solve inside grad: how the minimiser of a chain answers to its stiffness."""

    def energy(x, a):
        return backend.xp.sum(a * (x[1:] - x[:-1]) ** 2) / 2 + backend.xp.sum(x**2) / 2

    b = backend.array(rhs(6, None))

    def compliance(a):
        ab = backend.package.hessian(energy, 1)(backend.array(np.zeros(6)), a)
        return b @ backend.package.solve(ab, b)

    def dense(a):
        h = backend.dense_hessian(energy)(backend.array(np.zeros(6)), a)
        return b @ backend.xp.linalg.solve(h, b)

    a = backend.array(np.arange(1.0, 6))
    expected = backend.numpy(backend.jit(backend.grad(dense))(a))
    np.testing.assert_allclose(
        backend.numpy(backend.jit(backend.grad(compliance))(a)), expected, rtol=0, atol=256 * EPS
    )
