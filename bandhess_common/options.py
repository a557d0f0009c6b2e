"""The strings that public functions take, as types: a type checker knows them."""

from __future__ import annotations

from typing import Literal

ProbingName = Literal["direct", "substitution", "fourier", "random"]
ChunkSize = int | Literal["auto"] | None
HessianKind = Literal["exact", "gauss_newton"]

# As SciPy has them.
Select = Literal["a", "v", "i", "all", "value", "index", 0, 1, 2]
Driver = Literal["auto", "stemr", "stebz", "sterf", "stev", "stevd"]
