"""A model of negative curvature, its Newton step to a saddle, and the trust region's steps for growing radii."""

import matplotlib.pyplot as plt
import numpy as np
from draw import COLOURS, axes, save

H, g = np.array([[2.0, 0.6], [0.6, -0.7]]), np.array([0.6, 0.25])
figure, ax = axes(1, 5.5, 4)
x, y = np.meshgrid(np.linspace(-2, 1.2, 120), np.linspace(-2.2, 1.2, 120))
p = np.stack([x, y], -1)
model = p @ g + np.einsum("...i,ij,...j", p, H, p) / 2
ax.contour(x, y, model, 24, colors="0.75", linewidths=0.7)
least = np.linalg.eigvalsh(H)[0]
steps = np.array([-np.linalg.solve(H + (s - least) * np.eye(2), g) for s in np.geomspace(1e-2, 1e3, 200)])
inside = np.linalg.norm(steps, axis=1) < 2.4
ax.plot(*steps[inside].T, color=COLOURS[0], linewidth=2, label="steps of H + s I, s falling")
for radius in (0.5, 1.0, 1.6):
    ax.add_patch(plt.Circle((0, 0), radius, fill=False, color="0.4", linestyle=":"))
    k = np.argmin(np.abs(np.linalg.norm(steps, axis=1) - radius))
    ax.plot(*steps[k], "o", color=COLOURS[0])
newton = -np.linalg.solve(H, g)
ax.plot(*newton, "x", color=COLOURS[1], markersize=9, markeredgewidth=2, label="Newton's step: a saddle")
ax.plot(0, 0, "k.", markersize=9)
ax.set(aspect="equal", xlim=(-2, 1.2), ylim=(-2.2, 1.2), xticks=[], yticks=[])
ax.legend(loc="upper left", fontsize=8)
save(figure, __file__)
