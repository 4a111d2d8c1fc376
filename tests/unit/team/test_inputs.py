"""Bad input: each has a typed error that says what is wrong and what to do, before any work."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hogwild_agents.engine import Engine, SharedCacheModel
from hogwild_agents.errors import (
    ChatTemplateError,
    ContextLengthError,
    EngineClosedError,
    HogwildError,
    InvalidAnswerFormatError,
    InvalidInterruptError,
    InvalidJobError,
    InvalidMessageError,
    InvalidTeamError,
    InvalidTokensError,
    OutOfCacheMemoryError,
    SessionEndedError,
)
from hogwild_agents.team import RedundancyCheck, Session, Team
from tests.unit.engine.families import Family, build
from tests.unit.team import tokenizers as small
from tests.unit.team.scripted import TINY, Terse, tokenizer
from tests.unit.team.voices import WAIT, make, model


@pytest.fixture(autouse=True)
def no_work(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Every forward pass of any model; there must be none."""
    passes: list[Any] = []
    run = SharedCacheModel.run

    def noted(self: SharedCacheModel, rows: Any) -> Any:
        passes.append(rows)
        return run(self, rows)

    monkeypatch.setattr(SharedCacheModel, "run", noted)
    yield passes
    assert passes == []


@pytest.fixture
def engine() -> Iterator[Engine]:
    """An engine whose cache is empty before and after."""
    with Engine(model()) as engine:
        yield engine
    assert model().pool.used_pages == 0


def refused(error: type[HogwildError], words: list[str], action: Callable[[], Any]) -> None:
    """Asserts that `action` fails so, and that the message holds `words`, in this order."""
    with pytest.raises(error) as caught:
        action()
    assert type(caught.value) is error
    at = 0
    for word in words:
        assert word in str(caught.value)[at:], str(caught.value)
        at = str(caught.value).index(word, at) + len(word)


# A team.

WHOLE = "makes no sense: give a whole number of 1 or more"
NUMBERS = [0, -1, True, 2.0, "9", None, np.int64(5)]


@pytest.mark.parametrize("value", NUMBERS, ids=repr)
@pytest.mark.parametrize("name", ["budget", "reply_tokens"])
def test_numbers(name: str, value: Any) -> None:
    """Whole numbers of 1 or more; no bool, and no other type of number."""
    words = [f"{name}={value!r} ", WHOLE]
    refused(InvalidTeamError, words, lambda: Team(tokenizer(), **{name: value}))


@pytest.mark.parametrize(
    ("snapshots", "words"),
    [
        ([5, 0], ["snapshots[1]=0 ", WHOLE]),
        ([2, "9"], ["snapshots[1]='9' ", WHOLE]),
        (5, ["snapshots=5 is not a list", "such as [512, 1024]"]),
        ("512", ["snapshots='512' is not a list"]),
        ({5, 6}, ["snapshots={5, 6} is not a list"]),
        ([99, 101, 5], ["snapshot at 101 ", "budget of 100", "raise the budget or leave it out"]),
    ],
    ids=repr,
)
def test_snapshots(snapshots: Any, words: list[str]) -> None:
    """A list of budgets, none beyond the budget."""
    refused(InvalidTeamError, words, lambda: Team(tokenizer(), budget=100, snapshots=snapshots))


