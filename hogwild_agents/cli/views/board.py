"""The board: the state of a session as its events tell it. Knows nothing of terminals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hogwild_agents.team import Event, Interruption, Note, Result, Step


class Board:
    """What the live view draws of a session.

    Args:
        workers: Names of the workers.
        budget: Forward passes that the team may think for.

    Attributes:
        workers: Names of the workers.
        budget: Forward passes that the team may think for.
        begun: Whether the problem has been read.
        passes: Forward passes of thinking so far.
        tokens: How many tokens the workers have drawn.
        history: Finished steps and notes, in order.
        writing: For each worker, the index and text of the step that it is writing.
        checks: Questions at the beginning of steps, by worker and index of the step.
        answer: The final answer, after the worker that stated it; None for the finisher.
        replying: Whether the thinking is over.
        reply: What the finisher has written so far.
        reply_tokens: How many tokens that took.
        result: The result, once the session is over.
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

    def update(self, event: Event) -> None:
        """Takes an event into account."""
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
                team.InterruptAsked(interruption=check) | team.InterruptAnswered(interruption=check)
            ):
                self.checks[check.worker, check.index] = check
            case team.AnswerFound(worker=worker, answer=answer):
                self.answer = (worker, answer)
            case team.ThinkingEnded():
                self.replying = True
            case team.ReplyToken(text=text):
                self.reply += text
                self.reply_tokens += 1
            case team.Finished(result=result):
                self.result = result
