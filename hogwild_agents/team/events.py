"""Events of a running session, and the `Result` that it leaves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from hogwild_agents.team import steps

FinishReason: TypeAlias = Literal[
    "answer", "ended", "budget", "length", "stopped", "cancelled", "error"
]
"""Why the thinking ended: a finished step stated the answer, all workers ended by themselves, the
budget or the model's context was used up, the session was stopped or cancelled, or it failed."""


Finisher: TypeAlias = Literal["reply", "answer"]
"""What is written at the end: a reply for a user, or the bare answer if no worker stated one."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step of one worker, finished or not.

    Attributes:
        worker: The name of the worker.
        index: Number of the step, from 1, as in the prefix `**Bob [3]:** `.
        text: The whole text after the prefix, including what the system wrote into it.
        written: The text that the worker wrote itself.
        tokens: How many tokens the worker drew for it.
        begun: The forward pass in which its first token was drawn.
        ended: The forward pass in which its last token was drawn.
    """

    worker: str
    index: int
    text: str
    written: str
    tokens: int
    begun: int
    ended: int

    def __str__(self) -> str:
        """The step as the team reads it."""
        return steps.prefix(self.worker, self.index) + self.text


@dataclass(frozen=True, slots=True)
class Note:
    """A user's note to the thinking team; the team read it after forward pass `read`."""

    text: str
    read: int

    def __str__(self) -> str:
        """The note as the team reads it."""
        return f"{steps.NOTE_LABEL}{self.text}{steps.SEPARATOR}"


@dataclass(frozen=True, slots=True)
class Interruption:
    """An interrupt that spoke.

    Attributes:
        name: The name of the interrupt.
        worker: The worker into whose step it was written.
        index: The index of that step.
        asked: The forward pass after which it was written.
        text: Its text.
        answer: How the interrupt read the worker's response: True for yes and False for no with a
            redundancy check; None if the response is unclear, or the interrupt reads none.
        followed: The text that the worker wrote after it in that step.
    """

    name: str
    worker: str
    index: int
    asked: int
    text: str
    answer: Any = None
    followed: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The answer that the early finisher gives at some budget, while the team goes on.

    Attributes:
        budget: The budget, in forward passes of thinking.
        passes: The passes that were run; fewer than the budget if the team was done before.
        answer: The answer as the answer format reads it, or None.
        text: The finisher's text; empty if a worker had stated the answer before.
        tokens: How many tokens the finisher wrote.
    """

    budget: int
    passes: int
    answer: Any
    text: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds since submission; None for what was not reached.

    Attributes:
        waited: Until the session was admitted.
        prompted: Until its prompt was in the cache.
        thought: Until the thinking ended.
        total: Until the session ended.
    """

    waited: float | None
    prompted: float | None
    thought: float | None
    total: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Everything that a session reached, even if it failed or was cancelled.

    Attributes:
        workers: The names of the workers.
        layout: The name of the layout.
        history: Finished steps of all workers and notes, in order.
        unfinished: Steps that were under way at the end, if they have any text.
        answer: The answer that the answer format found, or None.
        finisher: The team's finisher, `reply` or `answer`.
        reply: The reply for a user, or the answer's text if the finisher writes the bare answer.
        finish_reason: Why the thinking ended.
        reply_reason: `stop` if the reply came to its end, `length` if it was cut off; None if there
            is no reply.
        passes: Forward passes of thinking: the budget that was used.
        reply_passes: Forward passes after that.
        reading_passes: Forward passes that read the prompt, headers, notes and long prefixes.
        tokens: Per worker, the tokens that it drew.
        reply_tokens: Tokens of the reply.
        prompt_tokens: Length of the prompt.
        reused_tokens: Tokens of the prompt that were already in the cache.
        preemptions: Times the session was moved to host memory.
        interruptions: Every interrupt that spoke, in order.
        snapshots: One for each of the team's snapshot budgets that was reached.
        unheard: Notes that came too late.
        timings: Seconds until each phase was over.
        error: Why it failed, or None.
    """

    workers: tuple[str, ...]
    layout: str
    history: tuple[Step | Note, ...] = ()
    unfinished: tuple[Step, ...] = ()
    answer: Any = None
    finisher: Finisher = "reply"
    reply: str = ""
    finish_reason: FinishReason
    reply_reason: Literal["stop", "length"] | None = None
    passes: int = 0
    reply_passes: int = 0
    reading_passes: int = 0
    tokens: dict[str, int] = field(default_factory=dict)
    reply_tokens: int = 0
    prompt_tokens: int = 0
    reused_tokens: int = 0
    preemptions: int = 0
    interruptions: tuple[Interruption, ...] = ()
    snapshots: tuple[Snapshot, ...] = ()
    unheard: tuple[str, ...] = ()
    timings: Timings
    error: str | None = None

    @property
    def steps(self) -> tuple[Step, ...]:
        """The finished steps of all workers, in order."""
        return tuple(part for part in self.history if isinstance(part, Step))

    def steps_of(self, worker: str) -> tuple[Step, ...]:
        """The steps of one worker, an unfinished one last."""
        return tuple(step for step in (*self.steps, *self.unfinished) if step.worker == worker)

    def transcript(self) -> str:
        """The thinking as the team read it, unfinished steps last."""
        return "".join(map(str, self.history)) + steps.SEPARATOR.join(map(str, self.unfinished))


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events.

    Attributes:
        at: Forward passes of thinking until then.
        seconds: Seconds since the session was submitted.
    """

    at: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Started(Event):
    """The prompt is in the cache; the team begins to think."""

    workers: tuple[str, ...]
    prompt_tokens: int
    reused_tokens: int
    finisher: Finisher = "reply"


@dataclass(frozen=True, slots=True)
class StepBegun(Event):
    """The system began a step for a worker; `text` is what the system wrote after the prefix."""

    worker: str
    index: int
    text: str


@dataclass(frozen=True, slots=True)
class Token(Event):
    """A worker drew a token; `text` is the text that it completes, possibly empty."""

    worker: str
    token: int
    text: str


@dataclass(frozen=True, slots=True)
class StepCommitted(Event):
    """A worker finished a step; if the layout commits steps, it joins the shared history."""

    step: Step


@dataclass(frozen=True, slots=True)
class InterruptAsked(Event):
    """An interrupt was written into a worker's new step."""

    interruption: Interruption


@dataclass(frozen=True, slots=True)
class InterruptAnswered(Event):
    """The worker answered an interrupt."""

    interruption: Interruption


@dataclass(frozen=True, slots=True)
class NoteRead(Event):
    """A user's note is in the shared history."""

    note: Note


@dataclass(frozen=True, slots=True)
class AnswerFound(Event):
    """A worker stated the final answer; `worker` is None if the finisher did."""

    worker: str | None
    answer: Any


@dataclass(frozen=True, slots=True)
class SnapshotTaken(Event):
    """The early finisher answered for some budget."""

    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class ThinkingEnded(Event):
    """The workers stop writing; the reply follows, if there is one."""

    reason: FinishReason


@dataclass(frozen=True, slots=True)
class ReplyToken(Event):
    """The writer of the reply drew a token."""

    token: int
    text: str


@dataclass(frozen=True, slots=True)
class Finished(Event):
    """The last event."""

    result: Result = field(repr=False)
