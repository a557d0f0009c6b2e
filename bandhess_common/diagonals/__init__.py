"""Values that depend on a vector v linearly, and what the operations of linear programs do to them: for both packages.

    value[i] = sum over o, and over grids that hold i, of c[i] v[o + strides . i]         (i a multi-index)

`values` has such a value and its invariants, `arithmetic` and `geometry` the rules of twelve operations: add, scale,
where, sum, contract | slice, place, flip, permute, expand, reshape, stack. Each package brings three things: the
arithmetic of the coefficients c on its arrays (`coefficients` says which), a translator from its operations to the
twelve, and the walk through a program. `bandhess_jax/extraction/diagonals/__init__.py` has the contract and a picture.

The rules' examples write a value as its strides and its parts, each of them `offset | grid | coefficients`: entry i of
`stride 1:  2 | 0:4 | c` is c[i] v[2 + i], for i = 0 .. 3.
"""
