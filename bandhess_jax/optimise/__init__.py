"""Minimisation on banded Hessians."""
