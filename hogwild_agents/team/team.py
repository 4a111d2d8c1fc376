"""Team: who works together, and how. One description serves any number of sessions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hogwild_agents.errors import InvalidMessageError, InvalidTeamError
from hogwild_agents.team import steps
from hogwild_agents.team.chat_template import check_messages
from hogwild_agents.team.config import TeamConfig
from hogwild_agents.team.prompts import TOOL_RULE
from hogwild_agents.team.reply_writer import Guide
from hogwild_agents.team.session import Session


class Team(TeamConfig):
    """Workers, prompt, layout, interrupts and the way to an answer.

    Args:
        tokenizer: The model's tokenizer.
        workers: How many workers, or their names; 1 to 8. A single worker gets no prompt about
            collaboration. If the model has no thinking tags, it replies at once, as a plain chat
            model does.
        layout: What each worker sees: `combined`, `interleaved`, `contiguous`, a `Layout`, or a
            function from `TeamBlocks` to views.
        prompt: What the team is told about working together.
        interrupts: Called in this order whenever a worker begins a step. The default is the
            paper's redundancy check, and none for a single worker.
        answer: How the final answer looks: `boxed`, `number`, `choice`, `json`, `code`, an
            `AnswerFormat`, or a callable from text to the answer or None.
        finisher: `reply` closes the thinking and writes the reply that a user should read;
            `answer` writes only the answer, if no worker stated one (the paper's early finisher).
        budget: Forward passes for thinking.
        reply_tokens: The most tokens of the reply.
        stop: Strings before which the reply ends, even where they begin or end inside a token.
        snapshots: Budgets at which the early finisher answers while the team goes on.
        sampling: How workers choose tokens. A seed makes a session repeatable; each worker has
            its own random numbers, derived from the seed.
        may_end: Whether a worker may end by writing an end token. By default only a single worker
            may.

    Raises:
        InvalidTeamError: An argument makes no sense, in a way that the errors below do not cover.
        InvalidLayoutError: There is no such layout, or it fails for this number of workers.
        InvalidInterruptError: An interrupt cannot be called, or is asynchronous.
        InvalidAnswerFormatError: There is no such answer format.

    Example:
        with Engine(SharedCacheModel.from_pretrained(name)) as engine:
            team = Team(AutoTokenizer.from_pretrained(name), workers=["Ada", "Emmy"], budget=2048)
            print(engine.submit(team.session("How many primes are below 100?")).result().reply)
    """

    def session(
        self,
        problem: str | Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        guide: Guide | None = None,
    ) -> Session:
        """One problem for this team; submit it to an engine, once.

        Args:
            problem: The question, or a conversation: messages with `role` and `content`. The team
                answers the last one.
            tools: What the reply may call, as in `TeamTokenizer.prompt`.
            guide: Keeps the reply to a grammar; the thinking stays free. Each session needs its
                own guide.

        Raises:
            InvalidMessageError: The problem is empty, or is not a conversation.
            ChatTemplateError: The tokenizer's chat template cannot render it.
            InvalidTeamError: There is a guide, but this team writes no reply.
        """
        if guide is not None and self.finisher != "reply":
            raise InvalidTeamError(
                f"finisher={self.finisher!r} writes no reply, so a guide has nothing to guide: "
                "use finisher='reply'."
            )
        messages = [{"role": "user", "content": problem}] if isinstance(problem, str) else problem
        if not isinstance(messages, Sequence):
            raise InvalidMessageError(
                f"The problem is of type {type(problem).__name__}: give a text, or a list of "
                "messages such as {'role': 'user', 'content': ...}."
            )
        messages = check_messages(messages)
        if not any(message["content"].strip() for message in messages):
            raise InvalidMessageError(
                f"The problem {problem!r:.80} is empty: say what the team is to solve."
            )
        return Session(self, problem, self.prompt_tokens(messages, tools), guide)

    def prompt_tokens(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()
    ) -> list[int]:
        """The whole prompt: the instructions, the conversation, and where thinking begins."""
        instructions = self.prompt.extra
        if not self.replies_at_once:
            instructions = self.prompt.system(
                self.workers, layout=self.layout.name, answer=self.answer.instruction
            )
            if tools and not self.is_single and self.prompt.explains:
                instructions += steps.SEPARATOR + TOOL_RULE
        conversation: list[Any] = []
        for message in messages:
            if message["role"] == "system":
                instructions += steps.SEPARATOR + self.sanitize(message["content"])
            else:
                # The keys of the message itself are names that templates know.
                sanitized = {key: self.sanitize.nested(value) for key, value in message.items()}
                conversation.append(sanitized)
        if instructions.strip():
            conversation.insert(0, {"role": "system", "content": instructions.strip("\n")})
        tokens = self.tokenizer.prompt(conversation, tools=self.sanitize.nested(tools))
        if self.layout.commits:
            tokens += self.tokenizer.encode(steps.HISTORY_HEADER + steps.SEPARATOR)
        return tokens
