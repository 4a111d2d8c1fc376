"""What a text states as its answers, before anyone asks whether they are right."""

from __future__ import annotations

from hogwild_agents.team.answers import boxed


def boxes(text: str) -> list[str]:
    r"""What the boxes of a text hold, in their order; one that is still open comes first."""
    found: list[str] = []
    boxed(found.append).extract(text)  # it is shown all, from the last on, and accepts none
    return found[::-1]
