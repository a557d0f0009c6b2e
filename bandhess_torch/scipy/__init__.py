"""What SciPy's users look for: `scipy.linalg`'s banded functions with its signatures, and a method for
`scipy.optimize.minimize`.

    banded.py     systems, Hermitian and general
    arguments.py  what they take: shapes, dtypes, batches
    forms.py      upper, lower and real forms of a Hermitian band
    eigen.py      eigenvalues and vectors, all or a selected range
    minimise.py   Newton's method as `method=`
"""

from .banded import LinAlgError, cho_solve_banded, cholesky_banded, solve_banded, solve_cyclic_banded, solveh_banded
from .eigen import eig_banded, eigh_tridiagonal, eigvals_banded, eigvalsh_tridiagonal
from .minimise import newton

__all__ = [
    "LinAlgError",
    "cho_solve_banded",
    "cholesky_banded",
    "eig_banded",
    "eigh_tridiagonal",
    "eigvals_banded",
    "eigvalsh_tridiagonal",
    "newton",
    "solve_banded",
    "solve_cyclic_banded",
    "solveh_banded",
]
