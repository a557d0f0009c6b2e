"""Banded Hessians in PyTorch: extract them with a few products, factorise them, take Newton steps on them.

The way of the data, and of the imports: function -> probes -> products -> band -> factor -> step.

A symmetric band with w = 2 subdiagonals, and its storage `ab`, `(w + 1, n)`: `ab[r, j] = H[j + r, j]`.

    H =  a b c 0 0        ab =  a d g i k
         b d e f 0              b e h j *
         c e g h .              c f . * *        * unused, stored as 0
         0 f h i j
         0 0 . j k

A tree of two stages, `{"q": [[q0, r0], [q1, r1]], "u": [u0]}`, is ravelled stage by stage; a leaf may end one stage
early, and then a dummy fills its place:

    stage          0            1
    leaf       q  q  u      q  q  u
    vector   [q0 r0 u0     q1 r1  *]        T = 2 stages of d = 3 scalars; bandwidth k = 1 means (k + 1) d = 6 rows

    band/         stages, storage, what is known of a band without factorising it
    framework/    what is peculiar to PyTorch
    extraction/   from a function to its band: probing/ by products, diagonals/ by carrying the diagonals along
    linalg/       factorisations, and what follows from them
    optimise/     newton/, sqp/ for constraints, root/ for residuals

The examples of docstrings begin with `import torch` and `from bandhess_torch import *`.
"""

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ModuleNotFoundError('bandhess_torch needs PyTorch: pip install "bandhess[torch]"', name="torch") from error

from bandhess_common.status import History, SQPHistory, Status, StepInfo
from bandhess_common.version import __version__ as __version__

from . import optim as optim
from . import plot as plot
from . import scipy as scipy
from .band.build import from_blocks, from_diagonals, from_sparse
from .band.sparse import to_sparse
from .band.stages import ravel_stages
from .band.structures import Bordered, Cyclic, from_dense, matvec, to_dense
from .extraction.bandwidth import band_error, detect_bandwidth, reorder_bandwidth
from .extraction.hessian import gauss_newton, hessian, value_grad_hessian
from .extraction.jacobian import jacobian, jacobian_error
from .extraction.probing.protocol import Direct, Fourier, Probing, Random, Substitution
from .extraction.products import from_matvec
from .framework.kernels import cpu_kernels
from .linalg import in_graph as in_graph
from .linalg.cholesky import cho_solve, cholesky, cholesky_ex, logdet
from .linalg.general import LU, lu_factor, lu_solve, slogdet
from .linalg.inverse import inverse_band
from .linalg.ldl import inertia, ldl, ldl_solve
from .linalg.rcond import rcond
from .linalg.solve import Factor, factor, solve
from .linalg.triangular import solve_triangular
from .linalg.variances import marginal_variances, quadratic_variances
from .optimise.newton.api import NewtonResult, newton
from .optimise.root.api import RootResult, root
from .optimise.sqp.api import SQPResult, sqp

__all__ = [
    "LU",
    "Bordered",
    "Cyclic",
    "Direct",
    "Factor",
    "Fourier",
    "History",
    "NewtonResult",
    "Probing",
    "Random",
    "RootResult",
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
    "from_blocks",
    "from_dense",
    "from_diagonals",
    "from_matvec",
    "from_sparse",
    "gauss_newton",
    "hessian",
    "inertia",
    "inverse_band",
    "jacobian",
    "jacobian_error",
    "ldl",
    "ldl_solve",
    "logdet",
    "lu_factor",
    "lu_solve",
    "marginal_variances",
    "matvec",
    "newton",
    "quadratic_variances",
    "ravel_stages",
    "rcond",
    "reorder_bandwidth",
    "root",
    "slogdet",
    "solve",
    "solve_triangular",
    "sqp",
    "to_dense",
    "to_sparse",
    "value_grad_hessian",
]
