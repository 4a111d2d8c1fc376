"""What all commands share: where they print, how they fail, on which device they run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

import hogwild_agents

console = Console()
errors = Console(stderr=True)

STOPPED = 130
"""What a shell expects of a command that Ctrl-C has ended."""

Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, ...; a CUDA card if there is one.")
]
Dtype = Annotated[
    str, typer.Option(help="float32, bfloat16, float16, or auto for the checkpoint's own.")
]

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def readable(text: str) -> str:
    """A model's or a user's text without what could steer a terminal or cannot be written."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))


def say(shown: Console, text: Text) -> None:
    """Prints text: wrapped for a terminal, as it is for a file or a pipe."""
    shown.print(text, soft_wrap=not shown.is_terminal)


def complain(message: object) -> None:
    """Says on stderr what went wrong."""
    say(errors, Text(readable(str(message)), style="red"))


@contextmanager
def failures() -> Iterator[None]:
    """Ends a command without a traceback: 1 if a session failed, 2 if it could not begin."""
    try:
        yield
    except KeyboardInterrupt:
        complain("Stopped.")
        raise typer.Exit(STOPPED) from None
    except hogwild_agents.HogwildError as error:  # looked up, and loaded, only when it is needed
        from hogwild_agents.errors import SessionFailedError

        complain(error)
        raise typer.Exit(1 if isinstance(error, SessionFailedError) else 2) from None


def words_of(text: str) -> list[str]:
    """Words separated by commas."""
    return [word for part in text.split(",") if (word := part.strip())]


def numbers_of(text: str, option: str) -> list[int]:
    """Whole numbers above 0, separated by commas, each once.

    Raises:
        typer.BadParameter: Of the option, if they are none.
    """
    try:
        numbers = [int(word) for word in words_of(text)]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise typer.BadParameter(
            f"{text!r} is no list of whole numbers above 0, such as 1,2,4", param_hint=option
        )
    return list(dict.fromkeys(numbers))
