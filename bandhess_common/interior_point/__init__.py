"""The interior-point method of `sqp`, for both frameworks: its constants, and the engine in array operations."""
