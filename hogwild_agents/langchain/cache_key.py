"""Keys for LangChain's caches, from the values of options."""

from __future__ import annotations

import re
from typing import Any
from uuid import uuid4
from weakref import WeakKeyDictionary

_names: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def cache_key(value: Any) -> Any:
    """`value` itself, or a unique name for an object whose `repr` is only its address.

    An address is used again once its object is gone, and by other processes; the name is not.
    """
    if isinstance(value, list | tuple):
        return [cache_key(part) for part in value]
    if not re.search(r" at 0x[0-9a-f]+", repr(value)):
        return value
    try:
        name = _names.setdefault(value, uuid4().hex)
    except TypeError:  # it cannot be a key of a dictionary, so no two calls share a cache entry
        name = uuid4().hex
    return f"{type(value).__name__} {getattr(value, '__qualname__', '')} {name}"
