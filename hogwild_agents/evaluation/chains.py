"""Any LangChain runnable as a strategy: a model, a pipeline, an agent."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.outputs import LLMResult
from langchain_core.runnables import Runnable

from hogwild_agents.evaluation.problems import Problem
from hogwild_agents.evaluation.sessions import Reached, Setting
from hogwild_agents.evaluation.strategies import Outcome


@dataclass(frozen=True, slots=True)
class Chain:
    """A runnable from a question to an answer.

    What models inside of it use is counted as they tell it: `ChatHogwild` its forward passes, and
    any model its tokens. A runnable that tells of no passes has none, and fits into every budget.

    Attributes:
        runnable: What is asked.
        label: Its name in reports.
    """

    runnable: Runnable[Any, Any]
    label: str = "chain"

    @property
    def name(self) -> str:
        """Its label."""
        return self.label

    def check(self, setting: Setting) -> None:
        """See `Strategy`: it has a model of its own."""

    async def run(
        self,
        setting: Setting,  # noqa: ARG002  it has a model of its own
        problem: Problem,
        seed: int,  # noqa: ARG002  and its own sampling
        budgets: Sequence[int],
    ) -> Outcome:
        """See `Strategy`. It is asked once; budgets that it exceeds get no answer."""
        used = _Used()
        loop = asyncio.get_running_loop()
        begun = loop.time()
        said = await self.runnable.ainvoke(problem.question, {"callbacks": [used]})
        seconds = loop.time() - begun
        reply = str(getattr(said, "text", said))
        stated = getattr(said, "response_metadata", {}).get("answer")
        answer = None if said is None else reply if stated is None else str(stated)
        reached = {}
        for budget in budgets:
            fits = used.passes <= budget
            passes = min(used.passes, budget)
            reached[budget] = Reached(answer if fits else None, passes, used.tokens, seconds)
        return Outcome(reached, (self.label,), reply=reply)


class _Used(BaseCallbackHandler):
    """Adds up what all models of a run say that they used."""

    def __init__(self) -> None:
        self.passes = self.tokens = 0

    def on_llm_end(self, response: LLMResult, **_: Any) -> None:
        """Looks at the messages of one model's answer."""
        for generation in (one for several in response.generations for one in several):
            message = getattr(generation, "message", None)
            told = getattr(message, "response_metadata", {})
            self.passes += int(told.get("passes") or 0) + int(told.get("reply_passes") or 0)
            self.tokens += int(
                (getattr(message, "usage_metadata", None) or {}).get("output_tokens", 0)
            )
