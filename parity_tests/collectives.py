"""What a compiled program sends from device to device, read off its text."""

import math
import re
from typing import NamedTuple

KINDS = ["all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter", "collective-broadcast"]
BYTES = {"pred": 1, "s8": 1, "u8": 1, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8, "c64": 8, "c128": 16}
_CALL = re.compile(rf"= (\(?[^=]*?) ({'|'.join(KINDS)})(-start)?\(")
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")


class Collective(NamedTuple):
    """What one operation gives each device."""

    kind: str
    numbers: int  # of its largest array
    bytes: int  # of all


def _arrays(text: str) -> list[tuple[int, int]]:
    """The size and the bytes of every array that is named."""
    found = [(math.prod(map(int, filter(None, shape.split(",")))), BYTES[kind]) for kind, shape in _ARRAY.findall(text)]
    return [(size, size * each) for size, each in found]


def collectives(text: str) -> list[Collective]:
    """Those of a program as `jax.stages.Compiled.as_text` gives it."""
    calls = [(call[2], _arrays(call[1])) for call in map(_CALL.search, text.splitlines()) if call]
    return [Collective(kind, max(s for s, _ in arrays), sum(b for _, b in arrays)) for kind, arrays in calls]
