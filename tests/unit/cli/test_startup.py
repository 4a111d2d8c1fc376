"""What commands load: nothing heavy before they run, and no LangChain at all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "transformers", "pydantic", "langchain_core", "langchain", "rich.progress")

SCRIPT = """
import json, sys
from hogwild_agents.cli import main
sys.argv[1:] = json.loads(sys.argv[1])
try:
    main()
finally:
    print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules} | {*sys.modules})))
"""


def run(*arguments: str) -> tuple[int, str, set[str]]:
    """A command in a process of its own: exit code, stderr, and the modules that it loaded."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(arguments)], capture_output=True, text=True
    )
    return done.returncode, done.stderr, {*json.loads(done.stdout.splitlines()[-1])}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--help"], ""),
        (["solve", "--help"], ""),
        (["solve", "--workers", "99", "x"], "cannot have 99 workers"),
        (["solve", "--layout", "nonsense", "x"], "'nonsense' is not one of"),
        (["solve", "--compare", "--workers", "1", "x"], "two workers or more"),
        (["chat", "--seed", "-1"], "--seed"),
        (["bench", "--shape", "giant"], "'giant' is not one of"),
        (["eval", "--out", "run", "--layouts", "combined,round"], "'round' is not one of"),
        (["check", "--nonsense", "pocket"], "No such option"),
    ],
    ids=" ".join,
)
def test_help_and_refusals_load_nothing_heavy(arguments: list[str], message: str) -> None:
    """They must come at once, and importing torch takes seconds."""
    code, errors, modules = run(*arguments)
    assert code == (2 if message else 0)
    assert message in errors
    assert not modules & {*HEAVY}


@pytest.mark.parametrize(
    "arguments",
    [
        ["solve", "(a) 12 + 30", "--budget", "8", "--device", "cpu"],
        ["chat", "--budget", "8", "--device", "cpu"],
        ["check", "pocket", "--device", "cpu"],
        [
            *("bench", "--shape", "5m", "--workers", "1", "--contexts", "32", "--passes", "1"),
            *("--device", "cpu", "--skip-check"),
        ],
        ["eval", "--limit", "1", "--budgets", "8", "--strategies", "single", "--device", "cpu"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_commands_load_no_langchain(arguments: list[str], tmp_path: Path) -> None:
    """Only the chat model and chains need it."""
    if arguments[0] == "eval":
        arguments = [*arguments, "--out", str(tmp_path / "run")]
    code, errors, modules = run(*arguments)
    assert code == 0, errors
    assert "torch" in modules
    assert not modules & {"langchain", "langchain_core"}
