"""JSON schemas: their parts, the shortest text that fits each part, and closed objects."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Set
from typing import Any, NamedTuple
from urllib.parse import unquote

MAX_LENGTH = 2048
"""Characters after which a shortest text is cut off; then it is no candidate."""

_MAPS = ("properties", "patternProperties", "$defs", "definitions")
"""Keys of a schema whose values are schemas by name."""
_SINGLE_OR_LIST = ("items", "prefixItems", "additionalProperties", "anyOf", "oneOf", "allOf")
"""Keys of a schema whose values are schemas, one or a list."""
_COMBINING = frozenset({"allOf", "if", "patternProperties"})
"""Keys that add further schemas for the same object."""
_COMBINING_PROPERTIES = frozenset({"anyOf", "oneOf", "$ref"})
"""Keys that do so if the schema has properties of its own."""
_SIMPLE = {"boolean": "true", "null": "null", "string": '""', "integer": "0", "number": "0"}
_LIMITS = (
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    *("minLength", "maxLength", "pattern", "format"),
)
"""Keys that limit which strings or numbers fit."""


class Separators(NamedTuple):
    """Text between the items of a JSON list or object, and between a key and its value."""

    item: str
    key: str


def subschemas(schema: Any, pointer: str = "") -> Iterator[tuple[str, Any]]:
    """All schemas within a schema and itself, with their JSON pointers; inner ones come first."""
    if isinstance(schema, Mapping):
        for key in (*_MAPS, *_SINGLE_OR_LIST):
            value = schema.get(key)
            if isinstance(value, list):
                inner: Any = enumerate(value)
            elif key in _MAPS and isinstance(value, Mapping):
                inner = value.items()
            else:
                inner = [] if value is None else [(None, value)]
            for name, part in inner:
                yield from subschemas(part, pointer + _reference(key) + _reference(name))
    yield pointer, schema


def _reference(name: Any) -> str:
    """A JSON pointer's reference to a member or an item; nothing for None."""
    return "" if name is None else "/" + str(name).replace("~", "~0").replace("/", "~1")


