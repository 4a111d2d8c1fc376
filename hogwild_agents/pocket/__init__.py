"""The pocket model: a small model that ships with the package, trained to work in a team.

Example:
    from transformers import AutoTokenizer

    from hogwild_agents import Engine, SharedCacheModel, Team
    from hogwild_agents.pocket import FOLDER, team_settings
    from hogwild_agents.pocket.tasks import make_task_list

    team = Team(AutoTokenizer.from_pretrained(FOLDER), **team_settings(workers=4))
    with Engine(SharedCacheModel.from_pretrained(FOLDER)) as engine:
        print(engine.submit(team.session(make_task_list(seed=1, size=6).text)).result().answer)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hogwild_agents.engine import SamplingParams
from hogwild_agents.errors import InvalidTeamError
from hogwild_agents.names import NAMES, worker_names
from hogwild_agents.pocket.tasks import read_answers
from hogwild_agents.team import CollaborationPrompt, RedundancyCheck
from hogwild_agents.team.answers import answer_format

FOLDER = Path(__file__).parent / "model"
"""The checkpoint: weights, configuration, tokenizer and model card."""

MAX_WORKERS = 4
"""It was trained as teams of one worker to this many."""


_STUCK = " ..." * 4
"""The finisher writes this when it waits for a result that will not come any more."""

_LIST = re.compile(r"[\s.]*\([a-h]\) ")


def _in_order(find: Callable[[str], Any]) -> Callable[[str], Any]:
    """A search that sorts a list that it finds by label.

    A team lists results in the order in which they arrive, and writes ` ...` while it waits.
    """

    def find_in_order(text: str) -> Any:
        answer = find(text)
        if answer is None or not _LIST.match(answer):
            return answer
        return ", ".join(
            f"({label}) {result}" for label, result in sorted(read_answers(answer).items())
        )

    return find_in_order


def _closed(find: Callable[[str], Any]) -> Callable[[str], Any]:
    """A search that ignores a list without its end: most of such a list would be invented."""
    return lambda text: find(text) if "}" in text else None


def team_settings(workers: int | Sequence[str] = 2) -> dict[str, Any]:
    """Arguments of `Team` for the team that the model was trained to be.

    It decodes greedily and writes no reply besides its answer. It has one to four workers with the
    default names. A single worker gets no redundancy check.

    Raises:
        InvalidTeamError: The model was not trained to be such a team.
    """
    names = worker_names(workers)
    if names != NAMES[: min(len(names), MAX_WORKERS)]:
        raise InvalidTeamError(
            f"The pocket model cannot be a team of {', '.join(names)}: it was trained to be one to "
            f"{MAX_WORKERS} workers with the default names ({', '.join(NAMES[:MAX_WORKERS])}). "
            f"Give a number from 1 to {MAX_WORKERS}, or use another model."
        )
    boxed = answer_format("boxed")
    find, extract = _in_order(boxed.find), _in_order(_closed(boxed.extract))

    def complete(text: str) -> bool:
        return boxed.complete(text) or text.endswith(_STUCK)

    return {
        "workers": workers,
        "prompt": CollaborationPrompt(style="names"),
        "sampling": SamplingParams(temperature=0),
        "interrupts": [] if len(names) == 1 else [RedundancyCheck(every=128)],
        "answer": replace(
            boxed,
            opening=boxed.prefix,
            max_tokens=96,
            find=find,
            extract=extract,
            complete=complete,
        ),
        "finisher": "answer",
        "budget": 1024,
    }
