"""From a question to the messages that a team receives."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.language_models.fake_chat_models import ParrotFakeChatModel
from langchain_core.messages import (
    AIMessage,
    AnyMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    convert_to_messages,
)
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import ConfigurableField
from pydantic import BaseModel, TypeAdapter

from hogwild_agents import HogwildError
from hogwild_agents.errors import InvalidAnswerFormatError, InvalidMessageError, InvalidTeamError
from hogwild_agents.langchain.runnables import CollaborationPrompt
from hogwild_agents.names import NAMES, worker_names
from hogwild_agents.team import Team
from hogwild_agents.team import prompts as texts
from hogwild_agents.team.answers import answer_format, choice
from hogwild_agents.team.steps import HISTORY_HEADER
from tests.unit.langchain.runnables.pieces import check_runs, check_ways
from tests.unit.team.scripted import tokenizer

words = st.text(min_size=1).filter(str.strip)
fields = st.fixed_dictionaries(
    {},
    optional={
        "workers": st.integers(1, 8) | st.lists(st.sampled_from(NAMES), min_size=1, unique=True),
        "style": st.sampled_from(["you", "we", "brief", "names"]),
        "examples": st.booleans(),
        "extra": st.text(),
        "layout": st.sampled_from(["combined", "interleaved", "contiguous", "mine"]),
        "answer": st.sampled_from(["boxed", "number", "choice", "json", "code"]),
    },
)


def told(workers: Any = 2, layout: str = "combined", answer: Any = "boxed", **prompt: Any) -> str:
    """What the floor below tells such a team."""
    instruction = answer_format(answer).instruction
    names = worker_names(workers)
    return texts.CollaborationPrompt(**prompt).system(names, layout=layout, answer=instruction)


def shown(given: Any, **fields: Any) -> list[tuple[str, Any]]:
    """The messages, as roles and contents."""
    made = CollaborationPrompt(**fields).invoke(given)
    return [(message.type, message.content) for message in made]


# What it gives.


@settings(deadline=None)
@given(words, fields)
def test_a_question_in_any_form(question: str, chosen: dict[str, Any]) -> None:
    """The system message is the team's own, and the question follows to the letter."""
    system = told(**chosen)
    expected = [("human", question)]
    if system.strip():
        expected.insert(0, ("system", system))
    prompt = CollaborationPrompt(**chosen)
    for form in (
        question,
        [question],
        HumanMessage(question),
        [("human", question)],
        [{"role": "user", "content": question}],
        ChatPromptTemplate([("human", "{q}")]).invoke({"q": question}),
        {"question": question},
        {"problem": [HumanMessage(question)]},
        {"problem": {"role": "user", "content": question}},
        {"messages": [("user", question)]},
    ):
        made = prompt.invoke(form)
        assert [(message.type, message.content) for message in made] == expected


@settings(deadline=None)
@given(words, fields, fields)
def test_fields_from_everywhere(question: str, some: dict[str, Any], more: dict[str, Any]) -> None:
    """Given at first, later, beside the question or for one call, they mean the same."""
    expected = shown(question, **(some | more))
    prompt = CollaborationPrompt(**some)
    assert prompt.partial(**more) == CollaborationPrompt(**(some | more))
    for made in (
        prompt.partial(**more).invoke(question),
        prompt.invoke({"question": question, **more}),
        prompt.bind(**more).invoke(question),
        prompt.invoke(question, **more),
    ):
        assert [(message.type, message.content) for message in made] == expected


def test_it_is_what_a_team_is_told() -> None:
    """The same ids as with the team's own prompt, so a chain and a model are asked the same."""
    prompt = CollaborationPrompt(workers=["Ada", "Emmy"], style="we", extra="Be kind.")
    team = Team(tokenizer("thinking"), workers=prompt.workers, prompt=prompt.as_team_prompt())
    system, human = prompt.invoke("How many?")
    ids = team.tokenizer.prompt(
        [{"role": "system", "content": system.content}, {"role": "user", "content": human.content}]
    )
    header = team.tokenizer.encode(HISTORY_HEADER + "\n\n")
    assert team.session("How many?").prompt == ids + header


def test_the_conversation_s_own_system_text_comes_after() -> None:
    """Wherever it stands, after a blank line; all else keeps its order and its object."""
    call = {"name": "add", "args": {"a": 1}, "id": "1"}
    rest = [
        HumanMessage("Hi.", id="7"),
        AIMessage("", tool_calls=[call]),
        ToolMessage("2", tool_call_id="1"),
        HumanMessage([{"type": "text", "text": "And now?"}]),
    ]
    given = [
        SystemMessage("Be brief."),
        *rest[:2],
        SystemMessage([{"type": "text", "text": "Be kind."}]),
    ]
    system, *others = CollaborationPrompt().invoke([*given, *rest[2:]])
    assert system.content == f"{told()}\n\nBe brief.\n\nBe kind."
    assert others == rest
    assert all(other is message for other, message in zip(others, rest, strict=True))


def test_its_own_part_is_marked() -> None:
    """So that a model can tell it from text that came from outside."""
    system, _ = CollaborationPrompt().invoke([("system", "Be brief."), ("human", "Hi.")])
    part = {"text": told(), "workers": ["Alice", "Bob"]}
    assert system.additional_kwargs == {"collaboration": part}
    assert system.content == told() + "\n\nBe brief."


def test_nothing_is_told_where_there_is_nothing_to_tell() -> None:
    """No empty system message."""
    assert shown("Hi.", workers=1, style="names") == [("human", "Hi.")]
    mine = [("system", "Mine."), ("human", "Hi.")]
    assert shown(mine, workers=1, style="names") == mine


