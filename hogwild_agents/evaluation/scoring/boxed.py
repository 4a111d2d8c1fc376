"""Finds the boxed answers of a text."""

from __future__ import annotations

from hogwild_agents.team.answers import boxed


def boxes(text: str) -> list[str]:
    r"""The contents of the boxes of a text, in order; a box that is still open comes first."""
    contents: list[str] = []
    boxed(contents.append).extract(text)  # offers every box, from the last on; None rejects each
    return contents[::-1]