def test_snapshots_in_any_order() -> None:
    """They are sorted, each is taken once, and the budget itself may be one."""
    for given in ([100, 5, 5, 50], (100, 50, 5), range(50, 101, 50)):
        team = Team(tokenizer(), budget=100, snapshots=given)
        assert team.snapshots == tuple(sorted(set(given)))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"workers": 0}, InvalidTeamError, ["cannot have 0 workers", "1 to 8"]),
        ({"workers": ["Bob", "BOB"]}, InvalidTeamError, ["'Bob' and 'BOB' are alike"]),
        ({"workers": ["**Bob [3]:**", "A"]}, InvalidTeamError, ["'**Bob [3]:**'", "'*'", "only"]),
        ({"finisher": "none"}, InvalidTeamError, ["finisher 'none'", "'reply'", "'answer'"]),
        ({"prompt": "Be nice."}, InvalidTeamError, ["prompt='Be nice.'", "CollaborationPrompt"]),
        ({"sampling": {"top_k": 1}}, InvalidTeamError, ["sampling={'top_k': 1}", "SamplingParams"]),
        ({"answer": "essay"}, InvalidAnswerFormatError, ["'essay'", "boxed", "number", "code"]),
        ({"interrupts": [5]}, InvalidInterruptError, ["5 is not callable", "RedundancyCheck()"]),
        (
            {"interrupts": RedundancyCheck()},
            InvalidInterruptError,
            ["is not a list", "put it into"],
        ),
    ],
    ids=repr,
)
def test_teams(options: dict[str, Any], error: type[HogwildError], words: list[str]) -> None:
    """Each option has its error, which names the value. Names and layouts have their own tests."""
    refused(error, words, lambda: Team(tokenizer(), **options))


@pytest.mark.parametrize("given", ["gpt2", SimpleNamespace(encode=len)], ids=repr)
def test_what_is_no_tokenizer(given: Any) -> None:
    """A name must be loaded first."""
    words = [f"tokenizer={given!r:.80}", "PreTrainedTokenizerBase"]
    refused(InvalidTeamError, words, lambda: Team(given))


# A problem.


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        ("", ["''", "is empty", "say what"]),
        (" \n\t\u3000", ["is empty", "say what"]),
        ([], ["no message", "at least one of the role user"]),
        ([{"role": "user", "content": " "}], ["'content': ' '", "is empty"]),
        (None, ["of type NoneType", "give a text, or a list of messages"]),
        ({"role": "user", "content": "Hi."}, ["of type dict", "a list of messages"]),
        (iter([{"role": "user", "content": "Hi."}]), ["of type list_iterator"]),
        (b"Hi.", ["Message 0", "mapping"]),
        (["Hi."], ["Message 0", "mapping whose role", "user"]),
        ([{"role": "user", "content": "Hi."}, "So?"], ["Message 1", "mapping"]),
        ([{"content": "Hi."}], ["Message 0", "role None", "system, user, assistant, tool"]),
        ([{"role": "human", "content": "Hi."}], ["Message 0", "role 'human'", "user"]),
        ([{"role": ["user"], "content": "Hi."}], ["Message 0", "role ['user']"]),
        ([{"role": "user"}], ["Message 0 (user)", "NoneType", "give a str"]),
        ([{"role": "system", "content": ["Hi."]}], ["Message 0 (system)", "list"]),
        (
            [{"role": "system", "content": "Hi."}, {"role": "user", "content": b"Hi."}],
            ["Message 1 (user)", "bytes"],
        ),
    ],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_problems(workers: int, problem: Any, words: list[str]) -> None:
    """A text that is not empty, or messages; the error counts them as the user's list does."""
    team = make(tokenizer("thinking"), workers=workers)
    refused(InvalidMessageError, words, lambda: team.session(problem))


