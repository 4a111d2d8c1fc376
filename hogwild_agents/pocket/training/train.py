"""Trains the pocket model: `python -m hogwild_agents.pocket.training.train --out FOLDER`.

From a seed, on a CPU or a GPU. A run that was stopped or killed goes on from its last checkpoint
with the same command, and ends with the weights of an unbroken run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from signal import SIG_DFL, SIGINT, signal
from socket import socket
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text
from torch import Tensor, distributed
from torch.multiprocessing.spawn import ProcessException, spawn
from torch.nn.functional import cross_entropy, linear
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from hogwild_agents.pocket.tokenizer import CONTEXT, build_tokenizer
from hogwild_agents.pocket.training.lessons import Lessons
from hogwild_agents.pocket.training.muon import Muon
from hogwild_agents.pocket.training.packing import NAME, NO_TARGET, Packed, Rotations

CHECKPOINT = "training.pt"
THETA = 1e4
HEAD = 32
"""Numbers of an attention head."""
console = Console(stderr=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a model is trained; two runs with one recipe on one machine give the same weights.

    Attributes:
        seed: Of the first weights and of all lessons.
        steps: Steps of the optimizers.
        tokens: Least tokens per step, of all processes together.
        processes: Between which each step's lessons are divided.
        hidden: Size of the model's states.
        layers: Its layers.
        muon: Learning rate of the matrices.
        adam: Learning rate of embeddings and norms.
        warmup: Steps until the rates are full.
        decay: Last share of the steps, over which the rates fall to a hundredth.
        start: Folder of a trained model of these sizes to go on from; it is spared easy lessons.
    """

    seed: int = 1
    steps: int = 4600
    tokens: int = 3072
    processes: int = 2
    hidden: int = 128
    layers: int = 6
    muon: float = 0.02
    adam: float = 3e-3
    warmup: int = 100
    decay: float = 0.45
    start: str | None = None

    def rate(self, step: int) -> float:
        """Share of the full learning rates in a step."""
        left = (self.steps - step) / (self.steps * self.decay)
        return min(1.0, (step + 1) / self.warmup, 0.01 + 0.99 * left)


