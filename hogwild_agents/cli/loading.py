"""From options to a team and its model."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    from hogwild_agents.registry import build_team
    from hogwild_agents.team import RedundancyCheck

    interrupts = None
    if choices.interrupt_every is not None:
        every = choices.interrupt_every
        interrupts = [RedundancyCheck(every=every)] if every else []
    team = build_team(
        model,
        2 if choices.workers is None else _workers(choices.workers),
        layout=choices.layout,
        budget=choices.budget,
        interrupts=interrupts,
        temperature=choices.temperature,
        seed=choices.seed,
    )
    return team if len(team.workers) > 1 else one_worker(team)


def load_model(model: str, device: str | None, dtype: str) -> SharedCacheModel:
    """The model itself.

    Raises:
        HogwildError: It cannot be loaded, or cannot run on a shared cache.
    """
    from transformers.utils import logging

    from hogwild_agents.engine import SharedCacheModel
    from hogwild_agents.registry import resolve_source

    # The command shows by itself what it is doing.
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    return SharedCacheModel.from_pretrained(resolve_source(model), device=device, dtype=dtype)


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


def _workers(text: str) -> int | list[str]:
    """A number of workers, or their names."""
    try:
        return int(text)
    except ValueError:
        return [name.strip() for name in text.split(",")]
