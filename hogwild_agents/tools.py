"""A team as a tool: an agent hands it a hard problem, and gets the answer and the transcript."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from langchain_core.callbacks import (
    AsyncCallbackManagerForToolRun,
    CallbackManagerForToolRun,
    adispatch_custom_event,
    dispatch_custom_event,
)
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.tools import ArgsSchema, BaseTool, ToolException
from pydantic import BaseModel, Field

from hogwild_agents.chat_models import ChatHogwild
from hogwild_agents.engine import Handle, HogwildError
from hogwild_agents.engines import settings_of
from hogwild_agents.replies import as_text, content_of, metadata_of
from hogwild_agents.team import Event, Result, StepCommitted
from hogwild_agents.team.team import DEFAULT_BUDGET

PROGRESS = "team_progress"
"""The name of the custom events that tell of finished steps."""

Effort = Literal["low", "medium", "high"]
_SHARES: dict[Effort, float] = {"low": 0.25, "medium": 1.0, "high": 4.0}
"""Shares of the budget."""


class TeamProblem(BaseModel):
    """What the tool is called with."""

    problem: str = Field(description="The whole problem, with all that is needed to solve it.")
    hints: list[str] = Field(
        default_factory=list, description="What may help: facts, ideas, what has been tried."
    )
    effort: Effort = Field(default="medium", description="How long the team may think.")


class TeamTool(BaseTool):
    """Lets a team of workers solve one problem.

    The content of its message is the answer; the artifact holds the transcript and the figures of
    the session. Whenever a worker has finished a step, a custom event `team_progress` goes out with
    `worker`, `index`, `text` and `passes`. What goes wrong is told to the agent, not raised.

    Example:
        from langchain.agents import create_agent

        agent = create_agent(model, tools=[TeamTool(model=ChatHogwild(workers=4), deadline=60)])
    """

    name: str = "ask_team"
    description: str = (
        "Solves one hard problem by a team that thinks about it in parallel. Give the whole "
        "problem: the team sees nothing else."
    )
    args_schema: ArgsSchema | None = TeamProblem
    response_format: Literal["content", "content_and_artifact"] = "content_and_artifact"
    handle_tool_error: Any = True

    model: ChatHogwild = Field(default_factory=ChatHogwild)
    """The team; any number of calls may run at the same time."""
    budget: int | None = Field(default=None, ge=1)
    """Forward passes of thinking at medium effort; the model's own by default."""
    deadline: float | None = Field(default=None, gt=0)
    """Seconds after which the team stops thinking and answers with what it has; the model's
    `timeout` is one, too."""

    def _run(
        self,
        problem: str,
        hints: list[str] | None = None,
        effort: Effort = "medium",
        run_manager: CallbackManagerForToolRun | None = None,
    ) -> tuple[str, dict[str, Any]]:
        with (
            _told_as_tool_errors(),
            self.model.submit(_asked(problem, hints), budget=self._passes(effort)) as handle,
            self._stopped_in_time(handle),
        ):
            for event in handle:
                if run_manager and isinstance(event, StepCommitted):
                    config: Any = {"callbacks": run_manager.get_child()}
                    dispatch_custom_event(PROGRESS, _progress(event), config=config)
            return _outcome(handle.result())

    async def _arun(
        self,
        problem: str,
        hints: list[str] | None = None,
        effort: Effort = "medium",
        run_manager: AsyncCallbackManagerForToolRun | None = None,
    ) -> tuple[str, dict[str, Any]]:
        with _told_as_tool_errors():
            asked, passes = _asked(problem, hints), self._passes(effort)
            async with await self.model.asubmit(asked, budget=passes) as handle:
                with self._stopped_in_time(handle):
                    async for event in handle:
                        if run_manager and isinstance(event, StepCommitted):
                            config: Any = {"callbacks": run_manager.get_child()}
                            await adispatch_custom_event(PROGRESS, _progress(event), config=config)
                    return _outcome(await handle)

    def _passes(self, effort: Effort) -> int:
        """The budget at some effort."""
        budget = self.budget or self.model.budget
        if budget is None:
            settings = settings_of(self.model.model, self.model.workers)
            budget = settings.get("budget", DEFAULT_BUDGET)
        return max(1, round(budget * _SHARES[effort]))

    @contextmanager
    def _stopped_in_time(self, handle: Handle[Event, Result]) -> Iterator[None]:
        """Ends the thinking at the deadline; the team still answers."""
        limits = [seconds for seconds in (self.deadline, self.model.timeout) if seconds]
        if not limits:
            yield
            return
        timer = threading.Timer(min(limits), handle.stop)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


@contextmanager
def _told_as_tool_errors() -> Iterator[None]:
    """Gives the agent what went wrong, in words."""
    try:
        yield
    except HogwildError as error:
        raise ToolException(f"The team could not work on this: {error}") from error


def _asked(problem: str, hints: list[str] | None) -> list[BaseMessage]:
    """The problem with what may help."""
    told = ["", "Hints:", *(f"- {hint}" for hint in hints)] if hints else []
    return [HumanMessage("\n".join([problem, *told]))]


def _progress(event: StepCommitted) -> dict[str, Any]:
    step = event.step
    return {"worker": step.worker, "index": step.index, "text": step.text, "passes": event.at}


def _outcome(result: Result) -> tuple[str, dict[str, Any]]:
    """The answer for the agent, and the record for whoever wants to look."""
    if result.finish_reason == "cancelled":
        raise ToolException("The team was interrupted: its engine was closed. Call it again.")
    answer = as_text(result.answer) or content_of(result)
    if not answer:
        answer = f"The team found no answer in {result.passes:,} forward passes."
    record = metadata_of(result, called=False)
    return answer, {"transcript": result.transcript(), "reply": result.reply, **record}
