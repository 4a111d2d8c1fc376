"""Any LangChain runnable as a strategy: a model, a pipeline, an agent."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.outputs import LLMResult
from langchain_core.runnables import Runnable

from hogwild_agents.evaluation.problems import Problem
from hogwild_agents.evaluation.sessions import BudgetResult, Setting
from hogwild_agents.evaluation.strategies.base import Outcome


@dataclass(frozen=True, slots=True)
class Chain:
    """A runnable that turns a question into an answer.

    Costs are what the models inside report: `ChatHogwild` its forward passes, and any model its
    tokens. A runnable that reports no passes counts as 0 passes and fits every budget.

    Attributes:
        runnable: Is invoked with the question.
        label: Name in reports.
    """

    runnable: Runnable[Any, Any]
    label: str = "chain"

    @property
    def name(self) -> str:
        """The label."""
        return self.label

    def check(self, setting: Setting) -> None:
        """See `Strategy`. There is nothing to check: the runnable has its own model."""

    async def run(
        self,
        setting: Setting,  # noqa: ARG002  the runnable has its own model
        problem: Problem,
        seed: int,  # noqa: ARG002  and its own sampling
        budgets: Sequence[int],
    ) -> Outcome:
        """See `Strategy`. The runnable runs once; budgets that it exceeds get no answer."""
        usage = _UsageCounter()
        loop = asyncio.get_running_loop()
        start = loop.time()
        output = await self.runnable.ainvoke(problem.question, {"callbacks": [usage]})
        seconds = loop.time() - start
        reply = str(getattr(output, "text", output))
        extracted = getattr(output, "response_metadata", {}).get("answer")
        answer = None if output is None else reply if extracted is None else str(extracted)
        by_budget = {}
        for budget in budgets:
            fits = usage.passes <= budget
            passes = min(usage.passes, budget)
            by_budget[budget] = BudgetResult(
                answer if fits else None, passes, usage.tokens, seconds
            )
        return Outcome(by_budget, (self.label,), reply=reply)


class _UsageCounter(BaseCallbackHandler):
    """Adds up the usage that all models of a run report."""

    def __init__(self) -> None:
        self.passes = self.tokens = 0

    def on_llm_end(self, response: LLMResult, **_: Any) -> None:
        """Adds the usage of one model call."""
        for generation in itertools.chain.from_iterable(response.generations):
            message = getattr(generation, "message", None)
            metadata = getattr(message, "response_metadata", {})
            usage = getattr(message, "usage_metadata", None) or {}
            self.passes += int(metadata.get("passes") or 0) + int(metadata.get("reply_passes") or 0)
            self.tokens += int(usage.get("output_tokens", 0))
