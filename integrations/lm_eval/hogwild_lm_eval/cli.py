"""The command `hogwild-lm-eval`: runs tasks of lm_eval with a team, and prints a table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")


@app.command(no_args_is_help=True)
def run(
    tasks: Annotated[
        list[str],
        typer.Argument(
            help="Names of lm_eval's tasks (`lm-eval ls tasks` lists them), or YAML files of your "
            "own."
        ),
    ],
    model: Annotated[
        str, typer.Option(help="Folder or hub name of a model; pocket is included in the package.")
    ] = "pocket",
    workers: Annotated[
        int, typer.Option(min=1, max=8, help="Number of workers; 1 is a plain model.")
    ] = 2,
    budget: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Forward passes of thinking.",
            show_default="4096, and 1024 for the pocket model",
        ),
    ] = None,
    limit: Annotated[
        float | None,
        typer.Option(help="Number of problems per task, or a share of them if below 1."),
    ] = None,
    fewshot: Annotated[
        int | None,
        typer.Option(min=0, help="Examples before each problem.", show_default="the task's own"),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Sampling temperature; most reasoning models need about 0.6.",
            show_default="the task's own, usually 0",
        ),
    ] = None,
    chat: Annotated[
        bool,
        typer.Option("--chat", help="Use the chat template, with examples as earlier turns."),
    ] = False,
    include: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="A folder with tasks of your own."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cuda, cpu, ...", show_default="a GPU if there is one")
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="float32, bfloat16, float16, or the checkpoint's own.")
    ] = "auto",
    output: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Write results and every sample here, as JSON."),
    ] = None,
) -> None:
    """Evaluates a team of workers on tasks of EleutherAI's lm-evaluation-harness.

    The team solves tasks that generate text. Multiple choice and perplexity use the probabilities
    of the model alone; workers and budget do not matter there.

    Begin with: hogwild-lm-eval gsm8k --model Qwen/Qwen3-8B --workers 4 --budget 2048
    --temperature 0.6 --limit 50

    All of lm_eval's own options: python -m hogwild_lm_eval run --model hogwild --help
    """
    from lm_eval import simple_evaluate
    from lm_eval.config.evaluate_config import EvaluatorConfig
    from lm_eval.utils import handle_non_serializable, make_table

    if output is not None and not output.absolute().parent.is_dir():
        raise typer.BadParameter(f"There is no folder {output.absolute().parent}")
    config = EvaluatorConfig(tasks=[*tasks], include_path=str(include) if include else None)
    try:
        manager = config.process_tasks()  # reads YAML files
    except ValueError as error:
        raise typer.BadParameter(f"{error}; `lm-eval ls tasks` lists all") from error
    options: dict[str, Any] = {"workers": workers, "budget": budget, "dtype": dtype}
    results = simple_evaluate(
        "hogwild",
        model_args={"pretrained": model, **_without_none(options)},
        device=device,
        tasks=config.tasks,
        num_fewshot=fewshot,
        limit=limit,
        apply_chat_template=chat,
        fewshot_as_multiturn=chat,
        gen_kwargs=None if temperature is None else {"temperature": temperature, "do_sample": True},
        task_manager=manager,
    )
    assert results is not None  # None only in other processes of a distributed run
    typer.echo(make_table(results))
    if output is not None:
        text = json.dumps(results, indent=2, default=handle_non_serializable, ensure_ascii=False)
        output.write_text(text + "\n", encoding="utf-8")


def _without_none(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def main() -> None:
    """Runs the command line."""
    app()
