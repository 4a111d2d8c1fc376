"""`hogwild chat`: a conversation with a team, which remembers what was said."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.text import Text

import hogwild_agents
from hogwild_agents.cli.common import Device, Dtype, complain, console, failures, readable, say
from hogwild_agents.cli.loading import load_model, load_team
from hogwild_agents.cli.options import (
    POCKET,
    Budget,
    Choices,
    InterruptEvery,
    LayoutName,
    Model,
    Seed,
    Temperature,
    Transcript,
    Workers,
)
from hogwild_agents.cli.records import save, transcript
from hogwild_agents.cli.summary import reply_of, show
from hogwild_agents.cli.views.watching import choose_view, watch

if TYPE_CHECKING:
    from hogwild_agents.engine import Engine
    from hogwild_agents.team import Team

HELP = """\
/new    forget the conversation and begin another
/quit   leave; so do Ctrl-D, and Ctrl-C where you type
/help   show this
Ctrl-C  while the team thinks: answer now; once more: stop
A \\ at the end of a line goes on in the next one."""


def chat(
    model: Model = POCKET,
    workers: Workers = None,
    layout: LayoutName = None,
    budget: Budget = None,
    interrupt_every: InterruptEvery = None,
    temperature: Temperature = None,
    seed: Seed = None,
    device: Device = None,
    dtype: Dtype = "auto",
    transcript_file: Transcript = None,
) -> None:
    """Talk with a team of workers; it remembers what you said and what it replied.

    The team is shown while it thinks, as in solve. Only replies are remembered, not the thinking.
    /new forgets, /quit leaves, /help shows more. Ctrl-C while the team thinks makes it answer now,
    and once more stops it. Where there is no terminal, every line of standard input is a message.

    Example: hogwild chat --model path/or/hub-name --workers 3 --budget 1024
    """
    choices = Choices(
        workers=workers,
        layout=layout,
        budget=budget,
        interrupt_every=interrupt_every,
        temperature=temperature,
        seed=seed,
    )
    with failures():
        with console.status(f"Loading {escape(model)} ..."):
            from hogwild_agents.engine import Engine

            team = load_team(model, choices)
            shared = load_model(model, device, dtype)
        with Engine(shared) as engine:
            _converse(Conversation(engine, team, transcript_file))


def _converse(conversation: Conversation) -> None:
    """Answers what is typed until the user leaves."""
    names = ", ".join(conversation.team.workers)
    say(console, Text(f"You talk with {names}. /help shows what you can type.", "dim"))
    for message in _messages():
        match message:
            case "":
                pass
            case "/quit":
                return
            case "/help":
                say(console, Text(HELP, "dim"))
            case "/new":
                conversation.memory.clear()
                say(console, Text("Forgotten.", "dim"))
            case _ if message.startswith("/") and len(message.split()) == 1:
                complain(f"There is no {message}: type /new, /quit or /help.")
            case _:
                conversation.answer(message)


def _messages() -> Iterator[str]:
    """What the user types, until there is no more."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  lines can be edited and recalled
    prompt, lines = "you> ", []
    while True:
        try:
            line = input(prompt)
        except (EOFError, KeyboardInterrupt):
            console.print()
            return
        if not sys.stdin.isatty():  # what was said belongs after its prompt
            say(console, Text(readable(line)))
        lines.append(line.removesuffix("\\"))
        prompt = "...> "
        if not line.endswith("\\"):
            yield "\n".join(lines).strip()
            prompt, lines = "you> ", []


class Conversation:
    """A team and what it remembers.

    Args:
        engine: Runs the team.
        team: Who answers.
        file: Where the transcript goes, if anywhere.

    Attributes:
        team: Who answers.
        memory: Messages of the user and replies.
    """

    def __init__(self, engine: Engine, team: Team, file: Path | None) -> None:
        self.team = team
        self.memory: list[dict[str, str]] = []
        self._engine = engine
        self._file = file
        self._written: list[str] = []

    def answer(self, message: str) -> None:
        """Lets the team think about a message, and remembers its reply if there is one."""
        asked = {"role": "user", "content": message}
        try:
            handle = self._engine.submit(self.team.session([*self.memory, asked]))
        except hogwild_agents.HogwildError as error:
            complain(f"{error} /new forgets what was said before." if self.memory else error)
            return
        view = choose_view(console, message, self.team, "Ctrl-C: answer now", transient=True)
        result = watch(handle, view, handle.stop, handle.cancel)
        self._written.append(transcript(message, result, self.team))
        save(self._file, self._written)
        show(console, result, self.team)
        if result.error is not None:
            complain(f"The session failed: {result.error}")
        stated = "" if result.answer is None else str(result.answer)
        reply = reply_of(result, self.team) or stated
        if reply and result.finish_reason not in ("cancelled", "error"):
            self.memory += [asked, {"role": "assistant", "content": reply}]
