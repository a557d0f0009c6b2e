"""Banded Hessians in JAX: extract them with a few products, factorise them in-graph, take Newton steps on them."""

from . import scipy as scipy
from ._bandwidth import band_error, detect_bandwidth, reorder_bandwidth
from ._cholesky import cho_solve, cholesky, cholesky_ex, logdet, solve_triangular
from ._cpu import cpu_kernels, portable
from ._hessian import from_matvec, gauss_newton, hessian, value_grad_hessian
from ._inverse import inverse_band
from ._ldl import inertia, ldl, ldl_solve
from ._newton import NewtonResult, newton
from ._probing import Direct, Fourier, Probing, Random, Substitution
from ._rcond import rcond
from ._solve import Factor, factor, solve
from ._sparse import to_bcoo
from ._sqp import SQPResult, sqp
from ._stages import ravel_stages
from ._status import History, SQPHistory, Status, StepInfo
from ._storage import from_dense, matvec, to_dense

__all__ = [
    "Direct",
    "Factor",
    "Fourier",
    "History",
    "NewtonResult",
    "Probing",
    "Random",
    "SQPHistory",
    "SQPResult",
    "Status",
    "StepInfo",
    "Substitution",
    "band_error",
    "cho_solve",
    "cholesky",
    "cholesky_ex",
    "cpu_kernels",
    "detect_bandwidth",
    "factor",
    "from_dense",
    "from_matvec",
    "gauss_newton",
    "hessian",
    "inertia",
    "inverse_band",
    "ldl",
    "ldl_solve",
    "logdet",
    "matvec",
    "newton",
    "portable",
    "ravel_stages",
    "rcond",
    "reorder_bandwidth",
    "solve",
    "solve_triangular",
    "sqp",
    "to_bcoo",
    "to_dense",
    "value_grad_hessian",
]
