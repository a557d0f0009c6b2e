"""Band extraction: objective -> products (or diagonals) -> band. `from_matvec` is the one core; the others bring their
own product."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from ..band.stages import Layout
from ..band.storage import as_index
from ..band.structures import shifted
from ..framework.transforms import check_recorded, transformed
from .diagonals import Program, carry
from .probing.direct import Direct, clear_foreign
from .probing.protocol import Probing, as_probing, collect, make_probes

ChunkSize = int | str | None

LONG = 2**13  # entries, from where on diagonals are tried
ROOM = 2**26  # numbers, at most, in as many of the function's largest tensors as the band has rows
PARTS = 6000  # of diagonals, that all operations give together, at most
MANY = 1000  # nodes of a graph that are too many for it
_left_to_probing: set[tuple] = set()  # for which it was in vain: the band's rows, and the names of a graph's nodes


class Extraction(NamedTuple):
    """What decides the extraction's program, checked."""

    bandwidth: int
    probing: Probing
    chunk_size: ChunkSize

    @classmethod
    def of(cls, bandwidth: int, probing: str | Probing, chunk_size: ChunkSize) -> Extraction:
        if chunk_size is not None and chunk_size != "auto":
            try:
                chunk_size = as_index(chunk_size, "chunk_size", least=1)
            except TypeError:
                raise TypeError(f'chunk_size must be an int >= 1, None or "auto", got {chunk_size!r}') from None
        return cls(as_index(bandwidth, "bandwidth"), as_probing(probing), chunk_size)

    def batches(self, count: int, layout: Layout, matvec: Any) -> list[range]:
        """The colours of each batched call. "auto": so many that a batch stays in cache (some 2^19 numbers on a CPU),
        where batching saves the calls' overhead; past that it only moves more memory."""
        if self.chunk_size == "auto":
            size = max(layout.n, 1)
            if size * count > 2**15 and isinstance(matvec, Pullback) and matvec.grad.requires_grad:
                size = max(size, matvec.largest())  # a function may hold more than its argument
            chunk = max(1, (2**19 if layout.device.type == "cpu" else 2**26) // size)
        else:
            chunk = count if self.chunk_size is None else int(self.chunk_size)
        parts = -(-count // chunk)
        return [range(count * i // parts, count * (i + 1) // parts) for i in range(parts)]


def _nodes(root: Any) -> Iterator[tuple[Any, tuple]]:
    """The nodes of an autograd graph, each with its edges."""
    nodes, seen = [root], {root}
    while nodes:
        node = nodes.pop()
        following = node.next_functions
        yield node, following
        for other, _ in following:
            if other is not None and other not in seen:
                seen.add(other)
                nodes.append(other)


class Pullback:
    """v -> H v, through the gradient's graph. Attached, it may be differentiated in its turn."""

    def __init__(self, value: Tensor, grad: Tensor, x: Tensor, attached: bool) -> None:
        self.root, self.grad, self.x, self.attached = value.grad_fn, grad, x, attached

    def largest(self) -> int:
        """Numbers in the largest tensor on the way from x to the function's value."""
        shapes = [m.shape for node, _ in _nodes(self.root) for m in getattr(node, "_input_metadata", ())]
        return max((math.prod(shape) for shape in shapes), default=0)

    def __call__(self, v: Tensor) -> Tensor:
        """H v for v `(n,)` or a batch `(m, n)`."""
        if not self.grad.requires_grad:
            return torch.zeros_like(v)
        (Hv,) = torch.autograd.grad(
            self.grad,
            self.x,
            v,
            retain_graph=True,
            create_graph=self.attached,
            allow_unused=True,
            is_grads_batched=v.ndim == 2,
        )
        return torch.zeros_like(v) if Hv is None else Hv

    def diagonals(self, rows: int) -> Tensor | None:
        """The band without probes, where the graph allows it and it is worth it: by what was measured on CPUs, an
        operation on diagonals costs the interpreter 10 us and its arithmetic a part of what it costs a batch."""
        if self.attached or len(self.x) < LONG or self.x.device.type != "cpu" or not self.grad.requires_grad:
            return None
        nodes = [node for node, _ in islice(_nodes(self.grad.grad_fn), MANY)]
        if len(nodes) == MANY or any(isinstance(node, BackwardCFunction) for node in nodes):
            return None  # a user's own backward may do with numbers what is not seen
        if self.largest() * rows > ROOM:
            return None
        graph = (rows, *(node.name() for node in nodes))
        if graph in _left_to_probing:
            return None
        ab = carry(Program(self, self.x.dtype, self.x.device), len(self.x), rows, PARTS)
        if ab is None:
            if len(_left_to_probing) == MANY:
                _left_to_probing.clear()
            _left_to_probing.add(graph)
        return ab


@cache
def settle_heap() -> None:
    """Has glibc's malloc keep what is freed, up to 62 MiB, for the next temporary. It raises its limits to the largest
    block it was ever given back (mallopt(3), M_MMAP_THRESHOLD; 32 MiB at most), and this one costs nothing, as nothing
    is written to it. Below them, every temporary is returned to the system and comes back page by page, zeroed, which
    takes longer than the arithmetic: twice for batches of 1e5 numbers, as measured."""
    torch.empty(31 * 2**20, dtype=torch.uint8, device="cpu")


def _finished(ab: Tensor, layout: Layout, k: int, near: int) -> Tensor:
    if near < k:
        ab = torch.nn.functional.pad(ab, (0, 0, 0, (k - near) * layout.d))
    return shifted(ab, layout.dummies()) if layout.ragged else ab


def extract_noted(matvec: Callable[[Tensor], Tensor], layout: Layout, options: Extraction) -> Any:
    """The band of `matvec`, a symmetric operator on the ravelled vector; `(ab, *notes)` if the probing adds some."""
    T, d, k = layout.T, layout.d, options.bandwidth
    if layout.n == 0:
        return torch.zeros(((k + 1) * d, 0), dtype=layout.dtype, device=layout.device)
    settle_heap()
    near = min(k, T - 1)  # blocks further off than T - 1 stages do not exist
    probing = options.probing
    if type(probing) is Direct and isinstance(matvec, Pullback) and not isinstance(options.chunk_size, int):
        ab = matvec.diagonals((near + 1) * d)
        if ab is not None:
            return _finished(clear_foreign(ab, d), layout, k, near)
    like = torch.empty((), dtype=layout.dtype, device=layout.device)
    count = probing.count(T, d, near)
    found = collect(probing, T, d, near)
    for colours in options.batches(count, layout, matvec):
        probes = make_probes(probing, colours, T, d, near, like)
        if len(colours) == 1:
            products = matvec(probes[0])[None]
        elif isinstance(matvec, Pullback):
            products = matvec(probes)
        else:
            products = torch.func.vmap(matvec)(probes.contiguous())  # unshared: it might be written to
        found.add(colours, products)
    ab, notes = found.band()
    ab = _finished(ab, layout, k, near)
    return (ab, *notes) if notes else ab


def extract(matvec: Callable[[Tensor], Tensor], layout: Layout, options: Extraction) -> Tensor:
    """The band alone, for those who have no use for notes."""
    out = extract_noted(matvec, layout, options)
    return out[0] if isinstance(out, tuple) else out


def from_matvec(
    matvec: Callable[[Any], Any],
    like: Any,
    bandwidth: int,
    *,
    probing: str | Probing = "direct",
    chunk_size: ChunkSize = "auto",
) -> Tensor:
    """The band of any symmetric banded linear operator.

    Args:
      matvec: the operator: takes and returns a tree of the structure of `like`.
      like: a tensor or tree of tensors that gives structure, shapes, dtype and device.
      bandwidth: k >= 0, in stages: stage t couples to stages t - k .. t + k.
      probing: which probes, and how the band is read off them: "direct", "substitution", "fourier", "random", or
        an object: `Direct()`, `Substitution()`, `Fourier()`, `Random(...)`, or your own with the same methods.
      chunk_size: probes multiplied at a time: an int bounds the memory to that many products (1 never vmaps; it
        is always probes then), None takes all in one batched call, "auto" as many as fit the cache.

    Returns: `ab` `((k + 1) d, T d)` in lower band storage, for T stages of d scalars; `(k + 1, n)` for a vector.
      Dummy variables of ragged leaves have a unit diagonal.

    Raises: TypeError or ValueError for a wrong argument.

    Cost: products: (2k + 1) d for "direct", (k + 1) d for "substitution", 2 (k + 1) d - 1 for "fourier", twice those of
    "direct" for "random"; never more than T d for the first two.
    """
    layout = Layout.of(like, "like")
    extraction = Extraction.of(bandwidth, probing, chunk_size)
    return extract_noted(lambda v: layout.ravel(matvec(layout.unravel(v))), layout, extraction)


class Objective(NamedTuple):
    """Which argument of a function is differentiated, and its layout."""

    layout: Layout
    argnums: int
    has_aux: bool

    @classmethod
    def of(cls, fun: Callable, argnums: int, has_aux: bool, args: tuple, name: str | None = None) -> Objective:
        if not callable(fun):
            raise TypeError(f"fun must be a function, got {type(fun).__name__}")
        if not -len(args) <= argnums < len(args):
            raise ValueError(f"argument {argnums} (argnums) must be given by position; got {len(args)} positional ones")
        argnums %= len(args)
        return cls(Layout.of(args[argnums], name or f"argument {argnums}"), argnums, bool(has_aux))

    def bind(self, fun: Callable, args: tuple, kwargs: dict) -> tuple[Callable[[Tensor], tuple[Tensor, Any]], Tensor]:
        """`(flat -> (value, aux), flat)`; the dummies of ragged leaves have zero gradient by construction."""

        def flat_fun(flat: Tensor) -> tuple[Tensor, Any]:
            out = fun(*args[: self.argnums], self.layout.unravel(flat), *args[self.argnums + 1 :], **kwargs)
            if self.has_aux:
                if not (isinstance(out, tuple) and len(out) == 2):
                    raise TypeError(f"fun must return (value, aux) with has_aux=True, got {type(out).__name__}")
                value, aux = out
            else:
                value, aux = out, None
            if not isinstance(value, Tensor):
                raise TypeError(f"fun must return a scalar tensor, got {type(value).__name__}; has_aux=True for a pair")
            if value.shape != () or not value.is_floating_point():
                raise TypeError(
                    f"fun must return a real scalar (shape ()), got shape {tuple(value.shape)} and dtype "
                    f"{value.dtype}; sum its terms, for example with torch.sum"
                )
            return value, aux

        return flat_fun, self.layout.ravel(args[self.argnums])


def check_argnums(argnums: int) -> int:
    try:
        return as_index(argnums, "argnums", least=-(2**31))
    except TypeError:
        raise TypeError(f"argnums must be one int, got {argnums!r}; ravel several arguments into one pytree") from None


def _reaches_others(value: Tensor, x: Tensor) -> bool:
    """True where the graph of value ends in a leaf other than x: a module's parameter, an argument with a gradient."""
    if value.grad_fn is None:
        return True
    return any(not following and getattr(node, "variable", x) is not x for node, following in _nodes(value.grad_fn))


def linearize_gradient(flat_fun: Callable, flat: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor], tuple]:
    """`(grad, product, (value, aux))`, the function evaluated once.

    The gradient's graph is built here once, and every product pulls its probe back through it: H is symmetric, so
    that is H v. (Forward over reverse, the way of JAX, evaluates the function again for each batch: 2 to 15 times
    slower here. `torch.func.hvp` does not exist.) Plain autograd where it serves, torch.func inside its transforms.
    """
    check_recorded()
    if transformed():
        return _linearize_transformed(flat_fun, flat)
    outer = torch.is_grad_enabled()
    with torch.enable_grad():
        x = flat if outer and flat.requires_grad else flat.detach().requires_grad_()
        value, aux = flat_fun(x)
        if value.requires_grad:
            (grad,) = torch.autograd.grad(value, x, create_graph=True, allow_unused=True, materialize_grads=True)
        else:
            grad = torch.zeros_like(x)
    attached = outer and value.requires_grad and (x is flat or _reaches_others(value, x))
    product = Pullback(value, grad, x, attached)
    if attached:
        return grad, product, (value, aux)
    if aux is not None:
        aux = tree_map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, aux)
    return grad.detach(), product, (value.detach(), aux)


def _linearize_transformed(flat_fun: Callable, flat: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor], tuple]:
    rest: list[Any] = []  # torch.func passes tensors only; what else stands in aux goes by here

    def tensors_out(flat: Tensor) -> tuple[Tensor, list[Tensor]]:
        value, aux = flat_fun(flat)
        leaves, treedef = tree_flatten(aux)
        rest[:] = [treedef, [Tensor if isinstance(leaf, Tensor) else leaf for leaf in leaves]]
        return value, [leaf for leaf in leaves if isinstance(leaf, Tensor)]

    def gradient(flat: Tensor) -> tuple[Tensor, tuple]:
        grad, (value, aux) = torch.func.grad_and_value(tensors_out, has_aux=True)(flat)
        return grad, (value, aux)

    grad, pull, (value, tensors) = torch.func.vjp(gradient, flat, has_aux=True)  # type: ignore[misc]
    treedef, leaves = rest
    given = iter(tensors)
    aux = tree_unflatten([next(given) if leaf is Tensor else leaf for leaf in leaves], treedef)
    return grad, lambda v: pull(v)[0], (value, aux)


def value_grad_hessian(
    fun: Callable,
    bandwidth: int,
    *,
    argnums: int = 0,
    has_aux: bool = False,
    probing: str | Probing = "direct",
    chunk_size: ChunkSize = "auto",
) -> Callable[..., tuple]:
    """A function of `fun`'s arguments that returns `(value, grad, ab)`, with `fun` evaluated once.

    Args:
      fun: real scalar function of a tensor or tree of stages; anything that `torch.func.grad` takes.
      bandwidth: k >= 0, in stages; `band_error` tells whether it is wide enough.
      argnums: the one argument to differentiate.
      has_aux: `fun` returns `(value, aux)`, aux a pytree of tensors.
      probing: as in `from_matvec`.
      chunk_size: as in `from_matvec`.

    Returns: the function; its value is `(value, grad, ab)`, or `((value, aux), grad, ab)` with has_aux: grad in the
      argument's structure, ab `((k + 1) d, T d)` as `hessian` gives it.

    Cost: one gradient with its graph, then (2k + 1) d products pulled back through it, or on long vectors its diagonals
    where the graph consists of slices, paddings, sums and products with coefficients (`extraction/diagonals/walk.py`).
    """
    argnums = check_argnums(argnums)
    extraction = Extraction.of(bandwidth, probing, chunk_size)

    def value_grad_hessian_fun(*args: Any, **kwargs: Any) -> tuple:
        objective = Objective.of(fun, argnums, has_aux, args)
        flat_fun, flat = objective.bind(fun, args, kwargs)
        grad, product, (value, aux) = linearize_gradient(flat_fun, flat)
        ab = extract_noted(product, objective.layout, extraction)
        return (value, aux) if has_aux else value, objective.layout.unravel(grad), ab

    return value_grad_hessian_fun


def hessian(
    fun: Callable,
    bandwidth: int,
    *,
    argnums: int = 0,
    has_aux: bool = False,
    probing: str | Probing = "direct",
    chunk_size: ChunkSize = "auto",
) -> Callable[..., Any]:
    """A function of `fun`'s arguments that returns the band of the Hessian, as `torch.func.hessian` returns all of it.

    Arguments as in `value_grad_hessian`. Returns a function giving `ab` (or `(ab, aux)` with has_aux): `ab[r, j]` is
    `H[j + r, j]`, shape `(k + 1, n)` for a vector, `((k + 1) d, T d)` for T stages of d scalars. An entry of H further
    than k stages from the diagonal is lost, or added to a wrong cell: check a doubtful bandwidth with `band_error`.

    Cost: at most (2k + 1) d Hessian-vector products. Composes with `torch.func.vmap`, `grad`, and autograd.
    """
    pieces = value_grad_hessian(
        fun, bandwidth, argnums=argnums, has_aux=has_aux, probing=probing, chunk_size=chunk_size
    )

    def hessian_fun(*args: Any, **kwargs: Any) -> Any:
        value, _, ab = pieces(*args, **kwargs)
        return (ab, value[1]) if has_aux else ab

    return hessian_fun


def linearize_residuals(residuals: Callable[[Tensor], Any], flat: Tensor) -> tuple[list[Tensor], Callable, Callable]:
    """`(r, forward, backward)`: the residuals' leaves, v -> J v, and u -> J^T u (the real part of J^H u where r is
    complex)."""

    def checked(flat: Tensor) -> list[Tensor]:
        leaves, _ = tree_flatten(residuals(flat))
        if not leaves or not all(isinstance(a, Tensor) and (a.is_floating_point() or a.is_complex()) for a in leaves):
            kinds = [str(getattr(leaf, "dtype", type(leaf).__name__)) for leaf in leaves]
            raise TypeError(f"residuals must return a floating tensor or a pytree of them, got leaves of types {kinds}")
        return leaves

    check_recorded()
    r, pullback, *_ = torch.func.vjp(checked, flat)
    # J v is the transpose of the pullback u -> J^T u, which is linear: pulled back in its turn, at any u.
    _, forward, *_ = torch.func.vjp(lambda u: pullback(u)[0], [torch.zeros_like(part) for part in r])
    return r, lambda v: forward(v)[0], lambda u: pullback(u)[0]


def gauss_newton(
    residuals: Callable,
    bandwidth: int,
    *,
    argnums: int = 0,
    probing: str | Probing = "direct",
    chunk_size: ChunkSize = "auto",
) -> Callable[..., Tensor]:
    """A function of `residuals`' arguments that returns the band of J^T J, for the objective 0.5 |residuals|^2.

    Args:
      residuals: function that returns a floating tensor of any shape, or a pytree of them (complex: J^H J).
      bandwidth: of J^T J, in stages: residuals that couple stages t .. t + k give k.
      argnums: the one argument to differentiate.
      probing: as in `from_matvec`.
      chunk_size: as in `from_matvec`.

    Returns: the function; its value is `ab`, shaped as `hessian`'s: positive semidefinite up to rounding.

    Cost: one graph of the residuals and of their pullback, then a forward and a transposed product per probe.
    """
    if not callable(residuals):
        raise TypeError(f"residuals must be a function, got {type(residuals).__name__}")
    argnums = check_argnums(argnums)
    extraction = Extraction.of(bandwidth, probing, chunk_size)

    def gauss_newton_fun(*args: Any, **kwargs: Any) -> Tensor:
        layout, index, _ = Objective.of(residuals, argnums, False, args)

        def flat_residuals(flat: Tensor) -> Any:
            return residuals(*args[:index], layout.unravel(flat), *args[index + 1 :], **kwargs)

        _, forward, backward = linearize_residuals(flat_residuals, layout.ravel(args[index]))
        return extract_noted(lambda v: backward(forward(v)), layout, extraction)

    return gauss_newton_fun
