"""From options to a team and its model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hogwild_agents.cli.options import POCKET, Choices

if TYPE_CHECKING:
    from hogwild_agents.engine import SharedCacheModel
    from hogwild_agents.team import Team


def load_team(model: str, choices: Choices) -> Team:
    """The team for a model, of which only the tokenizer is read.

    Raises:
        ModelLoadError: There is no tokenizer.
        HogwildError: A choice makes no sense.
    """
    from huggingface_hub.utils import logging
    from transformers import AutoTokenizer

    from hogwild_agents.engine import ModelLoadError
    from hogwild_agents.team import Team

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # of its retries the error tells
    settings = _settings(model, choices)
    source = _source(model)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
    except Exception as error:  # each broken file has an error type of its own
        nothing = "" if Path(source).exists() else " (there is no such folder here)"
        raise ModelLoadError(
            f"Cannot load a tokenizer from {source!r}{nothing}: {error}"
        ) from error
    team = Team(tokenizer, **settings)
    return team if len(team.workers) > 1 else one_worker(team)


def load_model(model: str, device: str | None, dtype: str) -> SharedCacheModel:
    """The model itself.

    Raises:
        HogwildError: It cannot be loaded, or cannot run on a shared cache.
    """
    from transformers.utils import logging

    from hogwild_agents.engine import SharedCacheModel

    # The command shows by itself what it is doing.
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    return SharedCacheModel.from_pretrained(_source(model), device=device, dtype=dtype)


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


def _is_pocket(model: str) -> bool:
    """Whether this is the model that ships inside, by its name or its folder."""
    from hogwild_agents import pocket

    return model == POCKET or Path(model).resolve() == pocket.FOLDER.resolve()


def _source(model: str) -> str:
    """Where a model lies."""
    from hogwild_agents import pocket

    return str(pocket.FOLDER) if model == POCKET else model


def _settings(model: str, choices: Choices) -> dict[str, Any]:
    """What a team is made with: what suits the model, and above it what the user chose."""
    from hogwild_agents.team import RedundancyCheck
    from hogwild_agents.team.team import DEFAULT_SAMPLING

    settings: dict[str, Any] = {}
    workers = None if choices.workers is None else _workers(choices.workers)
    if _is_pocket(model):
        from hogwild_agents import pocket

        settings |= pocket.team_settings(2 if workers is None else workers)
    elif workers is not None:
        settings["workers"] = workers
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
