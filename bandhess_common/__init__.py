"""What the two packages share and neither framework is needed for: NumPy, SciPy and the standard library alone."""
