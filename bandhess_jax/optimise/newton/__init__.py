"""Newton's method: a trust region on banded factors."""
