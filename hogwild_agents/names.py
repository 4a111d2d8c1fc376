"""Names that users choose: of the model that ships inside, of layouts, of workers.

Loads nothing heavy, so that the command line can refuse a wrong name at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias
from unicodedata import category, normalize

from hogwild_agents.errors import InvalidTeamError

POCKET = "pocket"
"""The model that ships with the package."""

LayoutName: TypeAlias = Literal["combined", "interleaved", "contiguous"]
"""See `hogwild_agents.team.layouts`."""

NAMES: tuple[str, ...] = ("Alice", "Bob", "Carol", "Dave", "Erin", "Frank", "Grace", "Heidi")
"""The names of workers to whom the user gives none."""

MAX_WORKERS = 8
LONGEST_NAME = 32


def worker_names(workers: int | Sequence[str]) -> tuple[str, ...]:
    """The names of a team's workers.

    Args:
        workers: How many, or their names, made of letters, digits, spaces and the signs - _ ' .

    Raises:
        InvalidTeamError: There are none or too many, or a name is not allowed or given twice.
    """
    if isinstance(workers, (bool, str, bytes)) or not isinstance(workers, (int, Sequence)):
        raise InvalidTeamError(
            f"workers={workers!r} is neither a number nor a list of names: "
            f"give 1 to {MAX_WORKERS}, or names such as ['Alice', 'Bob']."
        )
    count = workers if isinstance(workers, int) else len(workers)
    if not 1 <= count <= MAX_WORKERS:
        raise InvalidTeamError(f"A team cannot have {count} workers: choose 1 to {MAX_WORKERS}.")
    if isinstance(workers, int):
        return NAMES[:workers]
    names: dict[str, str] = {}
    for name in workers:
        _check_name(name)
        key = normalize("NFKC", name).casefold()
        if key in names:
            raise InvalidTeamError(f"Names {names[key]!r} and {name!r} are alike: change one.")
        names[key] = name
    return tuple(workers)


def _check_name(name: object) -> None:
    """Refuses names that cannot stand in a step's prefix."""
    if not isinstance(name, str):
        fault = "is not a string: write it as text"
    elif not any(map(str.isalnum, name)):
        fault = "has no letter or digit: write at least one"
    elif name != name.strip():
        fault = "begins or ends with a space: strip it"
    elif len(name) > LONGEST_NAME:
        fault = f"has {len(name)} characters: shorten it to {LONGEST_NAME}"
    elif forbidden := [c for c in name if c not in " -_'." and category(c)[0] not in "LMN"]:
        fault = f"holds {forbidden[0]!r}: use letters, digits, spaces and the signs - _ ' . only"
    else:
        return
    raise InvalidTeamError(f"Worker's name {name!r} {fault}.")
