"""Checks arguments against the JSON schemas of invented functions."""

from __future__ import annotations

from typing import Any

_TYPES = {"string": str, "integer": int, "number": float, "boolean": bool}


def fits(arguments: Any, schema: dict[str, Any]) -> bool:
    """Whether all that is required is there, nothing is unknown, and all types are right."""
    properties = schema["properties"]
    return (
        type(arguments) is dict
        and arguments.keys() <= properties.keys()
        and arguments.keys() >= {*schema["required"]}
        and all(_fits(value, properties[name]) for name, value in arguments.items())
    )


def _fits(value: Any, schema: dict[str, Any]) -> bool:
    return type(value) is _TYPES[schema["type"]] and value in schema.get("enum", [value])
