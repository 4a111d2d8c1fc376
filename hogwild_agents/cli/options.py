"""Options that several commands share, and how options are parsed."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, get_args

import click

from hogwild_agents.errors import HogwildError
from hogwild_agents.names import POCKET, LayoutName, worker_names

Command = Callable[..., None]


def parse_with(parse: Callable[[Any], object]) -> Callable[[Any, Any, Any], object]:
    """A callback that parses an option, if it has a value. Errors of ours refuse the option."""

    def callback(_context: click.Context, _option: click.Parameter, value: Any) -> object:
        try:
            return None if value is None else parse(value)
        except HogwildError as error:
            raise click.BadParameter(str(error)) from None

    return callback


def parse_words(text: str) -> list[str]:
    """Words separated by commas."""
    return [word for part in text.split(",") if (word := part.strip())]


def parse_choices(text: str, choices: Sequence[str]) -> list[str]:
    """Words separated by commas, each of which is one of some choices.

    Raises:
        click.BadParameter: A word is none of them.
    """
    words = parse_words(text)
    for word in words:
        if word not in choices:
            raise click.BadParameter(f"{word!r} is not one of {', '.join(choices)}.")
    return words


def parse_numbers(text: str) -> list[int]:
    """Whole numbers above 0, separated by commas, without repetitions.

    Raises:
        click.BadParameter: The text is something else.
    """
    try:
        numbers = [int(word) for word in parse_words(text)]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise click.BadParameter(f"{text!r} is not a list of whole numbers above 0, as in 1,2,4.")
    return list(dict.fromkeys(numbers))


def parse_workers(text: str) -> int | list[str]:
    """A number of workers, or their names separated by commas.

    Raises:
        InvalidTeamError: There are too many, or a name is not allowed.
    """
    try:
        workers: int | list[str] = int(text)
    except ValueError:
        workers = [name.strip() for name in text.split(",")]
    worker_names(workers)
    return workers


def parse_output_file(file: Path) -> Path:
    """A file in a folder that can be written into.

    Raises:
        click.BadParameter: It cannot.
    """
    folder = file.absolute().parent
    if not folder.is_dir():
        raise click.BadParameter(f"there is no folder {folder}.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise click.BadParameter(f"cannot write into the folder {folder}.")
    return file


MODEL_HELP = (
    "The model's folder or its name on the Hugging Face hub; or pocket, the small model that ships "
    "inside."
)

model_option = click.option("--model", default=POCKET, show_default=True, help=MODEL_HELP)
device_option = click.option(
    "--device",
    show_default="a CUDA GPU if there is one, else cpu",
    help="Where the model runs: cpu, cuda, cuda:1, ...",
)
dtype_option = click.option(
    "--dtype",
    default="auto",
    show_default=True,
    help="The type of the weights: float32, bfloat16, float16, or auto for the type in which they "
    "are stored.",
)
transcript_option = click.option(
    "--transcript",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    callback=parse_with(parse_output_file),
    help="Also write everything that was thought, asked and answered to this file, even if the run "
    "is stopped.",
)

_TEAM_OPTIONS = (
    click.option(
        "--workers",
        callback=parse_with(parse_workers),
        show_default="2",
        help="How many workers solve the problem together, 1 to 8, or their names: 3, or Ada,Emmy. "
        "The pocket model works with 1 to 4, under their default names.",
    ),
    click.option(
        "--layout",
        type=click.Choice(get_args(LayoutName)),
        show_default="combined",
        help="What each worker sees of the others. combined: their finished steps, and the step "
        "that each one is writing; interleaved: only their finished steps; contiguous: all that "
        "each one wrote, in one piece per worker.",
    ),
    click.option(
        "--budget",
        type=click.IntRange(min=1),
        show_default="4096; 1024 for pocket",
        help="Forward passes for thinking. In each pass every worker writes one token.",
    ),
    click.option(
        "--interrupt-every",
        type=click.IntRange(min=0),
        show_default="1024; 128 for pocket",
        help="Ask a worker whether its work is redundant each time the team has written this many "
        "tokens; 0 never asks. A single worker is not asked.",
    ),
    click.option(
        "--temperature",
        type=click.FloatRange(min=0),
        show_default="0.6; 0 for pocket",
        help="How random the choice of tokens is; 0 always takes the likeliest token.",
    ),
    click.option(
        "--seed",
        type=click.IntRange(min=0, max=2**64 - 1),
        show_default="random",
        help="Makes a run repeatable when the temperature is above 0.",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TeamOptions:
    """A user's options for a team; None stands for what suits the model."""

    workers: int | list[str] | None = None
    layout: str | None = None
    budget: int | None = None
    interrupt_every: int | None = None
    temperature: float | None = None
    seed: int | None = None


def team_options(command: Command) -> Command:
    """Adds the options for a team to a command, which gets them as `team_options`."""

    @wraps(command)
    def with_options(**arguments: Any) -> None:
        names = TeamOptions.__dataclass_fields__.keys()
        options = TeamOptions(**{name: arguments.pop(name) for name in names})
        command(team_options=options, **arguments)

    for option in reversed(_TEAM_OPTIONS):
        with_options = option(with_options)
    return with_options