def test_answers_as_a_final_answer_takes_them() -> None:
    """Also a pydantic class: the schema is part of what is asked for."""

    class Sum(BaseModel):
        total: int

    assert "one of A, B, C`" not in shown("Hi.", answer=choice("ABC"))[0][1]
    assert "with one of A, B, C" in shown("Hi.", answer=choice("ABC"))[0][1]
    assert '"total"' in shown("Hi.", answer=Sum)[0][1]


# How it is used.


def test_every_way_to_run_it() -> None:
    prompt = CollaborationPrompt(workers=3, style="brief")
    expected = prompt.invoke("Hi.")
    check_ways(prompt, "Hi.", expected)
    check_runs(prompt, "Hi.", "CollaborationPrompt", "prompt")
    assert repr(prompt) == "CollaborationPrompt(workers=3, style='brief')"
    assert eval(repr(prompt)) == prompt


def test_schemas() -> None:
    """It says what it takes and gives."""
    takes: Any = CollaborationPrompt().get_input_schema()
    for form in ("Hi.", [HumanMessage("Hi.")], {"question": "Hi.", "workers": 3}):
        takes.model_validate(form)
    made = CollaborationPrompt().invoke("Hi.")
    assert TypeAdapter(list[AnyMessage]).validate_python(made) == made
    gives: Any = CollaborationPrompt().get_output_schema()
    gives.model_validate(made)


def test_configurable() -> None:
    """Fields may be left open until a chain runs."""
    prompt = CollaborationPrompt().configurable_fields(
        workers=ConfigurableField(id="workers"), style=ConfigurableField(id="style")
    )
    config: Any = {"configurable": {"workers": ["Ada", "Emmy", "Sofia"], "style": "brief"}}
    for made in (prompt.invoke("Hi.", config), prompt.with_config(config).invoke("Hi.")):
        assert made[0].content == told(["Ada", "Emmy", "Sofia"], style="brief")
    assert prompt.invoke("Hi.")[0].content == told()
    with pytest.raises(InvalidTeamError, match="99 workers"):
        prompt.invoke("Hi.", {"configurable": {"workers": 99}})


def test_before_any_chat_model() -> None:
    """It goes with `|`, after a template and before a model."""
    template = ChatPromptTemplate([("system", "Be brief."), ("human", "{a} + {b}?")])
    chain = template | CollaborationPrompt() | ParrotFakeChatModel()
    assert chain.invoke({"a": 1, "b": 2}).text == "1 + 2?"
    assert (CollaborationPrompt() | ParrotFakeChatModel()).invoke("Hi.").text == "Hi."


def test_it_stays_as_it_is() -> None:
    """One prompt serves many chains at once."""
    prompt = CollaborationPrompt()
    with pytest.raises(ValueError, match="frozen"):
        prompt.workers = 3
    assert prompt.partial(workers=3).workers == 3
    assert prompt.workers == 2


# What it refuses.


@pytest.mark.parametrize(
    ("fields", "kind", "words"),
    [
        ({"workers": 0}, InvalidTeamError, "0 workers: choose 1 to 8"),
        ({"workers": True}, InvalidTeamError, "workers=True"),
        ({"workers": 2.5}, InvalidTeamError, "workers=2.5"),
        ({"workers": ["A", "a"]}, InvalidTeamError, "are alike"),
        ({"style": "loud"}, InvalidTeamError, "style='loud'"),
        ({"extra": 5}, InvalidTeamError, "extra=5"),
        ({"answer": "poem"}, InvalidAnswerFormatError, "'poem'"),
    ],
)
def test_fields_that_make_no_sense(
    fields: dict[str, Any], kind: type[HogwildError], words: str
) -> None:
    """At once, as below; also where they come with the question."""
    with pytest.raises(kind, match=words):
        CollaborationPrompt(**fields)
    with pytest.raises(kind, match=words):
        CollaborationPrompt().partial(**fields)
    with pytest.raises(kind, match=words):
        CollaborationPrompt().invoke({"question": "Hi.", **fields})
    assert issubclass(kind, HogwildError)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("", "The problem '' is empty: say what"),
        (" \n", "is empty: say what"),
        ([], "is empty: say what"),
        ([("system", ""), ("human", "")], "is empty: say what"),
        (None, "The problem None is no conversation: give a question"),
        (5, "The problem 5 is no conversation"),
        ([5], "is no conversation"),
        ([("poet", "Hi.")], "is no conversation"),
        ([{"role": "user"}], "is no conversation"),
        ({}, "holds 0 problems: give the problem under one of question, problem, messages"),
        ({"question": "Hi.", "messages": ["Hi."]}, "holds 2 problems"),
        ({"question": "Hi.", "worker": 3}, "the unknown key 'worker': .* only name, workers"),
    ],
)
def test_problems_that_are_none(given: Any, words: str) -> None:
    """The message names the value, and what would do."""
    with pytest.raises(InvalidMessageError, match=words):
        CollaborationPrompt().invoke(given)


def test_unknown_fields() -> None:
    with pytest.raises(TypeError, match="worker"):
        CollaborationPrompt(worker=3)  # type: ignore[call-arg]


def test_messages_are_left_alone() -> None:
    """What was given is not changed."""
    given = convert_to_messages([("system", "Be brief."), ("human", "Hi.")])
    before = [message.model_copy(deep=True) for message in given]
    CollaborationPrompt().invoke(given)
    assert given == before
