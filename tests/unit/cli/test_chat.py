"""`hogwild chat`, run as a user would, on models that say what a test wants."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import LINES, Invoke, Says
from tests.unit.team.scripted import ScriptedModel, fail_after, tokenizer


def prompts(model: ScriptedModel, *words: str) -> list[bool]:
    """For each pass, whether somebody saw all these words in this order."""
    found = []
    for rows in model.passes:
        text = tokenizer().decode(max(rows, key=lambda row: len(row.seen)).seen)
        places = [text.find(word) for word in words]
        found.append(-1 not in places and places == sorted(places))
    return found


def ctrl_c_in_passes(*passes: int) -> Callable[[Any], None]:
    """For `ScriptedModel.before`: presses Ctrl-C before these passes."""
    count = itertools.count()

    def before(_: Any) -> None:
        if next(count) in passes:
            os.kill(os.getpid(), signal.SIGINT)

    return before


def test_it_remembers(says: Says, invoke: Invoke, tmp_path: Path) -> None:
    """The second message is thought about with the first and its answer in context."""
    model = says(LINES)
    file = tmp_path / "story.txt"
    result = invoke("chat", "--transcript", str(file), typed="first?\nsecond?\n")
    assert result.exit_code == 0, result.output
    assert "you> first?" in result.stdout
    assert result.stdout.count("Answer: 42") == 2
    seen = prompts(model, "first?", "42", "second?")
    assert not seen[0]
    assert seen[-1]
    text = file.read_text()
    assert "first?" in text
    assert "second?" in text


def test_only_the_reply_is_remembered(says: Says, invoke: Invoke) -> None:
    """Not the thinking that led to it."""
    model = says(LINES)
    invoke("chat", typed="first?\nsecond?\n")
    last = tokenizer().decode(model.passes[-1][0].seen)
    assert last.index("second?") < last.index("I add.")
    assert last.count("I add.") == 1


def test_new_forgets(says: Says, invoke: Invoke) -> None:
    """And the conversation begins again."""
    model = says(LINES)
    result = invoke("chat", typed="first?\n/new\nsecond?\n")
    assert "Forgotten." in result.stdout
    assert any(prompts(model, "first?"))
    assert prompts(model, "second?")[-1]
    assert not any(prompts(model, "first?", "second?"))


def test_commands(says: Says, invoke: Invoke) -> None:
    """Help, a slip, an empty line, a message of two lines, and the end."""
    model = says(LINES)
    result = invoke("chat", typed="/help\n/nwe\n\none\\\ntwo\n/quit\nnever?\n")
    assert result.exit_code == 0
    assert "/quit" in result.stdout
    assert "There is no /nwe" in result.stderr
    assert prompts(model, "one\ntwo")[-1]
    assert result.stdout.count("Answer: 42") == 1
    assert "never?" not in result.stdout


def test_ctrl_c_asks_for_the_answer(says: Says, invoke: Invoke) -> None:
    """The team stops thinking and answers; the conversation goes on."""
    says(LINES | {"answer is \\boxed{": "7}"}).before = ctrl_c_in_passes(15)
    result = invoke("chat", typed="first?\nsecond?\n")
    assert result.exit_code == 0, result.output
    assert "it was asked to stop" in result.stdout
    assert result.stdout.count("Answer: ") == 2


def test_ctrl_c_twice_cancels(says: Says, invoke: Invoke) -> None:
    """Nothing is remembered of it, and the next message is answered."""
    model = says(LINES | {"answer is \\boxed{": "7"})
    model.before = ctrl_c_in_passes(15, 18)
    result = invoke("chat", typed="first?\nsecond?\n")
    assert result.exit_code == 0, result.output
    assert "it was cancelled" in result.stdout
    assert result.stdout.count("Answer: 42") == 1
    assert not any(prompts(model, "first?", "second?"))


def test_a_failure_ends_one_answer_only(says: Says, invoke: Invoke) -> None:
    """The next message is answered."""
    model = says(LINES)
    fail = fail_after(15)

    def before(views: Any) -> None:
        model.before = before if len(model.passes) < 15 else None
        fail(views)

    model.before = before
    result = invoke("chat", typed="first?\nsecond?\n")
    assert result.exit_code == 0, result.output
    assert "on fire" in result.stderr
    assert result.stdout.count("Answer: 42") == 1


def test_a_message_that_is_too_long(says: Says, invoke: Invoke) -> None:
    """It is refused with the reason, and the conversation goes on."""
    says(LINES)
    result = invoke("chat", typed="x" * 9000 + "\nsecond?\n")
    assert result.exit_code == 0, result.output
    assert "9,036 tokens" in result.stderr
    assert result.stdout.count("Answer: 42") == 1


@pytest.mark.parametrize("end", [KeyboardInterrupt, EOFError])
def test_leaving_at_the_prompt(
    end: type[BaseException], says: Says, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C and Ctrl-D are both a good end."""
    says(LINES)

    def leave(_: str) -> str:
        raise end

    monkeypatch.setattr("builtins.input", leave)
    assert invoke("chat").exit_code == 0
