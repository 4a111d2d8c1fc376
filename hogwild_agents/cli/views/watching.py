"""Watches a session on a terminal or line by line, and lets Ctrl-C end it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console

from hogwild_agents.cli.views.live import LiveView
from hogwild_agents.cli.views.plain import PlainView

if TYPE_CHECKING:
    from hogwild_agents.engine import Handle
    from hogwild_agents.team import Event, Result, Team


class View(AbstractContextManager["View"], Protocol):
    """Shows a session while it runs."""

    def hear(self, event: Event) -> None:
        """Takes in what happened."""


def choose_view(
    console: Console,
    problem: str,
    team: Team,
    hint: str,
    *,
    transient: bool = False,
    quiet: bool = False,
) -> View:
    """The live view where it can be drawn; else the plain one, or nothing if it is to be quiet."""
    if console.is_interactive and console.file.isatty():
        return LiveView(console, problem, team, hint, transient=transient)
    return PlainView(Console(quiet=True) if quiet else console)


def watch(handle: Handle[Event, Result], view: View, *presses: Callable[[], None]) -> Result:
    """Shows a session until it ends, and returns what it reached, also if it failed.

    Args:
        handle: The session.
        view: Where it is shown.
        presses: What the first Ctrl-C does, the second, and so on; the one after these interrupts.
    """
    from hogwild_agents.errors import SessionFailedError

    with handle, _on_ctrl_c(*presses), view:
        for event in handle:
            view.hear(event)
    try:
        return handle.result()
    except SessionFailedError as error:
        if error.partial is None:
            raise
        partial: Result = error.partial
        return partial


@contextmanager
def _on_ctrl_c(*presses: Callable[[], None]) -> Iterator[None]:
    """Calls a function for each Ctrl-C, where an exception might fall between any two lines."""
    left = [*presses]

    def press(*_: Any) -> None:
        if not left:
            raise KeyboardInterrupt
        left.pop(0)()

    before = signal.signal(signal.SIGINT, press)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
