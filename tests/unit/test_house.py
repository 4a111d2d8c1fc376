"""The rules of docs/architecture.md that a machine can check."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import hogwild_agents

PACKAGE = Path(hogwild_agents.__file__).parent
ROOT = PACKAGE.parent
TESTS = ROOT / "tests"
ARCHITECTURE = ROOT / "docs" / "architecture.md"

LEVELS = (
    {"errors", "version"},
    {"names", "hub"},
    {"engine"},
    {"team"},
    {"constrained", "pocket"},
    {"registry"},
    {"langchain", "evaluation", "bench"},
    {"cli"},
)
"""The parts of the package from the bottom up. Imports go to the same part, or to a lower level."""

LANGCHAIN = {"langchain", "langchain_core", "langgraph", "langsmith"}
TERMINAL = {"typer", "rich", "click"}
HEAVY = {"torch", "transformers", "pydantic", *LANGCHAIN}

ENGINE_NEEDS = {"torch", "transformers", "numpy", *sys.stdlib_module_names}
TRITON_FILES = {"triton.py", "kernels.py"}
LANGCHAIN_FILES = {PACKAGE / "evaluation" / "chains.py"}


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


@cache
def imported(file: Path) -> frozenset[str]:
    """Dotted names that a file imports, anywhere in it, also for type checkers only.

    `from a import b` counts as `a.b` where that is a module of the package, and as `a` elsewhere.
    """
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            inner = full & modules().keys()
            names |= inner
            if inner != full:
                names.add(node.module)
    return frozenset(names)


def part_of(module: str) -> str:
    """The part of the package that a module belongs to; empty for the package itself."""
    return module.split(".")[1] if "." in module else ""


def level_of(module: str) -> int:
    """How high a module's part stands."""
    return next(level for level, parts in enumerate(LEVELS) if part_of(module) in parts)


def distributions(file: Path) -> set[str]:
    """Top-level names that a file imports from outside of the package."""
    return {name.partition(".")[0] for name in imported(file)} - {"hogwild_agents", "__future__"}


def everywhere_but(*parts: str) -> list[Path]:
    """Files of the package outside of some of its parts."""
    return [file for name, file in modules().items() if part_of(name) not in parts]


def test_every_part_has_a_level() -> None:
    """A new folder has a place in the order."""
    assert {part_of(name) for name in modules()} - {""} == set().union(*LEVELS)


@pytest.mark.parametrize("module", [name for name in modules() if part_of(name)])
def test_imports_point_down(module: str) -> None:
    """No module knows a higher part, or another part of its own level."""
    for name in imported(modules()[module]):
        if name.startswith("hogwild_agents.") and part_of(name) != part_of(module):
            assert level_of(name) < level_of(module), f"{module} imports {name}"
        assert not name.startswith("integrations"), f"{module} imports {name}"


def test_there_are_no_circles() -> None:
    """Not even for type checkers only. The package itself loads its names lazily."""
    graph = {
        name: imported(file) & modules().keys() - {name, "hogwild_agents"}
        for name, file in modules().items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


@pytest.mark.parametrize("file", sorted((PACKAGE / "engine").rglob("*.py")), ids=lambda f: f.name)
def test_the_engine_needs_torch_and_transformers_only(file: Path) -> None:
    """It runs where LangChain, pydantic, typer and rich are not installed."""
    allowed = ENGINE_NEEDS | ({"triton"} if file.name in TRITON_FILES else set())
    assert distributions(file) <= allowed


def test_only_its_face_knows_langchain() -> None:
    """`hogwild solve`, `check`, `bench` and a plain evaluation run without it."""
    for file in {*everywhere_but("langchain", "")} - LANGCHAIN_FILES:
        assert LANGCHAIN.isdisjoint(distributions(file)), file


def test_only_the_command_line_knows_the_terminal() -> None:
    """Everything below is a library."""
    for file in everywhere_but("cli", "evaluation", "pocket"):
        assert TERMINAL.isdisjoint(distributions(file)), file


def test_only_the_pocket_model_knows_its_training() -> None:
    """And of that only its evaluation: the model runs without what made it."""
    training = "hogwild_agents.pocket.training"
    for name, file in modules().items():
        if not name.startswith(training) and name != "hogwild_agents.pocket.evaluate":
            assert not any(part.startswith(training) for part in imported(file)), name


def run_python(code: str) -> None:
    """Runs code in a fresh interpreter."""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_engine_loads_triton_when_it_is_used() -> None:
    """Importing the engine does not."""
    run_python(
        "import sys, hogwild_agents.engine; "
        "assert not {'tenacity', 'hogwild_agents.engine.attention.triton'} & set(sys.modules)"
    )


def test_importing_the_package_is_light() -> None:
    """Names are lazy: neither the package nor `--help` loads anything heavy."""
    run_python(
        "import sys, hogwild_agents, hogwild_agents.cli; dir(hogwild_agents); "
        f"assert not {HEAVY} & set(sys.modules)"
    )


def test_transformers_loads_with_the_first_model() -> None:
    """It takes a second, which a program that makes a chat model does not wait for."""
    run_python(
        "import sys; from hogwild_agents import ChatHogwild; ChatHogwild(workers=2); "
        "assert not {'transformers', 'triton', 'sympy'} & set(sys.modules)"
    )


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


def test_errors_are_one_tree() -> None:
    """Every error class stands in `errors.py`, or in the face's own `langchain/errors.py`."""
    homes = {PACKAGE / "errors.py", PACKAGE / "langchain" / "errors.py"}
    for file in {*modules().values()} - homes:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef):
                bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
                assert not any(base.endswith(("Error", "Exception")) for base in bases), file
    tree = ast.parse((PACKAGE / "errors.py").read_text())
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    drawn = Counter(re.findall(r"\b[A-Z]\w+Error\b", ast.get_docstring(tree) or ""))
    assert classes <= drawn.keys(), "the docstring of errors.py draws every class"


def test_the_architecture_page_lists_every_file() -> None:
    """The page is true: each module stands there once, and nothing that is not there."""
    listed = Counter(re.findall(r"^ {2}(\S+\.py) {2,}\S", ARCHITECTURE.read_text(), re.MULTILINE))
    files = {
        str(file.relative_to(PACKAGE))
        for file in PACKAGE.rglob("*.py")
        if file.name != "__init__.py" or file.parent == PACKAGE
    }
    assert listed.keys() == files
    assert {*listed.values()} == {1}


def test_the_architecture_page_names_tests_that_exist() -> None:
    """Each rule points to what checks it."""
    for path in re.findall(r"`(tests/[^`]+)`", ARCHITECTURE.read_text()):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("file", sorted(TESTS.rglob("test_*.py")), ids=lambda f: f.name)
def test_no_test_imports_a_test(file: Path) -> None:
    """What tests share lives in helper modules."""
    for name in imported(file):
        if name.startswith("tests."):
            assert not name.rpartition(".")[2].startswith("test_"), f"{file.name} imports {name}"


def test_tests_mirror_the_package() -> None:
    """A folder of unit tests has the name of the folder that it tests."""
    for folder in (TESTS / "unit").rglob("*"):
        if folder.is_dir() and any(folder.glob("test_*.py")):
            assert (PACKAGE / folder.relative_to(TESTS / "unit")).is_dir(), folder
