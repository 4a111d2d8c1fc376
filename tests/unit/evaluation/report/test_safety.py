"""Text from models stays text: in the page's source, in charts, and in a browser."""

# ruff: noqa: RUF001  (what the page says)

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hogwild_agents.evaluation.records import Record, Transcript
from hogwild_agents.evaluation.report import write_report
from hogwild_agents.evaluation.report.safety import clean, json_for_script
from hogwild_agents.evaluation.report.tables import escape
from tests.unit.evaluation.report import made
from tests.unit.evaluation.report.browser import PROGRAM, Browser, browser
from tests.unit.evaluation.report.pages import Page

HOSTILE = (
    "</script><script>document.documentElement.dataset.owned=1</script>"
    "<img src=x onerror=document.documentElement.dataset.owned=2>"
    "<!--<script>'\"`{{ 7 * 7 }}${alert(1)}</style></title></textarea></svg>"
    "<svg/onload=document.documentElement.dataset.owned=3><iframe src=//example.com>"
    "<a href=javascript:document.documentElement.dataset.owned=4>x</a>&lt;b&gt;&amp;"
    "\u2028\u2029\u202e\x00\x1b]0;\r\ud800 ]]>"
)

needs_browser = pytest.mark.skipif(PROGRAM is None, reason="there is no Chromium")


def poisoned(text: str) -> tuple[list[Record], list[Transcript], dict[str, object]]:
    """A run whose every text is the given one."""
    records = [
        replace(
            one,
            problem=f"{one.problem} {text}",
            strategy=f"{one.strategy} {text}",
            answer=text,
            error=text if one.problem == "p-001" else None,
            measures={name + text: value for name, value in one.measures.items()},
        )
        for one in made.records(problems=6, budgets=(64, 128), teams=("single", "hogwild-2"))
    ]
    transcripts = [
        replace(
            made.transcript(problem=f"p-000 {text}", strategy=f"hogwild-2 {text}", text=text),
            workers=(f"Alice {text}", "Bob"),
            truth={"values": [text]},
        )
    ]
    run: dict[str, object] = {
        "command": text, "model": text, "date": text, f"odd {text}": {text: [text]}
    }  # fmt: skip
    return records, transcripts, run


def page_of(folder: Path, text: str) -> Path:
    return write_report(folder, *poisoned(text))


def test_hostile_text_makes_no_element(tmp_path: Path) -> None:
    """The page has the same tags and attributes as one about harmless text."""
    harmless = Page(page_of(tmp_path / "a", "ab").read_text())
    hostile = Page(page_of(tmp_path / "b", HOSTILE).read_text())
    assert hostile.tags == harmless.tags
    assert len(hostile.scripts) == len(harmless.scripts) == 3
    assert hostile.styles == harmless.styles
    assert "{{ 7 * 7 }}" in hostile.text  # it is all there, and no template ran it
    assert "onerror=document" in hostile.text
    steps = hostile.json("t0")["steps"]
    assert [step["text"] for step in steps] == [HOSTILE] * 4
    assert hostile.json("t0")["workers"][0] == f"Alice {HOSTILE}"


def test_hostile_text_in_a_chart(tmp_path: Path) -> None:
    """The file is well-formed, and has the same elements as one about harmless text."""
    page_of(tmp_path / "a", "ab")
    page_of(tmp_path / "b", HOSTILE)
    for name in ("accuracy.svg", "passes.svg"):
        harmless, hostile = (
            [element.tag for element in ElementTree.parse(tmp_path / folder / name).iter()]
            for folder in ("a", "b")
        )
        assert hostile == harmless


