"""The live view, drawn from events made by hand."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from hogwild_agents import team as ev
from hogwild_agents.cli.views.live import LiveView
from hogwild_agents.team import Event, Interruption, Note, Result, Step, Timings
from tests.unit.team.scripted import team_of

PROBLEM = "How many primes [bold]are[/bold] there below 100?"
ASKED = Interruption("RedundancyCheck", "Bob", 2, 9, "Redundant? (yes/no): ")
STEP = Step("Alice", 1, "I take [red]the odd numbers[/red].\n\n", "", 9, 1, 9)
EVENTS: list[Event] = [
    ev.Started(0, 0.1, ("Alice", "Bob"), 50, 0),
    ev.StepBegun(0, 0.1, "Alice", 1, "I take"),
    ev.StepBegun(0, 0.1, "Bob", 1, "Then I"),
    ev.Token(9, 0.2, "Alice", 5, " [red]the odd numbers[/red].\n\n"),
    ev.StepCommitted(9, 0.2, STEP),
    ev.NoteRead(9, 0.2, Note("please hurry", 9)),
    ev.Token(9, 0.2, "Bob", 5, " wait.\n\n"),
    ev.StepCommitted(9, 0.2, Step("Bob", 1, "Then I wait.\n\n", "", 9, 1, 9)),
    ev.InterruptAsked(9, 0.2, ASKED),
    ev.StepBegun(9, 0.2, "Bob", 2, ASKED.text),
    ev.StepBegun(9, 0.2, "Alice", 2, ""),
    ev.Token(10, 0.3, "Bob", 5, "yes, "),
]


def answered(answer: bool) -> Event:
    """The worker's answer to the check."""
    text = "yes, so" if answer else "no, but"
    record = Interruption("RedundancyCheck", "Bob", 2, 9, ASKED.text, answer, text)
    return ev.InterruptAnswered(10, 0.3, record)


def result(**fields: object) -> Result:
    """What came of a session."""
    timings = Timings(0.0, 0.1, 0.9, 1.5)
    given: dict[str, object] = {"workers": ("Alice", "Bob"), "layout": "combined"}
    return Result(**given | {"finish_reason": "answer", "timings": timings} | fields)  # type: ignore[arg-type]


def view(events: list[Event], width: int, height: int = 30, workers: int = 2) -> LiveView:
    """A view that has heard events; nothing is drawn."""
    console = Console(file=StringIO(), force_terminal=True, width=width, height=height)
    made = LiveView(console, PROBLEM, team_of(workers, budget=200), "Ctrl-C stops")
    for event in events:
        made.show(event)
    return made


def drawn(shown: LiveView, width: int, height: int = 30, *, colour: bool = False) -> str:
    """A frame as text, checked to fit the screen."""
    file = StringIO()
    console = Console(
        file=file, force_terminal=True, width=width, height=height, no_color=not colour
    )
    lines = console.render_lines(shown)
    assert len(lines) < height
    assert all(sum(segment.cell_length for segment in line) <= width for line in lines)
    console.print(shown)
    if colour:
        return file.getvalue()
    return "\n".join("".join(segment.text for segment in line).rstrip() for line in lines)


@pytest.mark.parametrize("width", [64, 100, 200])
def test_columns_side_by_side(width: int) -> None:
    """Problem, history, a column for each worker, and how far it is."""
    frame = drawn(view(EVENTS, width), width)
    assert PROBLEM in frame
    assert "Alice [1] I take [red]the odd numbers[/red]." in frame
    assert "Note please hurry" in frame
    titles = next(line for line in frame.splitlines() if "Alice [2]" in line)
    assert "Bob [2]" in titles
    assert "<check> Redundant?" in frame
    assert "10 of 200 passes · 3 tokens" in frame


@pytest.mark.parametrize("width", [24, 34, 59])
def test_stacked_where_it_is_narrow(width: int) -> None:
    """Fewer than 30 characters for each: one under the other."""
    frame = drawn(view(EVENTS, width), width)
    assert "Work in progress" in frame
    titles = [line for line in frame.splitlines() if "Alice [2]" in line or "Bob [2]" in line]
    assert len(titles) == 2


