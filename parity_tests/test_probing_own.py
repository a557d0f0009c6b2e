"""Probings of one's own."""

import numpy as np
import pytest
from backends import Backend
from oracles import reals, store
from probing_cases import PROBINGS, ROUNDING, banded
from problems import steering_stages


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
    np.testing.assert_array_equal(backend.numpy(ab), store(h, 2))


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
    np.testing.assert_allclose(
        backend.numpy(ab), problem.band, rtol=0, atol=ROUNDING * np.finfo(float).eps * abs(problem.band).max()
    )
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
    np.testing.assert_array_equal(backend.numpy(ab), 2 * store(banded(9, 1, 2), 2))


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
