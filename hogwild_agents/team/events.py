"""What a session tells the world while it runs, and what it leaves behind."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from hogwild_agents.team import steps

FinishReason: TypeAlias = Literal[
    "answer", "ended", "budget", "length", "stopped", "cancelled", "error"
]
"""Why the thinking ended: an answer was found in a finished step, all workers ended by themselves,
the budget or the model's context was used up, somebody asked to stop, cancelled, or it failed."""


Finisher: TypeAlias = Literal["reply", "answer"]
"""What is written in the end: a reply for a user, or the bare answer if nobody stated one."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step of one worker, finished or not.

    Attributes:
        worker: Its name.
        index: 1 for its first; what stands in the prefix `**Bob [3]:** `.
        text: All of it after the prefix, with what the system wrote into it.
        written: What the worker wrote itself.
        tokens: How many tokens that were.
        begun: The forward pass in which its first token was drawn.
        ended: The one in which its last token was drawn.
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
    """What somebody said to the team while it was thinking; read after forward pass `read`."""

    text: str
    read: int

    def __str__(self) -> str:
        """The note as the team reads it."""
        return f"{steps.NOTE_LABEL}{self.text}{steps.SEPARATOR}"


@dataclass(frozen=True, slots=True)
class Interruption:
    """An interrupt that spoke.

    Attributes:
        name: Of the interrupt.
        worker: Into whose step it was written.
        index: Of that step.
        asked: The forward pass after which it was.
        text: What it wrote.
        answer: How the interrupt understood the worker: True for yes and False for no of a
            redundancy check; None if it was not understood, or asks for nothing.
        followed: What the worker wrote after it in that step.
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
    """The answer that the early finisher gives at some budget, in passing.

    Attributes:
        budget: Forward passes of thinking it stands for.
        passes: How many there were, fewer if the team was done before.
        answer: As the answer format reads it, or None.
        text: What the finisher wrote; empty if the answer had been stated before.
        tokens: How many tokens that took.
    """

    budget: int
    passes: int
    answer: Any
    text: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds from submission on; None for what was not reached.

    Attributes:
        waited: Until the session was admitted.
        prompted: Until its prompt was in the cache.
        thought: Until the thinking ended.
        total: Until all was done.
    """

    waited: float | None
    prompted: float | None
    thought: float | None
    total: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """All that came of a session, also of one that failed or was cancelled.

    Attributes:
        workers: Their names.
        layout: Its name.
        history: Finished steps of all workers and notes, in order.
        unfinished: The steps that were under way at the end, those with any text.
        answer: What the answer format found, or None.
        finisher: `reply` or `answer`, as the team has it.
        reply: What the finisher wrote for a user, or the finisher's answer text.
        finish_reason: Why the thinking ended.
        reply_reason: `stop` if the reply came to its end, `length` if it was cut; None without one.
        passes: Forward passes of thinking: the budget that was used.
        reply_passes: Forward passes after that.
        reading_passes: Forward passes that read the prompt, the headers, notes and the like.
        tokens: Per worker, the tokens that it drew.
        reply_tokens: Tokens of the reply.
        prompt_tokens: Length of the prompt.
        reused_tokens: Of these, the ones that were in the cache already.
        preemptions: Times the session was moved to host memory.
        interruptions: Every interrupt that spoke, in order.
        snapshots: One for each budget asked for and reached.
        unheard: What was said too late.
        timings: In seconds.
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
        """The steps of one worker, the unfinished one last."""
        return tuple(step for step in (*self.steps, *self.unfinished) if step.worker == worker)

    def transcript(self) -> str:
        """The thinking as the team read it, unfinished steps last."""
        return "".join(map(str, self.history)) + steps.SEPARATOR.join(map(str, self.unfinished))


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events.

    Attributes:
        at: Forward passes of thinking until then.
        seconds: Since the session was submitted.
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
    """The system began a step for a worker; `text` is what it wrote after the prefix."""

    worker: str
    index: int
    text: str


@dataclass(frozen=True, slots=True)
class Token(Event):
    """A worker drew a token; `text` is what it completes, possibly nothing yet."""

    worker: str
    token: int
    text: str


@dataclass(frozen=True, slots=True)
class StepCommitted(Event):
    """A worker finished a step, and all will see it in the history (or have seen it already)."""

    step: Step


@dataclass(frozen=True, slots=True)
class InterruptAsked(Event):
    """An interrupt was written into a worker's new step."""

    interruption: Interruption


@dataclass(frozen=True, slots=True)
class InterruptAnswered(Event):
    """The worker answered it."""

    interruption: Interruption


@dataclass(frozen=True, slots=True)
class NoteRead(Event):
    """What a user said is in the shared history."""

    note: Note


@dataclass(frozen=True, slots=True)
class AnswerFound(Event):
    """A worker stated the final answer; None as the worker if the finisher did."""

    worker: str | None
    answer: Any


@dataclass(frozen=True, slots=True)
class SnapshotTaken(Event):
    """The early finisher answered for some budget, while the team went on."""

    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class ThinkingEnded(Event):
    """No worker writes any more; the reply follows, if there is to be one."""

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
