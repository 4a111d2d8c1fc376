"""A team without LangChain: it solves a problem and reports events while it works.

    python examples/team.py
    python examples/team.py path/or/hub-name "How many primes are there below 100?"

Without arguments the pocket model, which ships with the package, solves a list of small tasks.
"""

import sys
from typing import Any

from rich.console import Console
from rich.text import Text
from transformers import AutoTokenizer

from hogwild_agents import Engine, RedundancyCheck, SharedCacheModel, Team
from hogwild_agents.pocket import FOLDER, team_settings
from hogwild_agents.pocket.tasks import make_task_list
from hogwild_agents.team import (
    AnswerFound,
    InterruptAsked,
    InterruptContext,
    NoteRead,
    ReplyToken,
    StepCommitted,
    ThinkingEnded,
)


def half_time(context: InterruptContext) -> str | None:
    """An interrupt: any function from what a worker sees to a text or None."""
    late = context.since == context.tokens and context.passes > context.budget // 2
    return "(Half of the time is over.) " if late else None


def main(name: str | None = None, problem: str = "How many primes are there below 100?") -> None:
    """Loads a model, runs a team, and prints its events."""
    console = Console()
    if name is None:
        name, problem = str(FOLDER), make_task_list(seed=4, size=6).text
        settings: dict[str, Any] = team_settings(workers=3)
    else:
        interrupts = [half_time, RedundancyCheck(every=512)]
        settings = {"workers": ["Ada", "Emmy"], "interrupts": interrupts, "budget": 2048}
    team = Team(AutoTokenizer.from_pretrained(name), **settings)
    model = SharedCacheModel.from_pretrained(name)
    console.print(Text(problem))
    with Engine(model) as engine, engine.submit(team.session(problem)) as handle:
        if settings["workers"] == ["Ada", "Emmy"]:  # notes may come at any time, from any thread
            handle.say("Please check your result before you state it.")
        for event in handle:
            match event:
                case StepCommitted(step=step):
                    console.print(Text(f"{event.seconds:6.2f} s  {str(step).strip()}"))
                case InterruptAsked(interruption=asked):
                    console.print(Text(f"          {asked.name} asks {asked.worker}: {asked.text}"))
                case NoteRead(note=note):
                    console.print(Text(f"          the team reads: {note.text}"))
                case AnswerFound(worker=worker, answer=answer):
                    console.print(Text(f"{event.seconds:6.2f} s  {worker} answers: {answer}"))
                case ThinkingEnded(reason=reason):
                    console.print(f"{event.seconds:6.2f} s  thinking ended: {reason}")
                case ReplyToken(text=text):
                    console.print(Text(text), end="")
        result = handle.result()
    console.print(
        f"\n{result.passes} passes of thinking for {sum(result.tokens.values())} tokens, "
        f"{result.timings.total:.1f} s; answer: {result.answer!r}"
    )


if __name__ == "__main__":
    main(*sys.argv[1:3])
