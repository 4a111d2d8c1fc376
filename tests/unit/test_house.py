"""The rules of the house that a machine can check."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import hogwild_agents

ROOT = Path(hogwild_agents.__file__).parent


def imported(file: Path) -> set[str]:
    """Names of the modules that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("file", sorted((ROOT / "engine").rglob("*.py")), ids=lambda f: f.name)
def test_the_engine_stands_on_torch_and_transformers_only(file: Path) -> None:
    """It runs where LangChain, pydantic, typer and rich are not installed.

    tenacity is asked for only when a device has run out of memory, Triton by its own backend.
    """
    allowed = {"torch", "transformers", "numpy", "tenacity", *sys.stdlib_module_names}
    if file.name in ("triton.py", "kernels.py"):
        allowed.add("triton")
    for name in imported(file):
        if name.startswith("hogwild_agents"):
            assert name.startswith(("hogwild_agents.engine", "hogwild_agents.errors")), (
                f"{file.name} imports {name}"
            )
        else:
            assert name.partition(".")[0] in allowed, f"{file.name} imports {name}"


@pytest.mark.parametrize("file", sorted((ROOT / "team").rglob("*.py")), ids=lambda f: f.name)
def test_the_team_knows_nothing_of_chat_models(file: Path) -> None:
    """It stands on the engine, and needs neither LangChain nor pydantic."""
    for name in imported(file):
        assert name.partition(".")[0] not in {"langchain_core", "pydantic", "typer", "rich"}
        if name.startswith("hogwild_agents"):
            assert name.startswith(
                ("hogwild_agents.engine", "hogwild_agents.team", "hogwild_agents.errors")
            )


@pytest.mark.parametrize("file", sorted((ROOT / "pocket").glob("*.py")), ids=lambda f: f.name)
def test_the_pocket_model_knows_nothing_of_what_stands_on_it(file: Path) -> None:
    """Neither the command line nor LangChain."""
    for name in imported(file):
        assert name.partition(".")[0] not in {"langchain_core", "pydantic"}
        if name.startswith("hogwild_agents"):
            below = ("hogwild_agents.engine", "hogwild_agents.team", "hogwild_agents.pocket")
            assert name == "hogwild_agents" or name.startswith(below), f"{file.name}: {name}"


def test_the_engine_needs_neither_tenacity_nor_triton() -> None:
    """Importing the engine loads none of them."""
    code = (
        "import sys, hogwild_agents.engine; "
        "assert not {'tenacity', 'hogwild_agents.engine.attention.triton'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_the_package_is_light() -> None:
    """Names are lazy: neither torch nor transformers is loaded, by the package or by --help."""
    code = (
        "import sys, hogwild_agents, hogwild_agents.cli; dir(hogwild_agents); "
        "assert not {'torch', 'transformers', 'langchain_core', 'pydantic'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names() -> None:
    """What is promised is there, and nothing else by accident."""
    assert hogwild_agents.__all__ == [
        "ChatHogwild",
        "CollaborationPrompt",
        "EarlyFinisher",
        "Engine",
        "FinalAnswer",
        "HogwildError",
        "Interrupt",
        "InterruptRecord",
        "RedundancyCheck",
        "SharedCacheModel",
        "Team",
        "TeamTool",
        "__version__",
    ]
    for name in hogwild_agents.__all__:
        assert getattr(hogwild_agents, name)
    with pytest.raises(AttributeError, match="nonsense"):
        hogwild_agents.nonsense  # noqa: B018
