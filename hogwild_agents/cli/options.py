"""The options that `solve` and `chat` have in common."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

POCKET = "pocket"


def _writable(file: Path | None) -> Path | None:
    """Refuses a file that could not be written, before any work is done."""
    if file is not None and not os.access(file.absolute().parent, os.W_OK | os.X_OK):
        raise typer.BadParameter(f"cannot write into the folder {file.absolute().parent}")
    return file


Model = Annotated[
    str,
    typer.Option(
        help="A model's folder or hub name; or pocket, the small one that ships inside. Each has "
        "settings that suit it, which the options below replace."
    ),
]
Workers = Annotated[
    str | None,
    typer.Option(
        help="How many think together, 1 to 8, or their names: 3, or Ada,Emmy. The pocket model "
        "knows 1 to 4, with the names that they have by default.",
        show_default="what suits the model, usually 2",
    ),
]
LayoutName = Annotated[
    str | None,
    typer.Option(
        "--layout",
        help="What each sees of the others. combined: finished steps and, as they are written, the "
        "others' unfinished ones; interleaved: finished steps only; contiguous: each one's whole "
        "work in one piece.",
        show_default="what suits the model, usually combined",
    ),
]
Budget = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Forward passes for thinking; in each, every worker writes one token.",
        show_default="what suits the model, usually 4096",
    ),
]
InterruptEvery = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Ask a worker whether its work is redundant each time the team has written so many "
        "tokens; 0 for never. A worker alone is not asked.",
        show_default="what suits the model, usually 1024",
    ),
]
Temperature = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="How freely tokens are chosen; 0 always takes the likeliest.",
        show_default="what suits the model, usually 0.6",
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Makes a run repeatable where the temperature is above 0.",
        show_default="another one each time",
    ),
]
Transcript = Annotated[
    Path | None,
    typer.Option(
        "--transcript",
        dir_okay=False,
        writable=True,
        callback=_writable,
        help="Write all that was thought, asked and answered to this file, also if it is stopped.",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What a user chose about a team, as options give it; None is what suits the model."""

    workers: str | None
    layout: str | None
    budget: int | None
    interrupt_every: int | None
    temperature: float | None
    seed: int | None
