"""A band and its storage; one cell below the diagonal stands for two entries."""

import numpy as np
from draw import COLOURS, axes, cells, save

letters = [list("adgik"), list("behj*"), list("cf.**")]
n, w = 5, 2
paint = ["#dddddd", COLOURS[4], COLOURS[3]]
full, texts = np.full((n, n), "", dtype=object), np.full((n, n), "", dtype=object)
for r in range(w + 1):
    for j in range(n - r):
        full[j + r, j] = full[j, j + r] = paint[r]
        texts[j + r, j] = texts[j, j + r] = letters[r][j]
figure, (left, right) = axes(2, 8, 3, width_ratios=[1, 1])
cells(left, full, texts)
left.set_title("H: one letter, two places")
stored = np.array([[paint[r] if j + r < n else "#f7f7f7" for j in range(n)] for r in range(w + 1)], dtype=object)
cells(right, stored, np.array(letters, dtype=object))
right.set_title("ab[r, j] = H[j + r, j]")
for ax, places in ((left, [(2, 1), (1, 2)]), (right, [(1, 1)])):
    for i, j in places:
        ax.plot([j, j + 1, j + 1, j, j], [i, i, i + 1, i + 1, i], color=COLOURS[1], linewidth=2)
save(figure, __file__)