def test_the_policy_names_the_only_script_and_style(tmp_path: Path) -> None:
    """And allows nothing else: no source, no element that loads, no attribute that runs."""
    page = Page(page_of(tmp_path, HOSTILE).read_text())
    (policy,) = (v for _, name, v in page.attributes if v.startswith("default-src"))
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))

    def digest(text: str) -> str:
        return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    (script,) = (text for kind, text in page.scripts if "type" not in kind)
    (style,) = page.styles
    assert rules == {
        "default-src": "'none'",
        "script-src": f"'sha256-{digest(script)}'",
        "style-src": f"'sha256-{digest(style)}'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    kinds = {kind.get("type") for kind, _ in page.scripts}
    assert kinds == {None, "application/json"}
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), f"{tag} has {name}"
        assert name not in ("src", "srcset", "style", "action", "data", "xlink:href"), tag
        if name == "href":
            assert value.startswith("#")
    assert not {tag for tag, *_ in page.tags} & {"link", "img", "iframe", "object", "base", "use"}
    assert not re.search(r"url\(|@import|https?:", script + style)


def test_the_reader_writes_no_markup(tmp_path: Path) -> None:
    (script,) = (
        text for kind, text in Page(page_of(tmp_path, "a").read_text()).scripts if not kind
    )
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert way not in script
    assert "fetch" not in script


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text() | st.sampled_from([HOSTILE, "</script", "<!--", "&amp;", "\u2028"]))
def test_json_for_a_script_tag(text: str) -> None:
    """Any text comes back as it was, from letters that HTML gives no meaning."""
    made_safe = json_for_script({text: [text]})
    assert json.loads(made_safe) == {text: [text]}
    assert made_safe.isascii()
    assert not set("<>&'") & set(made_safe)


def test_what_no_page_can_hold() -> None:
    assert clean("a\x00b\x1bc\ud800d\x7f") == "a\ufffdb\ufffdc\ufffdd\ufffd"
    assert clean("a\r\nb\tc") == "a\nb\tc"
    assert clean("\u202eא😀") == "\u202eא😀"


def test_markdown_says_it_as_it_is(tmp_path: Path) -> None:
    """No markup, no line and no cell of a table comes out of a name."""
    assert escape("a|b\n<img>*c*`d`[e](f) # $x$ ~z~") == (
        r"a\|b \<img\>\*c\*\`d\`\[e\](f) \# \$x\$ \~z\~"
    )
    page_of(tmp_path, HOSTILE + "\n\n# heading | cell")
    text = (tmp_path / "report.md").read_text()
    assert not re.search(r"(?<!\\)[<>]", text)
    assert not re.search(r"^# heading", text, re.MULTILINE)
    widths = {re.sub(r"\\\|", "", line).count("|") for line in text.splitlines() if line[:1] == "|"}
    assert widths == {8, 10}


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


@needs_browser
def test_hostile_text_runs_nothing_in_a_browser(tmp_path: Path, chromium: Browser) -> None:
    """Shown by the reader and all over the page, it is only text; nothing even tries to run."""
    chromium.open(page_of(tmp_path, HOSTILE))
    assert chromium.run("document.documentElement.dataset.owned") is None
    assert chromium.complaints == []
    shown = chromium.run("document.querySelector('.step .text').textContent")
    assert "onerror=document.documentElement.dataset.owned=2" in shown
    assert "{{ 7 * 7 }}" in shown
    assert (
        chromium.run("document.querySelectorAll('#transcript img, iframe, a[href^=java]').length")
        == 0
    )
    assert chromium.run("document.scripts.length") == 3


@needs_browser
def test_the_policy_is_a_wall_of_its_own(tmp_path: Path, chromium: Browser) -> None:
    """If something were not escaped, it would still not run."""
    file = page_of(tmp_path, "a")
    html = file.read_text()
    chromium.open(file)
    assert chromium.run("document.querySelectorAll('.step').length") == 4
    raw = HOSTILE[: HOSTILE.index("<!--")] + "<style>body{margin:99px}</style>"
    file.write_text(html.replace("<main>", f"<main>{raw}", 1))
    chromium.open(file)
    assert chromium.run("document.images.length") == 1  # it is really there
    assert chromium.run("document.documentElement.dataset.owned") is None
    assert chromium.run("getComputedStyle(document.body).marginLeft") == "0px"
    assert "Content Security Policy" in "".join(chromium.complaints)
    assert chromium.run("document.querySelectorAll('.step').length") == 4  # the reader still works


