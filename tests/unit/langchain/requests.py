"""Tools and schemas that calls of chat models ask for."""

from __future__ import annotations

from enum import Enum
from typing import Any, Literal

from langchain_core.tools import tool
from pydantic import BaseModel, Field

from tests.unit.constrained.schemas import ADD

RAW: dict[str, Any] = {"name": "power", "description": "Raises.", "parameters": ADD}
"""A tool as a dict."""

SCHEMA: dict[str, Any] = {
    "title": "T",
    "type": "object",
    "properties": {"title": {"type": "string", "title": "Ti"}},
}
FORMAT: dict[str, Any] = {"type": "json_schema", "json_schema": {"name": "t", "schema": SCHEMA}}
"""The `response_format` that asks for `SCHEMA`."""


@tool
def add(a: int, b: int = 0) -> int:
    """Adds two numbers."""
    return a + b


class Colour(Enum):
    """A colour."""

    RED = "red"
    BLUE = "blue"


class Seat(BaseModel):
    """A seat."""

    row: int = Field(ge=1, le=40)
    letter: Literal["A", "B"]


class Ticket(BaseModel):
    """A ticket."""

    title: str = Field(description="What it is about.", max_length=9)
    seats: list[Seat] = Field(min_length=1, max_length=2)
    colour: Colour
    price: float | None = Field(default=None, ge=0, le=100)
    extras: dict[str, int] = Field(default_factory=dict)
