"""Roots of residuals with a banded Jacobian."""
