"""Inspect's options for one answer, as `ChatHogwild` takes them."""

from __future__ import annotations

from logging import getLogger
from typing import Any

from inspect_ai.model import GenerateConfig
from inspect_ai.tool import ToolChoice, ToolFunction, ToolInfo

from hogwild_agents import ChatHogwild
from hogwild_agents.langchain.errors import InvalidRequestError

logger = getLogger(__name__)

_SAME = ("temperature", "top_p", "top_k", "seed", "max_tokens")
"""What both call by one name."""

_FORM = ("parallel_tool_calls", "response_schema")
"""What a reply must look like; see `form_options`."""

_INSPECTS_OWN = (
    *("max_retries", "timeout", "attempt_timeout", "stream_idle_timeout", "max_connections"),
    *("adaptive_connections", "system_message", "max_tool_output", "internal_tools", "cache"),
    *("reasoning_history", "fail_on_refusal"),
)
"""What Inspect does by itself, whatever the model."""

_REFUSED = {
    "num_choices": "use --epochs for several answers",
    "best_of": "use --epochs, and choose among the answers",
    "frequency_penalty": "leave it out",
    "presence_penalty": "leave it out",
    "logit_bias": "leave it out",
    "logprobs": "hogwild-agents-lm-eval gives log-probabilities",
    "top_logprobs": "hogwild-agents-lm-eval gives log-probabilities",
    "prompt_logprobs": "hogwild-agents-lm-eval gives log-probabilities",
    "modalities": "the model reads and writes text only",
}
"""What would change the answers and cannot be done, and what to do instead."""

_warned: set[str] = set()


def call_options(config: GenerateConfig, chat: ChatHogwild) -> dict[str, Any]:
    """Options for one call; warns once of each setting that has no meaning here.

    Raises:
        InvalidRequestError: Something is asked for that a team cannot do.
    """
    given = {name: value for name, value in config if value is not None}
    for name, instead in _REFUSED.items():
        value = given.pop(name, None)
        if value and not (name == "num_choices" and value == 1):
            raise InvalidRequestError(f"{name}={value!r} is not possible with a team: {instead}.")
    options = {name: given.pop(name) for name in _SAME if name in given}
    if "stop_seqs" in given:
        options["stop"] = given.pop("stop_seqs")
    if "reasoning_tokens" in given:  # of all workers; a forward pass is one token of each
        count = chat.workers if isinstance(chat.workers, int) else len(chat.workers)
        options["budget"] = max(1, given.pop("reasoning_tokens") // count)
    for name in given.keys() - {*_FORM, *_INSPECTS_OWN, *_warned}:
        _warned.add(name)
        logger.warning("%s=%r does nothing with a hogwild model.", name, given[name])
    return options


def form_options(
    tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
) -> dict[str, Any]:
    """What the reply must look like: calls of tools, or JSON that fits a schema."""
    options: dict[str, Any] = {}
    if tools:
        options["tools"] = [
            {
                "type": "function",
                "function": tool.model_dump(exclude_none=True, exclude={"options"}),
            }
            for tool in tools
        ]
        options["tool_choice"] = (
            tool_choice.name if isinstance(tool_choice, ToolFunction) else tool_choice
        )
        if config.parallel_tool_calls is not None:
            options["parallel_tool_calls"] = config.parallel_tool_calls
    if config.response_schema is not None:
        wanted = config.response_schema
        schema = wanted.json_schema.model_dump(exclude_none=True)
        options["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": wanted.name, "schema": schema},
        }
    return options
