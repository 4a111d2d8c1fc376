"""The small model that ships inside: its weights, and the team that it was trained to be.

Example:
    from transformers import AutoTokenizer

    from hogwild_agents import Engine, SharedCacheModel, Team
    from hogwild_agents.pocket import FOLDER, team_settings
    from hogwild_agents.pocket.tasks import make_problem

    team = Team(AutoTokenizer.from_pretrained(FOLDER), **team_settings(workers=4))
    with Engine(SharedCacheModel.from_pretrained(FOLDER)) as engine:
        print(engine.submit(team.session(make_problem(seed=1, size=6).text)).result().answer)
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

MOST_WORKERS = 4
"""It has learnt to be a team of so many, and of fewer."""


_GIVEN_UP = " ..." * 4
"""What the finisher writes that waits for a result which nobody will bring any more."""

_LIST = re.compile(r"[\s.]*\([a-h]\) ")


def _in_order(find: Callable[[str], Any]) -> Callable[[str], Any]:
    """A search whose answer, if it is a list, comes in the order of its labels.

    A team lists results as they come in, and writes ` ...` while it waits for one.
    """

    def found(text: str) -> Any:
        answer = find(text)
        if answer is None or not _LIST.match(answer):
            return answer
        return ", ".join(
            f"({label}) {result}" for label, result in sorted(read_answers(answer).items())
        )

    return found


def _closed(find: Callable[[str], Any]) -> Callable[[str], Any]:
    """A search in texts that end what they begin: a list that was cut off is mostly invented."""
    return lambda text: find(text) if "}" in text else None


def team_settings(workers: int | Sequence[str] = 2) -> dict[str, Any]:
    """Arguments of `Team` for the team that the model was trained to be.

    It decodes greedily, needs no reply beside its answer, and was trained on one to four workers
    with the default names. One alone is asked nothing about redundant work.

    Raises:
        InvalidTeamError: It was not trained to be such a team.
    """
    names = worker_names(workers)
    if names != NAMES[: min(len(names), MOST_WORKERS)]:
        raise InvalidTeamError(
            f"The pocket model cannot be {', '.join(names)}: it was trained to be one to "
            f"{MOST_WORKERS} workers with the default names ({', '.join(NAMES[:MOST_WORKERS])}). "
            f"Give a number from 1 to {MOST_WORKERS}, or use another model."
        )
    boxed = answer_format("boxed")
    found, extract = _in_order(boxed.found), _in_order(_closed(boxed.extract))

    def complete(text: str) -> bool:
        return boxed.complete(text) or text.endswith(_GIVEN_UP)

    return {
        "workers": workers,
        "prompt": CollaborationPrompt(style="names"),
        "sampling": SamplingParams(temperature=0),
        "interrupts": [] if len(names) == 1 else [RedundancyCheck(every=128)],
        "answer": replace(
            boxed,
            opening=boxed.lead,
            max_tokens=96,
            found=found,
            extract=extract,
            complete=complete,
        ),
        "finisher": "answer",
        "budget": 1024,
    }
