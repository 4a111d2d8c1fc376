"""Fills the marked places of the pages when the site is built, so that they cannot go stale.

A page holds `<!-- fill: NAME -->`; the function of that name below writes what belongs there.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SOURCE = "https://github.com/hogwild-agents/hogwild_agents/blob/main/"

_PLACE = re.compile(r"^<!-- fill: (\w+) -->$", re.MULTILINE)
_EXAMPLE = re.compile(r"^(\w[\w ]*): (hogwild .*)$", re.MULTILINE)
_LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)]+)\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs with every page."""
    return _PLACE.sub(lambda place: FILLERS[place[1]](), markdown)


def command_line() -> str:
    """Every command with its arguments and options, as `--help` shows them."""
    import click

    from hogwild_agents.cli import app

    context = click.Context(app, info_name="hogwild")
    return "\n\n".join(
        _command(click.Context(command, info_name=name, parent=context))
        for name, command in app.commands.items()
    )


def _command(context: Any) -> str:
    command = context.command
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    text = inspect.cleandoc(command.help or "").replace("\b\n", "")
    rows = ["| option | meaning |", "|---|---|"]
    for parameter in command.get_params(context):
        if parameter.param_type_name == "option":
            name, meaning = parameter.get_help_record(context)
            rows.append(f"| `{name}` | {meaning.replace('|', '&#124;')} |")
    return "\n\n".join(
        [
            f"## `{context.command_path}`",
            f"```console\n$ {usage}\n```",
            _EXAMPLE.sub(r"\1:\n\n```console\n$ \2\n```", text),
            "\n".join(rows),
        ]
    )


def chat_model_options() -> str:
    """The fields of `ChatHogwild` that LangChain's chat models do not have."""
    from langchain_core.language_models import BaseChatModel

    from hogwild_agents import ChatHogwild

    return _options(ChatHogwild, BaseChatModel)


def team_tool_options() -> str:
    """The fields of `TeamTool` that LangChain's tools do not have."""
    from langchain_core.tools import BaseTool

    from hogwild_agents import TeamTool

    return _options(TeamTool, BaseTool)


def _options(kind: Any, base: Any) -> str:
    rows = ["| option | type | default | what it is |", "|---|---|---|---|"]
    for name, field in kind.model_fields.items():
        if name not in base.model_fields:
            default = "" if field.default_factory or field.is_required() else f"`{field.default!r}`"
            meaning = " ".join((field.description or "").split()).replace("|", "\\|")
            rows.append(f"| `{name}` | {_type(kind, name)} | {default} | {meaning} |")
    return "\n".join(rows)


def _type(kind: Any, name: str) -> str:
    """An annotation as it stands in the source, without what only pydantic reads."""
    owner = next(cls for cls in kind.__mro__ if name in vars(cls).get("__annotations__", {}))
    text = re.sub(r"Annotated\[(\w+), [^\]]*\]", r"\1", str(vars(owner)["__annotations__"][name]))
    return f"`{text}`".replace(" | ", "` or `")


def langchain_errors() -> str:
    """What `ChatHogwild` raises, and which error of LangChain's each one is."""
    from hogwild_agents.errors import HogwildError
    from hogwild_agents.langchain import errors

    rows = ["| error | LangChain's | when |", "|---|---|---|"]
    for name, kind in vars(errors).items():
        if (
            inspect.isclass(kind)
            and issubclass(kind, HogwildError)
            and kind.__module__ == errors.__name__
        ):
            theirs = kind.__bases__[1].__name__
            meaning = " ".join((kind.__doc__ or "").split())
            rows.append(f"| `{name}` | `{theirs}` | {meaning} |")
    return "\n".join(rows)


def changelog() -> str:
    """CHANGELOG.md of the repository."""
    return _page("CHANGELOG.md")


def contributing() -> str:
    """CONTRIBUTING.md of the repository."""
    return _page("CONTRIBUTING.md")


def security() -> str:
    """SECURITY.md of the repository."""
    return _page("SECURITY.md")


def _page(name: str) -> str:
    """A page of the repository's root, without its title, with links that hold on the site."""
    text = (ROOT / name).read_text(encoding="utf-8").partition("\n")[2]
    return _LINK.sub(lambda link: f"]({_moved(link[1])})", text)


def _moved(target: str) -> str:
    return target.removeprefix("docs/") if target.startswith("docs/") else SOURCE + target


FILLERS: dict[str, Callable[[], str]] = {
    write.__name__: write
    for write in (
        command_line,
        chat_model_options,
        team_tool_options,
        langchain_errors,
        changelog,
        contributing,
        security,
    )
}
