"""The interior-point method of `sqp`, for both frameworks: its constants, and the engine in array operations.

`loop` shows how it is driven and what it asks for; `state` what it keeps; then, in the order of a step: `scaling` (at
the start), `measures`, `system` and `step`, `search`, `outcome`, and `restoration` where no step serves. On CPUs the
same method is compiled (`bandhess_common/kernels/interior`).
"""
