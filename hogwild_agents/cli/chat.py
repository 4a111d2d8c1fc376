"""`hogwild chat`: a conversation with a team."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape
from rich.text import Text

from hogwild_agents.cli.options import (
    TeamOptions,
    device_option,
    dtype_option,
    model_option,
    team_options,
    transcript_option,
)
from hogwild_agents.cli.output import exit_on_error, print_error, print_text, readable, stdout
from hogwild_agents.errors import HogwildError

if TYPE_CHECKING:
    from hogwild_agents.engine import Engine
    from hogwild_agents.team import Team

HELP = """\
/new    forget the conversation and start another
/quit   leave; Ctrl-D and Ctrl-C at the prompt do the same
/help   show this help
Ctrl-C  while the team thinks: answer now; pressed again: stop
End a line with \\ to continue the message in the next line."""


@click.command()
@model_option
@team_options
@device_option
@dtype_option
@transcript_option
def chat(
    model: str, team_options: TeamOptions, device: str | None, dtype: str, transcript: Path | None
) -> None:
    """Talk with a team of workers, which remembers the conversation.

    You see the team while it thinks, as with solve. It remembers your messages and its replies, but
    not its thinking. Type /new to
    forget the conversation, /quit to leave, /help for more. Ctrl-C while the team thinks makes it
    answer now; pressed again, it stops the team. If standard input is a file or pipe, every line
    is a message.

    Example: hogwild chat --model path/or/hub-name --workers 3 --budget 1024
    """
    with exit_on_error():
        with stdout.status(f"Loading {escape(model)} ..."):
            from hogwild_agents.cli.loading import load_model, load_team
            from hogwild_agents.engine import Engine

            team = load_team(model, team_options)
            shared = load_model(model, device, dtype)
        with Engine(shared) as engine:
            _converse(Conversation(engine, team, transcript))


def _converse(conversation: Conversation) -> None:
    """Answers messages until the user leaves."""
    names = ", ".join(conversation.team.workers)
    print_text(stdout, Text(f"You are talking with {names}. /help shows what you can type.", "dim"))
    for message in _read_messages():
        match message:
            case "":
                pass
            case "/quit":
                return
            case "/help":
                print_text(stdout, Text(HELP, "dim"))
            case "/new":
                conversation.messages.clear()
                print_text(stdout, Text("Forgotten.", "dim"))
            case _ if message.startswith("/") and len(message.split()) == 1:
                print_error(f"There is no {message}: type /new, /quit or /help.")
            case _:
                conversation.answer(message)


def _read_messages() -> Iterator[str]:
    """The messages that the user types, until the input ends."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  lets the user edit and recall lines
    prompt, lines = "you> ", []
    while True:
        try:
            line = input(prompt)
        except (EOFError, KeyboardInterrupt):
            stdout.print()
            return
        if not sys.stdin.isatty():  # no terminal has shown the line after its prompt
            print_text(stdout, Text(readable(line)))
        lines.append(line.removesuffix("\\"))
        prompt = "...> "
        if not line.endswith("\\"):
            yield "\n".join(lines).strip()
            prompt, lines = "you> ", []


class Conversation:
    """A team, and the conversation with it so far.

    Args:
        engine: The engine that runs the team.
        team: The team that answers.
        file: Where transcripts are written; None writes none.

    Attributes:
        team: The team that answers.
        messages: The user's messages and the team's replies.
    """

    def __init__(self, engine: Engine, team: Team, file: Path | None) -> None:
        self.team = team
        self.messages: list[dict[str, str]] = []
        self._engine = engine
        self._file = file
        self._transcripts: list[str] = []

    def answer(self, message: str) -> None:
        """Lets the team answer a message, and remembers both if there is an answer."""
        from hogwild_agents.cli.export import save_transcripts, to_transcript
        from hogwild_agents.cli.summary import print_summary, reply_of
        from hogwild_agents.cli.watching import choose_view, watch

        user_message = {"role": "user", "content": message}
        try:
            handle = self._engine.submit(self.team.session([*self.messages, user_message]))
        except HogwildError as error:
            advice = " Type /new to forget the conversation so far." if self.messages else ""
            print_error(f"{error}{advice}")
            return
        view = choose_view(stdout, message, self.team, "Ctrl-C: answer now", transient=True)
        result = watch(handle, view, handle.stop, handle.cancel)
        self._transcripts.append(to_transcript(message, result, self.team))
        save_transcripts(self._file, self._transcripts)
        print_summary(stdout, result, self.team)
        if result.error is not None:
            print_error(f"The session failed: {result.error}")
        answer = "" if result.answer is None else str(result.answer)
        reply = reply_of(result, self.team) or answer
        if reply and result.finish_reason not in ("cancelled", "error"):
            self.messages += [user_message, {"role": "assistant", "content": reply}]
