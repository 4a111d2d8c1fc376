"""`hogwild check`: whether a model can run on a shared cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from hogwild_agents.cli.common import Device, Dtype, console, errors

if TYPE_CHECKING:
    from hogwild_agents.engine import Report


def check(
    model: Annotated[str, typer.Argument(help="A model's folder or hub name.")],
    device: Device = None,
    dtype: Dtype = "auto",
) -> None:
    """Examine whether a model can run on a shared cache, and show what was measured.

    A model proves itself: blocks of its cache laid end to end must give the logits of its own plain
    forward. Exits with 1 if the model is refused, with 2 if it cannot be loaded.
    """
    from hogwild_agents.engine import SharedCacheModel
    from hogwild_agents.errors import ModelLoadError, UnsupportedModelError

    try:
        with console.status(f"Loading and examining {escape(model)} ..."):
            shared = SharedCacheModel.from_pretrained(model, device=device, dtype=dtype)
    except ModelLoadError as error:
        errors.print(f"[red]{escape(str(error))}[/red]")
        raise typer.Exit(2) from None
    except UnsupportedModelError as error:
        if error.report is not None:
            print_report(error.report)
        errors.print(f"[red]{escape(str(error))}[/red]")
        raise typer.Exit(1) from None
    print_report(shared.report)
    limit, per_token = shared.pool.limit_bytes, shared.pool.bytes_per_token
    console.print(
        f"[green]Accepted[/green]: {len(shared.layers)} layers, views of up to "
        f"{shared.max_length:,} tokens. A token takes {per_token / 2**10:.4g} KiB of cache; "
        f"{limit // per_token:,} fit into {limit / 2**30:.3g} GiB."
    )


def print_report(report: Report) -> None:
    """What was examined, with what it cost."""
    table = Table(title=escape(report.name), title_justify="left")
    table.add_column("check")
    table.add_column("verdict", overflow="fold")
    table.add_column("seconds", justify="right")
    for finding in report.findings:
        mark = "[green]✓[/green]" if finding.passed else "[red]✗[/red]"
        table.add_row(f"{mark} {finding.part}", escape(finding.verdict), f"{finding.seconds:.2f}")
    console.print(table)
    console.print(f"The check cost {report.seconds:.2f} s.")
