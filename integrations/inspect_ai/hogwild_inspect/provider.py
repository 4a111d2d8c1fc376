"""The provider: one `ChatHogwild` that serves any number of samples at once."""

from __future__ import annotations

import asyncio
from typing import Any

from inspect_ai.model import ChatMessage, GenerateConfig, ModelAPI, ModelOutput
from inspect_ai.tool import ToolChoice, ToolInfo
from langchain_core.messages import AIMessage
from pydantic import ValidationError

from hogwild_agents import ChatHogwild
from hogwild_agents.errors import ContextLengthError, InvalidRequestError
from hogwild_inspect.config import call_options, format_options
from hogwild_inspect.messages import to_messages, to_output

MAX_CONNECTIONS = 100
"""Samples in flight; the engine runs as many of them at once as fit into its cache."""


class HogwildAPI(ModelAPI):
    """Answers by a team of workers.

    Args:
        model_name: `pocket`, a folder, or a name on the Hugging Face hub.
        base_url: Refused, as the model runs in this process.
        api_key: Not used.
        config: Options of the evaluation; unsupported ones are refused before the first sample.
        model_args: Options of `ChatHogwild`, as in `-M workers=4 -M budget=512`.

    Raises:
        InvalidRequestError: An option is invalid.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008  as Inspect's own providers
        **model_args: Any,
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config)
        if base_url is not None:
            raise InvalidRequestError(
                f"base_url={base_url!r}, but hogwild models run in this process: leave it out."
            )
        try:
            self.chat = ChatHogwild(model=model_name, **model_args)
        except ValidationError as error:
            raise InvalidRequestError(_message(error)) from error
        call_options(config, self.chat)

    async def generate(
        self,
        input: list[ChatMessage],  # noqa: A002  Inspect's own word for it
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        """Generates one answer.

        Raises:
            HogwildError: The request is invalid, or the model cannot be loaded.
        """
        _require_asyncio()
        options = call_options(config, self.chat) | format_options(tools, tool_choice, config)
        try:
            message: AIMessage = await self.chat.ainvoke(to_messages(input), **options)
        except ContextLengthError as error:
            return ModelOutput.from_content(
                self.model_name, str(error), stop_reason="model_length", error=str(error)
            )
        return to_output(message, self.model_name)

    async def tokenize(self, text: str) -> list[int]:
        """The token ids of a text."""
        return await asyncio.to_thread(self.chat.get_token_ids, text)

    async def count_text_tokens(self, text: str) -> int:
        """The number of tokens in a text."""
        return len(await self.tokenize(text))

    def max_connections(self) -> int:
        """How many samples may be in flight."""
        return MAX_CONNECTIONS

    def connection_key(self) -> str:
        """Connections are counted per engine."""
        return self.model_name

    def close(self) -> None:
        """Frees the memory of the model."""
        self.chat.unload()


def _message(error: ValidationError) -> str:
    """What is wrong with each option."""
    faults = []
    for fault in error.errors(include_url=False):
        name = ".".join(map(str, fault["loc"])) or "options"
        unknown = fault["type"] == "extra_forbidden"
        faults.append(f"{name}: {'there is no such option' if unknown else fault['msg']}")
    return f"Invalid model args (-M): {'; '.join(faults)}."


def _require_asyncio() -> None:
    """Raises InvalidRequestError if Inspect runs on trio."""
    try:
        asyncio.get_running_loop()
    except RuntimeError as error:
        raise InvalidRequestError(
            "hogwild models need asyncio, Inspect's default: unset INSPECT_ASYNC_BACKEND."
        ) from error
