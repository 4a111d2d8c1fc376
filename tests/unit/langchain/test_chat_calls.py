"""One call of the chat model: its reply, thoughts, answer, figures, tools and limits."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from hogwild_agents.langchain.chat_models import ChatHogwild
from hogwild_agents.langchain.runnables import CollaborationPrompt, RedundancyCheck
from hogwild_agents.registry import get_tokenizer
from hogwild_agents.team import ReplyToken, Result
from tests.unit.constrained.schemas import ADD, fits
from tests.unit.langchain.requests import FORMAT, RAW, SCHEMA, add
from tests.unit.small_models import WAIT, chat, folder
from tests.unit.team.voices import FINISHER, Lines, voices

TASK = "Solve these tasks.\n(a) 17 + 25"


def hear(lines: Lines, question: Any = "2 + 2?", name: str = "qwen", **options: Any) -> AIMessage:
    """What comes of a call when workers and writer say `lines`."""
    given: dict[str, Any] = {"seed": 0, "interrupts": [], "budget": 12, "max_tokens": 12}
    with voices(get_tokenizer(folder(name)), lines) as engine:
        return chat(name, **given | options, engine=engine).invoke(question)


def ended(text: str, name: str = "qwen") -> list[int]:
    """A reply that its writer ends."""
    tokenizer = get_tokenizer(folder(name))
    return [*tokenizer.encode(text), min(tokenizer.ends)]


# What comes back.


def test_a_message() -> None:
    """The reply is the content, thoughts stand beside it, the answer in the metadata."""
    lines: Lines = {0: r"It is \boxed{4}." + "\n\n", 1: "Hm, so", 2: ended("Four it is.")}
    message = hear(lines, budget=50, max_tokens=50)
    assert message.content == message.text == "Four it is."
    thoughts = [block for block in message.content_blocks if block["type"] == "reasoning"]
    assert [thought["extras"]["worker"] for thought in thoughts] == ["Alice", "Bob"]
    assert thoughts[0]["reasoning"].startswith(r"It is \boxed{4}.")
    about = message.response_metadata
    assert about["answer"] == "4"
    assert (about["finish_reason"], about["thinking_ended"]) == ("stop", "answer")
    assert (about["model_name"], about["model_provider"]) == (folder(), "hogwild")
    assert (about["workers"], about["layout"]) == (["Alice", "Bob"], "combined")
    assert 0 < about["passes"] < 50
    assert {"waited", "prompted", "thought", "total"} == about["timings"].keys()
    assert json.loads(json.dumps(about)) == about


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_figures_add_up(workers: int) -> None:
    """Prompt, thoughts by worker, reply; what was in the cache already is told."""
    model = chat(workers=workers, prompt=None)
    messages = [model.invoke("How much is two and two, then? " * 4) for _ in range(2)]
    for message in messages:
        usage = message.usage_metadata
        assert usage is not None
        names = message.response_metadata["workers"]
        details: Any = usage["output_token_details"]
        assert usage["input_tokens"] + usage["output_tokens"] == usage["total_tokens"]
        assert details["reasoning"] == sum(details[name] for name in names)
        assert details["reasoning"] + details["reply"] == usage["output_tokens"]
        passes = message.response_metadata["passes"]
        assert details["reasoning"] == passes * workers
        assert details["reply"] == 8
    sent = chat(workers=workers).submit("How much is two and two, then? " * 4).result(WAIT)
    assert messages[0].usage_metadata is not None
    assert messages[0].usage_metadata["input_tokens"] == sent.prompt_tokens
    assert messages[1].usage_metadata is not None
    assert messages[1].usage_metadata["input_token_details"]["cache_read"] > 0


def test_one_worker_is_a_plain_chat_model() -> None:
    """No thinking, no words about a team: the prompt is the template's own."""
    model = chat(workers=1, prompt="default")
    message = model.invoke("2 + 2?")
    assert message.response_metadata["passes"] == 0
    assert [block["type"] for block in message.content_blocks] == ["text"]
    assert message.usage_metadata is not None
    count = model.get_num_tokens_from_messages([HumanMessage("2 + 2?")])
    assert message.usage_metadata["input_tokens"] == count


