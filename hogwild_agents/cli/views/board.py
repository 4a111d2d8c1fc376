"""Board: where a session stands, as far as its events have told. Knows nothing of screens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hogwild_agents.team import Event, Interruption, Note, Result, Step


class Board:
    """What there is to show of a session.

    Args:
        workers: The team's names.
        budget: Forward passes that it may think for.

    Attributes:
        workers: The team's names.
        budget: Forward passes that it may think for.
        begun: Whether the problem is read.
        passes: Forward passes of thinking so far.
        tokens: How many the workers drew.
        history: Finished steps and notes, in order.
        writing: Per worker, the index of its step under way and the text of it.
        checks: What was asked at the beginning of a step, by worker and index.
        answer: Who stated the final answer (None: the finisher), and the answer.
        replying: Whether the thinking is over.
        reply: What the finisher has written so far.
        reply_tokens: How many tokens that took.
        result: What came of it, once it is over.
    """

    def __init__(self, workers: tuple[str, ...], budget: int) -> None:
        self.workers = workers
        self.budget = budget
        self.begun = False
        self.passes = 0
        self.tokens = 0
        self.history: list[Step | Note] = []
        self.writing = dict.fromkeys(workers, (1, ""))
        self.checks: dict[tuple[str, int], Interruption] = {}
        self.answer: tuple[str | None, Any] | None = None
        self.replying = False
        self.reply = ""
        self.reply_tokens = 0
        self.result: Result | None = None

    def hear(self, event: Event) -> None:
        """Takes in what happened."""
        from hogwild_agents import team

        self.passes = event.at
        match event:
            case team.Started():
                self.begun = True
            case team.StepBegun(worker=worker, index=index, text=text):
                self.writing[worker] = (index, text)
            case team.Token(worker=worker, text=text):
                index, before = self.writing[worker]
                self.writing[worker] = (index, before + text)
                self.tokens += 1
            case team.StepCommitted(step=step):
                self.history.append(step)
                self.writing[step.worker] = (step.index + 1, "")
            case team.NoteRead(note=note):
                self.history.append(note)
            case (
                team.InterruptAsked(interruption=asked) | team.InterruptAnswered(interruption=asked)
            ):
                self.checks[asked.worker, asked.index] = asked
            case team.AnswerFound(worker=by, answer=answer):
                self.answer = (by, answer)
            case team.ThinkingEnded():
                self.replying = True
            case team.ReplyToken(text=text):
                self.reply += text
                self.reply_tokens += 1
            case team.Finished(result=result):
                self.result = result
