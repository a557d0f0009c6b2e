"""Closed bands and borders: storage, products, and what optimisers ask of any matrix, against entries one by one."""

import functools
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from arrowheads import CASES, SIZES, definite, inside, stored, structure, symmetric
from backends import BACKENDS, Backend
from hypothesis import given
from matrices import cleared

cases = pytest.mark.parametrize("case", CASES, ids=str)


def room(backend: Backend, name: str) -> Any:
    return importlib.import_module(f"{backend.package.__name__}.{name}")


def numbers(backend: Backend, H: Any) -> list[np.ndarray]:
    return [backend.numpy(part) for part in backend.leaves(H)]


@pytest.mark.parametrize("backend", BACKENDS.values(), ids=BACKENDS)
@given(case=SIZES)
def test_storage(backend: Backend, case: tuple) -> None:
    """To dense and back, every entry at its place; unused cells are not read."""
    _, w, p, closed = case
    h = symmetric(*case)
    parts = stored(h, *case)
    H = structure(backend, parts, closed)
    np.testing.assert_array_equal(backend.numpy(backend.jit(backend.package.to_dense)(H)), h)
    back = backend.jit(lambda h: backend.package.from_dense(h, w, periodic=closed, border=p))(backend.array(h))
    expected = [parts[0] if closed else cleared(parts[0]), *(parts[1:] if p else [])]
    for found, value in zip(numbers(backend, back), expected, strict=True):
        np.testing.assert_array_equal(found, value)


@cases
def test_products(backend: Backend, case: tuple) -> None:
    """Exact, in integers."""
    n, _, p, closed = case
    h = symmetric(*case)
    H = structure(backend, stored(h, *case), closed)
    xs = [np.random.default_rng(1).integers(-3, 4, (n + p, *columns)).astype(float) for columns in [(), (3,)]]
    matvec = backend.package.matvec
    found = backend.jit(lambda H, *xs: [matvec(H, x) for x in xs])(H, *map(backend.array, xs))
    for x, y in zip(xs, found, strict=True):
        np.testing.assert_array_equal(backend.numpy(y), h @ x)


@functools.cache
def asked(backend: Backend) -> Callable:
    """Everything in one program, which is compiled once for each shape."""
    of, to_dense, gershgorin = (
        room(backend, "band.structures"),
        backend.package.to_dense,
        room(backend, "band.spectrum").gershgorin,
    )

    def ask(H: Any, s: Any) -> dict:
        return {
            "diagonal": of.diagonal(H),
            "shifted": to_dense(of.shifted(H, 3.0)),
            "shifted by s": to_dense(of.shifted(H, s)),
            "scaled": to_dense(of.scaled(H, s)),
            "row sums": of.row_sums(H),
            "bounds": gershgorin(H),
        }

    return backend.jit(ask)


@cases
def test_what_optimisers_ask(backend: Backend, case: tuple) -> None:
    n, _, p, closed = case
    h = symmetric(*case) - 20 * inside(*case)  # of both signs
    H, s = structure(backend, stored(h, *case), closed), np.arange(1.0, n + p + 1)
    found = asked(backend)(H, backend.array(s))
    low, high = found.pop("bounds")
    expected = {
        "diagonal": np.diag(h),
        "shifted": h + 3 * np.eye(n + p),
        "shifted by s": h + np.diag(s),
        "scaled": s[:, None] * h * s,
        "row sums": np.abs(h).sum(1),
    }
    for name, value in expected.items():
        np.testing.assert_array_equal(backend.numpy(found[name]), value, err_msg=name)
    radii = np.abs(h - np.diag(np.diag(h))).sum(1)
    assert (float(low), float(high)) == (np.min(np.diag(h) - radii), np.max(np.diag(h) + radii))


@cases
def test_a_ring_cut_open(backend: Backend, case: tuple) -> None:
    """The same matrix with a plain band, and back."""
    n, w, p, closed = case
    h = symmetric(*case)
    H, ring, package = structure(backend, stored(h, *case), closed), room(backend, "band.ring"), backend.package

    def there_and_back(H: Any) -> tuple:
        arrow = ring.opened(H)
        return arrow, package.to_dense(package.Bordered(*arrow)), ring.closed(arrow, H)

    arrow, dense, back = backend.jit(there_and_back)(H)
    assert arrow.band.shape == (w + 1, n - w if closed else n)
    assert arrow.border.shape[0] == p + (w if closed else 0)
    np.testing.assert_array_equal(backend.numpy(dense), h)
    for found, value in zip(numbers(backend, back), numbers(backend, H), strict=True):
        np.testing.assert_array_equal(found, value)