def test_one_worker_who_thinks() -> None:
    """With a model that has thoughts they are told from the reply."""
    mark = get_tokenizer(folder("thinker")).thinking_ids[1]
    thought = get_tokenizer(folder("thinker")).encode("Two and two.")
    message = hear(
        {0: [*thought, mark], 1: ended("Four.", "thinker")}, name="thinker", workers=1, budget=99
    )
    blocks: list[Any] = [*message.content_blocks]
    block, text = blocks
    assert (block["type"], text["type"]) == ("reasoning", "text")
    assert block["reasoning"].strip() == "Two and two."
    assert message.text.strip() == "Four."
    assert "think>" not in message.text
    assert message.response_metadata["thinking_ended"] == "ended"


def test_the_bare_answer() -> None:
    """With `finisher="answer"`: what was stated, or what the early finisher writes."""
    stated = hear({0: r"So \boxed{4}." + "\n\n"}, finisher="answer", budget=50)
    assert (stated.content, stated.response_metadata["reply_passes"]) == ("4", 0)
    asked = hear({FINISHER: "5}"}, finisher="answer")
    assert (asked.content, asked.response_metadata["answer"]) == ("5", "5")
    typed = hear({FINISHER: "5}"}, finisher="answer", answer="number")
    assert (typed.content, typed.response_metadata["answer"]) == ("5", 5)


def test_the_record_of_interrupts() -> None:
    """Every check that was asked, and how it was answered."""
    lines = {0: "Ok, so.\n\n yes, I do.", 1: "I go.\n\n no, I do not."}
    message = hear(lines, interrupts=[RedundancyCheck(every=1)], budget=30)
    record = message.response_metadata["interruptions"]
    assert {said["worker"]: said["answer"] for said in record} == {"Alice": True, "Bob": False}


def test_a_collaboration_prompt_of_its_own() -> None:
    """In front of the model, or as its option: the team reads the same."""
    prompt = CollaborationPrompt(style="brief", examples=False)
    before = prompt | chat(prompt=None)
    as_option = chat(prompt=prompt)
    one, two = before.invoke("2 + 2?"), as_option.invoke("2 + 2?")
    assert one.usage_metadata is not None
    assert two.usage_metadata is not None
    assert one.usage_metadata["input_tokens"] == two.usage_metadata["input_tokens"]
    bare = chat(prompt=None).invoke("2 + 2?").usage_metadata
    assert bare is not None
    assert bare["input_tokens"] < one.usage_metadata["input_tokens"] - 100


# Limits.


@pytest.mark.parametrize("limit", [1, 3, 7])
def test_max_tokens(limit: int) -> None:
    """Cut the reply, and not the thoughts; given once for all, or for one call."""
    for message in (chat(max_tokens=limit).invoke("Hi."), chat().invoke("Hi.", max_tokens=limit)):
        usage: Any = message.usage_metadata
        assert usage["output_token_details"]["reply"] == limit
        assert message.response_metadata["finish_reason"] == "length"
        assert message.response_metadata["passes"] == 6


@pytest.mark.parametrize("stop", [["END"], ["D m", "END"], ["no", "E"]], ids=repr)
def test_stop_strings(stop: list[str]) -> None:
    """End the reply before them wherever its tokens end; thoughts know nothing of them."""
    lines = {0: "END of it", 1: "no END", 2: "Yes ENtirely.END more"}
    expected = {"END": "Yes ENtirely.", "D m": "Yes ENtirely.", "no": "Yes "}[stop[0]]
    message = hear(lines, stop=stop, max_tokens=40)
    assert message.content == expected
    assert message.response_metadata["finish_reason"] == "stop"
    assert "END" in str(message.additional_kwargs)


def test_stop_strings_of_one_call() -> None:
    """Take the place of the model's own."""
    with voices(get_tokenizer(folder()), {2: "one two three"}) as engine:
        model = chat(engine=engine, seed=0, interrupts=[], max_tokens=40, stop=["two"])
        assert model.invoke("Hi.").content == "one "
        assert model.invoke("Hi.", stop=["three"]).content == "one two "
        assert model.bind(stop=["one"]).invoke("Hi.").content == ""
        assert model.invoke("Hi.", stop=[]).text.startswith("one two three")


