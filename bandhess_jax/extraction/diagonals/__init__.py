"""The band of a linear program without a probe: its diagonals, carried from operation to operation.

The contract: `carry(program, n, rows, budget, closed) -> band or None`.

    program   a flat jaxpr with one argument, a vector v of n entries; linear in it, and symmetric: v -> H v
    rows      of the band: H[i, j] = 0 where |i - j| >= rows
    budget    operations, at most, that the band may take
    closed    indices are counted modulo n: H[i, j] = 0 unless (i - j) mod n or (j - i) mod n is less than rows
    band      `(rows, n)`, lower storage (with closed that of `Cyclic`): the entries that direct probes give, to
              rounding; or None: an operation that no rule knows, an entry outside the band, too many operations

It never raises. Deleting this room changes nothing but speed.

A worked picture. For v of 5 entries, v[1:] - v[:-1] has 4, and is kept as two parts, (offset o, grid, coefficient):

    v[1:]      v1 v2 v3 v4          entry i is  1 v[1 + i]      (1, 0:4,  1)
    v[:-1]     v0 v1 v2 v3          entry i is  1 v[0 + i]      (0, 0:4,  1)
    v[1:] - v[:-1]                  both                        (1, 0:4,  1)  (0, 0:4, -1)

Times c, of 4 entries, the coefficients are c and -c. Put back at 1:5 of a vector of 5, entry i = 1 .. 4 of which is
c[i-1] (v[i] - v[i-1]), grids and offsets move:            (0, 1:5, c)  (-1, 1:5, -c)
and at 0:4, with the other sign, for the transpose:        (1, 0:4, -c)  (0, 0:4, c)
The sum of the two is the H v of sum(c (x[1:] - x[:-1])^2) / 2. Its parts with o <= 0 are the band's diagonals:

    o = 0     c0  c0+c1  c1+c2  c2+c3  c3       (0, 1:5, c) + (0, 0:4, c)
    o = -1    -c0  -c1    -c2    -c3   0        (-1, 1:5, -c), stored by columns

`bandhess_common.diagonals` defines such values for any shape, and has the rules; this room has `coefficients`, what JAX
computes with them, `translator`, from a jaxpr's operations to the rules, `blocks`, and `walk`, through the program.
After each rule, shape and type are compared with the equation's.

Compared with probing no column is computed that is zero, none twice, and nothing above the diagonal: for a window of
w + 1 entries (w + 1)(w + 2) / 2 multiplications an entry instead of some 2 (w + 1)^2. A program with other operations
(loops, gathers, foreign calls), or too long if unrolled like this, is left to probing. (Griewank and Walther,
Evaluating Derivatives, 2008, chapter 7: sparse vector mode; here the pattern is a few diagonals.)
"""

from .walk import carry

__all__ = ["carry"]
