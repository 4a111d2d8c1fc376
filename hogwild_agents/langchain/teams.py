"""From a chat model's options to the team that answers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hogwild_agents.langchain.errors import InvalidRequestError
from hogwild_agents.langchain.messages import Collaboration
from hogwild_agents.langchain.request import ReplyFormat
from hogwild_agents.langchain.runnables import CollaborationPrompt, as_interrupt
from hogwild_agents.langchain.runnables.answers import format_of
from hogwild_agents.names import worker_names
from hogwild_agents.registry import team_defaults
from hogwild_agents.team import CollaborationPrompt as TeamPrompt
from hogwild_agents.team import Team, TeamTokenizer
from hogwild_agents.team.config import DEFAULT_SAMPLING, TeamConfig

if TYPE_CHECKING:
    from hogwild_agents.langchain.options import Options

_SETTINGS = ("layout", "budget", "finisher")
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "seed")


def team_of(
    options: Options,
    tokenizer: TeamTokenizer,
    form: ReplyFormat,
    stop: Sequence[str] | None,
    told: Collaboration | None,
) -> Team:
    """The team: what suits the model, and above it what the user chose.

    Args:
        options: Of the chat model.
        tokenizer: The model's.
        form: What the reply must look like.
        stop: Strings before which it ends.
        told: What a `CollaborationPrompt` has put before the messages. A model that was trained to
            be a team is told in its own way what that says at length.

    Raises:
        InvalidRequestError: Options contradict one another.
        HogwildError: One makes no sense.
    """
    settings = team_defaults(options.model, options.workers)
    settings |= _given(options, _SETTINGS)
    if options.answer is not None:
        settings["answer"] = format_of(options.answer)
    if told is not None:
        if told.workers != worker_names(options.workers):
            raise InvalidRequestError(
                f"The prompt speaks of {', '.join(told.workers)}, but workers={options.workers!r}: "
                "give the same workers to CollaborationPrompt and to ChatHogwild."
            )
        settings.setdefault("prompt", TeamPrompt(style="none", extra=told.text))
    elif options.prompt != "default":
        settings["prompt"] = team_prompt(options.prompt)
    if options.interrupts is not None:
        settings["interrupts"] = [as_interrupt(given) for given in options.interrupts]
    if options.max_tokens is not None:
        settings["reply_tokens"] = options.max_tokens
    if not form.free:
        if stop and not form.begins_free:
            warnings.warn(
                f"stop={[*stop]!r:.80} does nothing here: all of the reply must fit a schema or be "
                "a call of a tool, and half of it would be worth nothing. Leave it out.",
                stacklevel=2,
            )
        if options.finisher == "answer":
            raise InvalidRequestError(
                "finisher='answer' writes no reply, so it can neither call tools nor fit a "
                "schema: use finisher='reply', or leave it out."
            )
        settings["finisher"] = "reply"
    sampling = settings.get("sampling", DEFAULT_SAMPLING)
    settings["sampling"] = replace(sampling, **_given(options, _SAMPLING))
    return Team(tokenizer, stop=() if stop is None else stop, **settings)


def _given(options: Options, names: Sequence[str]) -> dict[str, Any]:
    """Those of the options that were chosen."""
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def team_prompt(given: Any) -> TeamPrompt:
    """A prompt as teams take it.

    Raises:
        InvalidRequestError: It is none.
    """
    match given:
        case None:
            return TeamPrompt(style="none")
        case CollaborationPrompt():
            return given.as_team_prompt()
        case TeamPrompt():
            return given
    raise InvalidRequestError(
        f"prompt={given!r:.80} is no prompt: give a CollaborationPrompt, or None to add nothing to "
        "the messages; instructions of your own go into a system message."
    )


def cut_answer(team: TeamConfig, max_tokens: int | None, text: str) -> str:
    """A bare answer up to a stop string, and of so many tokens at most.

    Nobody writes it for the user, so nobody has heeded these limits yet.
    """
    for stop in team.stop:
        text = text.partition(stop)[0]
    if max_tokens is None:
        return text
    return team.tokenizer.decode(team.tokenizer.encode(text)[:max_tokens])