@pytest.mark.parametrize("limits", [{"stop": ["cd"]}, {"max_tokens": 1}], ids=repr)
def test_limits_of_a_bare_answer(limits: dict[str, Any]) -> None:
    """Hold for that too, whoever has stated it."""
    message = hear({0: r"So \boxed{ab cd}." + "\n\n"}, finisher="answer", budget=50, **limits)
    assert "ab cd".startswith(message.text)
    assert message.text.strip() in ("ab", "a")


def test_nothing_of_the_prompt_is_echoed() -> None:
    """Neither question nor system text."""
    message = hear({2: ended("Four.")}, [SystemMessage("Be brief."), HumanMessage("2 + 2?")])
    assert message.content == "Four."


# Conversations.


def test_a_conversation() -> None:
    """All of it is read: a call, its result, blocks, an error, our own message of before."""
    earlier = hear({0: "Hm.", 2: ended("Four.")})
    call: Any = {"type": "tool_call", "name": "add", "args": {"a": 2}, "id": "call00001"}
    messages = [
        SystemMessage("Be brief."),
        HumanMessage([{"type": "text", "text": "2 + 2?"}]),
        earlier,
        HumanMessage("Sure?"),
        AIMessage("", tool_calls=[call]),
        ToolMessage("no such tool", tool_call_id="call00001", status="error"),
    ]
    model = chat()
    assert model.invoke(messages).usage_metadata
    counts = [model.get_num_tokens_from_messages(messages[:n]) for n in range(2, 7)]
    assert counts == sorted({*counts})


def test_in_a_chain() -> None:
    """Between a prompt and a parser."""
    prompt = ChatPromptTemplate.from_messages([("system", "Be brief."), ("human", "{question}")])
    chain = prompt | chat() | StrOutputParser()
    assert chain.invoke({"question": "2 + 2?"}) == "".join(chain.stream({"question": "2 + 2?"}))


# Tools.


MODELS = ["qwen", "llama", "thinker", "bare", "mistral", "deepseek", "xml"]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("limit", [1, 60])
def test_a_call_that_must_be(name: str, workers: int, limit: int) -> None:
    """Is whole and fits, even of a model without a mind, and however little it may write."""
    model = chat(name, workers=workers, max_tokens=limit, temperature=1.0)
    for seed in range(4):
        message = model.bind_tools([RAW, add], tool_choice="any").invoke("2 + 2?", seed=seed)
        assert message.invalid_tool_calls == []
        assert message.tool_calls
        assert message.text.strip() == ""
        for call in message.tool_calls:
            if call["name"] == "power":
                assert fits(call["args"], ADD)
            else:
                add.invoke(call)
        assert message.response_metadata["finish_reason"] == "tool_calls"
        assert len({call["id"] for call in message.tool_calls}) == len(message.tool_calls)
        usage: Any = message.usage_metadata
        assert usage["output_tokens"] == sum(
            usage["output_token_details"][part] for part in ("reasoning", "reply")
        )


def test_choices() -> None:
    """A name, one call at most, none, or what the model likes."""
    model = chat(max_tokens=40, temperature=1.0)
    for seed in range(4):
        named = model.bind_tools([RAW, add], tool_choice="power").invoke("Hi.", seed=seed)
        assert [call["name"] for call in named.tool_calls] == ["power"]
        one = model.bind_tools([add], tool_choice="any", parallel_tool_calls=False)
        assert len(one.invoke("Hi.", seed=seed).tool_calls) == 1
        none = model.bind_tools([add], tool_choice="none").invoke("Hi.", seed=seed)
        assert none.tool_calls == []
        free = model.bind_tools([add]).invoke("Hi.", seed=seed)
        assert free.invalid_tool_calls == []


def test_no_choice_is_as_without_tools() -> None:
    """Where none may be called the model does not hear of tools."""
    bound = chat().bind_tools([add], tool_choice="none").invoke("Hi.")
    assert bound.content == chat().invoke("Hi.").content


