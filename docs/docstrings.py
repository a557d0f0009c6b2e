"""Docstrings as Markdown, for the reference: a griffe extension, named in mkdocs.yml.

Args:                                **Args**
  fun: real scalar function,         - `fun`: real scalar function,
    twice differentiable.     ->       twice differentiable.

Returns: the band; see               **Returns** the band; see
  `hessian`.                         `hessian`.

>>> to_dense(ab)                     ```pycon
Array(...)                           >>> to_dense(ab)
                                     Array(...)
                                     ```
"""

from __future__ import annotations

import inspect
import re
import textwrap
from typing import Any

import griffe

TITLE = re.compile(r"^(Args|Returns|Raises|Cost|Error|Method|Derivatives|Source):(?: (.*))?$")
ITEM = re.compile(r"^(\w+(?:, \w+)*): (.*)$")


def items(lines: list[str]) -> list[str]:
    """A list of the arguments; what is indented below one belongs to it."""
    shown = []
    for line in lines:
        found = ITEM.match(line)
        names = " and ".join(f"`{name}`" for name in found[1].split(", ")) if found else ""
        shown.append(f"- {names}: {found[2]}" if found else f"  {line}".rstrip())
    return shown


def section(title: str, first: str, rest: list[str]) -> list[str]:
    if title == "Args":
        return ["", f"**{title}**", "", *items([first] if first else []), *items(rest), ""]
    return ["", f"**{title}** {first}".rstrip(), *rest, ""]


def markdown(text: str) -> str:
    """A section reaches to the next line that is not indented."""
    lines, shown = inspect.cleandoc(text).splitlines(), []
    while lines:
        line = lines.pop(0)
        if line.startswith(">>>"):
            end = lines.index("") if "" in lines else len(lines)
            shown += ["```pycon", line, *lines[:end], "```"]
            del lines[:end]
            continue
        found = TITLE.match(line)
        if not found:
            shown.append(line)
            continue
        inside = []
        while lines and (not lines[0] or lines[0].startswith(" ")):
            inside.append(lines.pop(0))
        shown += section(found[1], found[2] or "", textwrap.dedent("\n".join(inside)).splitlines())
    return "\n".join(shown)


class Docstrings(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring:
            obj.docstring.value = markdown(obj.docstring.value)
