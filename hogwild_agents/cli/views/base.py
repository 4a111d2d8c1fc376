"""What every view is."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from hogwild_agents.team import Event


class View(AbstractContextManager["View"], Protocol):
    """Shows a session while it runs; entered before the first event, left after the last."""

    def show(self, event: Event) -> None:
        """Shows an event of the session."""
