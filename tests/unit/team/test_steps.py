"""Where a step ends, and how one begins."""

# ruff: noqa: RUF001  (sentences in many scripts)

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from hogwild_agents.team import steps
from hogwild_agents.team.steps import LONGEST_BLOCK, LONGEST_STEP, ends_step, prefix
from tests.unit.team import tokenizers as small

many = settings(max_examples=150, deadline=None, derandomize=True)

BLANK_LINES = ("\n\n", "\n \n", "\n\t\n", "\n\u3000\n", "\r\n\r\n", "  \n\n", "\n\n\n\n")

ENDED = {
    "marks": ["So.", "So?", "So!", "So…", "So...", "So?!", "So‽", "3.14.", "§5.", "A.", "42?"],
    "scripts": [
        "合計は五です。",
        "終わり！",
        "本当？",
        "｡",
        "यह।",
        "هذا؟",
        "یہ۔",
        "Սա։",
        "ነው።",
        "ስም፧",
        "ហើយ។",
        "ហើយ៕",
        "တယ်။",
        "ཡིན།",
    ],
    "closers": [
        '"So."',
        "“So.”",
        "«So.»",
        "**So.**",
        "_So._",
        "(So.)",
        "`So.`",
        "$5.$",
        "「はい。」",
        "『はい』。",
        "So.’",
        "So.]",
    ],
    "ticks": ["So. ✓", "So it is.  ✔", "Right. ✅", "So. **"],
    "lines": ["a\nb.", "a:\n\nb.", "1. First.\n2. Second.", "1.\nFirst.", "a\n\n42.5.", "Step 1."],
    "backtick fences": [
        "```\nx\n\ny\n```",
        "```python\nx\n```",
        "````\n```\nx\n````",
        "```\n~~~\n```",
    ],
    "tilde fences": ["~~~\nx\n~~~", "~~~~~\nx.\n\n~~~\n~~~~~", "~~~ py\nx\n~~~", "~~~\n```\n~~~"],
    "longer closings": ["```\nx\n`````", "~~~\nx\n~~~~ "],
    "indented fences": ["  ```\n  x\n  ```", "- a\n\n      ~~~\n      x\n      ~~~  "],
    "text after fences": [
        "```\nx\n```\nSo.",
        "```\n$$\n```\nSo.",
        "```\n\\[\n```\nSo.",
        "```a``` is.\nSo.",
    ],
    "maths": [
        "$$x$$",
        "$$\nx\n$$",
        "\\[ x \\]",
        "\\[\nx\n\\]",
        "So $$x$$ is.",
        "\\[x\\] and \\[y\\].",
    ],
    "no maths": [
        "a \\\\[4pt] b.",
        "\\] was not opened.",
        "costs 5\\$$.",
        "\\[a \\\\[4pt] b\\] is.",
    ],
}
OPEN = {
    "nothing": [
        "",
        "So",
        "5",
        "x = 5",
        "a,",
        "a;",
        "a:",
        "We get:",
        "## Title",
        "**Title**",
        "•",
        "So.\nAnd",
    ],
    "list markers": ["1.", "12.", "a\n\n2.", "- a\n3.", "**4.**", " 5. ", "a)", "1)"],
    "backtick fences": [
        "```\nSo.",
        "```python\n# So.",
        "So:\n```\nSo.",
        "````\n```\nSo.",
        "  ```\nSo.",
    ],
    "tilde fences": ["~~~\nSo.", "~~~\n```\nSo.", "~~~~\n~~~\nSo.", "```\n~~~\nSo."],
    "no closing": ["```\nSo.\n``` x\nSo.", "```\nSo.\n``\nSo.", "```\nSo. ```"],
    "maths": ["$$\nx.", "$$x$$ and $$\ny.", "\\[\nx.", "\\[a\\] \\[\nb.", "$$ \\] x.", "\\[ $$ x."],
    "after code": ["```\nx\n```\n$$\ny.", "```\n$$\n```\n$$\ny.", "```a``` is $$\nx."],
}

# Pieces that a step may be made of, and that a tokenizer may cut anywhere.
PIECES = (
    *("\n", "\n\n", "\n \n", "\r\n", " ", "\t", "\u3000", "So x is 5.", "Is it?", "and then", "1."),
    *("a)", "...", "**Done.**", '"Yes."', "終わり。", "✓", "```", "```python", "~~~", "````", "$$"),
    *("\\[", "\\]", "\\\\[4pt]", "`x`", "```x```", "$5.$"),
)
texts = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)


def cases(table: dict[str, list[str]]) -> list[str]:
    return [body for bodies in table.values() for body in bodies]


def first_end(text: str, cuts: list[int]) -> int | None:
    """Reads `text` in pieces, cut at `cuts`: the end of the piece with which a step ends."""
    start = 0
    for end in [*cuts, len(text)]:
        if "\n" in text[start:end] and ends_step(text[:end], end - start):
            return end
        start = end
    return None


def letters(text: str) -> list[int]:
    """Cuts after every letter."""
    return list(range(1, len(text)))


def expected_end(text: str, cuts: list[int]) -> int | None:
    """The end of the piece that holds the letter with which a step ends."""
    single = first_end(text, letters(text))
    return None if single is None else next(end for end in [*cuts, len(text)] if end >= single)


