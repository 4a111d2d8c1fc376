"""The live view: a column for each worker, the shared history above them, redrawn as they think."""

from __future__ import annotations

import time
from threading import RLock
from typing import TYPE_CHECKING, Self

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from hogwild_agents.cli.common import readable
from hogwild_agents.cli.views.board import Board

if TYPE_CHECKING:
    from hogwild_agents.team import Event, Note, Step, Team

COLOURS = ("cyan", "magenta", "green", "blue")
"""Of the workers, in order; then the same in bright. Yellow and red mean something else."""

NARROWEST = 30
"""Characters of a column below which workers stand under one another."""

FRAME = 2
"""Lines that a panel takes beside its contents."""

EDGES = 4
"""Characters of a line that a panel takes."""


class LiveView:
    """Shows a session on a terminal while it runs.

    Args:
        console: The terminal.
        problem: What is to be solved.
        team: Who works on it.
        hint: What Ctrl-C does.
        transient: Whether it vanishes at the end.
    """

    def __init__(
        self, console: Console, problem: str, team: Team, hint: str, *, transient: bool = False
    ) -> None:
        self._problem = readable(problem.strip())
        self._board = Board(team.workers, team.budget)
        self._hint = hint
        self._since = time.monotonic()
        self._lock = RLock()  # it is drawn by a thread of rich's
        self._live = Live(self, console=console, refresh_per_second=10, transient=transient)

    def __enter__(self) -> Self:
        """The view; it draws itself from now on."""
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Draws the last frame and leaves it there."""
        self._live.stop()

    def hear(self, event: Event) -> None:
        """Takes in what happened; it shows in the next frame."""
        with self._lock:
            self._board.hear(event)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The frame: problem, history, work under way, status; a line of the screen stays free."""
        width, height = options.max_width, options.max_height - 1
        with self._lock:
            problem = self._header(console, width, max(1, height // 4))
            rest = height - problem.plain.count("\n") - 2
            alone = len(self._board.workers) == 1
            work = self._work(console, width, rest, alone)
            parts: list[RenderableType] = [problem]
            if not alone:
                used = len(console.render_lines(work, options)) if work else 0
                parts.append(self._history(console, width, rest - used - FRAME))
            parts += [work] if work else []
            parts.append(self._status())
        yield Group(*parts)

    def _header(self, console: Console, width: int, rows: int) -> Text:
        """The problem, as much of it as fits."""
        lines = list(Text(self._problem, style="bold").wrap(console, width))
        if len(lines) > rows:
            lines = lines[:rows]
            lines[-1].truncate(max(1, width - 2))
            lines[-1].append(" …")
        return _lines(lines)

    def _history(self, console: Console, width: int, rows: int) -> Panel:
        """Finished steps, the newest at the bottom."""
        rows = max(1, rows)
        shown: list[Text] = []
        left = len(self._board.history)
        for part in reversed(self._board.history):
            lines = list(self._entry(part).wrap(console, max(1, width - EDGES)))
            if len(shown) + len(lines) > rows:
                if not shown:  # a step that is longer than the panel: its end
                    shown, left = lines[-rows:], left - 1
                break
            shown[:0] = lines
            left -= 1
        title = f"History ({left} earlier not shown)" if left else "History"
        nothing = Text("No step is finished yet.", style="dim")
        return Panel(_lines(shown) if shown else nothing, title=title, border_style="dim")

    def _entry(self, part: Step | Note) -> Text:
        """A finished step, marked if a check was asked in it; or a note."""
        from hogwild_agents.team import Note

        if isinstance(part, Note):
            return Text.assemble(("Note ", "bold yellow"), (readable(part.text), "yellow"))
        name = (f"{part.worker} [{part.index}] ", f"bold {self._colour(part.worker)}")
        return Text.assemble(name, self._step(part.worker, part.index, part.text))

    def _step(self, worker: str, index: int, text: str) -> Text:
        """A step's text, with the question of a check and what came of it in a style of its own."""
        check = self._board.checks.get((worker, index))
        if check is None or not text.startswith(check.text):
            return Text(readable(text.strip()))
        style = {True: "bold yellow", False: "dim"}.get(check.answer, "italic")
        mark = "pivot" if check.answer is True else "check"
        rest = readable(text[len(check.text) :].rstrip())
        return Text.assemble((f"<{mark}> {readable(check.text)}", style), rest)

    def _work(self, console: Console, width: int, rest: int, alone: bool) -> Panel | Table | None:
        """What is being written: a column for each worker, or the reply; None if nothing is."""
        board = self._board
        team = len(board.workers)
        written = any(text for _, text in board.writing.values()) or (alone and board.history)
        if board.result is not None and not written:
            return None
        rows = max(1, rest - FRAME if alone else min(12, (rest - 2 * FRAME) // 3))
        height = None if alone else rows + FRAME  # of a team it stays, so that nothing jumps
        if board.replying and board.reply and board.result is None:
            reply = _tail(Text(readable(board.reply)), console, width - EDGES, rows)
            return Panel(reply, title="Reply", border_style="bold", height=height)
        if width // team < NARROWEST and not alone:
            rows = max(1, (rest - 2 * FRAME) // 2 // team)
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
        """The end of what a worker is writing; one alone has no history beside it."""
        index, text = self._board.writing[name]
        now = self._step(name, index, text)
        if len(self._board.workers) == 1:
            before = (self._entry(part) for part in self._board.history[-rows:])
            now = Text("\n").join([*before, now])
        return _tail(now, console, width - EDGES, rows)

    def _title(self, name: str) -> Text:
        """Who writes which step."""
        return Text(f"{name} [{self._board.writing[name][0]}]", f"bold {self._colour(name)}")

    def _status(self) -> Text:
        """How far it is."""
        board = self._board
        seconds = time.monotonic() - self._since
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
        """The colour of a worker."""
        bright, place = divmod(self._board.workers.index(name), len(COLOURS))
        return "bright_" * bright + COLOURS[place]


def _tail(text: Text, console: Console, width: int, rows: int) -> Text:
    """The last lines of a text."""
    width = max(1, width)
    return _lines(list(text[-width * rows :].wrap(console, width))[-rows:])


def _lines(lines: list[Text]) -> Text:
    """Lines that are wrapped already, as one text."""
    return Text("\n", no_wrap=True, overflow="crop").join(lines)
