"""Newton's method with banded Hessians as a `torch.optim.Optimizer`, for training loops that are written with one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from bandhess_common.checks import as_index
from bandhess_common.options import ProbingName

from .band.stages import Layout
from .extraction.probing.protocol import Probing
from .extraction.products import from_matvec
from .linalg.solve import factor

__all__ = ["BandedNewton"]

FIRST, GROW, TRIES = 1e-3, 4.0, 40  # the first shift in units of max|diagonal|; a failed one's successor; bound
ARMIJO, HALVINGS = 1e-4, 30


class BandedNewton(torch.optim.Optimizer):
    """One step of Newton's method, with a line search, at each call of `step(closure)`.

    The parameters form a list of stages: tensors whose leading axes are the same (or one shorter), such as a
    trajectory's states and controls. The direction is (H + shift I)^-1 g, shift being 0 where H is positive definite
    (Nocedal and Wright 2006, algorithm 3.3); the step is halved until the loss decreases as its slope promises. For a
    minimum with a certificate, and derivatives through it, use `bandhess_torch.newton`.

    >>> import torch, bandhess_torch
    >>> x = torch.nn.Parameter(torch.zeros(6, dtype=torch.float64))
    >>> optimizer = bandhess_torch.optim.BandedNewton([x], bandwidth=1)
    >>> for _ in range(8):
    ...     loss = optimizer.step(lambda: ((x[1:] - x[:-1]) ** 2).sum() + ((x - 1) ** 4).sum() + ((x - 1) ** 2).sum())
    >>> bool(loss < 1e-20)
    True
    """

    def __init__(
        self, params: Iterable[Any], bandwidth: int, *, lr: float = 1.0, probing: ProbingName | Probing = "direct"
    ) -> None:
        """
        Args:
          params: parameters, of one group.
          bandwidth: of the loss' Hessian, in stages.
          lr: length of the step that is tried first, in units of Newton's.
          probing: as in `bandhess_torch.hessian`.
        """
        if not lr > 0:
            raise ValueError(f"lr must be positive, got {lr}")
        super().__init__(params, {"lr": lr})
        if len(self.param_groups) != 1:
            raise ValueError("BandedNewton takes one group of parameters: its Hessian is one matrix")
        self._bandwidth, self._probing = as_index(bandwidth, "bandwidth"), probing
        self._layout = Layout.of([p.detach() for p in self._params], "params")

    @property
    def _params(self) -> list[Tensor]:
        return self.param_groups[0]["params"]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step. closure evaluates the loss and returns it, without calling `backward`: it is differentiated here,
        and called again for each trial of the line search. Returns the loss before the step.

        Raises: ValueError for a closure that is missing, or has used its graph up; torch.linalg.LinAlgError where no
          shift makes H positive definite, as where it is not finite.
        """
        if closure is None:
            raise ValueError("BandedNewton.step needs a closure that returns the loss")
        params, layout = self._params, self._layout
        with torch.enable_grad():
            loss = closure()
            try:
                grads = torch.autograd.grad(loss, params, create_graph=True, materialize_grads=True)
            except RuntimeError as error:
                raise ValueError(f"the closure must return the loss without calling backward ({error})") from error

            def product(v: list[Tensor]) -> list[Tensor]:
                moving = [(g, u) for g, u in zip(grads, v, strict=True) if g.requires_grad]
                if not moving:
                    return [torch.zeros_like(p) for p in params]
                outputs, cotangents = zip(*moving, strict=True)
                return list(torch.autograd.grad(outputs, params, cotangents, retain_graph=True, materialize_grads=True))

            like = [p.detach() for p in params]
            ab = from_matvec(product, like, self._bandwidth, probing=self._probing, chunk_size=1)
        g = layout.ravel([grad.detach() for grad in grads])
        direction = -self._factor(ab).solve(g)
        self._search(closure, loss.detach(), g @ direction, direction)
        return loss.detach()

    def _factor(self, ab: Tensor) -> Any:
        shift, largest = 0.0, float(ab[0].abs().max())
        state = self.state[self._params[0]]
        for _ in range(TRIES):
            found = factor(torch.cat([ab[:1] + shift, ab[1:]]))
            if found.ok:
                state["shift"] = shift
                return found
            shift = GROW * shift if shift else max(FIRST * (largest or 1.0), state.get("shift", 0.0) / GROW)
        raise torch.linalg.LinAlgError("BandedNewton: no shift makes the Hessian positive definite; is it finite?")

    def _search(self, closure: Callable[[], Any], loss: Tensor, slope: Tensor, direction: Tensor) -> None:
        """Moves the parameters, or leaves them where no step makes the loss smaller: the loss is at rounding level."""
        params, layout = self._params, self._layout
        start, length = layout.ravel([p.detach() for p in params]).clone(), self.param_groups[0]["lr"]
        for _ in range(HALVINGS):
            self._move(layout.unravel(start + length * direction))
            with torch.no_grad():
                if closure() <= loss + ARMIJO * length * slope:
                    return
            length /= 2
        self._move(layout.unravel(start))

    def _move(self, values: list[Tensor]) -> None:
        for p, value in zip(self._params, values, strict=True):
            p.copy_(value)
