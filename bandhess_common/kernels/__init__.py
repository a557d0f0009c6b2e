"""The compiled CPU kernels, for both frameworks.

C++: an algorithm a header, `kernels.h` lists them, `kernels.cc` compiles them, and two fronts call them: `xla.cc` for
XLA and `c_api.cc` for ctypes. Both are in one file `_kernels.abi3.so`, the first only where XLA's headers were at hand.
Python: `table` lists the kernels with what they take and give, `library` loads the file and calls it.
"""

from .library import DTYPES, OPERATIONS, View, arithmetic, call, load, view, why_not
from .table import KERNELS, Kernel, result_shapes

__all__ = [
    "DTYPES",
    "KERNELS",
    "OPERATIONS",
    "Kernel",
    "View",
    "arithmetic",
    "call",
    "load",
    "result_shapes",
    "view",
    "why_not",
]
