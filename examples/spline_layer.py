"""PyTorch: a layer that is a penalised spline, its smoothness learned by backpropagation through `solve`.

The layer maps signals to the curves that minimise |x - y|^2 + lam |second differences of x|^2. lam is a parameter like
any other; here it stands alone, and finds the value that takes most noise from signals of its kind.

python examples/spline_layer.py --out gallery_out
"""

from __future__ import annotations

import torch
from gallery import axes, options, save

import bandhess_torch as bh


def bend(x: torch.Tensor) -> torch.Tensor:
    return ((x[2:] - 2 * x[1:-1] + x[:-2]) ** 2).sum() / 2


class PenalisedSpline(torch.nn.Module):
    """Signals `(batch, n)` to their smooth parts, `(batch, n)`."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.log_lam = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.register_buffer("penalty", bh.hessian(bend, 2)(torch.zeros(n, dtype=torch.float64)))
        identity = torch.zeros_like(self.penalty)
        identity[0] = 1
        self.register_buffer("identity", identity)

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        return bh.solve(self.identity + self.log_lam.exp() * self.penalty, y.T).T


def signals(count: int, n: int) -> torch.Tensor:
    """Sums of a few slow waves."""
    t = torch.linspace(0, 1, n, dtype=torch.float64)
    wave = torch.randn(count, 5, 1, dtype=torch.float64) * torch.sin(torch.arange(1, 6)[:, None] * torch.pi * t)
    return wave.sum(1)


def main() -> None:
    given = options(__doc__)
    torch.manual_seed(0)
    n, count, epochs = (30, 4, 3) if given.quick else (200, 64, 80)
    clean = signals(count, n)
    noisy = clean + 0.5 * torch.randn_like(clean)
    layer = PenalisedSpline(n)
    optimiser = torch.optim.Adam(layer.parameters(), lr=0.3)
    way = []
    for epoch in range(epochs):
        optimiser.zero_grad()
        loss = ((layer(noisy) - clean) ** 2).mean()
        loss.backward()
        optimiser.step()
        way.append((layer.log_lam.item(), loss.item()))
        if epoch % max(epochs // 6, 1) == 0 or epoch == epochs - 1:
            print(f"epoch {epoch:3d}: log lam {way[-1][0]:7.3f}, mean squared error {loss.item():.4f}")

    figure, (left, right) = axes(2, 8, 3.4)
    left.plot(noisy[0], ".", color="0.75", markersize=3, label="in")
    left.plot(layer(noisy)[0].detach(), color="tab:blue", label="out")
    left.plot(clean[0], color="k", linewidth=0.8, label="truth")
    left.legend()
    right.plot([loss for _, loss in way], color="tab:blue")
    right.set(title="mean squared error", xlabel="epoch")
    save(figure, given.out / "spline_layer.png")


if __name__ == "__main__":
    main()
