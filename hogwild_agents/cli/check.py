"""`hogwild check`: whether a model can run on a shared cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from rich.markup import escape

from hogwild_agents.cli.options import device_option, dtype_option
from hogwild_agents.cli.output import exit_on_error, print_error, stdout
from hogwild_agents.errors import UnsupportedModelError

if TYPE_CHECKING:
    from hogwild_agents.engine import Report


@click.command()
@click.argument("model")
@device_option
@dtype_option
def check(model: str, device: str | None, dtype: str) -> None:
    """Check whether MODEL can run on a shared cache.

    MODEL is a folder or a name on the Hugging Face hub; or pocket, the small model that ships
    inside.

    The engine must compute the same logits from a cache in several blocks as the model's own code
    does without them. The exit code is 0 if the model passes, 1 if it does not, and 2 if it cannot
    be loaded.

    Example: hogwild check path/or/hub-name
    """
    with exit_on_error():
        try:
            with stdout.status(f"Loading and checking {escape(model)} ..."):
                from hogwild_agents.cli.loading import load_model

                shared = load_model(model, device, dtype)
        except UnsupportedModelError as error:
            if error.report is not None:
                print_report(error.report)
            print_error(error)
            raise SystemExit(1) from None
        print_report(shared.report)
        limit, per_token = shared.pool.limit_bytes, shared.pool.bytes_per_token
        stdout.print(
            f"[green]Accepted[/green]: {len(shared.layers)} layers, views of up to "
            f"{shared.max_length:,} tokens. A token takes {per_token / 2**10:.4g} KiB of cache; "
            f"{limit // per_token:,} fit into {limit / 2**30:.3g} GiB."
        )


def print_report(report: Report) -> None:
    """Prints each part of a model's check with its verdict and the time that it took."""
    from rich.table import Table

    table = Table(title=escape(report.name), title_justify="left")
    table.add_column("check")
    table.add_column("verdict", overflow="fold")
    table.add_column("seconds", justify="right")
    for finding in report.findings:
        mark = "[green]✓[/green]" if finding.passed else "[red]✗[/red]"
        table.add_row(f"{mark} {finding.part}", escape(finding.verdict), f"{finding.seconds:.2f}")
    stdout.print(table)
    stdout.print(f"The check cost {report.seconds:.2f} s.")
