"""From options to a team and its model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hogwild_agents.cli.options import Choices

if TYPE_CHECKING:
    from hogwild_agents.engine import SharedCacheModel
    from hogwild_agents.team import Team


def load_team(model: str, choices: Choices) -> Team:
    """The team for a model, of which only the tokenizer is read.

    Raises:
        ModelLoadError: There is no tokenizer.
        HogwildError: A choice makes no sense.
    """
    from hogwild_agents.registry import tokenizer_of
    from hogwild_agents.team import Team

    settings = _settings(model, choices)
    team = Team(tokenizer_of(model), **settings)
    return team if len(team.workers) > 1 else one_worker(team)


def load_model(model: str, device: str | None, dtype: str) -> SharedCacheModel:
    """The model itself.

    Raises:
        HogwildError: It cannot be loaded, or cannot run on a shared cache.
    """
    from transformers.utils import logging

    from hogwild_agents.engine import SharedCacheModel
    from hogwild_agents.registry import source_of

    # The command shows by itself what it is doing.
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    return SharedCacheModel.from_pretrained(source_of(model), device=device, dtype=dtype)


def one_worker(team: Team) -> Team:
    """The first of a team alone, which may write as many tokens as all of them together.

    Nobody asks it about redundant work, as nobody else does any.
    """
    from hogwild_agents.team import Team

    return Team(
        team.tokenizer,
        workers=team.workers[:1],
        prompt=team.prompt,
        interrupts=[],
        answer=team.answer,
        finisher=team.finisher,
        budget=team.budget * len(team.workers),
        reply_tokens=team.reply_tokens,
        stop=team.stop,
        sampling=team.sampling,
    )


def _settings(model: str, choices: Choices) -> dict[str, Any]:
    """What a team is made with: what suits the model, and above it what the user chose."""
    from hogwild_agents.registry import settings_of
    from hogwild_agents.team import RedundancyCheck
    from hogwild_agents.team.config import DEFAULT_SAMPLING

    settings = settings_of(model, 2 if choices.workers is None else _workers(choices.workers))
    if choices.layout is not None:
        settings["layout"] = choices.layout
    if choices.budget is not None:
        settings["budget"] = choices.budget
    if choices.interrupt_every is not None:
        every = choices.interrupt_every
        settings["interrupts"] = [RedundancyCheck(every=every)] if every else []
    chosen = {"temperature": choices.temperature, "seed": choices.seed}
    settings["sampling"] = replace(
        settings.get("sampling", DEFAULT_SAMPLING),
        **{name: value for name, value in chosen.items() if value is not None},
    )
    return settings


def _workers(text: str) -> int | list[str]:
    """A number of workers, or their names."""
    try:
        return int(text)
    except ValueError:
        return [name.strip() for name in text.split(",")]
