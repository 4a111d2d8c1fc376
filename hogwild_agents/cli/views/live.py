"""The live view: a column for each worker below the shared history, redrawn as they write."""

from __future__ import annotations

import time
from threading import RLock
from typing import TYPE_CHECKING, Self

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from hogwild_agents.cli.output import readable
from hogwild_agents.cli.views.board import Board

if TYPE_CHECKING:
    from hogwild_agents.team import Event, Note, Step, Team

COLOURS = ("cyan", "magenta", "green", "blue")
"""Colours of the workers, in order; more workers get the same in bright. Yellow is for checks."""

MIN_COLUMN = 30
"""Characters of a column. If there are fewer, workers are shown one below the other."""

PANEL_LINES = 2
"""Lines of a panel's border."""

PANEL_CHARACTERS = 4
"""Characters of a panel's border and padding in each line."""


class LiveView:
    """Draws a session on a terminal, over and over while it runs.

    Args:
        console: The terminal.
        problem: The problem that the team solves.
        team: The team.
        hint: What Ctrl-C does, shown in the last line.
        transient: Whether the view is removed at the end.
    """

    def __init__(
        self, console: Console, problem: str, team: Team, hint: str, *, transient: bool = False
    ) -> None:
        self._problem = readable(problem.strip())
        self._board = Board(team.workers, team.budget)
        self._hint = hint
        self._started = time.monotonic()
        self._lock = RLock()  # rich draws from a thread of its own
        self._live = Live(self, console=console, refresh_per_second=10, transient=transient)

    def __enter__(self) -> Self:
        """Starts drawing."""
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Draws the last frame, and stops."""
        self._live.stop()

    def show(self, event: Event) -> None:
        """Shows an event in the next frame."""
        with self._lock:
            self._board.update(event)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """A frame: problem, history, work in progress, status. The last line stays free."""
        width, height = options.max_width, options.max_height - 1
        with self._lock:
            problem = self._header(console, width, max(1, height // 4))
            rest = height - problem.plain.count("\n") - 2
            alone = len(self._board.workers) == 1
            work = self._work(console, width, rest, alone)
            parts: list[RenderableType] = [problem]
            if not alone:
                used = len(console.render_lines(work, options)) if work else 0
                parts.append(self._history(console, width, rest - used - PANEL_LINES))
            parts += [work] if work else []
            parts.append(self._status())
        yield Group(*parts)

    def _header(self, console: Console, width: int, rows: int) -> Text:
        """As much of the problem as fits."""
        lines = list(Text(self._problem, style="bold").wrap(console, width))
        if len(lines) > rows:
            lines = lines[:rows]
            lines[-1].truncate(max(1, width - 2))
            lines[-1].append(" …")
        return _lines(lines)

    def _history(self, console: Console, width: int, rows: int) -> Panel:
        """The finished steps that fit, the newest at the bottom."""
        rows = max(1, rows)
        shown: list[Text] = []
        left = len(self._board.history)
        for part in reversed(self._board.history):
            lines = list(self._entry(part).wrap(console, max(1, width - PANEL_CHARACTERS)))
            if len(shown) + len(lines) > rows:
                if not shown:  # only the end of this step fits
                    shown, left = lines[-rows:], left - 1
                break
            shown[:0] = lines
            left -= 1
        title = f"History ({left} earlier not shown)" if left else "History"
        nothing = Text("No step is finished yet.", style="dim")
        return Panel(_lines(shown) if shown else nothing, title=title, border_style="dim")

    def _entry(self, part: Step | Note) -> Text:
        """A finished step, or a note."""
        from hogwild_agents.team import Note

        if isinstance(part, Note):
            return Text.assemble(("Note ", "bold yellow"), (readable(part.text), "yellow"))
        name = (f"{part.worker} [{part.index}] ", f"bold {self._colour(part.worker)}")
        return Text.assemble(name, self._step(part.worker, part.index, part.text))

    def _step(self, worker: str, index: int, text: str) -> Text:
        """A step's text, in which the question of a check is marked with its outcome."""
        check = self._board.checks.get((worker, index))
        if check is None or not text.startswith(check.text):
            return Text(readable(text.strip()))
        style = {True: "bold yellow", False: "dim"}.get(check.answer, "italic")
        mark = "pivot" if check.answer is True else "check"
        rest = readable(text[len(check.text) :].rstrip())
        return Text.assemble((f"<{mark}> {readable(check.text)}", style), rest)

    def _work(self, console: Console, width: int, rest: int, alone: bool) -> Panel | Table | None:
        """The work in progress, or the reply; None if there is neither."""
        board = self._board
        team = len(board.workers)
        written = any(text for _, text in board.writing.values()) or (alone and board.history)
        if board.result is not None and not written:
            return None
        rows = max(1, rest - PANEL_LINES if alone else min(12, (rest - 2 * PANEL_LINES) // 3))
        height = None if alone else rows + PANEL_LINES  # constant, so that nothing jumps
        if board.replying and board.reply and board.result is None:
            reply = _tail(Text(readable(board.reply)), console, width - PANEL_CHARACTERS, rows)
            return Panel(reply, title="Reply", border_style="bold", height=height)
        if width // team < MIN_COLUMN and not alone:
            rows = max(1, (rest - 2 * PANEL_LINES) // 2 // team)
            return Panel(
                Text("\n").join(
                    Text.assemble(
                        title, " ", self._writing(name, console, width - len(title), rows)
                    )
                    for name in board.workers
                    for title in [self._title(name)]
                ),
                title="Work in progress",
            )
        table = Table.grid(expand=True)
        for _ in board.workers:
            table.add_column(ratio=1)
        table.add_row(
            *(
                Panel(
                    self._writing(name, console, width // team, rows),
                    title=self._title(name),
                    border_style=self._colour(name),
                    height=height,
                )
                for name in board.workers
            )
        )
        return table

    def _writing(self, name: str, console: Console, width: int, rows: int) -> Text:
        """The end of what a worker is writing; for a single worker, of all that it wrote."""
        index, text = self._board.writing[name]
        now = self._step(name, index, text)
        if len(self._board.workers) == 1:
            before = (self._entry(part) for part in self._board.history[-rows:])
            now = Text("\n").join([*before, now])
        return _tail(now, console, width - PANEL_CHARACTERS, rows)

    def _title(self, name: str) -> Text:
        """The name of a worker and the index of its step."""
        return Text(f"{name} [{self._board.writing[name][0]}]", f"bold {self._colour(name)}")

    def _status(self) -> Text:
        """How far the session is, and what Ctrl-C does."""
        board = self._board
        seconds = time.monotonic() - self._started
        if board.result is not None:
            seconds = board.result.timings.total
        parts = [f"{board.passes:,} of {board.budget:,} passes", f"{board.tokens:,} tokens"]
        if board.reply_tokens:
            parts.append(f"reply: {board.reply_tokens:,} tokens")
        if board.checks:
            pivots = sum(check.answer is True for check in board.checks.values())
            parts.append(f"checks {len(board.checks)}, pivots {pivots}")
        if board.answer is not None:
            parts.append(f"answer {readable(str(board.answer[1]))}")
        parts.append(f"{seconds:.1f} s")
        if not board.begun:
            parts = ["Reading the problem", parts[-1]]
        if board.result is None:
            parts.append(self._hint)
        return Text(" · ".join(parts), style="dim", no_wrap=True, overflow="ellipsis")

    def _colour(self, name: str) -> str:
        """The colour of a worker's name."""
        bright, place = divmod(self._board.workers.index(name), len(COLOURS))
        return "bright_" * bright + COLOURS[place]


def _tail(text: Text, console: Console, width: int, rows: int) -> Text:
    """The last lines of a text, wrapped."""
    width = max(1, width)
    return _lines(list(text[-width * rows :].wrap(console, width))[-rows:])


def _lines(lines: list[Text]) -> Text:
    """Joins lines that are wrapped already."""
    return Text("\n", no_wrap=True, overflow="crop").join(lines)
