"""The plain view: a line for everything that happens, where there is no terminal to draw on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.text import Text

from hogwild_agents.cli.common import readable
from hogwild_agents.cli.summary import REASONS

if TYPE_CHECKING:
    from hogwild_agents.team import Event


class PlainView:
    """Prints a session line by line.

    Args:
        console: Where to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> Self:
        """The view."""
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left to do."""

    def hear(self, event: Event) -> None:
        """Prints what happened, if it is worth a line."""
        from hogwild_agents import team

        match event:
            case team.Started(workers=workers, prompt_tokens=length):
                self._line(f"{', '.join(workers)}: the prompt of {length:,} tokens is read")
            case team.StepCommitted(step=step):
                self._line(f"{step.worker} [{step.index}]: {step.text}")
            case team.InterruptAsked(interruption=asked):
                self._line(f"? {asked.worker} [{asked.index}] is asked: {asked.text}")
            case team.InterruptAnswered(interruption=asked):
                answer = {True: "yes: pivot", False: "no"}.get(asked.answer, asked.answer)
                self._line(f"? {asked.worker} [{asked.index}] answers {answer}")
            case team.NoteRead(note=note):
                self._line(f"! note from the user: {note.text}")
            case team.ThinkingEnded(reason=reason) if event.at:
                self._line(f"Thinking ended after {event.at} passes: {REASONS[reason]}")
            case team.Finished(result=result):
                for step in result.unfinished:
                    self._line(f"{step.worker} [{step.index}] (unfinished): {step.text}")

    def _line(self, text: str) -> None:
        """One line, whatever the text holds; it is out at once."""
        self._console.print(Text(" ".join(readable(text).split())), soft_wrap=True)