def test_stop_strings_end_no_call() -> None:
    """A form must be whole; free text before it ends there."""
    model = chat(stop=["}", '"', "name", "a"], max_tokens=30)
    with pytest.warns(UserWarning, match="stop=.* does nothing here"):
        message = model.bind_tools([RAW], tool_choice="any").invoke("2 + 2?")
    assert message.invalid_tool_calls == []
    assert fits(message.tool_calls[0]["args"], ADD)
    with pytest.warns(UserWarning, match="stop=.* does nothing here"):
        assert json.loads(model.invoke("2 + 2?", response_format=FORMAT).text) is not None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.bind_tools([RAW]).invoke("2 + 2?") is not None


def test_a_call_that_is_cut() -> None:
    """Where no end is near: the reason is `length`, whole and in pieces."""
    far = {"type": "array", "items": {"type": "integer"}, "minItems": 400}
    tool = {"title": "Far", "type": "object", "properties": {"s": far}, "required": ["s"]}
    bound = chat(workers=1, max_tokens=30).bind_tools([tool], tool_choice="any")
    message = bound.invoke("Much!")
    assert (message.tool_calls, len(message.invalid_tool_calls)) == ([], 1)
    assert message.response_metadata["finish_reason"] == "length"
    assert [*bound.stream("Much!")][-1].response_metadata["finish_reason"] == "length"


@pytest.mark.parametrize("name", MODELS)
def test_a_call_and_its_result_in_a_conversation(name: str) -> None:
    """What a model has called before, it reads in the form in which it calls."""
    model = chat(name, workers=1, temperature=1.0, seed=1)
    asked = [HumanMessage("2 + 2?")]
    called = model.bind_tools([add], tool_choice="any", parallel_tool_calls=False).invoke(asked)
    (call,) = called.tool_calls
    after = [*asked, called, add.invoke(call)]
    assert model.invoke(after).content is not None
    counts = [model.get_num_tokens_from_messages(after[:n]) for n in (1, 2, 3)]
    assert counts == sorted({*counts})


@pytest.mark.parametrize("name", MODELS)
def test_tools_reach_the_prompt(name: str) -> None:
    """By the template, or spelled out where it knows none; and so do calls and results."""
    model = chat(name)
    plain = model.get_num_tokens_from_messages([HumanMessage("Hi.")])
    assert model.get_num_tokens_from_messages([HumanMessage("Hi.")], [RAW]) > plain + 30
    seen = model.bind_tools([RAW]).invoke("Hi.").usage_metadata
    unseen = model.invoke("Hi.").usage_metadata
    assert seen is not None
    assert unseen is not None
    assert seen["input_tokens"] > unseen["input_tokens"] + 30


def test_thinking_before_a_call_is_free() -> None:
    """What the workers think is not kept to the form."""
    model = chat()
    free = model.invoke("Hi.", tools=[RAW])
    forced = model.invoke("Hi.", tools=[RAW], tool_choice="any")
    assert forced.additional_kwargs == free.additional_kwargs


@pytest.mark.parametrize("workers", [1, 2])
def test_json_beside_tools(workers: int) -> None:
    """As agents ask for it: a call, or JSON that fits."""
    model = chat(workers=workers, max_tokens=20, temperature=1.0)
    for seed in range(6):
        message = model.invoke("Hi.", tools=[RAW], response_format=FORMAT, seed=seed)
        if message.tool_calls:
            assert fits(message.tool_calls[0]["args"], ADD)
        else:
            assert fits(json.loads(message.text), SCHEMA)


# More than a message.


def test_the_session_behind_a_call() -> None:
    """Its events, notes to the team, and the whole record."""
    with chat(budget=500).submit("2 + 2?") as handle:
        handle.say("Please hurry.")
        handle.stop()
        events = list(handle)
        result: Result = handle.result(WAIT)
    assert result.finish_reason in ("stopped", "budget")
    assert "".join(e.text for e in events if isinstance(e, ReplyToken)) == result.reply


async def test_the_session_behind_a_call_later() -> None:
    """Without blocking the event loop."""
    async with await chat().asubmit("2 + 2?", budget=3) as handle:
        result = await handle
    assert result.passes == 3


def test_the_pocket_model_solves_a_task() -> None:
    """Without any argument."""
    message = ChatHogwild().invoke(TASK)
    assert "42" in message.text
    assert message.response_metadata["answer"] == message.text
