"""From the arguments of a call to the session that answers it, and the engine to run it on."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from langchain_core.messages import BaseMessage

from hogwild_agents.engine import Engine, Handle
from hogwild_agents.errors import EngineClosedError
from hogwild_agents.langchain.errors import InvalidRequestError, as_langchain_errors
from hogwild_agents.langchain.messages import (
    Collaboration,
    to_conversation,
    without_collaboration,
)
from hogwild_agents.langchain.options import Options
from hogwild_agents.langchain.reply_format import ReplyFormat, parse_reply_format
from hogwild_agents.langchain.responses import MessageOptions
from hogwild_agents.langchain.runnables import as_interrupt
from hogwild_agents.langchain.runnables.answers import format_of
from hogwild_agents.langchain.runnables.prompts import team_prompt
from hogwild_agents.names import worker_names
from hogwild_agents.registry import build_team, get_compiler, get_engine, team_defaults
from hogwild_agents.team import CollaborationPrompt as TeamPrompt
from hogwild_agents.team import Event, Result, Session, Team
from hogwild_agents.team.tool_format import HERMES


@dataclass(frozen=True, slots=True)
class Request:
    """A call that is ready to run.

    Attributes:
        engine: Where the session runs.
        session: What answers the call.
        message: How its result becomes a message.
    """

    engine: Engine
    session: Session
    message: MessageOptions

    def submit(self) -> Handle[Event, Result]:
        """Starts the session."""
        with as_langchain_errors():
            return self.engine.submit(self.session)


def prepare(
    options: Options,
    messages: Sequence[BaseMessage],
    stop: Sequence[str] | None,
    arguments: Mapping[str, Any],
) -> Request:
    """Makes a call ready to run; loads the model if this is its first use, which may take long.

    Bad requests are refused before the model is loaded.

    Args:
        options: The chat model's, with those of this call.
        messages: The conversation.
        stop: Strings before which the reply ends; None for those of the options.
        arguments: Of the call, about tools and the reply's format.

    Raises:
        ModelError: The request makes no sense, or the model cannot be loaded.
    """
    with as_langchain_errors():
        reply_format = parse_reply_format(**arguments)
        collaboration, messages = without_collaboration(messages)
        conversation = to_conversation(messages)
        if reply_format.instruction:
            conversation.insert(0, {"role": "system", "content": reply_format.instruction})
        stop = options.stop if stop is None else stop
        team = _team(options, reply_format, stop, collaboration)
        tool_format = team.tokenizer.tool_call_format or HERMES
        guide = None
        if not reply_format.free:
            guide = reply_format.grammar(get_compiler(options.model), tool_format).guide()
        session = team.session(conversation, tools=reply_format.tools, guide=guide)
        engine = _engine(options)
    message = MessageOptions(
        tool_format=tool_format if reply_format.callable else None,
        show_thoughts=options.reasoning,
        cut_answer=partial(_cut_answer, team, options.max_tokens),
        metadata={"model_name": options.model, "answer_format": team.answer.name},
    )
    return Request(engine, session, message)


def _engine(options: Options) -> Engine:
    """The user's own engine, or the shared one of the model."""
    if options.engine is None:
        return get_engine(options.model, options.device, options.dtype)
    try:
        options.engine.require_open()
    except EngineClosedError as error:  # a request error, because a retry would not help
        raise InvalidRequestError(f"{options.engine!r} cannot take more. {error}") from error
    return options.engine


def _team(
    options: Options,
    reply_format: ReplyFormat,
    stop: Sequence[str] | None,
    collaboration: Collaboration | None,
) -> Team:
    """The team that the options describe.

    Raises:
        InvalidRequestError: Options contradict one another.
        HogwildError: An option makes no sense, or the model has no tokenizer.
    """
    finisher = options.finisher
    if not reply_format.free:
        _check_reply(options, reply_format, stop)
        finisher = "reply"
    interrupts = options.interrupts
    return build_team(
        options.model,
        options.workers,
        layout=options.layout,
        budget=options.budget,
        finisher=finisher,
        prompt=_prompt(options, collaboration),
        interrupts=None if interrupts is None else [*map(as_interrupt, interrupts)],
        answer=None if options.answer is None else format_of(options.answer),
        reply_tokens=options.max_tokens,
        stop=stop,
        temperature=options.temperature,
        top_p=options.top_p,
        top_k=options.top_k,
        min_p=options.min_p,
        seed=options.seed,
    )


def _prompt(options: Options, collaboration: Collaboration | None) -> TeamPrompt | None:
    """The team's prompt; None for the one that suits the model.

    Args:
        options: The chat model's.
        collaboration: The part of the messages that a `CollaborationPrompt` has written.

    Raises:
        InvalidRequestError: The messages speak of other workers than the options.
    """
    if collaboration is None:
        return None if options.prompt == "default" else team_prompt(options.prompt)
    if collaboration.workers != worker_names(options.workers):
        raise InvalidRequestError(
            f"The prompt speaks of {', '.join(collaboration.workers)}, but "
            f"workers={options.workers!r}: give the same workers to CollaborationPrompt and to "
            "ChatHogwild."
        )
    if "prompt" in team_defaults(options.model, options.workers):
        return None  # the model was trained as a team, with a prompt of its own
    return TeamPrompt(style="none", extra=collaboration.text)


def _check_reply(options: Options, reply_format: ReplyFormat, stop: Sequence[str] | None) -> None:
    """Warns of stop strings that a format rules out, and refuses a finisher without a reply."""
    if stop and not reply_format.begins_free:
        warnings.warn(
            f"stop={[*stop]!r:.80} does nothing here: the whole reply must fit a schema or be a "
            "tool call, and half of it would be useless. Leave stop out.",
            stacklevel=2,
        )
    if options.finisher == "answer":
        raise InvalidRequestError(
            "finisher='answer' writes no reply, so it can neither call tools nor fit a schema: use "
            "finisher='reply', or leave it out."
        )


def _cut_answer(team: Team, max_tokens: int | None, text: str) -> str:
    """A bare answer up to a stop string, and of so many tokens at most.

    Workers state it while they think, where neither limit applies.
    """
    for stop in team.stop:
        text = text.partition(stop)[0]
    if max_tokens is None:
        return text
    return team.tokenizer.decode(team.tokenizer.encode(text)[:max_tokens])