@pytest.mark.parametrize("body", cases(ENDED))
def test_a_step_ends(body: str) -> None:
    """A blank line after a sentence in any script, or after a block, ends it."""
    for blank in BLANK_LINES:
        text = body + blank
        assert ends_step(text)
        assert first_end(text, letters(text)) is not None
        assert ends_step(text + "Now", len(blank) + 4)


@pytest.mark.parametrize("body", cases(OPEN))
def test_a_step_goes_on(body: str) -> None:
    """No sentence has ended, or a list item begins, or a block is open."""
    for blank in BLANK_LINES:
        text = body + blank
        assert not ends_step(text)
        assert first_end(text, letters(text)) is None


@pytest.mark.parametrize("body", cases(ENDED))
def test_a_step_ends_with_a_blank_line_only(body: str) -> None:
    """A single newline or space does not end it."""
    for text in (body, f"{body}\n", f"{body} ", f"{body}\r\n", f"{body}\nand so"):
        assert not ends_step(text, 1)


@pytest.mark.parametrize("mark", ["```", "~~~", "$$", "\\["])
def test_a_block_that_nobody_closes_is_none(mark: str) -> None:
    """A forgotten mark does not keep a step from ever ending."""
    line = "It goes on, and on.\n\n"
    text = f"So:\n{mark}\n"
    while not ends_step(text + line, len(line)):
        text += line
        assert len(text) < LONGEST_BLOCK + 100
    assert len(text) > LONGEST_BLOCK - 100


@given(text=texts)
@many
def test_text_behind_the_end_changes_nothing(text: str) -> None:
    """Text that a tokenizer has merged with a blank line does not undo the end before it."""
    end = first_end(text, letters(text))
    assert ends_step(text) == (end is not None)
    if end is not None:
        assert ends_step(text[:end])
        assert not ends_step(text[: end - 1])


@given(text=texts, data=st.data())
@many
def test_the_end_does_not_depend_on_the_tokens(text: str, data: st.DataObject) -> None:
    """A step ends with the token that contains the letter that ends it."""
    cuts = sorted(data.draw(st.sets(st.sampled_from(letters(text) or [0]), max_size=20)))
    assert first_end(text, cuts) == expected_end(text, cuts)


@cache
def byte_level() -> PreTrainedTokenizerFast:
    return small.byte_level()


@given(text=texts)
@many
def test_the_end_in_a_tokenizers_own_tokens(text: str) -> None:
    """The same for the tokens of a trained tokenizer, with merged newlines."""
    offsets = byte_level()(text, return_offsets_mapping=True)["offset_mapping"]
    cuts = sorted({end for _, end in offsets if 0 < end < len(text)})
    assert first_end(text, cuts) == expected_end(text, cuts)


@given(text=texts)
@many
def test_only_new_text_counts(text: str) -> None:
    """A blank line that came earlier ends no step later."""
    assert not ends_step(text, 0)
    assert not ends_step(text + "and so on", 9)


def test_a_very_long_step_ends_at_any_blank_line() -> None:
    """Lists, and scripts without marks for the end of a sentence, have no other end."""
    text = ""
    while not ends_step(text):
        text += "- an item\n\n"
    assert LONGEST_STEP < len(text) < LONGEST_STEP + 20


@pytest.mark.parametrize("line", [r"\boxed{42}", r"**\boxed{a_{1}}**", r"Final: $\boxed{7}$"])
def test_a_boxed_answer_ends_a_step(line: str) -> None:
    """Models put it on a line of its own, without a full stop."""
    assert ends_step(f"So it is.\n{line}\n\n")
    assert not ends_step(line.replace("}", "") + "\n\n")


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lengths of the texts that were searched for open blocks, from their beginning."""
    lengths: list[int] = []
    search = steps._in_block

    def counted(text: str) -> bool:
        lengths.append(len(text))
        return search(text)

    monkeypatch.setattr(steps, "_in_block", counted)
    return lengths


def test_long_steps_are_read_once(scans: list[int]) -> None:
    """Blank lines that end nothing cost nothing: the text before them is not read again."""
    text = "```\n"
    while len(text) < LONGEST_STEP - 100:
        for piece in ("a few words", ":", "\n\n", "x = 1", "\n\n"):
            text += piece
            assert not ("\n" in piece and ends_step(text, len(piece)))
    assert scans == []
    assert ends_step(text + "```\nSo.\n\n", 2)
    assert len(scans) == 1


def test_an_open_block_bounds_the_work(scans: list[int]) -> None:
    """Every end of a sentence in a block costs a search, but the length of a block is bounded."""
    text = "```\n"
    while not ends_step(text, 2):
        text += "So.\n\n"
    assert len(scans) <= LONGEST_BLOCK / len("So.\n\n") + 2
    assert max(scans) <= LONGEST_BLOCK + 10


@pytest.mark.parametrize("worker", ["Bob", "Mary Ann", "O'Neil", "Zoë", "R2.D2", "小明"])
def test_a_prefix(worker: str) -> None:
    """It names the worker and counts its steps."""
    assert prefix(worker, 3) == f"**{worker} [3]:** "
    assert prefix(worker, 12) == f"**{worker} [12]:** "
