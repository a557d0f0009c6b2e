"""The partition method: interiors of all parts at once, then the separators."""

import numpy as np
from draw import COLOURS, axes, band, cells, save

parts, q, w = 3, 6, 2
n = parts * q
kind = np.where(np.arange(n) % q < q - w, 0, 1)  # 1: separator
part = np.arange(n) // q
figure, panels = axes(3, 9, 3.2, width_ratios=[n, n, parts * w + 4])
inside = np.array([COLOURS[p] for p in range(parts)])[part]
paint = np.where(
    kind[:, None] + kind[None, :] == 0, inside[None, :], np.where(kind[:, None] * kind[None, :], "#555555", "#cccccc")
)
cells(panels[0], np.where(band(n, w), paint, ""))
panels[0].set_title("band, 3 parts")
filled = band(n, w).copy()
for p in range(parts):  # a part's interior meets the separators on both sides once it is eliminated
    interior = np.flatnonzero((part == p) & (kind == 0))
    near = np.flatnonzero((kind == 1) & ((part == p) | (part == p - 1)))
    filled[np.ix_(near, interior)] = filled[np.ix_(interior, near)] = True
    filled[np.ix_(near, near)] = True
cells(panels[1], np.where(filled, paint, ""))
panels[1].set_title("interiors side by side: what fills")
separators = np.flatnonzero(kind)
cells(panels[2], np.where(filled[np.ix_(separators, separators)], "#555555", ""))
panels[2].set_title("what is left")
save(figure, __file__)
