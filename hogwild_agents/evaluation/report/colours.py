"""The colours of the page and its charts, in a light and a dark theme."""

from __future__ import annotations

import re
from collections.abc import Mapping

_SERIES = ("#0072b2", "#d55e00", "#008a63", "#a8487f", "#9a6700", "#2f8fc9", "#6b6b6b", "#5b4bb7")
"""Okabe and Ito's palette, safe for colour-blind readers, darkened for white paper."""

_SERIES_DARK = (
    *("#56b4e9", "#ff8b4a", "#2dcba0", "#ea9cc8", "#e9b23c", "#8fd0f5", "#b5b5b5", "#a99bf5"),
)

COUNT = len(_SERIES)
"""How many strategies have a colour of their own."""

LIGHT = {"paper": "#fcfcfb", "ink": "#1b1f24", "muted": "#5b646e", "rule": "#e2e5e8"}
DARK = {"paper": "#14171a", "ink": "#e8eaed", "muted": "#a0a9b3", "rule": "#31373d"}
LIGHT |= {f"s{index}": colour for index, colour in enumerate(_SERIES)}
DARK |= {f"s{index}": colour for index, colour in enumerate(_SERIES_DARK)}


def variables() -> str:
    """CSS variables that follow the reader's theme; `--series` depends on the class `s0`, ..."""

    def declarations(colours: Mapping[str, str]) -> str:
        return "".join(f"--{name}:{colour};" for name, colour in colours.items())

    dark = f"@media (prefers-color-scheme:dark){{:root{{{declarations(DARK)}}}}}"
    series = "".join(f".s{index}{{--series:var(--s{index})}}\n" for index in range(COUNT))
    return f":root{{{declarations(LIGHT)}}}\n{dark}\n{series}"


def series_rules() -> str:
    """CSS classes `s0`, `s1`, ... that give the lines of charts their colour."""
    return "".join(f"svg .s{index}{{color:var(--s{index})}}\n" for index in range(COUNT))


def without_variables(css: str) -> str:
    """CSS in the light theme, for programs that show SVG but know no CSS variables."""
    return re.sub(r"var\(--(\w+)\)", lambda match: LIGHT[match[1]], css)
