"""The state that the interior point's kernels keep between requests, as interior/state.h lays it out.

One flat array: registers, vectors, constants, filters, bands. `library.load` compares the lists of both sides. Its
numbers are doubles whatever the functions' type is: the condensed matrix, whose rows weigh 1e10 times as much as H,
would be rounded to parts of H in float32. In a float32 problem they travel as int32, two words each, since an XLA
program may have no float64, and what words look like as floats may be NaN.
"""

from __future__ import annotations

from typing import NamedTuple

from ..interior_point.constants import FILTER, Constants

_REGISTERS = """
status request sigma steps value grad_norm violation step fraction shift mu gap fresh narrow m tol max_steps start
lower_count upper_count f_scale value_unit least_w size_w row_size noise_size stage elastic pending leaving warm_mu f
f_new barrier main_barrier theta_r zeta delta last_shift shifted tiny_steps least_mu tau alpha alpha_max alpha_z
alpha_least phi0 theta0 slope curved curvature first raised augment any_finite corrections correction_alpha
theta_old dual_max product_max product_min mean_d mean_z main_theta_max main_theta_min main_count own_theta_max
own_theta_min own_count entries
renewals theta_mark since_mark quadratic predicted best_error since_best diagonals held
theta_noise phi_noise hidden_primal hidden_dual dual_rows measured apart lone_count barred barred_steps forgotten flat
alone ahead short_row renewed last_renewals last_dual last_top fresh_y
"""
REGISTERS = tuple(_REGISTERS.split())
"""The first entries of the state; those up to `narrow` are for callers."""
FOR_CALLERS = REGISTERS[: REGISTERS.index("m")]
"""The first entries of a head, in the functions' type; x_request and y_request follow."""

_VECTORS = """
n:x_request r:y_request n:x n:x_trial r:y n:lower n:upper n:has_lower n:has_upper n:lone_lower n:lone_upper n:free
n:unit n:mask n:noise r:first r:h_scale r:top n:column_size n:d_lower n:d_upper r:d_rows r:d_p r:d_n n:z_lower
n:z_upper r:z_rows r:z_p r:z_n r:h n:gradient n:dual n:r_lower n:r_upper r:r_rows n:x_r n:weight n:dx r:dy n:dd_lower
n:dd_upper r:dd_rows r:dd_p r:dd_n n:dz_lower n:dz_upper r:dz_rows r:dz_p r:dz_n n:cx r:cy n:cd_lower n:cd_upper
r:cd_rows r:cd_p r:cd_n n:cz_lower n:cz_upper r:cz_rows r:cz_p r:cz_n n:c_lower n:c_upper r:c_rows n:diagonal r:e
r:gamma r:g n:b1 r:b2 n:w1 n:w2 n:w3 n:w4 n:w5 r:v1 r:v2 r:v3 r:v4 r:v5 r:v6 r:v7
"""
VECTORS = tuple(_VECTORS.split())
"""What follows: vectors of variables and of rows."""

DONE, DERIVATIVES, VALUES = 0, 1, 2
"""What the register `request` asks for."""

_WORDS = {"float32": ("int32", 2), "float64": ("float64", 1)}

_PAD = 16  # zeros behind a vector of variables
_WIDTHS = (1, 2, 3, 4, 6, 8, 10, 12, 16)  # of compiled kernels; wider ones as they are


def lines() -> list[str]:
    """The lists as c_api.cc has them."""
    return [
        " ".join(["constants:", *Constants._fields]),
        " ".join(["registers:", *REGISTERS]),
        " ".join(["vectors:", *VECTORS]),
    ]


def _rounded(count: int) -> int:
    return -(-count // 8) * 8


def words(dtype: str, doubles: int) -> tuple[str, int]:
    """As what so many doubles travel beside functions of this dtype: a dtype, and how many of it."""
    word, each = _WORDS[dtype]
    return word, doubles * each


class Layout(NamedTuple):
    """Places in the state for n variables, r rows and W of `rows` diagonals, p of the variables being shared."""

    n: int
    r: int
    rows: int
    p: int = 0

    @property
    def window(self) -> int:
        """Columns of a row of the Jacobian, but for shared variables."""
        return min(self.rows, self.n - self.p)

    @property
    def size(self) -> int:
        """Entries of the state."""
        w, banded = self.window - 1, self.n - self.p
        stride = next((width for width in _WIDTHS if w <= width), w) + 1
        bands = [(w + 1 + self.p) * self.n, *[(banded + _PAD) * stride] * 2, _rounded(stride - 1) * (stride + 16)]
        border = [self.p * count for count in (self.n, banded, self.p, self.r)]
        vectors = [self._count(vector) for vector in VECTORS]
        parts = [len(REGISTERS), *vectors, len(Constants._fields), 4 * FILTER, *bands, *border]
        return sum(map(_rounded, parts)) + self.r * stride

    def _count(self, vector: str) -> int:
        return self.n + _PAD if vector.startswith("n:") else self.r

    @property
    def head(self) -> int:
        """Entries of a head."""
        return len(FOR_CALLERS) + self.n + self.r

    def request(self, name: str) -> tuple[int, int]:
        """(start, end) of x_request or y_request in a head."""
        x = len(FOR_CALLERS) + self.n
        return {"x_request": (len(FOR_CALLERS), x), "y_request": (x, self.head)}[name]

    def place(self, name: str) -> tuple[int, int]:
        """(start, count) of a vector."""
        at = _rounded(len(REGISTERS))
        for vector in VECTORS:
            kind, found = vector.split(":")
            if found == name:
                return at, self.n if kind == "n" else self.r
            at += _rounded(self._count(vector))
        raise KeyError(name)
