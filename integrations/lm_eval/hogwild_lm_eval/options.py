"""Translates the generation arguments of a task to options of `ChatHogwild`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from hogwild_agents import ChatHogwild

logger = logging.getLogger(__name__)

_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""Names that lm_eval's models use for the length limit of a reply; the first one present counts."""

_warned: set[str] = set()


def call_options(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Options for one call; decoding is greedy without a temperature, as usual in lm_eval.

    All options of `ChatHogwild`, such as `budget`, are accepted; others are warned about once.
    """
    remaining = dict(arguments)
    until = remaining.pop("until", None) or []
    lengths = [length for name in _LENGTHS if (length := remaining.pop(name, None)) is not None]
    temperature = remaining.pop("temperature", None) or 0
    do_sample = remaining.pop("do_sample", True)
    options: dict[str, Any] = {
        "temperature": float(temperature) if do_sample else 0.0,
        "stop": [text for text in ([until] if isinstance(until, str) else until) if text] or None,
    }
    if lengths:
        options["max_tokens"] = int(lengths[0])
    for name, value in remaining.items():
        if name in ChatHogwild.model_fields:
            options[name] = value
        elif name not in _warned:
            _warned.add(name)
            logger.warning("%s=%r has no effect with a hogwild model.", name, value)
    return options
