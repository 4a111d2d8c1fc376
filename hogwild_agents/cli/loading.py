"""From options to a team and its model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hogwild_agents.cli.options import TeamOptions

if TYPE_CHECKING:
    from hogwild_agents.engine import SharedCacheModel
    from hogwild_agents.team import Team


def load_team(model: str, options: TeamOptions) -> Team:
    """The team for a model; reads the model's tokenizer, not its weights.

    Raises:
        HogwildError: The model has no tokenizer, or an option is not valid.
    """
    from hogwild_agents.registry import build_team
    from hogwild_agents.team import RedundancyCheck

    interrupts = None
    if options.interrupt_every is not None:
        every = options.interrupt_every
        interrupts = [RedundancyCheck(every=every)] if every else []
    team = build_team(
        model,
        2 if options.workers is None else options.workers,
        layout=options.layout,
        budget=options.budget,
        interrupts=interrupts,
        temperature=options.temperature,
        seed=options.seed,
    )
    return team if len(team.workers) > 1 else single_worker(team)


def load_model(model: str, device: str | None, dtype: str) -> SharedCacheModel:
    """The model with its weights.

    Raises:
        HubUnreachableError: It is not on this machine, and the hub does not answer.
        HogwildError: It cannot be loaded, or cannot run on a shared cache.
    """
    from transformers.utils import logging

    from hogwild_agents.engine import SharedCacheModel
    from hogwild_agents.hub import require_hub
    from hogwild_agents.registry import resolve_source

    source = resolve_source(model)
    if not Path(source).exists():
        require_hub(source)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # the command shows its own
    return SharedCacheModel.from_pretrained(source, device=device, dtype=dtype)


def single_worker(team: Team) -> Team:
    """The first worker of a team alone, allowed as many tokens as the whole team.

    It is not asked about redundant work.
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
