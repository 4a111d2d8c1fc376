"""Inspect's entry point: registers the provider's name, and loads the provider on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inspect_ai.model import modelapi

if TYPE_CHECKING:
    from hogwild_inspect.provider import HogwildAPI


@modelapi(name="hogwild")
def hogwild() -> type[HogwildAPI]:
    """The provider of `hogwild/pocket`, `hogwild/FOLDER` and `hogwild/NAME-ON-THE-HUB`."""
    from hogwild_inspect.provider import HogwildAPI

    return HogwildAPI
