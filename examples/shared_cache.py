"""Two workers write at the same time and read each other's words from one cache.

The model is tiny and its weights are random, so what it writes means nothing. What this shows is
the engine: each forward pass gives one new token per worker, each token is stored once and seen by
all at once, and the numbers are those that plain transformers computes.

Run it with `python examples/shared_cache.py`.
"""

import torch
from rich.console import Console
from rich.table import Table
from transformers import PreTrainedModel

from hogwild_agents import SharedCacheModel
from hogwild_agents.bench.engine import build_shape
from hogwild_agents.engine import SamplerState, SamplingParams, sample

PROMPT = list(range(2, 34))
PASSES = 12


def plain_logits(model: PreTrainedModel, tokens: list[int]) -> torch.Tensor:
    """What the model itself predicts after `tokens`, without any cache."""
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=torch.tensor([tokens]), use_cache=False).logits
    return logits[0, -1]


def main() -> None:
    """Loads, proves, decodes two workers in lock-step, commits, and compares."""
    console = Console()
    plain = build_shape("5m", torch.float32, torch.device("cpu"))
    model = SharedCacheModel.from_pretrained(build_shape("5m", torch.float32, torch.device("cpu")))
    for finding in model.report.findings:
        console.print(f"[green]✓[/green] {finding.part}: {finding.verdict}")

    # One block holds the prompt, and each worker writes to a block of its own. A view lists what a
    # worker sees, in order; it writes to the last block of its view.
    prompt, alice, bob = model.new_block(), model.new_block(), model.new_block()
    model.forward([[prompt]], [PROMPT])
    views = [[prompt, bob, alice], [prompt, alice, bob]]
    samplers = [SamplerState(SamplingParams(temperature=0.8, seed=seed)) for seed in (1, 2)]

    tokens = [[100], [200]]  # their first words
    table = Table("pass", "Alice", "Bob", "tokens in the cache", title="Two workers, one cache")
    for turn in range(1, PASSES + 1):
        logits = model.forward(views, tokens)
        tokens = [[token] for token in sample(logits, samplers)]
        held = len(prompt) + len(alice) + len(bob)
        table.add_row(str(turn), str(tokens[0][0]), str(tokens[1][0]), str(held))
    console.print(table)
    console.print(
        f"{PASSES} passes wrote {2 * PASSES} tokens. Each is stored once, in "
        f"{model.pool.used_bytes / 2**20:.2f} MiB for both workers."
    )

    # Commit: Alice's words move to the end of the shared history. Only their keys are turned.
    prompt.extend(alice)
    alice.clear()

    # The proof: a chain of three blocks gives what plain transformers gives for the whole text.
    history, step, own = model.new_block(), model.new_block(), model.new_block()
    model.forward([[history]], [PROMPT[:20]])
    model.forward([[history, step]], [PROMPT[20:27]])
    history.extend(step)
    ours = model.forward([[history, own]], [PROMPT[27:]])[0]
    difference = (ours - plain_logits(plain, PROMPT)).abs().max()
    console.print(f"Largest difference from plain transformers' logits: {difference:.1e}")


if __name__ == "__main__":
    main()
