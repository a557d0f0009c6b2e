"""NumPy's number types, as the frameworks take them."""

from __future__ import annotations

from typing import Any

import numpy as np


def native(array: Any, name: str = "an array") -> Any:
    """An array in this machine's byte order; other values as they are. TypeError for what no framework has."""
    if isinstance(array, (np.ndarray, np.generic)):
        if array.dtype.kind in "fc" and array.dtype.itemsize > (8 if array.dtype.kind == "f" else 16):
            raise TypeError(
                f"{name} must hold float32 or float64 numbers, got {array.dtype} of shape {array.shape}; "
                "convert it with .astype(float)"
            )
        if not array.dtype.isnative:
            return array.astype(array.dtype.newbyteorder("="))
    return array
