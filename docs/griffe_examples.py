"""Shows the examples of docstrings as code on the site: they stand indented and without fences."""

from __future__ import annotations

import re
import textwrap
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^Example:\n((?:(?: {4}.*)?\n)*(?: {4}.*)(?:\n|$))", re.MULTILINE)


class ExamplesAsCode(griffe.Extension):
    """Puts fences around what follows `Example:` in a docstring."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called by griffe with every module, class and function."""
        if obj.docstring is not None:
            obj.docstring.value = _EXAMPLE.sub(_fenced, obj.docstring.value)


def _fenced(example: re.Match[str]) -> str:
    code = textwrap.dedent(example[1]).strip()
    return "Example:\n" + textwrap.indent(f"```python\n{code}\n```\n", "    ")
