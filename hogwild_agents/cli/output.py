"""Where commands print, and how they end when something goes wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

from hogwild_agents.errors import HogwildError, SessionFailedError

stdout = Console()
stderr = Console(stderr=True)

INTERRUPTED = 130
"""The exit code that shells expect of a command that Ctrl-C has ended."""

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def readable(text: str) -> str:
    """Text of a model or user, with characters replaced that could control the terminal."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))


def print_text(console: Console, text: Text) -> None:
    """Prints text: wrapped on a terminal, with its own lines in a file or pipe."""
    console.print(text, soft_wrap=not console.is_terminal)


def print_error(message: object) -> None:
    """Prints on stderr what went wrong."""
    print_text(stderr, Text(readable(str(message)), style="red"))


def print_warning(message: object) -> None:
    """Prints on stderr what the user should know although the command goes on."""
    print_text(stderr, Text(readable(str(message)), style="yellow"))


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Ends a command with a message instead of a traceback.

    The exit code is 1 if a session failed, 2 if nothing could begin, 130 after Ctrl-C.
    """
    try:
        yield
    except KeyboardInterrupt:
        print_error("Stopped.")
        raise SystemExit(INTERRUPTED) from None
    except HogwildError as error:
        print_error(error)
        raise SystemExit(1 if isinstance(error, SessionFailedError) else 2) from None
