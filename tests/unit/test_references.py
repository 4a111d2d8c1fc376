"""Options and errors: what the code says of them and what docs/langchain.md says is the same."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from langchain_core import exceptions
from langchain_core.language_models import BaseChatModel
from langchain_core.tools import BaseTool

from hogwild_agents import ChatHogwild, TeamTool
from hogwild_agents.errors import HogwildError
from hogwild_agents.langchain import errors
from hogwild_agents.pocket import team_settings
from hogwild_agents.team.config import DEFAULT_BUDGET, DEFAULT_SAMPLING

DOCS = (Path(__file__).parents[2] / "docs" / "langchain.md").read_text()


def rows(after: str) -> list[list[str]]:
    """The cells of the first table after some words."""
    table = re.search(r"^\|---.*\n((?:\|.*\n)+)", DOCS.partition(after)[2], re.M)
    assert table is not None
    return [[cell.strip() for cell in row[1:-1].split("|")] for row in table[1].splitlines()]


@pytest.mark.parametrize(
    ("kind", "base", "after"),
    [(ChatHogwild, BaseChatModel, "## Options"), (TeamTool, BaseTool, "Of `TeamTool`")],
    ids=["ChatHogwild", "TeamTool"],
)
def test_options(kind: Any, base: Any, after: str) -> None:
    """All of them, in order, with their defaults and words."""
    fields = {n: f for n, f in kind.model_fields.items() if n not in base.model_fields}
    listed = rows(after)
    assert sorted(name for name, *_ in listed) == sorted(f"`{name}`" for name in fields)
    for name, type_, default, told in listed:
        field = fields[name.strip("`")]
        made = field.default_factory is not None
        assert default == ("" if made else f"`{field.default!r}`".replace("'", '"'))
        assert type_
        assert field.description
        assert told == " ".join(field.description.split())


def test_figures_of_defaults() -> None:
    """Are those that hold."""
    told = {name: field.description or "" for name, field in ChatHogwild.model_fields.items()}
    pocket = team_settings()
    assert f"{DEFAULT_BUDGET:,}" in told["budget"]
    assert f"{pocket['budget']:,}" in told["budget"]
    assert "1,024" in told["max_tokens"]
    assert f"{DEFAULT_SAMPLING.temperature}, and 0 for" in told["temperature"]
    assert pocket["sampling"].temperature == 0
    assert f"{DEFAULT_SAMPLING.top_p} if not" in told["top_p"]
    assert f"{DEFAULT_SAMPLING.top_k} if not" in told["top_k"]
    assert DEFAULT_SAMPLING.min_p == 0
    assert pocket["finisher"] == "answer"


def test_errors() -> None:
    """All of them, with LangChain's class and no other."""
    ours = {
        name
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, HogwildError) and kind.__module__ == errors.__name__
    }
    listed = rows("## Errors")
    assert {name.strip("`") for name, *_ in listed} == ours
    for name, theirs, _ in listed:
        kind = getattr(errors, name.strip("`"))
        assert kind.__bases__[1] is getattr(exceptions, theirs.strip("`"))


def test_the_example_of_the_docstring(capsys: pytest.CaptureFixture[str]) -> None:
    """Runs as it is shown."""
    shown = (inspect.getdoc(ChatHogwild) or "").partition("Example:\n")[2]
    exec(inspect.cleandoc(shown), {})
    assert capsys.readouterr().out.strip() == "(a) 7600, (b) korin"
