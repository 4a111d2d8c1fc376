"""The pages that are written from the code say everything that the code has."""

from __future__ import annotations

import inspect
from pathlib import Path
from runpy import run_path
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

FILLERS = run_path(str(Path(__file__).parents[2] / "docs" / "hooks.py"))["FILLERS"]
"""Functions by name, each of which writes a part of a page."""


def rows(table: str) -> list[list[str]]:
    """The cells of a table without its head."""
    return [[cell.strip() for cell in row[1:-1].split(" | ")] for row in table.splitlines()[2:]]


@pytest.mark.parametrize(
    ("kind", "base", "table"),
    [
        (ChatHogwild, BaseChatModel, "chat_model_options"),
        (TeamTool, BaseTool, "team_tool_options"),
    ],
    ids=["ChatHogwild", "TeamTool"],
)
def test_options(kind: Any, base: Any, table: str) -> None:
    """Each has its type, its default and a description."""
    listed = rows(FILLERS[table]())
    assert [name.strip("`") for name, *_ in listed] == [
        name for name in kind.model_fields if name not in base.model_fields
    ]
    for name, annotation, default, meaning in listed:
        field = kind.model_fields[name.strip("`")]
        assert annotation
        assert default == ("" if field.default_factory else f"`{field.default!r}`")
        assert meaning == " ".join((field.description or "").split())
        assert meaning


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
    """All of them, each with the error of LangChain that it is."""
    ours = {
        name
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, HogwildError) and kind.__module__ == errors.__name__
    }
    listed = rows(FILLERS["langchain_errors"]())
    assert {name.strip("`") for name, *_ in listed} == ours
    for name, theirs, meaning in listed:
        kind = getattr(errors, name.strip("`"))
        assert issubclass(kind, getattr(exceptions, theirs.strip("`")))
        assert meaning


def test_the_command_line() -> None:
    """Every command and its options."""
    page = FILLERS["command_line"]()
    for command in ("solve", "chat", "check", "bench", "eval"):
        assert f"## `hogwild {command}`" in page
    assert "--interrupt-every" in page


def test_the_example_of_the_docstring(capsys: pytest.CaptureFixture[str]) -> None:
    """Runs as it is shown."""
    shown = (inspect.getdoc(ChatHogwild) or "").partition("Example:\n")[2]
    exec(inspect.cleandoc(shown), {})
    assert capsys.readouterr().out.strip() == "(a) 7600, (b) korin"
