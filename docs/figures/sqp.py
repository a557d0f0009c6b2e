"""The system of a step, stage by stage, and the positive definite band that it is condensed to."""

import numpy as np
from draw import COLOURS, axes, cells, save

T, d, m = 5, 2, 1  # stages, variables and constraints of each
W = np.kron(np.eye(T) + np.eye(T, k=1) + np.eye(T, k=-1), np.ones((d, d))) > 0
A = np.kron(np.eye(T) + np.eye(T, k=1), np.ones((m, d)))[: (T - 1) * m] > 0
n, rows = T * d, (T - 1) * m
full = np.full((n + rows, n + rows), "", dtype=object)
full[:n, :n][W] = COLOURS[0]
full[n:, :n][A] = full[:n, n:][A.T] = COLOURS[1]
full[n:, n:][np.eye(rows, dtype=bool)] = COLOURS[3]
condensed = np.full((n, n), "", dtype=object)
condensed[W | (A.T.astype(int) @ A > 0)] = COLOURS[2]
figure, (left, right) = axes(2, 8, 3.8, width_ratios=[n + rows, n])
cells(left, full)
left.set_title("W + s I, A, and - gamma I in the corner")
cells(right, condensed)
right.set_title("W + s I + A^T A / gamma: a band")
save(figure, __file__)
