"""A task's generation arguments, as `ChatHogwild` takes them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from hogwild_agents import ChatHogwild

logger = logging.getLogger(__name__)

_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""What lm_eval's models call the most tokens of a reply, the first one that is given counts."""

_warned: set[str] = set()


def call_options(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Options for one call. As everywhere in lm_eval it is greedy unless a temperature is given.

    Every option of `ChatHogwild` is taken, such as `budget`; others are warned of once.
    """
    given = dict(arguments)
    until = given.pop("until", None) or []
    lengths = [length for name in _LENGTHS if (length := given.pop(name, None)) is not None]
    temperature = given.pop("temperature", None) or 0
    drawn = given.pop("do_sample", True)
    options: dict[str, Any] = {
        "temperature": float(temperature) if drawn else 0.0,
        "stop": [text for text in ([until] if isinstance(until, str) else until) if text] or None,
    }
    if lengths:
        options["max_tokens"] = int(lengths[0])
    for name, value in given.items():
        if name in ChatHogwild.model_fields:
            options[name] = value
        elif name not in _warned:
            _warned.add(name)
            logger.warning("%s=%r does nothing with a hogwild model.", name, value)
    return options
