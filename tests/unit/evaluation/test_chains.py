"""Chains as strategies: what they use is what their models tell."""

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
    """What it comes to."""
    return asyncio.run(chain.run(Setting(), PROBLEM, 0, BUDGETS))


def test_a_pipeline_around_a_team() -> None:
    """Its passes are counted though only the number of the answer comes out of it."""
    model = ChatHogwild(workers=2)
    outcome = ask(Chain(model | FinalAnswer("number"), "pipeline"))
    told = model.invoke(PROBLEM.question)
    passes = told.response_metadata["passes"] + told.response_metadata["reply_passes"]
    assert 4 < passes <= 256
    assert told.usage_metadata is not None
    at = outcome.reached
    assert [at[budget].passes for budget in BUDGETS] == [min(passes, b) for b in BUDGETS]
    assert at[4].answer is None
    assert at[256].answer == "42"
    assert at[256].tokens == told.usage_metadata["output_tokens"]
    assert outcome.workers == ("pipeline",)


def test_a_team_as_it_is() -> None:
    """Its message says the answer, which is not all of its text."""
    outcome = ask(Chain(ChatHogwild(workers=1)))
    assert outcome.reached[256].answer == "(a) 42"


def test_models_that_tell_of_no_passes() -> None:
    """They fit into every budget; of several, the tokens add up."""
    usage = {"input_tokens": 1, "output_tokens": 7, "total_tokens": 8}
    said = [AIMessage("What?", usage_metadata=usage), AIMessage("42", usage_metadata=usage)]
    model = GenericFakeChatModel(messages=iter(said))
    outcome = ask(Chain(model | (lambda message: message.text) | model))
    assert {one.answer for one in outcome.reached.values()} == {"42"}
    assert {one.passes for one in outcome.reached.values()} == {0}
    assert {one.tokens for one in outcome.reached.values()} == {14}


def test_no_answer_is_none() -> None:
    assert {one.answer for one in ask(Chain(RunnableLambda(lambda _: None))).reached.values()} == {
        None
    }
