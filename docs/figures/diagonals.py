"""sum(c (x[1:] - x[:-1])^2) / 2: the difference as two diagonals, and its square form as three."""

import numpy as np
from draw import COLOURS, axes, cells, save

n = 6
figure, panels = axes(3, 8.5, 3)


def matrix(rows: int, diagonals: dict[int, tuple[str, list[str]]]) -> tuple[np.ndarray, np.ndarray]:
    colours, texts = np.full((rows, n), "", dtype=object), np.full((rows, n), "", dtype=object)
    for offset, (colour, entries) in diagonals.items():
        for i in range(rows):
            if 0 <= i + offset < n:
                colours[i, i + offset], texts[i, i + offset] = colour, entries[i]
    return colours, texts


blue, red, green = COLOURS[4], COLOURS[1], COLOURS[3]
cells(panels[0], *matrix(n - 1, {0: (red, ["-1"] * n), 1: (blue, ["1"] * n)}))
panels[0].set_title("v[1:] - v[:-1]")
cells(panels[1], *matrix(n - 1, {0: (red, [f"-c{i}" for i in range(n)]), 1: (blue, [f"c{i}" for i in range(n)])}))
panels[1].set_title("times c")
middle = ["c0", *(f"c{i}+c{i + 1}" for i in range(n - 2)), f"c{n - 2}"]
below = ["", *(f"-c{i}" for i in range(n - 1))]
cells(panels[2], *matrix(n, {0: (green, middle), -1: (red, below)}))
panels[2].set_title("put back and added: the band")
save(figure, __file__)