def test_problems_that_are_fine() -> None:
    """Any mapping is a message, and some messages may be empty if others are not."""
    team = make(tokenizer("thinking"))
    for problem in (
        [UserDict(role="user", content="Hi.")],
        ({"role": "user", "content": "Hi."},),
        [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": ""}],
    ):
        assert isinstance(team.session(problem), Session)


def test_a_problem_that_the_template_cannot_hold() -> None:
    """The template's own error is passed on."""
    team = make(tokenizer("thinking"))
    messages = [{"role": "assistant", "content": "Hi."}, {"role": "user", "content": "5?"}]
    template = "{{ raise_exception('one message only') if messages[1] else messages[0].content }}"
    picky = Team(small.byte_level(template), prompt=Terse())
    refused(
        ChatTemplateError,
        ["assistant, user", "one message only", "chat_template"],
        lambda: picky.session(messages),
    )
    assert isinstance(team.session(messages), Session)


# An engine.


def test_a_prompt_that_is_too_long(engine: Engine) -> None:
    """The figures say by how much, and what else needs room."""
    limit = model().max_length
    team = make(tokenizer(), budget=5)
    words = ["The prompt has ", " more than the ", f"{limit:,}", "Shorten it"]
    refused(ContextLengthError, words, lambda: engine.submit(team.session("x" * limit)))


@pytest.mark.parametrize("finisher", ["reply", "answer"])
def test_a_prompt_that_leaves_no_room(engine: Engine, finisher: Any) -> None:
    """Headers, first words and the answer need room too."""
    limit = model().max_length
    team = make(tokenizer(), budget=5, finisher=finisher)
    empty = len(team.session("x").prompt) - 1
    problem = "x" * (limit - empty - 40)
    words = [f"The prompt of {limit - 40:,} tokens is too long", f"limit is {limit:,}", "Shorten"]
    refused(ContextLengthError, words, lambda: engine.submit(team.session(problem)))


def test_more_than_the_cache_holds() -> None:
    """A session that could never run says what it needs and what there is."""
    tight = SharedCacheModel.from_pretrained(build(TINY), cache_bytes=128 * 1024, self_check=False)
    team = make(tokenizer(), workers=8, budget=4000)
    pages = f"{tight.pool.limit_pages:,}"
    words = ["may need ", " pages", pages, "Lower its budget", "cache_bytes"]
    with Engine(tight) as engine:
        refused(OutOfCacheMemoryError, words, lambda: engine.submit(team.session("Hi.")))


def test_the_tokenizer_of_another_model() -> None:
    """Its ids lie beyond the vocabulary."""
    fewer = Family("fewer", TINY.model_type, {**TINY.config, "vocab_size": 100})
    other = SharedCacheModel.from_pretrained(build(fewer), self_check=False)
    session = make(tokenizer()).session("Hi.")
    beyond = next(token for token in session.prompt if token >= 100)
    words = [f"The prompt has token id {beyond}", "0 to 99", "own tokenizer?"]
    with Engine(other) as engine:
        refused(InvalidTokensError, words, lambda: engine.submit(session))


def test_a_closed_engine() -> None:
    """The error says what to do."""
    engine = Engine(model())
    engine.close()
    session = make(tokenizer()).session("Hi.")
    refused(EngineClosedError, ["is closed", "make a new one"], lambda: engine.submit(session))


@pytest.mark.parametrize("message", ["", " \n", None, b"hm"], ids=repr)
def test_what_nobody_can_say(message: Any) -> None:
    """Only a text that is not empty is a note."""
    session = make(tokenizer()).session("Hi.")
    words = [f"Cannot say {message!r}", "a text that is not empty"]
    refused(InvalidMessageError, words, lambda: session.hear(message))


# While it runs, and after.


def test_a_session_runs_once(no_work: list[Any]) -> None:
    """A second submission is refused, during the run and after it, and changes nothing."""
    session = make(tokenizer(), budget=5, reply_tokens=1).session("Hi.")
    with Engine(model()) as engine:
        handle = engine.submit(session)
        words = ["submitted once", "make a new one"]
        refused(InvalidJobError, words, lambda: engine.submit(session))
        assert handle.result(WAIT).passes == 5
        refused(InvalidJobError, words, lambda: engine.submit(session))
    no_work.clear()


def test_what_is_said_too_late(no_work: list[Any]) -> None:
    """A handle refuses notes once its session has ended or was cancelled."""
    with Engine(model()) as engine:
        handles = [
            engine.submit(make(tokenizer(), budget=5, reply_tokens=1).session("Hi.")) for _ in "ab"
        ]
        handles[0].cancel()
        for handle in handles:
            handle.result(WAIT)
            words = ["has ended", "would not be read"]
            refused(SessionEndedError, words, partial(handle.say, "Hm."))
    no_work.clear()


def test_what_cannot_be_said_harms_nobody(no_work: list[Any]) -> None:
    """An invalid note is refused, and the session goes on."""
    with Engine(model()) as engine:
        handle = engine.submit(make(tokenizer(), budget=5, reply_tokens=1).session("Hi."))
        for message in ("", 3, None):
            refused(InvalidMessageError, ["Cannot say"], partial(handle.say, message))
        result = handle.result(WAIT)
    assert (result.finish_reason, result.history, result.unheard) == ("budget", (), ())
    no_work.clear()
