"""A team solves a problem, and tells what happens while it happens.

    python examples/team.py path/or/hub-name "How many primes are there below 100?"

Without arguments it runs on a tiny model with random weights, which shows how everything works and
writes nothing but noise.
"""

import sys

import torch
from rich.console import Console
from rich.text import Text
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from hogwild_agents import Engine, RedundancyCheck, SharedCacheModel, Team
from hogwild_agents.engine.bench import build_shape
from hogwild_agents.team import (
    CollaborationPrompt,
    InterruptAsked,
    NoteRead,
    ReplyToken,
    Sight,
    StepCommitted,
    ThinkingEnded,
)
from hogwild_agents.team.bench import byte_tokenizer


def half_time(sight: Sight) -> str | None:
    """An interrupt of our own: any function from what a worker sees to a text or None."""
    late = sight.since == sight.tokens and sight.passes > sight.budget // 2
    return "(Half of the time is over.) " if late else None


def main(name: str | None = None, problem: str = "How many primes are there below 100?") -> None:
    """Loads a model, lets two workers think, says something to them, and prints what comes."""
    console = Console()
    if name is None:
        model = SharedCacheModel.from_pretrained(
            build_shape("5m", torch.float32, torch.device("cpu"))
        )
        tokenizer: PreTrainedTokenizerBase = byte_tokenizer()
        budget, prompt = 40, CollaborationPrompt(style="brief")
    else:
        model = SharedCacheModel.from_pretrained(name)
        tokenizer = AutoTokenizer.from_pretrained(name)
        budget, prompt = 2048, CollaborationPrompt()
    team = Team(
        tokenizer,
        workers=["Ada", "Emmy"],
        prompt=prompt,
        interrupts=[half_time, RedundancyCheck(every=64)],
        budget=budget,
        reply_tokens=64,
    )
    with Engine(model) as engine, engine.submit(team.session(problem)) as handle:
        handle.say("Please check your result before you state it.")
        for event in handle:
            match event:
                case StepCommitted(step=step):
                    console.print(Text(f"{event.seconds:6.2f} s  {str(step).strip()}"))
                case InterruptAsked(interruption=asked):
                    console.print(Text(f"          {asked.name} asks {asked.worker}: {asked.text}"))
                case NoteRead(note=note):
                    console.print(Text(f"          the team reads: {note.text}"))
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
