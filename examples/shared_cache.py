"""Two workers write at the same time and read each other's tokens from one cache.

The model is tiny and its weights are random, so its tokens mean nothing. The example shows the
engine: each forward pass gives one new token per worker, each token is stored once and visible to
all workers at once, and the logits equal those of plain transformers.

python examples/shared_cache.py
"""

import torch
from rich.console import Console
from rich.table import Table
from transformers import PreTrainedModel

from hogwild_agents import SharedCacheModel
from hogwild_agents.bench.random_model import build_shape
from hogwild_agents.engine import SamplerState, SamplingParams, sample

PROMPT = list(range(2, 34))
PASSES = 12


def plain_logits(model: PreTrainedModel, tokens: list[int]) -> torch.Tensor:
    """What the model predicts after `tokens` without a cache."""
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=torch.tensor([tokens]), use_cache=False).logits
    return logits[0, -1]


def main() -> None:
    """Loads a model, decodes with two workers, commits a step, and compares logits."""
    console = Console()
    plain = build_shape("5m", torch.float32, torch.device("cpu"))
    model = SharedCacheModel.from_pretrained(build_shape("5m", torch.float32, torch.device("cpu")))
    for finding in model.report.findings:
        console.print(f"[green]✓[/green] {finding.part}: {finding.verdict}")

    # One block holds the prompt, and each worker has a block for its own tokens. A view lists the
    # blocks that a worker sees, in order; the worker writes to the last one.
    prompt, alice, bob = model.new_block(), model.new_block(), model.new_block()
    model.forward([[prompt]], [PROMPT])
    views = [[prompt, bob, alice], [prompt, alice, bob]]
    samplers = [SamplerState(SamplingParams(temperature=0.8, seed=seed)) for seed in (1, 2)]

    tokens = [[100], [200]]  # the first token of each worker
    table = Table("pass", "Alice", "Bob", "tokens in the cache", title="Two workers, one cache")
    for number in range(1, PASSES + 1):
        logits = model.forward(views, tokens)
        tokens = [[token] for token in sample(logits, samplers)]
        cached = len(prompt) + len(alice) + len(bob)
        table.add_row(str(number), str(tokens[0][0]), str(tokens[1][0]), str(cached))
    console.print(table)
    console.print(
        f"{PASSES} passes wrote {2 * PASSES} tokens. Each is stored once, in "
        f"{model.pool.used_bytes / 2**20:.2f} MiB for both workers."
    )

    # Commit: Alice's tokens move to the end of the shared history. Only their keys are rotated.
    prompt.extend(alice)
    alice.clear()

    # Proof: three blocks in a row give the logits that plain transformers gives for the whole text.
    history, step, own = model.new_block(), model.new_block(), model.new_block()
    model.forward([[history]], [PROMPT[:20]])
    model.forward([[history, step]], [PROMPT[20:27]])
    history.extend(step)
    ours = model.forward([[history, own]], [PROMPT[27:]])[0]
    difference = (ours - plain_logits(plain, PROMPT)).abs().max()
    console.print(f"Largest difference from plain transformers' logits: {difference:.1e}")


if __name__ == "__main__":
    main()
