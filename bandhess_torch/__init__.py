"""Banded Hessians in PyTorch: extract them with a few products, factorise them, take Newton steps on them."""

from bandhess_common.status import History, SQPHistory, Status, StepInfo

from . import scipy as scipy
from .band.sparse import to_sparse
from .band.stages import ravel_stages
from .band.storage import from_dense, matvec, to_dense
from .extraction.bandwidth import band_error, detect_bandwidth, reorder_bandwidth
from .extraction.hessian import gauss_newton, hessian, value_grad_hessian
from .extraction.probing.protocol import Direct, Fourier, Probing, Random, Substitution
from .extraction.products import from_matvec
from .linalg.cholesky import cho_solve, cholesky, cholesky_ex, logdet
from .linalg.inverse import inverse_band
from .linalg.ldl import inertia, ldl, ldl_solve
from .linalg.rcond import rcond
from .linalg.solve import Factor, factor, solve
from .linalg.triangular import solve_triangular
from .optimise.newton.api import NewtonResult, newton
from .optimise.sqp.api import SQPResult, sqp

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
    "ravel_stages",
    "rcond",
    "reorder_bandwidth",
    "solve",
    "solve_triangular",
    "sqp",
    "to_dense",
    "to_sparse",
    "value_grad_hessian",
]