@needs_browser
@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits(tmp_path: Path, chromium: Browser, width: int, dark: bool) -> None:
    """No sideways scrolling, not even with long words, and no text on top of another."""
    more = "-combined-unchecked-at-temperature-0.7"
    records = [replace(one, strategy=one.strategy + more) for one in made.records(problems=8)]
    transcripts = [made.transcript(strategy=f"hogwild-2{more}", text="w" * 300)]
    file = write_report(tmp_path, records, transcripts, {"command": "w" * 300})
    chromium.open(file, width=width, dark=dark)
    chromium.run("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert chromium.run("document.documentElement.scrollWidth") <= width
    labels = chromium.run(
        """[...document.querySelectorAll('svg')].map((svg) => {
        const frame = svg.getBoundingClientRect();
        return [...svg.querySelectorAll('text')].map((text) => text.getBoundingClientRect())
          .filter((box) => box.width).map((box) => [box.left - frame.left, box.top + 3,
            box.right - frame.left, box.bottom - 3, frame.width]);})"""
    )
    drawn = [boxes for boxes in labels if boxes]
    assert len(drawn) == 3
    for boxes in drawn:
        for n, (left, top, right, bottom, room) in enumerate(boxes):
            assert left >= 0
            assert right <= room
            for other in boxes[:n]:
                apart = (
                    left >= other[2] or right <= other[0] or top >= other[3] or bottom <= other[1]
                )
                assert apart
    paper = chromium.run("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(20, 23, 26)" if dark else "rgb(252, 252, 251)")


@needs_browser
def test_the_reader_shows_what_is_chosen(tmp_path: Path, chromium: Browser) -> None:
    """By address, by the lists and by the buttons; workers stand side by side."""
    transcripts = [
        made.transcript(problem, strategy, text=f"{problem} by {strategy} {seed}", seed=seed)
        for problem in ("p-000", "p-001", "p-002")
        for strategy in ("single", "hogwild-2")
        for seed in (0, 1)
    ]
    file = write_report(tmp_path, made.records(problems=3), transcripts)
    shown = "document.querySelector('.question .text').textContent"
    chromium.open(file)
    assert chromium.run(shown) == "p-000 by single 0"
    chromium.open(file, "#problem=p-001&strategy=hogwild-2&seed=1")
    assert chromium.run(shown) == "p-001 by hogwild-2 1"
    chromium.run("document.getElementById('next').click()")
    assert chromium.run(shown) == "p-002 by hogwild-2 1"
    chromium.run("document.getElementById('next').click()")
    assert chromium.run(shown) == "p-000 by hogwild-2 1"
    chromium.run("document.getElementById('previous').click()")
    assert chromium.run(shown) == "p-002 by hogwild-2 1"
    assert chromium.run("location.hash") == "#problem=p-002&strategy=hogwild-2&seed=1"
    chromium.run(
        "strategy = document.getElementById('strategy'); strategy.value = 'single';"
        "strategy.dispatchEvent(new Event('change'))"
    )
    assert chromium.run(shown) == "p-002 by single 1"
    chromium.open(file, "#problem=nonsense&strategy=<b>")
    assert chromium.run(shown) == "p-000 by single 0"
    boxes = chromium.run(
        """[...document.querySelectorAll('.step')].map((step) => {
        const box = step.getBoundingClientRect();
        return [step.querySelector('h3').textContent, box.left, box.top];})"""
    )
    assert [name for name, _, _ in boxes] == [
        "Alice [1] passes 0–19", "Bob [1] passes 3–19",
        "Alice [2] passes 20–39", "Bob [2] passes 23–39",
    ]  # fmt: skip
    alice, bob, alice_next, bob_next = boxes
    assert alice[1] == alice_next[1] < bob[1] == bob_next[1]
    assert alice[2] < bob[2] < alice_next[2] < bob_next[2]
    asked = chromium.run("document.querySelector('.interrupt').textContent")
    assert asked == "interruptQuick check p-000 by single 0answered: no"
    assert chromium.complaints == []
