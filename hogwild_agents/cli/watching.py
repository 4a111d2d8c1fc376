"""Shows a session until it ends, and lets Ctrl-C end it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console

from hogwild_agents.cli.views.base import View
from hogwild_agents.cli.views.live import LiveView
from hogwild_agents.cli.views.plain import PlainView
from hogwild_agents.errors import SessionFailedError

if TYPE_CHECKING:
    from hogwild_agents.engine import Handle
    from hogwild_agents.team import Event, Result, Team


def choose_view(
    console: Console,
    problem: str,
    team: Team,
    hint: str,
    *,
    transient: bool = False,
    quiet: bool = False,
) -> View:
    """The live view on a terminal that can show it; else the plain view, or none if `quiet`."""
    if console.is_interactive and console.file.isatty():
        return LiveView(console, problem, team, hint, transient=transient)
    return PlainView(Console(quiet=True) if quiet else console)


def watch(handle: Handle[Event, Result], view: View, *on_ctrl_c: Callable[[], None]) -> Result:
    """Shows a session until it ends, and returns its result, which is partial if it failed.

    Args:
        handle: The session.
        view: Where it is shown.
        on_ctrl_c: What the first Ctrl-C does, the second, and so on. One more interrupts.
    """
    with handle, _ctrl_c_calls(*on_ctrl_c), view:
        for event in handle:
            view.show(event)
    try:
        return handle.result()
    except SessionFailedError as error:
        if error.partial is None:
            raise
        partial: Result = error.partial
        return partial


@contextmanager
def _ctrl_c_calls(*functions: Callable[[], None]) -> Iterator[None]:
    """Calls one function for each Ctrl-C. An exception could interrupt any line of ours."""
    remaining = [*functions]

    def on_signal(*_: Any) -> None:
        if not remaining:
            raise KeyboardInterrupt
        remaining.pop(0)()

    before = signal.signal(signal.SIGINT, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
