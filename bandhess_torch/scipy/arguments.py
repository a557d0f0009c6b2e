"""The arguments of functions with SciPy's signatures: their shapes, dtypes and devices, and batches of them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor


def as_tensors(function: str, **arguments: Tensor | ArrayLike) -> dict[str, Tensor]:
    """The arguments, a band and perhaps b, as tensors of one dtype and device, whose shapes fit together."""
    devices = {value.device for value in arguments.values() if isinstance(value, Tensor)}
    if len(devices) > 1:
        raise TypeError(f"{' and '.join(arguments)} must be on one device, got {devices}; move one with .to")
    device = next(iter(devices), None)
    tensors = {
        name: value if isinstance(value, Tensor) else torch.as_tensor(as_numpy(name, value), device=device)
        for name, value in arguments.items()
    }
    for name, x in tensors.items():
        least, shape = (1, "(n,) or (..., n, k)") if name == "b" else (2, "(..., rows, n), in band storage")
        if x.ndim < least:
            raise ValueError(f"{name} must have shape {shape}, got {tuple(x.shape)}")
    if "b" in tensors:
        (name, ab), (_, b) = tensors.items()
        count, n = ab.shape[-2:]
        if n != b.shape[-2:][0]:
            raise ValueError(
                f"shapes of {name} and b are not compatible. b must have shape ({n},) or (..., {n}, k) to match {name} "
                f"of shape {tuple(ab.shape)}, got {tuple(b.shape)}"
            )
        if b.numel() and count == 0:
            raise ValueError(f"{name} must have a row at least, the diagonal, got shape {tuple(ab.shape)}")
    if 0 in batch_shape(*tensors.values()):
        raise ValueError(f"`{function}` does not support zero-size batches.")
    dtype = torch.float32
    for x in tensors.values():
        dtype = torch.promote_types(dtype, x.dtype if x.is_floating_point() or x.is_complex() else torch.float64)
    return {name: x.to(dtype).resolve_conj() for name, x in tensors.items()}


def check_rows(l: int, u: int, ab: Tensor) -> None:
    if l + u + 1 != ab.shape[-2]:
        raise ValueError(
            f"invalid values for the number of lower and upper diagonals: l+u+1 ({l + u + 1}) does not equal "
            f"ab.shape[0] ({ab.shape[-2]})"
        )


def batch_shape(*operands: Tensor) -> tuple[int, ...]:
    return np.broadcast_shapes(*(tuple(x.shape[:-2]) for x in operands))


def as_numpy(name: str, value: ArrayLike) -> np.ndarray:
    if np.ma.isMaskedArray(value):
        raise ValueError(f"masked arrays are not supported: {name} is one; fill it with .filled()")
    x = np.asarray(value)
    if x.dtype.kind not in "fciub":
        raise ValueError(f"object arrays are not supported: {name} has dtype {x.dtype}, it must be numeric")
    # Extended precision becomes double, and so do integers.
    double, width = (np.complex128, 16) if x.dtype.kind == "c" else (np.float64, 8)
    return np.array(x, np.result_type(x, np.float32) if x.dtype.kind in "fc" and x.itemsize < width else double)


def run(core: Callable, options: tuple, check_finite: bool, tensors: dict[str, Tensor]) -> Tensor:
    """core(*tensors, *options) over batches."""
    for name, x in tensors.items():
        if check_finite and not is_finite(x):
            raise ValueError(f"array must not contain infs or NaNs: {name} does; check_finite=False lets it pass")
    return _over_batches(core, options, list(tensors.values()))


def is_finite(x: Tensor) -> bool:
    try:
        return bool(torch.isfinite(x).all())
    except RuntimeError:  # inside vmap values cannot be looked at
        return True


def _over_batches(core: Callable, options: tuple, operands: list[Tensor]) -> Tensor:
    """`core` of matrices (and of a vector), mapped over leading axes that broadcast as SciPy's do."""
    batch = batch_shape(*operands)
    if not batch:
        return core(*operands, *options)
    # One matrix for a batch of right-hand sides stays one, and is factorised once.
    flat = [flattened(x, batch) if x.ndim > 2 else x for x in operands]
    in_dims = tuple(0 if x.ndim > 2 else None for x in operands)
    out = torch.func.vmap(lambda *one: core(*one, *options), in_dims=in_dims)(*flat)
    return out.reshape(batch + out.shape[1:])


def flattened(x: Tensor, batch: tuple[int, ...]) -> Tensor:
    """x broadcast to a batch whose axes are one."""
    return x.expand(batch + x.shape[-2:]).reshape(math.prod(batch), *x.shape[-2:])
