"""A batch of systems over several processes, in PyTorch: each has its share of the series, and gradients are summed.

torchrun --nproc-per-node 2 examples/processes.py

Noisy series y are smoothed, x = (I + lambda D^T D)^-1 y with second differences D, and the lambda they share is fitted
to noiseless ones by gradient descent on its logarithm. `torch.distributed` does the talking: one number a step.
One long system is not split in PyTorch: JAX does that (`sharding=` of `bandhess_jax.solve`).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.distributed as dist

import bandhess_torch as bh

COUNT, LENGTH, STEPS = 12, 60, 30


def series() -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy and noiseless ones, `(COUNT, LENGTH)` each, the same in all processes."""
    random = torch.Generator().manual_seed(1)
    t = torch.linspace(0, 1, LENGTH, dtype=torch.float64)
    phase = torch.rand(COUNT, 1, generator=random, dtype=torch.float64)
    clean = torch.sin(2 * math.pi * (t + phase))
    return clean + 0.3 * torch.randn(clean.shape, generator=random, dtype=torch.float64), clean


def roughness() -> torch.Tensor:
    """The band of D^T D, `(3, LENGTH)`."""
    D = torch.diff(torch.eye(LENGTH, dtype=torch.float64), n=2, dim=0)
    return bh.from_dense(D.T @ D, 2)


def fit(noisy: torch.Tensor, clean: torch.Tensor, total: Callable) -> tuple[float, float]:
    """lambda and the mean squared error; `total` sums a tensor over all processes, in place."""
    identity = torch.zeros(3, LENGTH, dtype=torch.float64)
    identity[0] = 1
    log_weight = torch.zeros((), dtype=torch.float64, requires_grad=True)
    for _ in range(STEPS):
        bands = (identity + log_weight.exp() * roughness()).expand(len(noisy), -1, -1)
        error = (torch.func.vmap(bh.solve)(bands, noisy) - clean).square().sum() / (COUNT * LENGTH)
        (gradient,) = torch.autograd.grad(error, log_weight)
        total(both := torch.stack([error.detach(), gradient]))
        log_weight = (log_weight - 200 * both[1]).detach().requires_grad_()
    return float(log_weight.detach().exp()), float(both[0])


def main() -> None:
    dist.init_process_group("gloo")
    noisy, clean = series()
    own = slice(dist.get_rank(), None, dist.get_world_size())
    weight, error = fit(noisy[own], clean[own], dist.all_reduce)
    print(f"process {dist.get_rank()} of {dist.get_world_size()}: lambda {weight!r}, mean squared error {error!r}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
