"""The training command: starts the processes, shows their progress, keeps checkpoints."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from signal import SIG_DFL, SIGINT, signal
from socket import socket
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text
from torch import distributed
from torch.multiprocessing.spawn import ProcessException, spawn

from hogwild_agents.pocket.training.trainer import HEAD, Recipe, Trainer, export

CHECKPOINT = "training.pt"
console = Console(stderr=True)


def save_checkpoint(state: dict[str, Any], file: Path) -> None:
    """Writes a state so that a kill at any moment leaves the old file or the new one."""
    new = file.with_suffix(".new")
    torch.save(state, new)
    os.replace(new, file)


def run(rank: int, recipe: Recipe, out: Path, device: str, every: int, port: int) -> None:
    """Runs one process of a training; the first one shows progress and writes to `out`."""
    signal(SIGINT, SIG_DFL)  # ends without a traceback on Ctrl-C, and with its parent process
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
    if recipe.processes > 1:  # a process that ends while gloo's threads work may be aborted
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
    steps: Annotated[int, typer.Option(min=1, help="Number of training steps.")] = Recipe().steps,
    hidden: Annotated[
        int, typer.Option(min=HEAD, help=f"Size of the hidden states, a multiple of {HEAD}.")
    ] = Recipe().hidden,
    layers: Annotated[int, typer.Option(min=1, help="Number of layers.")] = Recipe().layers,
    processes: Annotated[
        int, typer.Option(min=1, help="Processes of one CPU thread each; 1 for a GPU.")
    ] = Recipe().processes,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    every: Annotated[int, typer.Option(min=1, help="Steps between two checkpoints.")] = 100,
    start: Annotated[
        Path | None,
        typer.Option(help="Folder of a trained model of the same sizes to go on from."),
    ] = None,
    rate: Annotated[
        float,
        typer.Option(min=0, help="Share of the full learning rates; below 1 with --start."),
    ] = 1.0,
    decay: Annotated[
        float, typer.Option(min=0.01, max=1, help="Last share of the steps, with falling rates.")
    ] = Recipe().decay,
) -> None:
    """Train the pocket model, on a CPU or a GPU.

    A run that was stopped or killed goes on from its last checkpoint with the same command, and
    ends with the weights of an unbroken run. The default settings take some hours on two cores.

    In full: python -m hogwild_agents.pocket.training --out runs/pocket

    A quick look: python -m hogwild_agents.pocket.training --out runs/tiny --hidden 32 --layers 1
    --steps 20

    Then measure it: python -m hogwild_agents.pocket.evaluate runs/pocket
    """
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
        raise typer.BadParameter(f"{hidden} is not a multiple of {HEAD}", param_hint="--hidden")
    out.mkdir(parents=True, exist_ok=True)
    if (out / CHECKPOINT).exists():
        checkpoint = torch.load(out / CHECKPOINT, map_location=device)
        if checkpoint["recipe"] != asdict(recipe):
            raise typer.BadParameter(
                f"{out} holds a training with {checkpoint['recipe']}: go on with the same "
                "settings, or take another folder",
                param_hint="--out",
            )
        console.print(f"Going on after step {checkpoint['step']:,}.")
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = (recipe, out, device, every, port)
    context: Any = spawn(run, arguments, nprocs=processes, join=False)  # type: ignore[no-untyped-call]
    try:
        while not context.join():
            pass
    except ProcessException as error:  # it holds the other process's traceback
        console.print(Text(str(error)))
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        for process in context.processes:
            process.kill()
            process.join()
        console.print("Stopped. The same command goes on from the last checkpoint.")
        raise typer.Exit(130) from None
    console.print(f"Trained: {out}. Measure it: python -m hogwild_agents.pocket.evaluate {out}")
