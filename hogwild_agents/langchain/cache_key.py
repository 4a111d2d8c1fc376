"""Identity: what an option is called in the key of a cache."""

from __future__ import annotations

import re
from typing import Any
from uuid import uuid4
from weakref import WeakKeyDictionary

_names: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def identity(value: Any) -> Any:
    """`value`, or a name for what shows itself by its address only.

    Addresses are used again when their object is gone, and by other processes; the name is not.
    """
    if isinstance(value, list | tuple):
        return [identity(part) for part in value]
    shown = repr(value)
    if not re.search(r" at 0x[0-9a-f]+", shown):
        return value
    try:
        name = _names.setdefault(value, uuid4().hex)
    except TypeError:  # it cannot be looked up: never the same again
        name = uuid4().hex
    return f"{type(value).__name__} {getattr(value, '__qualname__', '')} {name}"
