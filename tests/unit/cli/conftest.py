"""A pocket model that says what a test wants, and the command line run as a user would."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
from click.testing import CliRunner, Result

from hogwild_agents import pocket
from hogwild_agents.cli import app
from hogwild_agents.engine import SharedCacheModel
from hogwild_agents.team import RedundancyCheck
from hogwild_agents.team.redundancy_check import QUESTION
from tests.unit.team.scripted import GREEDY, Lines, ScriptedModel, Terse, begin, scripted, team_of
from tests.unit.team.tokenizers import plain_bytes

torch.set_num_threads(1)

LINES = {
    begin("Alice"): " I add.\n\n",
    f"**Alice [2]:** {QUESTION}": "yes, so [red]I stop[/red].\n\n",
    f"**Alice [3]:** {QUESTION}": "no. It is \\boxed{42}.\n\n",
    begin("Bob"): " I wait" + ", and wait" * 3 + ".\n\n",
    "**Bob [2]:** ": "On I go, and on, and on, and on.\n\n",
    "": "It is \\boxed{42}.\n\n",  # one worker alone says this, from anywhere on
}
"""What a team says that is asked after ten tokens whether its work is redundant."""

Says: TypeAlias = Callable[[Mapping[str, str]], ScriptedModel]
Invoke: TypeAlias = Callable[..., Result]


@pytest.fixture
def says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Says:
    """Makes the pocket model say given lines."""
    folder = tmp_path / "pocket"
    plain_bytes().save_pretrained(folder)
    settings: dict[str, Any] = {
        "prompt": Terse(),
        "sampling": GREEDY,
        "finisher": "answer",
        "budget": 100,
        "interrupts": [RedundancyCheck(every=10)],
    }

    def become(lines: Mapping[str, str]) -> ScriptedModel:
        model = scripted(Lines(team_of(), lines))
        monkeypatch.setattr(SharedCacheModel, "from_pretrained", lambda *_, **__: model)
        monkeypatch.setattr(pocket, "FOLDER", folder, raising=False)
        monkeypatch.setattr(
            pocket, "team_settings", lambda workers: settings | {"workers": workers}
        )
        return model

    return become


@pytest.fixture
def invoke() -> Invoke:
    """Runs a command, without colours, for a file."""
    runner = CliRunner(env={"COLUMNS": "160", "TERM": "dumb", "NO_COLOR": "1"})

    def run(*arguments: str, typed: str | None = None) -> Result:
        return runner.invoke(app, [*arguments], input=typed)

    return run
