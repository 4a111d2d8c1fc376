"""TeamConfig: what a team is. Its checked settings, and the token ids that follow from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from hogwild_agents.engine import SamplingParams
from hogwild_agents.errors import InvalidTeamError
from hogwild_agents.names import worker_names
from hogwild_agents.team import steps
from hogwild_agents.team.answers import AnswerFormat, answer_format
from hogwild_agents.team.events import Finisher
from hogwild_agents.team.interrupts import Interrupt, choose_interrupts
from hogwild_agents.team.layouts import Layout, TeamBlocks, Views, choose_layout
from hogwild_agents.team.prompts import CollaborationPrompt
from hogwild_agents.team.redundancy_check import RedundancyCheck
from hogwild_agents.team.sanitize import Sanitizer
from hogwild_agents.team.tokenizer import TeamTokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DEFAULT_SAMPLING = SamplingParams(temperature=0.6, top_p=0.95, top_k=20)
"""What the makers of reasoning models (QwQ, Qwen3, DeepSeek-R1) recommend."""

DEFAULT_BUDGET = 4096
"""Forward passes for thinking."""


class TeamConfig:
    """The settings of a `Team`, which documents the arguments. Sessions read them.

    Attributes:
        workers: The names of the workers.
        tokenizer: The model's tokenizer.
        sanitize: Marks outside text that looks like the system's own.
        thinking_ids: Ids of the thinking tags, which no reply may hold.
        ends: Ids with which a worker ends, if it may.
        banned: Ids that no worker may write: control tokens, and what headers begin with.
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
        self.layout = choose_layout(layout, len(self.workers))
        self.prompt = CollaborationPrompt() if prompt is None else prompt
        if interrupts is None:
            interrupts = [] if self.is_single else [RedundancyCheck()]
        self.interrupts = choose_interrupts(interrupts)
        self.answer = answer_format(answer)
        self.finisher: Finisher = finisher
        self.budget = _positive("budget", budget)
        self.reply_tokens = _positive("reply_tokens", reply_tokens)
        self.stop = _stop_strings(stop)
        self.snapshots = _sorted_budgets(snapshots)
        self.sampling = sampling
        self.may_end = self.is_single if may_end is None else may_end
        self._validate()
        if not isinstance(tokenizer, TeamTokenizer):
            from transformers import PreTrainedTokenizerBase  # slow, and only needed here

            _check_type("tokenizer", tokenizer, PreTrainedTokenizerBase)
            tokenizer = TeamTokenizer(tokenizer)
        self.tokenizer = tokenizer
        questions = [getattr(interrupt, "question", None) for interrupt in self.interrupts]
        phrases = [question for question in questions if isinstance(question, str)]
        self.sanitize = Sanitizer(self.workers, [*phrases, *tokenizer.plain_text_marks])
        self.thinking_ids = frozenset(tokenizer.thinking_ids)
        self.ends = tokenizer.ends | frozenset(tokenizer.thinking_ids[1:])
        self.banned = tokenizer.control | tokenizer.first_tokens(steps.HEADERS)

    @property
    def is_single(self) -> bool:
        """Whether one worker thinks alone."""
        return len(self.workers) == 1

    @property
    def replies_at_once(self) -> bool:
        """Whether the session skips thinking: a single worker of a model without thinking tags."""
        return self.is_single and self.finisher == "reply" and self.tokenizer.thinking is None

    def opening(self, index: int) -> str:
        """The first words of a worker, which the system writes for it."""
        return self.prompt.opening(self.workers, index)

    def opening_tokens(self) -> list[list[int]]:
        """For each worker the ids of its first prefix and words; none for a single worker."""
        if self.is_single:
            return [[]]
        return [
            self.tokenizer.encode(steps.prefix(name, 1) + self.opening(index))
            for index, name in enumerate(self.workers)
        ]

    def header_tokens(self) -> list[list[int]]:
        """Ids of the headers over the others' and one's own work, then of each worker's pause."""
        texts = [steps.OTHERS_HEADER, steps.OWN_HEADER, *([steps.PAUSE] * len(self.workers))]
        return [self.tokenizer.encode(text + steps.SEPARATOR) for text in texts]

    def closing_tokens(self, separator: str) -> list[int]:
        """Ids that end the thinking and begin the reply; `separator` comes first."""
        closing = self.tokenizer.close_thinking()
        header = "" if closing else steps.REPLY_HEADER + steps.SEPARATOR
        return self.tokenizer.encode(separator + header) + closing

    def _validate(self) -> None:
        _check_type("may_end", self.may_end, bool)
        _check_type("prompt", self.prompt, CollaborationPrompt)
        _check_type("sampling", self.sampling, SamplingParams)
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


def _positive(name: str, value: Any) -> int:
    """The value itself; raises InvalidTeamError unless it is a whole number of 1 or more."""
    if type(value) is not int or value < 1:
        raise InvalidTeamError(
            f"{name}={value!r} makes no sense: give a whole number of 1 or more."
        )
    return value


def _stop_strings(stop: Any) -> tuple[str, ...]:
    """The texts as a tuple; raises InvalidTeamError if one of them is empty or no text."""
    texts = None if isinstance(stop, str) or not isinstance(stop, Sequence) else tuple(stop)
    if texts is None or not all(isinstance(text, str) and text for text in texts):
        raise InvalidTeamError(
            f"stop={stop!r:.80} makes no sense: give a list of texts that are not empty."
        )
    return texts


def _sorted_budgets(snapshots: Any) -> tuple[int, ...]:
    """The budgets in ascending order, without duplicates."""
    if not isinstance(snapshots, Sequence) or isinstance(snapshots, str):
        raise InvalidTeamError(
            f"snapshots={snapshots!r} is not a list: give budgets such as [512, 1024]."
        )
    return tuple(sorted({_positive(f"snapshots[{i}]", n) for i, n in enumerate(snapshots)}))


def _check_type(name: str, value: object, expected: type) -> None:
    if not isinstance(value, expected):
        raise InvalidTeamError(
            f"{name}={value!r:.80} has the wrong type: give a {expected.__name__}."
        )
