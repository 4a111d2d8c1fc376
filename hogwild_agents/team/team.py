"""Team: who works together, and how; one description for any number of sessions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from hogwild_agents.engine import SamplingParams
from hogwild_agents.errors import InvalidMessageError, InvalidTeamError
from hogwild_agents.names import worker_names
from hogwild_agents.team import steps
from hogwild_agents.team.answers import AnswerFormat, answer_format
from hogwild_agents.team.chat_template import check_messages
from hogwild_agents.team.events import Finisher
from hogwild_agents.team.interrupts import Interrupt, RedundancyCheck, choose_interrupts
from hogwild_agents.team.layouts import Layout, TeamBlocks, Views, choose_layout
from hogwild_agents.team.prompts import TOOL_RULE, CollaborationPrompt
from hogwild_agents.team.reply_writer import Guide
from hogwild_agents.team.session import Session
from hogwild_agents.team.tokenizer import TeamTokenizer

DEFAULT_SAMPLING = SamplingParams(temperature=0.6, top_p=0.95, top_k=20)
"""What makers of reasoning models (QwQ, Qwen3, DeepSeek-R1) recommend."""

DEFAULT_BUDGET = 4096
"""Forward passes for thinking."""


class Team:
    """Workers, prompt, layout, interrupts and the way to an answer.

    Args:
        tokenizer: The model's tokenizer.
        workers: How many, or their names; 1 to 8. One worker thinks alone, with no prompt about
            collaboration; if the model has no thinking tokens it replies at once, as a plain chat
            model does.
        layout: What each worker sees: `combined`, `interleaved`, `contiguous`, a `Layout`, or a
            function from `TeamBlocks` to views.
        prompt: What the team is told about working together.
        interrupts: Asked in this order whenever a worker begins a step; by default the paper's
            redundancy check, or none for a worker alone.
        answer: How the final answer looks: `boxed`, `number`, `choice`, `json`, `code`, an
            `AnswerFormat`, or a callable from text to the answer or None.
        finisher: `reply` closes the thinking and writes the reply that a user should read;
            `answer` writes only the answer, if none was stated (the paper's early finisher).
        budget: Forward passes for thinking.
        reply_tokens: The most tokens of the reply.
        stop: Strings before which the reply ends, wherever its tokens begin and end.
        snapshots: Budgets at which the early finisher is to answer in passing.
        sampling: How workers choose tokens. A seed makes a session repeatable; each worker has its
            own random numbers, made from the seed.
        may_end: Whether a worker may end by writing an end token. By default only one alone may.

    Raises:
        InvalidTeamError: Something else than what follows makes no sense.
        InvalidLayoutError: No such layout, or one that fails on this many workers.
        InvalidInterruptError: An interrupt that cannot be called, or an asynchronous one.
        InvalidAnswerFormatError: No such answer format.

    Example:
        with Engine(SharedCacheModel.from_pretrained(name)) as engine:
            team = Team(AutoTokenizer.from_pretrained(name), workers=["Ada", "Emmy"], budget=2048)
            print(engine.submit(team.session("How many primes are below 100?")).result().reply)
    """

    def __init__(
        self,
        tokenizer: TeamTokenizer | PreTrainedTokenizerBase,
        *,
        workers: int | Sequence[str] = 2,
        layout: str | Layout | Callable[[TeamBlocks], Views] = "combined",
        prompt: CollaborationPrompt | None = None,
        interrupts: Sequence[Interrupt] | None = None,
        answer: str | AnswerFormat | Callable[[str], Any] = "boxed",
        finisher: Finisher = "reply",
        budget: int = DEFAULT_BUDGET,
        reply_tokens: int = 1024,
        stop: Sequence[str] = (),
        snapshots: Sequence[int] = (),
        sampling: SamplingParams = DEFAULT_SAMPLING,
        may_end: bool | None = None,
    ) -> None:
        self.workers = worker_names(workers)
        alone = len(self.workers) == 1
        self.layout = choose_layout(layout, len(self.workers))
        self.prompt = CollaborationPrompt() if prompt is None else prompt
        if interrupts is None:
            interrupts = [] if alone else [RedundancyCheck()]
        self.interrupts = choose_interrupts(interrupts)
        self.answer = answer_format(answer)
        self.finisher: Finisher = finisher
        self.budget = _whole("budget", budget)
        self.reply_tokens = _whole("reply_tokens", reply_tokens)
        self.stop = _stop_strings(stop)
        self.snapshots = _ascending(snapshots)
        self.sampling = sampling
        self.may_end = alone if may_end is None else may_end
        self._validate()
        if not isinstance(tokenizer, TeamTokenizer):
            _check_kind("tokenizer", tokenizer, PreTrainedTokenizerBase)
            tokenizer = TeamTokenizer(tokenizer)
        self.tokenizer = tokenizer
        asked = [getattr(interrupt, "question", None) for interrupt in self.interrupts]
        questions = [question for question in asked if isinstance(question, str)]
        self.disguise = steps.Disguise(self.workers, [*questions, *tokenizer.spoken_marks])
        self.marks = frozenset(tokenizer.thinking_ids)
        """The marks of thinking, which no reply may hold."""
        self.ends = tokenizer.ends | frozenset(tokenizer.thinking_ids[1:])
        """What a worker ends with, if it may."""
        self.banned = tokenizer.control | tokenizer.first_tokens(steps.HEADERS)
        """Ids that no worker may write: control tokens, and what headers begin with."""

    def opening(self, place: int) -> str:
        """A worker's first words, written for it."""
        return self.prompt.opening(self.workers, place)

    def opening_tokens(self) -> list[list[int]]:
        """For each worker the ids of its first prefix and words; none for one alone."""
        if len(self.workers) == 1:
            return [[]]
        return [
            self.tokenizer.encode(steps.prefix(name, 1) + self.opening(place))
            for place, name in enumerate(self.workers)
        ]

    def header_tokens(self) -> list[list[int]]:
        """Ids of the headers over the others' work and one's own, and of each worker's pause."""
        texts = [steps.OTHERS_HEADER, steps.OWN_HEADER, *([steps.PAUSE] * len(self.workers))]
        return [self.tokenizer.encode(text + steps.SEPARATOR) for text in texts]

    def closing_tokens(self, between: str) -> list[int]:
        """Ids that end the thinking and begin the reply, after a text that ends with `between`."""
        closing = self.tokenizer.close_thinking()
        header = "" if closing else steps.REPLY_HEADER + steps.SEPARATOR
        return self.tokenizer.encode(between + header) + closing

    @property
    def replies_at_once(self) -> bool:
        """Whether there is no thinking: one worker of a model that has no words for it."""
        return (
            len(self.workers) == 1 and self.finisher == "reply" and self.tokenizer.thinking is None
        )

    def session(
        self,
        problem: str | Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        guide: Guide | None = None,
    ) -> Session:
        """One problem for this team; submit it to an engine, once.

        Args:
            problem: The question, or a conversation: messages with `role` and `content`, of which
                the last is to be answered.
            tools: What the reply may call, as in `TeamTokenizer.prompt`.
            guide: Keeps the reply to a form; the thinking stays free. Each session needs its own.

        Raises:
            InvalidMessageError: The problem is empty, or no conversation.
            ChatTemplateError: The tokenizer's chat template cannot render it.
            InvalidTeamError: There is a guide, but this team writes no reply.
        """
        if guide is not None and self.finisher != "reply":
            raise InvalidTeamError(
                f"finisher={self.finisher!r} writes no reply that a guide could keep to a form: "
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
        """The whole prompt: what the team is told, the conversation, and where thinking begins."""
        told = self.prompt.extra
        if not self.replies_at_once:
            told = self.prompt.system(
                self.workers, layout=self.layout.name, answer=self.answer.instruction
            )
            if tools and len(self.workers) > 1 and self.prompt.explains:
                told += steps.SEPARATOR + TOOL_RULE
        rest: list[Any] = []
        for message in messages:
            if message["role"] == "system":
                told += steps.SEPARATOR + self.disguise(message["content"])
            else:
                rest.append({key: self._disguised(value) for key, value in message.items()})
        system = [{"role": "system", "content": told.strip("\n")}] if told.strip() else []
        tokens = self.tokenizer.prompt([*system, *rest], tools=self._disguised(tools))
        if self.layout.commits:
            tokens += self.tokenizer.encode(steps.HISTORY_HEADER + steps.SEPARATOR)
        return tokens

    def _disguised(self, given: Any) -> Any:
        """Outside text with all that looks like the system's own made unlike it, however nested."""
        if isinstance(given, str):
            return self.disguise(given)
        if isinstance(given, Mapping):
            return {self._disguised(key): self._disguised(item) for key, item in given.items()}
        if isinstance(given, Sequence):
            return [self._disguised(part) for part in given]
        return given

    def _validate(self) -> None:
        _check_kind("may_end", self.may_end, bool)
        _check_kind("prompt", self.prompt, CollaborationPrompt)
        _check_kind("sampling", self.sampling, SamplingParams)
        if self.snapshots and self.snapshots[-1] > self.budget:
            raise InvalidTeamError(
                f"A snapshot at {self.snapshots[-1]} lies beyond the budget of {self.budget}: "
                "raise the budget or leave it out."
            )
        if self.finisher not in ("reply", "answer"):
            raise InvalidTeamError(
                f"Unknown finisher {self.finisher!r}: use 'reply' for the text that a user should "
                "read, or 'answer' for the bare answer."
            )


def _whole(name: str, value: Any) -> int:
    """A number as it is given; raises InvalidTeamError unless it is whole and 1 or more."""
    if type(value) is not int or value < 1:
        raise InvalidTeamError(
            f"{name}={value!r} makes no sense: give a whole number of 1 or more."
        )
    return value


def _stop_strings(stop: Any) -> tuple[str, ...]:
    """Texts as they are given; raises InvalidTeamError unless each holds something."""
    texts = None if isinstance(stop, str) or not isinstance(stop, Sequence) else tuple(stop)
    if texts is None or not all(isinstance(text, str) and text for text in texts):
        raise InvalidTeamError(
            f"stop={stop!r:.80} makes no sense: give a list of texts that are not empty."
        )
    return texts


def _ascending(snapshots: Any) -> tuple[int, ...]:
    """Budgets in order, each once."""
    if not isinstance(snapshots, Sequence) or isinstance(snapshots, str):
        raise InvalidTeamError(
            f"snapshots={snapshots!r} is no list: give budgets such as [512, 1024]."
        )
    return tuple(sorted({_whole(f"snapshots[{i}]", given) for i, given in enumerate(snapshots)}))


def _check_kind(name: str, value: object, kind: type) -> None:
    if not isinstance(value, kind):
        raise InvalidTeamError(f"{name}={value!r:.80} is of another kind: give a {kind.__name__}.")
