"""A team as a tool: an agent hands it a hard problem, and gets the answer and the transcript."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, Literal

from langchain_core.callbacks import (
    AsyncCallbackManagerForToolRun,
    CallbackManagerForToolRun,
    adispatch_custom_event,
    dispatch_custom_event,
)
from langchain_core.messages import BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import ArgsSchema, BaseTool, ToolException
from pydantic import BaseModel, ConfigDict, Field

from hogwild_agents.engine import Handle
from hogwild_agents.errors import HogwildError
from hogwild_agents.langchain.call import Run
from hogwild_agents.langchain.chat_models import ChatHogwild
from hogwild_agents.langchain.errors import AnswerTimeoutError
from hogwild_agents.langchain.responses import Shape, as_text, content_of, metadata_of
from hogwild_agents.registry import team_defaults
from hogwild_agents.team import Event, Result, StepCommitted
from hogwild_agents.team.config import DEFAULT_BUDGET

PROGRESS = "team_progress"
"""The name of the custom events that tell of finished steps."""

Effort = Literal["low", "medium", "high"]
_SHARES: dict[Effort, float] = {"low": 0.25, "medium": 1.0, "high": 4.0}
"""Shares of the budget."""

REPLY_SHARE = 0.5
"""The time that a reply may take, as a share of the deadline."""

REACHED = 2000
"""The most letters of unfinished work that an agent is told."""

_PLAIN = Shape(None, True, str, {})
_call_id: ContextVar[str | None] = ContextVar("_call_id", default=None)
"""Of the call that runs; a tool is not told."""


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
    `worker`, `index`, `text` and `passes`, and in a graph of LangGraph's `{"team_progress": ...}`
    through `stream_mode="custom"`.

    What goes wrong is told to the agent, not raised: the message has `status="error"`. So it has if
    there is no answer in time. Its content then says what the team had reached.

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
    """The team; any number of calls may run at the same time. Its `timeout`, if it has one, ends a
    call in any case."""
    budget: int | None = Field(default=None, ge=1)
    """Forward passes of thinking at medium effort, of which low effort takes a quarter and high
    effort four times as many; if not given the model's."""
    deadline: float | None = Field(default=None, gt=0)
    """Seconds of thinking, after which the team answers with what it has; the reply may take half
    as long again. The loading of the model does not count."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    def run(self, *args: Any, tool_call_id: str | None = None, **kwargs: Any) -> Any:
        """As `BaseTool.run`."""
        with _called(tool_call_id):
            return super().run(*args, tool_call_id=tool_call_id, **kwargs)

    async def arun(self, *args: Any, tool_call_id: str | None = None, **kwargs: Any) -> Any:
        """As `BaseTool.arun`."""
        with _called(tool_call_id):
            return await super().arun(*args, tool_call_id=tool_call_id, **kwargs)

    def _run(
        self,
        problem: str,
        hints: list[str] | None = None,
        effort: Effort = "medium",
        run_manager: CallbackManagerForToolRun | None = None,
    ) -> tuple[Any, Any]:
        try:
            handle = self.model.submit(_asked(problem, hints), budget=self._passes(effort))
            with self._in_time(handle) as run:
                for event in run.events():
                    if isinstance(event, StepCommitted):
                        _write(_progress(event))
                        if run_manager:
                            config: Any = {"callbacks": run_manager.get_child()}
                            dispatch_custom_event(PROGRESS, _progress(event), config=config)
                return _outcome(run.result())
        except HogwildError as error:
            return self._failed(error)

    async def _arun(
        self,
        problem: str,
        hints: list[str] | None = None,
        effort: Effort = "medium",
        run_manager: AsyncCallbackManagerForToolRun | None = None,
    ) -> tuple[Any, Any]:
        try:
            asked, passes = _asked(problem, hints), self._passes(effort)
            with self._in_time(await self.model.asubmit(asked, budget=passes)) as run:
                async for event in run.aevents():
                    if isinstance(event, StepCommitted):
                        _write(_progress(event))
                        if run_manager:
                            config: Any = {"callbacks": run_manager.get_child()}
                            await adispatch_custom_event(PROGRESS, _progress(event), config=config)
                return _outcome(await run.aresult())
        except HogwildError as error:
            return self._failed(error)

    def _passes(self, effort: Effort) -> int:
        """The budget at some effort."""
        budget = self.budget or self.model.budget
        if budget is None:
            settings = team_defaults(self.model.model, self.model.workers)
            budget = settings.get("budget", DEFAULT_BUDGET)
        return max(1, round(budget * _SHARES[effort]))

    def _in_time(self, handle: Handle[Event, Result]) -> Run:
        """A run that stops thinking at the deadline, and is over when the reply takes too long."""
        whole = self.deadline and self.deadline * (1 + REPLY_SHARE)
        limits = [seconds for seconds in (whole, self.model.timeout) if seconds]
        return Run(handle, min(limits, default=None), _PLAIN, thinking=self.deadline)

    def _failed(self, error: HogwildError) -> tuple[Any, Any]:
        """Tells the agent what went wrong, with the record of what was reached.

        Raises:
            ToolException: There is no message to put it in, or somebody else is to handle it.
        """
        reached: Result | None = getattr(error, "partial", None)
        late = isinstance(error, AnswerTimeoutError)
        if late and reached is not None and reached.answer is not None:
            return _outcome(reached)  # only the reply was not done
        words = _too_late(reached) if late else f"The team could not work on this: {error}"
        call_id = _call_id.get()
        if reached is None or call_id is None or self.handle_tool_error is not True:
            raise ToolException(words) from error
        record = _record(reached)
        told = ToolMessage(words, artifact=record, name=self.name, tool_call_id=call_id)
        told.status = "error"
        return told, record


@contextmanager
def _called(call_id: str | None) -> Iterator[None]:
    token = _call_id.set(call_id)
    try:
        yield
    finally:
        _call_id.reset(token)


def _write(progress: dict[str, Any]) -> None:
    """Through LangGraph's stream, if the tool runs in a graph."""
    langgraph = sys.modules.get("langgraph.config")
    with suppress(LookupError, RuntimeError):  # there is a graph somewhere, but not around this
        if langgraph is not None:
            langgraph.get_stream_writer()({PROGRESS: progress})


def _asked(problem: str, hints: list[str] | None) -> list[BaseMessage]:
    """The problem with what may help."""
    told = ["", "Hints:", *(f"- {hint}" for hint in hints)] if hints else []
    return [HumanMessage("\n".join([problem, *told]))]


def _progress(event: StepCommitted) -> dict[str, Any]:
    step = event.step
    return {"worker": step.worker, "index": step.index, "text": step.text, "passes": event.at}


def _outcome(result: Result) -> tuple[str, dict[str, Any]]:
    """The answer for the agent, and the record for whoever wants to look."""
    answer = as_text(result.answer) or content_of(result)
    if not answer:
        answer = f"The team found no answer in {result.passes:,} forward passes."
    return answer, _record(result)


def _record(result: Result) -> dict[str, Any]:
    about = metadata_of(result, called=False)
    return {"transcript": result.transcript(), "reply": result.reply, **about}


def _too_late(reached: Result | None) -> str:
    """That there is no answer, and how far the team came."""
    told = "The team ran out of time and has no answer."
    if reached is None:
        return told
    so_far = reached.reply.strip() or reached.transcript().strip()
    told += f" It thought for {reached.passes:,} forward passes."
    return f"{told} What it had reached ends so:\n{so_far[-REACHED:]}" if so_far else told