def build_model(recipe: Recipe) -> Qwen3ForCausalLM:
    """An untrained model."""
    torch.manual_seed(recipe.seed)
    config = Qwen3Config(
        vocab_size=-(-len(build_tokenizer()) // 16) * 16,
        hidden_size=recipe.hidden,
        intermediate_size=3 * recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.hidden // HEAD,
        num_key_value_heads=recipe.hidden // HEAD,
        head_dim=HEAD,
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_type": "default", "rope_theta": THETA},
        tie_word_embeddings=True,
    )
    model = Qwen3ForCausalLM(config)
    model.set_attn_implementation(NAME)
    if recipe.start is not None:
        _take_over(model, recipe.start)
    return model


def _take_over(model: Qwen3ForCausalLM, folder: str) -> None:
    """Takes a trained model's weights; words that its tokenizer does not have stay untrained."""
    weights = Qwen3ForCausalLM.from_pretrained(folder, dtype="float32").state_dict()
    known = AutoTokenizer.from_pretrained(folder).get_vocab()
    embeddings = "model.embed_tokens.weight"
    words = model.state_dict()[embeddings].clone()
    for word, row in build_tokenizer().get_vocab().items():
        if word in known:
            words[row] = weights[embeddings][known[word]]
    model.load_state_dict(weights | {embeddings: words, "lm_head.weight": words})


class Trainer:
    """A model with its optimizers, and where the training stands; one in each process.

    Args:
        recipe: How to train.
        rank: Which of the processes this is.
        device: Where.

    Attributes:
        model: What is trained.
        step: Steps done.
        losses: Mean loss per learnt token of each step.
    """

    def __init__(self, recipe: Recipe, rank: int = 0, device: str = "cpu") -> None:
        self.recipe = recipe
        self._rank = rank
        self._device = torch.device(device)
        self.model = build_model(recipe)
        self.model.to(device)  # type: ignore[arg-type]  # transformers wraps it untyped
        self._lessons = Lessons(recipe.seed)
        parameters = dict(self.model.named_parameters())
        matrices = [p for name, p in parameters.items() if p.ndim == 2 and "embed" not in name]
        rest = [p for name, p in parameters.items() if p.ndim != 2 or "embed" in name]
        self._optimizers = [
            Muon(matrices, lr=recipe.muon),
            torch.optim.AdamW(rest, lr=recipe.adam, betas=(0.9, 0.95), weight_decay=0.0),
        ]
        self._full = (recipe.muon, recipe.adam)
        self.step = 0
        self.losses: list[float] = []

    def state(self) -> dict[str, Any]:
        """All that is needed to go on."""
        return {
            "recipe": asdict(self.recipe),
            "step": self.step,
            "losses": self.losses,
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes back to a state of the same recipe."""
        self.step, self.losses = state["step"], state["losses"]
        self.model.load_state_dict(state["model"])
        for optimizer, kept in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)

    def advance(self) -> None:
        """One step."""
        loss, learnt = 0.0, 0
        for lesson in self._next_lessons():
            summed = self._loss(lesson)
            summed.backward()  # type: ignore[no-untyped-call]
            loss += summed.item()
            learnt += int((lesson.targets != NO_TARGET).sum())
        self.losses.append(self._share_gradients(loss, learnt))
        for optimizer, full in zip(self._optimizers, self._full, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = full * self.recipe.rate(self.step)
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1

    def _next_lessons(self) -> Iterator[Packed]:
        """This process's lessons of the step; the same in every run."""
        left = self.recipe.tokens / self.recipe.processes
        progress = self.step / self.recipe.steps if self.recipe.start is None else 1.0
        for number in count():
            name = f"{self.step} {self._rank} {number}"
            lesson = self._lessons.lesson(name, progress)
            yield lesson.to(self._device)
            left -= len(lesson.ids)
            if left <= 0:
                return

    def _loss(self, lesson: Packed) -> Tensor:
        """Summed over the tokens that are learnt."""
        states = self.model.model(
            input_ids=lesson.ids[None],
            position_ids=torch.zeros_like(lesson.ids)[None],
            use_cache=False,
            rotations=Rotations(lesson, THETA, self.model.config.head_dim),
        ).last_hidden_state[0]
        asked = lesson.targets != NO_TARGET
        logits = linear(states[asked], self.model.lm_head.weight)
        return cross_entropy(logits, lesson.targets[asked], reduction="sum")

    def _share_gradients(self, loss: float, learnt: int) -> float:
        """Gives every process the mean gradient per learnt token; returns the mean loss."""
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        totals = torch.tensor([loss, learnt], dtype=torch.float64)
        if self.recipe.processes > 1:
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            distributed.all_reduce(flat)
            distributed.all_reduce(totals)
            parts = torch.split(flat, [gradient.numel() for gradient in gradients])
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view_as(gradient))
        summed, count = totals.tolist()
        for gradient in gradients:
            gradient /= count
        return float(summed / count)


def save_checkpoint(state: dict[str, Any], file: Path) -> None:
    """Writes a state so that a kill at any moment leaves the old one or the new one."""
    new = file.with_suffix(".new")
    torch.save(state, new)
    os.replace(new, file)


def export(model: Qwen3ForCausalLM, folder: Path) -> None:
    """Writes float16 weights, which `from_pretrained` loads as float32, and the tokenizer."""
    twin: Any = Qwen3ForCausalLM(model.config)
    twin.half()
    tokenizer = build_tokenizer()
    twin.config.eos_token_id = twin.generation_config.eos_token_id = tokenizer.eos_token_id
    twin.load_state_dict(model.state_dict())
    twin.generation_config.do_sample = False
    twin.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # safetensors leaves it to its owner alone
    config = folder / "config.json"  # half precision saves space, but is slow on CPUs
    config.write_text(config.read_text().replace('"dtype": "float16"', '"dtype": "float32"'))


def run(rank: int, recipe: Recipe, out: Path, device: str, every: int, port: int) -> None:
    """One process of a training; the first one shows its progress and writes to `out`."""
    signal(SIGINT, SIG_DFL)  # ends quietly by Ctrl-C, and with the process that started this one
    torch.set_num_threads(1)
    if recipe.processes > 1:
        address = f"tcp://127.0.0.1:{port}"
        distributed.init_process_group("gloo", address, rank=rank, world_size=recipe.processes)
    trainer = Trainer(recipe, rank, device)
    if (out / CHECKPOINT).exists():
        trainer.restore(torch.load(out / CHECKPOINT, map_location=device))
    if rank == 0:
        _run_visibly(trainer, out, every)
    else:
        while trainer.step < recipe.steps:
            trainer.advance()
    if recipe.processes > 1:  # a process that ends with gloo's threads at work may be aborted
        distributed.destroy_process_group()


def _run_visibly(trainer: Trainer, out: Path, every: int) -> None:
    steps = trainer.recipe.steps
    counter = TextColumn("{task.completed:,} of {task.total:,} steps")
    columns = (TextColumn("{task.description}"), BarColumn(), counter)
    with Progress(
        *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console
    ) as progress:
        task = progress.add_task("Training", total=steps, completed=trainer.step)
        while trainer.step < steps:
            trainer.advance()
            if trainer.step % every == 0 or trainer.step == steps:
                save_checkpoint(trainer.state(), out / CHECKPOINT)
            loss = f"Loss {trainer.losses[-1]:.4f}"
            progress.update(task, completed=trainer.step, description=loss)
    export(trainer.model, out)


def train(
    out: Annotated[Path, typer.Option(help="Folder for the checkpoints and the trained model.")],
    seed: Annotated[int, typer.Option(help="Another seed gives another model.")] = Recipe().seed,
    steps: Annotated[int, typer.Option(min=1, help="Steps of training.")] = Recipe().steps,
    hidden: Annotated[
        int, typer.Option(min=32, help="Size of the states, a multiple of 32.")
    ] = Recipe().hidden,
    layers: Annotated[int, typer.Option(min=1, help="Layers.")] = Recipe().layers,
    processes: Annotated[
        int, typer.Option(min=1, help="Processes of one CPU thread each; 1 for a GPU.")
    ] = Recipe().processes,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    every: Annotated[int, typer.Option(min=1, help="Steps between two checkpoints.")] = 100,
    start: Annotated[
        Path | None, typer.Option(help="Folder of a trained model of these sizes to go on from.")
    ] = None,
    rate: Annotated[
        float, typer.Option(min=0, help="Share of the full learning rates; less to go on.")
    ] = 1.0,
    decay: Annotated[
        float, typer.Option(min=0.01, max=1, help="Last share of the steps, with falling rates.")
    ] = Recipe().decay,
) -> None:
    """Train the pocket model, or go on where an earlier run in the same folder stopped."""
    recipe = Recipe(
        seed=seed,
        steps=steps,
        processes=processes,
        hidden=hidden,
        layers=layers,
        muon=Recipe().muon * rate,
        adam=Recipe().adam * rate,
        decay=decay,
        start=None if start is None else str(start.resolve()),
    )
    if hidden % HEAD:
        raise typer.BadParameter(f"{hidden} is no multiple of {HEAD}", param_hint="--hidden")
    out.mkdir(parents=True, exist_ok=True)
    if (out / CHECKPOINT).exists():
        kept = torch.load(out / CHECKPOINT, map_location=device)
        if kept["recipe"] != asdict(recipe):
            raise typer.BadParameter(
                f"{out} holds a training with {kept['recipe']}: go on with the same settings, or "
                "take another folder",
                param_hint="--out",
            )
        console.print(f"Going on after step {kept['step']:,}.")
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = (recipe, out, device, every, port)
    team: Any = spawn(run, given, nprocs=processes, join=False)  # type: ignore[no-untyped-call]
    try:
        while not team.join():
            pass
    except ProcessException as error:  # it holds the other process's traceback
        console.print(Text(str(error)))
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        for process in team.processes:
            process.kill()
            process.join()
        console.print("Stopped. The same command goes on from the last checkpoint.")
        raise typer.Exit(130) from None
    console.print(f"Trained: {out}. Measure it: python -m hogwild_agents.pocket.evaluate {out}")


if __name__ == "__main__":
    typer.run(train)
