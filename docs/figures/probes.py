"""Columns of one of 2w + 1 colours share no row; of w + 1 colours a row sees two, and symmetry tells them apart."""

import numpy as np
from draw import COLOURS, axes, band, cells, save

n, w = 12, 2
figure, panels = axes(2, 8, 4)
for ax, period, title in zip(
    panels, (2 * w + 1, w + 1), (f"direct: {2 * w + 1} colours", f"substitution: {w + 1} colours"), strict=True
):
    paint = np.array([COLOURS[j % period] for j in range(n)])
    colours = np.where(band(n, w), paint[None, :], "")
    texts = np.full((n, n), "", dtype=object)
    row = 5
    for j in range(n):
        if colours[row, j] and sum(colours[row] == colours[row, j]) > 1:
            texts[row, j] = "?"
            texts[j, row] = "!"
    cells(ax, colours, texts)
    ax.set_title(title)
save(figure, __file__)
