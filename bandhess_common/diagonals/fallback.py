"""A program is carried whole or not at all: what no rule knows takes probes instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

strict = False  # True in the tests: what is raised by mistake is then seen, and not taken for an unknown operation

T = TypeVar("T")


class UnknownError(Exception):
    """No rule knows the operation, or its value would have too many parts."""


def carry_or_none(carry: Callable[[], T | None]) -> T | None:
    """`carry()`, or None: where a rule gave up, and, unless `strict`, where one failed in any other way."""
    try:
        return carry()
    except UnknownError:
        return None
    except Exception:
        if strict:
            raise
        return None
