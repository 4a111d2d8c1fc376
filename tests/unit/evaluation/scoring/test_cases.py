"""LiveCodeBench's tests, and pickles that want to do more than hold them."""

from __future__ import annotations

import base64
import collections
import json
import os
import pickle
import subprocess
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hogwild_agents.errors import BadTestsError
from hogwild_agents.evaluation.scoring.cases import Case, read_cases, unpickle
from tests.unit.evaluation.scoring.marking import cases_of


def packed(value: Any, protocol: int = 4) -> str:
    """As LiveCodeBench packs private tests."""
    return base64.b64encode(zlib.compress(pickle.dumps(value, protocol))).decode()


BOTH = [Case("1\n", "2\n", calls_function=False), Case("3", "4", calls_function=False)]


@pytest.mark.parametrize("protocol", range(6))
def test_packed_tests_are_read(protocol: int) -> None:
    text = cases_of(("1\n", "2\n"), ("3", "4"))
    assert read_cases(text) == BOTH
    assert read_cases(packed(text, protocol)) == BOTH
    assert read_cases(packed(json.loads(text), protocol)) == BOTH


def test_functional_tests_and_none() -> None:
    assert read_cases(cases_of(("[1]", "2"), kind="functional")) == [
        Case("[1]", "2", calls_function=True)
    ]
    assert read_cases("") == read_cases("[]") == []


class Calls:
    """When it is unpickled, a function is called."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "what",
    [
        lambda file: Calls(os.system, f"touch {file}"),
        lambda file: Calls(eval, f"open({str(file)!r}, 'w')"),
        lambda file: Calls(subprocess.run, ["touch", str(file)]),
        lambda file: Calls(open, str(file), "w"),
        lambda file: [Calls(os.system, f"touch {file}")],
        lambda file: Path(file),
        lambda _: collections.OrderedDict(a=1),
    ],
)
def test_a_pickle_cannot_call_anything(what: Any, protocol: int, tmp_path: Path) -> None:
    file = tmp_path / "made"
    data = pickle.dumps(what(file), protocol)
    with pytest.raises(BadTestsError, match="plain values"):
        unpickle(data)
    with pytest.raises(BadTestsError):
        read_cases(base64.b64encode(zlib.compress(data)).decode())
    assert not file.exists()


def test_the_same_pickle_would_have_done_it(tmp_path: Path) -> None:
    """Or else the test above would show nothing."""
    pickle.loads(pickle.dumps(Calls(open, str(tmp_path / "made"), "w")))
    assert (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "text",
    [
        "no base64!",
        base64.b64encode(b"no zlib").decode(),
        base64.b64encode(zlib.compress(b"no pickle")).decode(),
        packed("x")[:-8],
        packed("no JSON"),
        packed(7),
        '{"input": "1"}',
        '[{"input": "1", "output": "2"}]',
        '[{"input": 1, "output": 2, "testtype": "stdin"}]',
        '[{"input": "1", "output": "2", "testtype": "network"}]',
        "[7]",
        "[",
        "[" * 100_000,
    ],
)
def test_tests_in_another_form_are_refused(text: str) -> None:
    with pytest.raises(BadTestsError):
        read_cases(text)


def test_what_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = packed("a" * 10**6)
    monkeypatch.setattr("hogwild_agents.evaluation.scoring.cases.MAX_BYTES", 10**5)
    with pytest.raises(BadTestsError, match="unpack to more"):
        read_cases(bomb)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.binary(max_size=60))
def test_broken_pickles_raise_nothing_else(data: bytes) -> None:
    try:
        unpickle(data)
    except BadTestsError:
        return
