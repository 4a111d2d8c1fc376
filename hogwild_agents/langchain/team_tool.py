"""A team as a tool: an agent gives it a hard problem and gets the answer and the transcript."""

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
from hogwild_agents.langchain.call import RunningCall
from hogwild_agents.langchain.chat_models import ChatHogwild
from hogwild_agents.langchain.errors import AnswerTimeoutError
from hogwild_agents.langchain.responses import as_text, content_of, metadata_of
from hogwild_agents.registry import team_defaults
from hogwild_agents.team import Event, Result, StepCommitted
from hogwild_agents.team.config import DEFAULT_BUDGET

PROGRESS = "team_progress"
"""Name of the custom events that report finished steps."""

Effort = Literal["low", "medium", "high"]
_BUDGET_SHARES: dict[Effort, float] = {"low": 0.25, "medium": 1.0, "high": 4.0}

REPLY_SHARE = 0.5
"""The time that the reply may take, as a share of the deadline."""

MAX_PARTIAL_LENGTH = 2000
"""How many characters of unfinished work an agent is shown."""

_call_id: ContextVar[str | None] = ContextVar("_call_id", default=None)
"""Id of the running call; LangChain does not pass it to a tool's own code."""


class TeamProblem(BaseModel):
    """What the tool is called with."""

    problem: str = Field(description="The whole problem, with all that is needed to solve it.")
    hints: list[str] = Field(
        default_factory=list, description="What may help: facts, ideas, what has been tried."
    )
    effort: Effort = Field(default="medium", description="How long the team may think.")


class TeamTool(BaseTool):
    """Lets a team of workers solve one problem.

    The content of its message is the answer; the artifact holds the transcript and the session's
    figures. Each finished step is reported by a custom event `team_progress` with `worker`,
    `index`, `text` and `passes`, and in a LangGraph graph as `{"team_progress": ...}` through
    `stream_mode="custom"`.

    Faults are reported to the agent, not raised: the message has `status="error"`. The same holds
    if there is no answer in time; the content is then the team's partial result.

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
        with _remember_call_id(tool_call_id):
            return super().run(*args, tool_call_id=tool_call_id, **kwargs)

    async def arun(self, *args: Any, tool_call_id: str | None = None, **kwargs: Any) -> Any:
        """As `BaseTool.arun`."""
        with _remember_call_id(tool_call_id):
            return await super().arun(*args, tool_call_id=tool_call_id, **kwargs)

    def _run(
        self,
        problem: str,
        hints: list[str] | None = None,
        effort: Effort = "medium",
        run_manager: CallbackManagerForToolRun | None = None,
    ) -> tuple[Any, Any]:
        try:
            messages, budget = _messages(problem, hints), self._budget(effort)
            with self._limited(self.model.submit(messages, budget=budget)) as call:
                for event in call.events():
                    if isinstance(event, StepCommitted):
                        _write_to_graph(_progress(event))
                        if run_manager:
                            config: Any = {"callbacks": run_manager.get_child()}
                            dispatch_custom_event(PROGRESS, _progress(event), config=config)
                return _answer_and_record(call.result())
        except HogwildError as error:
            return self._failure(error)

    async def _arun(
        self,
        problem: str,
        hints: list[str] | None = None,
        effort: Effort = "medium",
        run_manager: AsyncCallbackManagerForToolRun | None = None,
    ) -> tuple[Any, Any]:
        try:
            messages, budget = _messages(problem, hints), self._budget(effort)
            with self._limited(await self.model.asubmit(messages, budget=budget)) as call:
                async for event in call.aevents():
                    if isinstance(event, StepCommitted):
                        _write_to_graph(_progress(event))
                        if run_manager:
                            config: Any = {"callbacks": run_manager.get_child()}
                            await adispatch_custom_event(PROGRESS, _progress(event), config=config)
                return _answer_and_record(await call.aresult())
        except HogwildError as error:
            return self._failure(error)

    def _budget(self, effort: Effort) -> int:
        """The forward passes of thinking at an effort."""
        budget = self.budget or self.model.budget
        if budget is None:
            settings = team_defaults(self.model.model, self.model.workers)
            budget = settings.get("budget", DEFAULT_BUDGET)
        return max(1, round(budget * _BUDGET_SHARES[effort]))

    def _limited(self, handle: Handle[Event, Result]) -> RunningCall:
        """A call that stops thinking at the deadline, and ends when the reply takes too long."""
        whole = self.deadline and self.deadline * (1 + REPLY_SHARE)
        limits = [seconds for seconds in (whole, self.model.timeout) if seconds]
        return RunningCall(handle, min(limits, default=None), thinking_timeout=self.deadline)

    def _failure(self, error: HogwildError) -> tuple[Any, Any]:
        """The message about a fault for the agent, and the record of the partial result.

        Raises:
            ToolException: There is no partial result, or the error is not to be handled here.
        """
        result: Result | None = getattr(error, "partial", None)
        late = isinstance(error, AnswerTimeoutError)
        if late and result is not None and result.answer is not None:
            return _answer_and_record(result)  # only the reply was missing
        text = _out_of_time(result) if late else f"The team could not work on this: {error}"
        call_id = _call_id.get()
        if result is None or call_id is None or self.handle_tool_error is not True:
            raise ToolException(text) from error
        record = _record(result)
        message = ToolMessage(text, artifact=record, name=self.name, tool_call_id=call_id)
        message.status = "error"
        return message, record


@contextmanager
def _remember_call_id(call_id: str | None) -> Iterator[None]:
    token = _call_id.set(call_id)
    try:
        yield
    finally:
        _call_id.reset(token)


def _write_to_graph(progress: dict[str, Any]) -> None:
    """Reports progress through LangGraph's stream, if the tool runs in a graph."""
    langgraph = sys.modules.get("langgraph.config")
    with suppress(LookupError, RuntimeError):  # LangGraph is loaded, but this is no graph
        if langgraph is not None:
            langgraph.get_stream_writer()({PROGRESS: progress})


def _messages(problem: str, hints: list[str] | None) -> list[BaseMessage]:
    """The problem with its hints."""
    lines = ["", "Hints:", *(f"- {hint}" for hint in hints)] if hints else []
    return [HumanMessage("\n".join([problem, *lines]))]


def _progress(event: StepCommitted) -> dict[str, Any]:
    step = event.step
    return {"worker": step.worker, "index": step.index, "text": step.text, "passes": event.at}


def _answer_and_record(result: Result) -> tuple[str, dict[str, Any]]:
    """The answer for the agent, and the artifact."""
    answer = as_text(result.answer) or content_of(result)
    if not answer:
        answer = f"The team found no answer in {result.passes:,} forward passes."
    return answer, _record(result)


def _record(result: Result) -> dict[str, Any]:
    metadata = metadata_of(result, called=False)
    return {"transcript": result.transcript(), "reply": result.reply, **metadata}


def _out_of_time(result: Result | None) -> str:
    """Says that there is no answer, and shows the end of the partial result."""
    text = "The team ran out of time and has no answer."
    if result is None:
        return text
    work = result.reply.strip() or result.transcript().strip()
    text += f" It thought for {result.passes:,} forward passes."
    if work:
        text += f" This is the end of its work:\n{work[-MAX_PARTIAL_LENGTH:]}"
    return text
