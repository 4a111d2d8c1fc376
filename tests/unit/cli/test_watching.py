"""Which view is chosen."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from hogwild_agents.cli.views.live import LiveView
from hogwild_agents.cli.views.plain import PlainView
from hogwild_agents.cli.watching import choose_view
from tests.unit.team.scripted import team_of


def test_only_a_terminal_is_drawn_on() -> None:
    """A file is not, even where colours are forced."""
    for file, kind in ((StringIO(), PlainView), (Terminal(), LiveView)):
        console = Console(file=file, force_terminal=True, _environ={"TERM": "xterm"})
        assert isinstance(choose_view(console, "Q?", team_of(), ""), kind)


class Terminal(StringIO):
    """What says of itself that it is one."""

    def isatty(self) -> bool:
        return True