def test_pivots_stand_out() -> None:
    """Yes is a pivot in yellow; no is dim."""
    yes = drawn(view([*EVENTS, answered(True)], 100), 100, colour=True)
    assert "\x1b[1;33m<pivot> Redundant?" in yes
    no = drawn(view([*EVENTS, answered(False)], 100), 100, colour=True)
    assert "\x1b[2m<check> Redundant?" in no
    assert "checks 1, pivots 1" in yes


def test_the_history_keeps_the_newest() -> None:
    """What does not fit is counted."""
    many = [
        ev.StepCommitted(10 + n, 0.4, Step("Alice", n, f"thought {n}.", "", 1, n, n))
        for n in range(2, 60)
    ]
    frame = drawn(view([*EVENTS, *many], 100), 100)
    assert "thought 59." in frame
    assert "thought 2." not in frame
    shown = frame.count("thought ")
    assert f"({61 - shown} earlier not shown)" in frame


@pytest.mark.parametrize("height", [6, 10, 15, 24, 80])
@pytest.mark.parametrize("width", [1, 8, 60, 100])
def test_any_screen(width: int, height: int) -> None:
    """Steps that are longer than the screen, on screens of any size."""
    long = "word " * 2000 + "\U0001f600" * 300
    events = [
        *EVENTS,
        ev.Token(11, 0.4, "Alice", 5, long),
        ev.StepCommitted(11, 0.4, Step("Bob", 2, ASKED.text + long, "", 1, 1, 1)),
    ]
    for workers in (1, 2):
        made = view(events[:5] if workers == 1 else events, width, height, workers)
        console = Console(file=StringIO(), width=width, height=height)
        lines = console.render_lines(made)
        if height >= 15 and width >= 60:
            assert len(lines) < height


def test_control_characters_are_shown_not_obeyed() -> None:
    """No escape sequence of a model reaches the terminal."""
    bad = ev.Token(11, 0.4, "Alice", 5, "\x1b[2Jgone\x07\x9b31m")
    frame = drawn(view([*EVENTS, bad], 100), 100, colour=True)
    assert "\x1b[2J" not in frame
    assert "gone" in frame
    assert "\x07" not in frame


def test_one_worker_alone_has_no_history() -> None:
    """One column with all that it wrote."""
    events: list[Event] = [
        ev.Started(0, 0.1, ("Alice",), 50, 0),
        ev.StepBegun(0, 0.1, "Alice", 1, ""),
        ev.StepCommitted(9, 0.2, STEP),
        ev.Token(10, 0.3, "Alice", 5, "More of it"),
    ]
    frame = drawn(view(events, 100, workers=1), 100)
    assert "History" not in frame
    assert "[red]the odd numbers[/red]" in frame
    assert "More of it" in frame


def test_the_reply_takes_the_place_of_the_columns() -> None:
    """It grows where the workers wrote; the last frame leaves it to the summary."""
    reply: list[Event] = [
        ev.ThinkingEnded(20, 0.9, "answer"),
        ev.ReplyToken(20, 1.0, 5, "There are [25]"),
    ]
    shown = view([*EVENTS, *reply], 100)
    frame = drawn(shown, 100)
    assert "There are [25]" in frame
    assert "reply: 1 tokens" in frame
    assert "Bob [2]" not in frame
    shown.show(ev.Finished(20, 1.5, result()))
    frame = drawn(shown, 100)
    assert "There are" not in frame
    assert "1.5 s" in frame
    assert "Ctrl-C" not in frame


def test_a_real_live_display() -> None:
    """Drawn by rich while events come; what was finished stays."""
    file = StringIO()
    console = Console(file=file, force_terminal=True, width=100, height=30)
    with LiveView(console, PROBLEM, team_of(), "Ctrl-C stops") as shown:
        for event in EVENTS:
            shown.show(event)
    assert "the odd numbers" in file.getvalue()