class ShortestTexts:
    """The shortest JSON text that fits each part of a schema, where there is one.

    A text may be wrong where a value has to fit several schemas at once. A part without a text is
    endless: whatever fits it would contain itself.

    Args:
        schema: The whole schema.
        shortest_limited: Finds the shortest text for the schema of a string or number with limits.
        separators: Those of the texts.
    """

    def __init__(
        self,
        schema: Any,
        shortest_limited: Callable[[Mapping[str, Any]], str],
        separators: Separators,
    ) -> None:
        self._parts = dict(subschemas(schema))
        self._shortest_limited = shortest_limited
        self._item_separator, self._key_separator = separators
        self._texts: dict[str, str] = {}
        while self._shorten():
            pass

    @property
    def endless(self) -> Set[str]:
        """Pointers of the parts that no finite text fits."""
        return self._parts.keys() - self._texts.keys()

    def candidates(self) -> list[str]:
        """Texts that may come next on the way to the end, the shortest first.

        They are values, and what closes an object; each also with a separator before it.
        """
        texts = {*self._texts.values()}
        for pointer, part in self._parts.items():
            members = self._members(pointer, part) or []
            texts |= {self._item_separator.join(members[n:]) + "}" for n in range(len(members))}
        separators = (self._item_separator, self._key_separator)
        texts |= {separator + text for separator in separators for text in texts}
        return sorted((text for text in texts if len(text) < MAX_LENGTH), key=_by_length)

    def strings(self) -> list[str]:
        """Contents of strings that have limits, the shortest first."""
        limits = {"pattern", "format", "minLength"}
        texts = (
            self._texts.get(pointer, "")
            for pointer, part in self._parts.items()
            if isinstance(part, Mapping) and not limits.isdisjoint(part)
        )
        contents = {text[1:-1] for text in texts if text.startswith('"')}
        return sorted(contents - {""}, key=_by_length)

    def _shorten(self) -> bool:
        """Looks for shorter texts, and says whether there were any."""
        improved = False
        for pointer, part in self._parts.items():
            text = self._shortest(pointer, part)
            before = self._texts.get(pointer)
            if text is not None and (before is None or len(text) < len(before)):
                self._texts[pointer], improved = text[:MAX_LENGTH], True
        return improved

    def _shortest(self, pointer: str, part: Any) -> str | None:
        """The shortest text for a part that follows from the texts found so far."""
        if not isinstance(part, Mapping):
            return None if part is False else "0"
        if isinstance(part.get("$ref"), str):
            target = unquote(part["$ref"]).removeprefix("#")
            return self._texts.get(target) if target in self._parts else "0"
        if "const" in part:
            return _to_json(part["const"])
        if isinstance(part.get("enum"), list):
            return min(map(_to_json, part["enum"]), key=len, default="0")
        for key in ("anyOf", "oneOf"):
            if isinstance(part.get(key), list):
                return min(self._texts_of(pointer, key, part[key]), key=len, default=None)
        if isinstance(part.get("allOf"), list):
            texts = self._texts_of(pointer, "allOf", part["allOf"])
            return max(texts, key=len, default="0") if len(texts) == len(part["allOf"]) else None
        types = part.get("type")
        types = types if isinstance(types, list) else [types]
        options = [self._shortest_of_type(name, pointer, part) for name in types]
        return min((text for text in options if text is not None), key=len, default=None)

    def _texts_of(self, pointer: str, key: str, parts: list[Any]) -> list[str]:
        """The texts found so far for the parts in a list."""
        pointers = [f"{pointer}/{key}/{index}" for index in range(len(parts))]
        return [self._texts[pointer] for pointer in pointers if pointer in self._texts]

    def _shortest_of_type(self, kind: Any, pointer: str, part: Mapping[str, Any]) -> str | None:
        if kind == "object":
            members = self._members(pointer, part)
            return None if members is None else "{" + self._item_separator.join(members) + "}"
        if kind == "array":
            items = self._items(pointer, part)
            return None if items is None else "[" + self._item_separator.join(items) + "]"
        if kind in _SIMPLE and not set(_LIMITS).isdisjoint(part):
            if kind == "string" and {"pattern", "format"}.isdisjoint(part):
                return _to_json("a" * int(part.get("minLength", 0)))
            limits = {key: part[key] for key in _LIMITS if key in part}
            return self._shortest_limited({"type": kind, **limits})
        return _SIMPLE.get(str(kind), "0")

    def _members(self, pointer: str, part: Any) -> list[str] | None:
        """The members that an object must have, in order; None if one is endless so far."""
        if not isinstance(part, Mapping) or not isinstance(part.get("required"), list):
            return []
        properties = part.get("properties") or {}
        required = [name for name in properties if name in part["required"]]
        required += [name for name in part["required"] if name not in properties]
        members = []
        for name in required:
            inner = f"{pointer}/properties{_reference(name)}"
            if name not in properties:
                inner = f"{pointer}/additionalProperties"
            value = self._texts.get(inner, None if inner in self._parts else "0")
            if value is None:
                return None
            members.append(_to_json(name) + self._key_separator + value)
        return members

    def _items(self, pointer: str, part: Mapping[str, Any]) -> list[str] | None:
        """The items that a list must have; None if one is endless so far."""
        items: list[str] = []
        prefix = part.get("prefixItems") or []
        for index in range(min(int(part.get("minItems", 0)), MAX_LENGTH)):
            inner = f"{pointer}/prefixItems/{index}"
            if index >= len(prefix):
                inner = f"{pointer}/items"
            value = self._texts.get(inner, None if inner in self._parts else "0")
            if value is None:
                return None
            items.append(value)
            if len(items) * len(value) > MAX_LENGTH:
                break
        return items


def _by_length(text: str) -> tuple[int, str]:
    return len(text), text


def _to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def close_objects(schema: Any, endless: Set[str] = frozenset(), pointer: str = "") -> Any:
    """A schema whose objects have no members but those it names, unless it says otherwise.

    Objects that several schemas describe together stay open, as each schema would exclude the
    members that the others name.

    Args:
        schema: A whole schema or a part.
        endless: Pointers of parts that no finite text fits. They are replaced by `False`, which
            nothing fits.
        pointer: The pointer of `schema`.
    """
    if pointer in endless:
        return False
    if isinstance(schema, list):
        return [
            close_objects(part, endless, pointer + _reference(n)) for n, part in enumerate(schema)
        ]
    if not isinstance(schema, Mapping):
        return schema
    if not _COMBINING.isdisjoint(schema) or (
        "properties" in schema and not _COMBINING_PROPERTIES.isdisjoint(schema)
    ):
        return schema
    result: dict[str, Any] = {}
    for key, value in schema.items():
        inner = pointer + _reference(key)
        if key in _MAPS and isinstance(value, Mapping):
            result[key] = {
                name: close_objects(part, endless, inner + _reference(name))
                for name, part in value.items()
            }
        else:
            closed = key in _SINGLE_OR_LIST
            result[key] = close_objects(value, endless, inner) if closed else value
    if "properties" in schema:
        result.setdefault("additionalProperties", False)
    return result
