"""Records the picture at the top of the README, docs/demo.svg.

It solves examples/tasks.txt with the pocket model, draws the live view after every few forward
passes, and makes an animation of these frames.
"""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console
from transformers import AutoTokenizer

from hogwild_agents import Engine, SharedCacheModel, Team
from hogwild_agents.cli.views.live import LiveView
from hogwild_agents.pocket import FOLDER, team_settings

HERE = Path(__file__).parent
WIDTH, HEIGHT = 108, 33
EVERY = 4
"""Forward passes between two frames."""
SECONDS, LAST = 0.45, 6.0
"""How long each frame is shown, and the last one."""


def record(problem: str, workers: int) -> list[str]:
    """All frames, each as an SVG picture."""
    team = Team(AutoTokenizer.from_pretrained(FOLDER), **team_settings(workers))
    frames: list[str] = []

    def draw() -> None:
        console = Console(
            record=True, force_terminal=True, file=io.StringIO(), width=WIDTH, height=HEIGHT
        )
        console.print(view)
        title = f'hogwild solve "$(cat examples/tasks.txt)" --workers {workers}'
        frames.append(console.export_svg(title=title, unique_id=f"frame{len(frames)}"))

    view = LiveView(Console(file=io.StringIO()), problem, team, "Ctrl-C stops")
    with Engine(SharedCacheModel.from_pretrained(FOLDER, device="cpu")) as engine:
        drawn = 0
        for event in engine.submit(team.session(problem)):
            if event.at >= drawn + EVERY:
                draw()
                drawn = event.at
            view.show(event)
    draw()
    return frames


def animate(frames: list[str]) -> str:
    """One picture that shows all frames in a loop."""
    total = SECONDS * (len(frames) - 1) + LAST
    box = frames[-1].split('viewBox="', 1)[1].split('"', 1)[0]
    style, groups = [], []
    for place, frame in enumerate(frames):
        start, end = place * SECONDS, total if frame is frames[-1] else (place + 1) * SECONDS
        first, last = 100 * start / total, 100 * end / total
        before = f"0%,{first - 0.01:.2f}%{{opacity:0}}" if place else ""
        after = f"{last + 0.01:.2f}%,100%{{opacity:0}}" if end < total else ""
        style.append(f"@keyframes k{place}{{{before}{first:.2f}%,{last:.2f}%{{opacity:1}}{after}}}")
        style.append(f"#f{place}{{animation:k{place} {total:.2f}s infinite step-end}}")
        groups.append(f'<g id="f{place}">{frame}</g>')
    picture = f'<svg viewBox="{box}" xmlns="http://www.w3.org/2000/svg">'
    return "\n".join([picture, f"<style>{''.join(style)}</style>", *groups, "</svg>\n"])


if __name__ == "__main__":
    problem = (HERE.parent / "examples" / "tasks.txt").read_text()
    (HERE / "demo.svg").write_text(animate(record(problem, workers=3)))
