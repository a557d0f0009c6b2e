"""What tensors are put through, written down while it is done, and which of ATen's operations can be done again."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from .transforms import transformed

Call = tuple[Any, tuple, dict | None, Any]  # an operation, its arguments, its result


def _names(names: str) -> frozenset[str]:
    """Of ATen's operations, as their schemas have them."""
    return frozenset(f"aten::{name}" for name in names.split())


# Operations that have an argument `out`; those of TOTALS where they have an axis.
INTO = _names(
    "add sub mul div neg reciprocal pow square sqrt rsqrt exp log log1p expm1 sin cos tan tanh sinh cosh asin acos "
    "atan atan2 abs sign sigmoid maximum minimum clamp clamp_min clamp_max addcmul addcdiv lerp hypot erf floor where "
    "eq ne lt le gt ge logical_and logical_or logical_not bitwise_and bitwise_or sum mean amax amin prod cumsum cat "
    "stack mm bmm mv dot addmm baddbmm index_select gather take"
)
TOTALS = _names("sum mean prod")
COPIES = _names("copy_ clone _to_copy")
# Others that follow from their tensors alone. (So do the elementwise ones, which have a tag.)
KNOWN = _names(
    "index index_put index_add scatter scatter_add flip roll clone _to_copy constant_pad_nd slice_backward "
    "select_backward unfold_backward diagonal_backward linalg_vector_norm repeat tril triu slice_scatter select_scatter"
)
WRITES = _names("copy_ zero_ fill_ index_put_ _index_put_impl_ index_add_ scatter_add_ masked_fill_")
INDEXED = _names("index index_put index_put_ _index_put_impl_")  # by numbers or MASKS
MASKS = (torch.bool, torch.uint8)
ZEROS = _names("zeros zeros_like new_zeros")
FRESH = _names("empty empty_like new_empty empty_strided new_empty_strided")
SHAPES = _names("is_same_size ones_like full_like new_ones new_full")  # which look at nothing but shapes

# Methods and functions that take values out of tensors behind the dispatcher's back; the latter out of lists of them.
READS = ("numpy", "tolist", "data_ptr", "__array__", "__dlpack__", "storage", "untyped_storage", "__reduce_ex__")
LISTS = ("tensor", "as_tensor", "asarray", "new_tensor")
HOOKS = ("register_hook", "grad_fn")  # by which derivatives are changed
ROOM = 2**29  # bytes: where more are kept, arithmetic takes the time
PLAIN = (Tensor, torch.nn.Parameter)


class RefusedError(Exception):
    """This cannot be done again from what is written down."""


class Kind(NamedTuple):
    """What an operation does."""

    name: str
    makes: bool  # zeros, or memory with nothing in it
    writes: bool  # to its first operand
    known: bool  # nothing else, and its results follow from its operands, their shapes from shapes
    foreign: bool  # draws random numbers, writes elsewhere, or is not one of ATen's
    pointwise: bool = False  # has an argument `out`, and follows number by number


@cache
def kind(func: Any) -> Kind:
    schema = func._schema
    name, written = schema.name, [a.alias_info is not None and a.alias_info.is_write for a in schema.arguments]
    foreign = torch.Tag.nondeterministic_seeded in func.tags or not name.startswith("aten::")
    pointwise = torch.Tag.pointwise in func.tags
    if any(written):
        alone = written[0] and not any(written[1:])
        known = alone and (name in WRITES or name.rstrip("_") in INTO or pointwise)
        return Kind(name, False, True, known, foreign or not alone)
    makes, known = name in ZEROS or name in FRESH, name in INTO or name in KNOWN or pointwise
    return Kind(name, makes, False, known, foreign, pointwise and name in INTO)


def recordable() -> bool:
    """Whether a recording would show all that is done: not within transforms, other recordings, or a search for
    anomalies, which looks into every number."""
    return not (transformed() or torch.is_anomaly_enabled() or torch._C._len_torch_dispatch_stack())


class _Watch(TorchFunctionMode):
    """Sees what the dispatcher does not."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in READS or (name in LISTS and any(isinstance(each, (list, tuple)) and tensors(each) for each in args)):
            self.recorder.refused = name
        if name in HOOKS or getattr(getattr(func, "__self__", None), "__name__", "") in HOOKS:
            self.recorder.hooked = True
        return func(*args, **kwargs) if kwargs else func(*args)


class Recorder(TorchDispatchMode):
    """Keeps the operations that are run while it is entered, as often as that is."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.kept = 0  # bytes of results, views counted as if they were none
        self.refused = ""  # what was met that no recording shows
        self.hooked = False  # the graph was looked at: it may do more than its nodes
        self.watch = _Watch(self)

    def __enter__(self) -> Recorder:
        self.watch.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.watch.__exit__(*error)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """What would keep torch.compile from reading the next method takes as long as that, and seconds to import."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for each in types:
            if each not in PLAIN:  # such a class does its own operations, which come here in their turn
                return NotImplemented
        out = func(*args, **kwargs) if kwargs else func(*args)
        if not self.refused:
            self.calls.append((func, args, kwargs, out))
            self.kept += out.numel() * out.itemsize if isinstance(out, Tensor) else 0
            if self.kept > ROOM:
                self.refused = "memory"
                self.calls.clear()
        return out


def tensors(tree: Any) -> list[Tensor]:
    """Those in a list of tensors, lists, and anything else."""
    found: list[Tensor] = []
    for each in tree:
        if isinstance(each, Tensor):
            found.append(each)
        elif isinstance(each, (list, tuple)):
            found += tensors(each)
    return found
