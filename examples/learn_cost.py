"""PyTorch: a module learns the cost that paths minimise, from the paths alone, through `newton`.

The terrain is a sum of 36 bumps of unknown height; the path that it predicts minimises its length and the terrain along
it. `newton`'s result is differentiable in the module's parameters by the implicit function theorem, so an ordinary
optimiser trains it.

python examples/learn_cost.py --out gallery_out
"""

from __future__ import annotations

import numpy as np
import torch
from gallery import axes, options, save

import bandhess_torch as bh

BUMPS = torch.tensor([[0.35, 0.45], [0.65, 0.5]], dtype=torch.float64)


class Terrain(torch.nn.Module):
    """Energy of a path `(T, 2)` from (0, first) to (1, last): its length, and a learned height along it."""

    def __init__(self) -> None:
        super().__init__()
        grid = torch.linspace(0, 1, 6, dtype=torch.float64)
        self.register_buffer("places", torch.cartesian_prod(grid, grid))
        self.weights = torch.nn.Parameter(torch.zeros(len(self.places), dtype=torch.float64))

    def height(self, p: torch.Tensor) -> torch.Tensor:
        distance = ((p[:, None] - self.places) ** 2).sum(-1)
        return torch.exp(-distance / 0.04) @ self.weights

    def forward(self, p: torch.Tensor, sides: torch.Tensor) -> torch.Tensor:
        return path_energy(p, sides, self.height(p).sum())


def path_energy(p: torch.Tensor, sides: torch.Tensor, height: torch.Tensor) -> torch.Tensor:
    corners = torch.stack([torch.zeros_like(sides), sides], 1) + torch.tensor([[0.0, 0.0], [1.0, 0.0]]).to(p)
    ends = torch.cat([corners[:1], p, corners[1:]])
    return len(p) / 2 * ((ends[1:] - ends[:-1]) ** 2).sum() + height / len(p)


def true_energy(p: torch.Tensor, sides: torch.Tensor) -> torch.Tensor:
    distance = ((p[:, None] - BUMPS) ** 2).sum(-1)
    return path_energy(p, sides, 4 * torch.exp(-distance / 0.03).sum())


def straight(T: int, sides: torch.Tensor) -> torch.Tensor:
    t = torch.arange(1, T + 1, dtype=torch.float64)[:, None] / (T + 1)
    return torch.cat([t, sides[0] + t * (sides[1] - sides[0])], 1)


def main() -> None:
    given = options(__doc__)
    torch.manual_seed(0)
    T, paths, epochs = (8, 2, 2) if given.quick else (16, 8, 40)
    sides = torch.rand(paths, 2, dtype=torch.float64)
    shown = torch.stack([bh.newton(true_energy, straight(T, each), 1, args=(each,)).x for each in sides])

    terrain = Terrain()
    optimiser = torch.optim.Adam(terrain.parameters(), lr=0.15)
    losses = []
    for epoch in range(epochs):
        optimiser.zero_grad()
        found = [bh.newton(terrain, straight(T, each), 1, args=(each,)).x for each in sides]
        loss = ((torch.stack(found) - shown) ** 2).mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        if epoch % max(epochs // 6, 1) == 0 or epoch == epochs - 1:
            print(f"epoch {epoch:3d}: mean squared distance {losses[-1]:.2e}")

    figure, (left, right) = axes(2, 8, 3.6)
    grid = torch.linspace(0, 1, 60, dtype=torch.float64)
    points = torch.cartesian_prod(grid, grid)
    with torch.no_grad():
        height = terrain.height(points).reshape(60, 60).T.numpy()
    left.contourf(grid, grid, height, 12, cmap="Greys", alpha=0.6)
    for k, (path, real) in enumerate(zip(found, shown, strict=True)):
        left.plot(*real.T, color="k", linewidth=1.5, label="shown" if k == 0 else None)
        left.plot(*path.detach().T, "--", color="tab:red", linewidth=1.5, label="learned" if k == 0 else None)
    left.set(title="paths on the learned terrain", aspect="equal")
    left.legend()
    right.semilogy(np.array(losses), color="tab:blue")
    right.set(title="mean squared distance", xlabel="epoch")
    save(figure, given.out / "learn_cost.png")


if __name__ == "__main__":
    main()
