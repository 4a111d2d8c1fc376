"""Translates Inspect's options for one answer to those of `ChatHogwild`."""

from __future__ import annotations

from logging import getLogger
from typing import Any

from inspect_ai.model import GenerateConfig
from inspect_ai.tool import ToolChoice, ToolFunction, ToolInfo

from hogwild_agents import ChatHogwild
from hogwild_agents.errors import InvalidRequestError

logger = getLogger(__name__)

_SAME = ("temperature", "top_p", "top_k", "seed", "max_tokens")
"""Options with the same name in both."""

_OUTPUT_FORMAT = ("parallel_tool_calls", "response_schema")
"""Options of the output format; see `format_options`."""

_INSPECTS_OWN = (
    *("max_retries", "timeout", "attempt_timeout", "stream_idle_timeout", "max_connections"),
    *("adaptive_connections", "system_message", "max_tool_output", "internal_tools", "cache"),
    *("reasoning_history", "fail_on_refusal"),
)
"""Options that Inspect handles itself."""

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
"""Options that would change the answers but are not supported, and what to do instead."""

_warned: set[str] = set()


def call_options(config: GenerateConfig, chat: ChatHogwild) -> dict[str, Any]:
    """Options for one call; warns once about each option that has no effect.

    Raises:
        InvalidRequestError: An option is not supported.
    """
    settings = {name: value for name, value in config if value is not None}
    for name, instead in _REFUSED.items():
        value = settings.pop(name, None)
        if value and not (name == "num_choices" and value == 1):
            raise InvalidRequestError(f"{name}={value!r} is not supported with a team: {instead}.")
    options = {name: settings.pop(name) for name in _SAME if name in settings}
    if "stop_seqs" in settings:
        options["stop"] = settings.pop("stop_seqs")
    if "reasoning_tokens" in settings:  # of all workers; a forward pass draws one token for each
        count = chat.workers if isinstance(chat.workers, int) else len(chat.workers)
        options["budget"] = max(1, settings.pop("reasoning_tokens") // count)
    for name in settings.keys() - {*_OUTPUT_FORMAT, *_INSPECTS_OWN, *_warned}:
        _warned.add(name)
        logger.warning("%s=%r has no effect with a hogwild model.", name, settings[name])
    return options


def format_options(
    tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
) -> dict[str, Any]:
    """Options of the output format: tool calls, or JSON that fits a schema."""
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
        response_schema = config.response_schema
        schema = response_schema.json_schema.model_dump(exclude_none=True)
        options["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": response_schema.name, "schema": schema},
        }
    return options
