"""Banded Hessians in JAX: extract them with a few products, factorise them in-graph, take Newton steps on them."""

from bandhess_common.status import History, SQPHistory, Status, StepInfo

from . import scipy as scipy
from .band.sparse import to_bcoo
from .band.stages import ravel_stages
from .band.storage import from_dense, matvec, to_dense
from .extraction.bandwidth import band_error, detect_bandwidth, reorder_bandwidth
from .extraction.hessian import from_matvec, gauss_newton, hessian, value_grad_hessian
from .extraction.probing.protocol import Direct, Fourier, Probing, Random, Substitution
from .framework.kernels import cpu_kernels, portable
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
