"""JSON schemas taken apart: what each part needs, and the least text that fits it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Set
from typing import Any, NamedTuple
from urllib.parse import unquote

LONGEST = 2048
"""Least texts are not told in full from so many letters on."""

_BY_NAME = ("properties", "patternProperties", "$defs", "definitions")
"""Keys of a schema that hold schemas by name."""
_PARTS = ("items", "prefixItems", "additionalProperties", "anyOf", "oneOf", "allOf")
"""Keys of a schema that hold schemas, one or a list."""
_TOGETHER = frozenset({"allOf", "if", "patternProperties"})
_BESIDE = frozenset({"anyOf", "oneOf", "$ref"})
"""Keys that add further schemas, always or beside properties."""
_PLAIN = {"boolean": "true", "null": "null", "string": '""', "integer": "0", "number": "0"}
_LIMITS = (
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    *("minLength", "maxLength", "pattern", "format"),
)
"""Keys that say which texts or numbers fit."""


class Separators(NamedTuple):
    """What stands between the items of a JSON object, and between a key and its value."""

    item: str
    key: str


def parts_of(schema: Any, pointer: str = "") -> Iterator[tuple[str, Any]]:
    """Every schema within a schema with its JSON pointer; what is inside comes first."""
    if isinstance(schema, Mapping):
        for key in (*_BY_NAME, *_PARTS):
            held = schema.get(key)
            if isinstance(held, list):
                inner: Any = enumerate(held)
            elif key in _BY_NAME and isinstance(held, Mapping):
                inner = held.items()
            else:
                inner = [] if held is None else [(None, held)]
            for name, part in inner:
                yield from parts_of(part, pointer + "".join(map(_step, (key, name))))
    yield pointer, schema


def _step(name: Any) -> str:
    """A step of a JSON pointer."""
    return "" if name is None else "/" + str(name).replace("~", "~0").replace("/", "~1")


class LeastTexts:
    """The least JSON text that fits each part of a schema, where there is one.

    They are examples: one may be wrong where parts have to fit several schemas at once. But a part
    without one can never end, as it holds itself.

    Args:
        schema: The whole.
        limited: The least text of a string or number with limits.
        separators: As texts are to have them.
    """

    def __init__(
        self,
        schema: Any,
        limited: Callable[[Mapping[str, Any]], str],
        separators: Separators,
    ) -> None:
        self._parts = dict(parts_of(schema))
        self._limited = limited
        self._item, self._key = separators
        self._least: dict[str, str] = {}
        while self._improve():
            pass

    @property
    def endless(self) -> Set[str]:
        """Pointers of the parts that no text fits that ends."""
        return self._parts.keys() - self._least.keys()

    def words(self) -> list[str]:
        """Texts that may come next on the way to an end: values, and what closes an object."""
        words = {*self._least.values()}
        for pointer, part in self._parts.items():
            members = self._members(pointer, part) or []
            closings = (self._item.join(members[n:]) + "}" for n in range(len(members)))
            words |= {*closings}
        words |= {before + word for before in (self._item, self._key) for word in words}
        return sorted((word for word in words if len(word) < LONGEST), key=lambda w: (len(w), w))

    def contents(self) -> list[str]:
        """What strings with limits may hold, the shortest first."""
        limits = {"pattern", "format", "minLength"}
        least = (
            self._least.get(pointer, "")
            for pointer, part in self._parts.items()
            if isinstance(part, Mapping) and not limits.isdisjoint(part)
        )
        contents = {text[1:-1] for text in least if text.startswith('"')}
        return sorted(contents - {""}, key=lambda text: (len(text), text))

    def _improve(self) -> bool:
        """Looks for shorter texts; whether there were any."""
        better = False
        for pointer, part in self._parts.items():
            text = self._shortest(pointer, part)
            known = self._least.get(pointer)
            if text is not None and (known is None or len(text) < len(known)):
                self._least[pointer], better = text[:LONGEST], True
        return better

    def _shortest(self, pointer: str, part: Any) -> str | None:
        """The shortest text for a part that is known by now."""
        if not isinstance(part, Mapping):
            return None if part is False else "0"
        if isinstance(part.get("$ref"), str):
            target = unquote(part["$ref"]).removeprefix("#")
            return self._least.get(target) if target in self._parts else "0"
        if "const" in part:
            return _dumped(part["const"])
        if isinstance(part.get("enum"), list):
            return min(map(_dumped, part["enum"]), key=len, default="0")
        for key in ("anyOf", "oneOf"):
            if isinstance(part.get(key), list):
                return min(self._known(pointer, key, part[key]), key=len, default=None)
        if isinstance(part.get("allOf"), list):
            known = self._known(pointer, "allOf", part["allOf"])
            return max(known, key=len, default="0") if len(known) == len(part["allOf"]) else None
        kinds = part.get("type")
        kinds = kinds if isinstance(kinds, list) else [kinds]
        texts = [self._of_kind(kind, pointer, part) for kind in kinds]
        return min((text for text in texts if text is not None), key=len, default=None)

    def _known(self, pointer: str, key: str, parts: list[Any]) -> list[str]:
        pointers = [f"{pointer}/{key}/{place}" for place in range(len(parts))]
        return [self._least[one] for one in pointers if one in self._least]

    def _of_kind(self, kind: Any, pointer: str, part: Mapping[str, Any]) -> str | None:
        if kind == "object":
            members = self._members(pointer, part)
            return None if members is None else "{" + self._item.join(members) + "}"
        if kind == "array":
            items = self._items(pointer, part)
            return None if items is None else "[" + self._item.join(items) + "]"
        if kind in _PLAIN and not set(_LIMITS).isdisjoint(part):
            if kind == "string" and {"pattern", "format"}.isdisjoint(part):
                return _dumped("a" * int(part.get("minLength", 0)))
            limits = {key: part[key] for key in _LIMITS if key in part}
            return self._limited({"type": kind, **limits})
        return _PLAIN.get(str(kind), "0")

    def _members(self, pointer: str, part: Any) -> list[str] | None:
        """What an object must hold, in its order; None if that has no end."""
        if not isinstance(part, Mapping) or not isinstance(part.get("required"), list):
            return []
        properties = part.get("properties") or {}
        required = [name for name in properties if name in part["required"]]
        required += [name for name in part["required"] if name not in properties]
        members = []
        for name in required:
            inner = f"{pointer}/properties{_step(name)}"
            if name not in properties:
                inner = f"{pointer}/additionalProperties"
            value = self._least.get(inner, None if inner in self._parts else "0")
            if value is None:
                return None
            members.append(_dumped(name) + self._key + value)
        return members

    def _items(self, pointer: str, part: Mapping[str, Any]) -> list[str] | None:
        """What a list must hold; None if that has no end."""
        items: list[str] = []
        first = part.get("prefixItems") or []
        for place in range(min(int(part.get("minItems", 0)), LONGEST)):
            inner = f"{pointer}/prefixItems/{place}"
            if place >= len(first):
                inner = f"{pointer}/items"
            value = self._least.get(inner, None if inner in self._parts else "0")
            if value is None:
                return None
            items.append(value)
            if len(items) * len(value) > LONGEST:
                break
        return items


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def closed(schema: Any, endless: Set[str] = frozenset(), pointer: str = "") -> Any:
    """A schema whose objects hold what they name and nothing else, unless they say so themselves.

    What is put together from several schemas stays open, as each part would shut out the others.

    Args:
        schema: A whole schema or a part.
        endless: Pointers of parts that no text fits; nothing fits them from now on.
        pointer: Of `schema`.
    """
    if pointer in endless:
        return False
    if isinstance(schema, list):
        return [closed(part, endless, pointer + _step(n)) for n, part in enumerate(schema)]
    if not isinstance(schema, Mapping):
        return schema
    alone = _TOGETHER.isdisjoint(schema) and (
        "properties" not in schema or _BESIDE.isdisjoint(schema)
    )
    if not alone:
        return schema
    shut = {
        key: {
            name: closed(part, endless, pointer + _step(key) + _step(name))
            for name, part in value.items()
        }
        if key in _BY_NAME and isinstance(value, Mapping)
        else closed(value, endless, pointer + _step(key))
        if key in _PARTS
        else value
        for key, value in schema.items()
    }
    if "properties" in schema:
        shut.setdefault("additionalProperties", False)
    return shut