def test_a_structure_passes_through_transforms(backend: Backend) -> None:
    """As arguments, mapped over one of their parts, and as results."""
    case = (9, 2, 1, True)
    h = definite(*case)
    H = structure(backend, stored(h, *case), True)
    x = backend.array(np.arange(10.0))
    twice = backend.vmap(
        lambda corner: backend.package.matvec(H._replace(corner=corner), x) + 0 * corner[0, 0]
    )  # fmt: skip
    corners = np.stack([h[9:, 9:], 2 * h[9:, 9:]])
    found = backend.numpy(backend.jit(twice)(backend.array(corners)))
    np.testing.assert_allclose(found[0], h @ np.arange(10.0), rtol=1e-14)
    np.testing.assert_allclose(found[1] - found[0], [*[0] * 9, 9 * h[9, 9]], atol=1e-13)


def test_entries_outside_are_refused(backend: Backend) -> None:
    h = symmetric(9, 2, 0, True)
    from_dense = backend.package.from_dense
    with pytest.raises(ValueError, match=r"up to 8 off its diagonal, w is 2; pass w=8"):
        from_dense(backend.array(h), 2)
    h[0, 4] = 1  # four apart one way, five the other
    with pytest.raises(ValueError, match=r"up to 4 off its diagonal, w is 2; pass w=4"):
        from_dense(backend.array(h), 2, periodic=True)
    with pytest.raises(ValueError, match=r"h must have 10 rows at least, those of the border, got shape \(9, 9\)"):
        from_dense(backend.array(h), 2, border=10)
    with pytest.raises(ValueError, match="border must be an int >= 0, got -1"):
        from_dense(backend.array(h), 2, border=-1)


def test_small_rings_are_refused(backend: Backend) -> None:
    """n <= 2 w: some entries would have two cells."""
    package = backend.package
    H = package.Cyclic(backend.array(np.ones((3, 4))))
    for use in (package.to_dense, package.factor, lambda H: package.matvec(H, backend.array(np.ones(4)))):
        with pytest.raises(ValueError, match=r"closed band needs n > 2 w, got n = 4 and w = 2.*store and solve it as"):
            use(H)
    with pytest.raises(ValueError, match="closed band needs n > 2 w, got n = 4 and w = 2"):
        package.from_dense(backend.array(np.eye(4)), 2, periodic=True)


def test_parts_that_do_not_fit_are_refused(backend: Backend) -> None:
    package = backend.package
    ab, border, corner = backend.array(np.ones((2, 5))), backend.array(np.ones((1, 5))), backend.array(np.ones((1, 1)))
    bad = [
        (package.Bordered(ab, border[:, 1:], corner), ValueError, r"border must have shape \(p, 5\).*got \(1, 4\)"),
        (package.Bordered(ab, border, border), ValueError, r"corner \(p, p\), got \(1, 5\) and \(1, 5\)"),
        (package.Bordered(package.Bordered(ab, border, corner), border, corner), TypeError, "one border"),
        (package.Bordered(ab, backend.array(np.ones((1, 5)), "float32"), corner), TypeError, "one dtype"),
        (package.Bordered(backend.array(np.ones(5)), border, corner), ValueError, "ab.band must be 2-D"),
        (package.Cyclic(backend.array(np.ones((2, 5), int))), TypeError, "ab.ab must have a real floating dtype"),
    ]
    for H, error, text in bad:
        with pytest.raises(error, match=text):
            package.to_dense(H)
    H = package.Bordered(ab, border, corner)
    for use in (package.matvec, package.solve):
        with pytest.raises(ValueError, match=r"must have shape \(6,\) or \(6, k\), one entry a row of H, got \(5,\)"):
            use(H, backend.array(np.ones(5)))
        with pytest.raises(TypeError, match="and H must have one dtype"):
            use(H, backend.array(np.ones(6), "float32"))
    for plain_only in (package.cholesky, package.ldl):
        with pytest.raises(TypeError, match=r"must be a plain band .* got Bordered; .* factorise them with factor"):
            plain_only(H)
