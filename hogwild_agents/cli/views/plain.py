"""The plain view: a line of text for each event, for files, pipes and simple terminals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.text import Text

from hogwild_agents.cli.output import readable
from hogwild_agents.cli.summary import REASONS

if TYPE_CHECKING:
    from hogwild_agents.team import Event


class PlainView:
    """Prints a session line by line.

    Args:
        console: Where it prints.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> Self:
        """Starts the view."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the view; everything is printed already."""

    def show(self, event: Event) -> None:
        """Prints an event; those of single tokens have no line."""
        from hogwild_agents import team

        match event:
            case team.Started(workers=workers, prompt_tokens=length):
                self._print(f"{', '.join(workers)}: the prompt of {length:,} tokens is read")
            case team.StepCommitted(step=step):
                self._print(f"{step.worker} [{step.index}]: {step.text}")
            case team.InterruptAsked(interruption=check):
                self._print(f"? {check.worker} [{check.index}] is asked: {check.text}")
            case team.InterruptAnswered(interruption=check):
                answer = {True: "yes: pivot", False: "no"}.get(check.answer, check.answer)
                self._print(f"? {check.worker} [{check.index}] answers {answer}")
            case team.NoteRead(note=note):
                self._print(f"! note from the user: {note.text}")
            case team.ThinkingEnded(reason=reason) if event.at:
                self._print(f"Thinking ended after {event.at} passes: {REASONS[reason]}")
            case team.Finished(result=result):
                for step in result.unfinished:
                    self._print(f"{step.worker} [{step.index}] (unfinished): {step.text}")

    def _print(self, text: str) -> None:
        """Prints a text as one line, at once."""
        self._console.print(Text(" ".join(readable(text).split())), soft_wrap=True)
