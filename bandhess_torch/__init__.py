"""Banded Hessians in PyTorch: extract them with a few products, factorise them, take Newton steps on them."""

from ._bandwidth import band_error
from ._cholesky import cho_solve, cholesky, cholesky_ex, logdet, solve_triangular
from ._hessian import from_matvec, hessian, value_grad_hessian
from ._newton import NewtonResult, newton
from ._solve import Factor, factor, solve
from ._stages import ravel_stages
from ._status import Status, StepInfo
from ._storage import from_dense, matvec, to_dense

__all__ = [
    "Factor",
    "NewtonResult",
    "Status",
    "StepInfo",
    "band_error",
    "cho_solve",
    "cholesky",
    "cholesky_ex",
    "factor",
    "from_dense",
    "from_matvec",
    "hessian",
    "logdet",
    "matvec",
    "newton",
    "ravel_stages",
    "solve",
    "solve_triangular",
    "to_dense",
    "value_grad_hessian",
]
