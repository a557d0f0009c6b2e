"""Diagonals instead of probes."""
