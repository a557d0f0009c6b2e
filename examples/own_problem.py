"""An objective of your own, for the command line. Written with the array's operators only, it serves both frameworks:

python -m bandhess_jax   examples/own_problem.py:cable --x0 x0.npy --bandwidth 1 --out result.npz
python -m bandhess_torch examples/own_problem.py:cable --x0 x0.npy --bandwidth 1 --out result.npz
"""

LENGTH, STIFFNESS = 1.5, 10.0


def cable(x):
    """Energy of an elastic cable that hangs from (0, 0) and (1, 0); x (T, 2): its T masses, of total weight 1.

    A mass feels its two neighbours: bandwidth 1.
    """
    rest = LENGTH / (len(x) + 1)
    first = (x[0] ** 2).sum() ** 0.5
    inner = ((x[1:] - x[:-1]) ** 2).sum(-1) ** 0.5
    last = ((x[-1, 0] - 1) ** 2 + x[-1, 1] ** 2) ** 0.5
    stretch = (first - rest) ** 2 + ((inner - rest) ** 2).sum() + (last - rest) ** 2
    return STIFFNESS / (2 * rest) * stretch + x[:, 1].sum() / len(x)
