"""Chains as strategies: their costs are what their models report."""

from __future__ import annotations

import asyncio

from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda

from hogwild_agents import ChatHogwild, FinalAnswer
from hogwild_agents.evaluation import Chain, Problem, Setting
from hogwild_agents.evaluation.strategies import Outcome

PROBLEM = Problem("sum", "Solve these tasks.\n(a) 17 + 25", "42", "number")
BUDGETS = [4, 48, 256]


def ask(chain: Chain) -> Outcome:
    """The outcome on the problem."""
    return asyncio.run(chain.run(Setting(), PROBLEM, 0, BUDGETS))


def test_a_pipeline_around_a_team() -> None:
    """Its passes are counted though only the number of the answer comes out of it."""
    model = ChatHogwild(workers=2)
    outcome = ask(Chain(model | FinalAnswer("number"), "pipeline"))
    message = model.invoke(PROBLEM.question)
    passes = message.response_metadata["passes"] + message.response_metadata["reply_passes"]
    assert 4 < passes <= 256
    assert message.usage_metadata is not None
    results = outcome.by_budget
    assert [results[budget].passes for budget in BUDGETS] == [min(passes, b) for b in BUDGETS]
    assert results[4].answer is None
    assert results[256].answer == "42"
    assert results[256].tokens == message.usage_metadata["output_tokens"]
    assert outcome.workers == ("pipeline",)


def test_a_team_as_it_is() -> None:
    """Its message says the answer, which is not all of its text."""
    outcome = ask(Chain(ChatHogwild(workers=1)))
    assert outcome.by_budget[256].answer == "(a) 42"


def test_models_that_tell_of_no_passes() -> None:
    """They fit into every budget; of several, the tokens add up."""
    usage = {"input_tokens": 1, "output_tokens": 7, "total_tokens": 8}
    messages = [AIMessage("What?", usage_metadata=usage), AIMessage("42", usage_metadata=usage)]
    model = GenericFakeChatModel(messages=iter(messages))
    outcome = ask(Chain(model | (lambda message: message.text) | model))
    assert {result.answer for result in outcome.by_budget.values()} == {"42"}
    assert {result.passes for result in outcome.by_budget.values()} == {0}
    assert {result.tokens for result in outcome.by_budget.values()} == {14}


def test_no_answer_is_none() -> None:
    outcome = ask(Chain(RunnableLambda(lambda _: None)))
    assert {result.answer for result in outcome.by_budget.values()} == {None}
