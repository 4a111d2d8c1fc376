"""The provider: one `ChatHogwild`, asked by any number of samples at once."""

from __future__ import annotations

import asyncio
from typing import Any

from inspect_ai.model import ChatMessage, GenerateConfig, ModelAPI, ModelOutput
from inspect_ai.tool import ToolChoice, ToolInfo
from langchain_core.messages import AIMessage
from pydantic import ValidationError

from hogwild_agents import ChatHogwild
from hogwild_agents.langchain.errors import ContextLengthError, InvalidRequestError
from hogwild_inspect.config import call_options, form_options
from hogwild_inspect.messages import to_messages, to_output

MOST_AT_ONCE = 100
"""Samples that are asked for at once; the engine takes in as many as its cache has room for."""


class HogwildAPI(ModelAPI):
    """Answers by a team of workers.

    Args:
        model_name: `pocket`, a folder, or a name on the Hugging Face hub.
        base_url: Refused, as the model runs in this process.
        api_key: Not used.
        config: Of the evaluation; what no team can do is refused here, before any sample.
        model_args: Options of `ChatHogwild`, as in `-M workers=4 -M budget=512`.

    Raises:
        InvalidRequestError: An option makes no sense.
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
            raise InvalidRequestError(_in_words(error)) from error
        call_options(config, self.chat)

    async def generate(
        self,
        input: list[ChatMessage],  # noqa: A002  Inspect's own word for it
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        """One answer.

        Raises:
            ModelError: The request makes no sense, or the model cannot be had.
        """
        _require_asyncio()
        options = call_options(config, self.chat) | form_options(tools, tool_choice, config)
        try:
            message: AIMessage = await self.chat.ainvoke(to_messages(input), **options)
        except ContextLengthError as error:
            return ModelOutput.from_content(
                self.model_name, str(error), stop_reason="model_length", error=str(error)
            )
        return to_output(message, self.model_name)

    async def tokenize(self, text: str) -> list[int]:
        """The ids of a text, by the model's own tokenizer."""
        return await asyncio.to_thread(self.chat.get_token_ids, text)

    async def count_text_tokens(self, text: str) -> int:
        """Tokens of a text, by the model's own tokenizer."""
        return len(await self.tokenize(text))

    def max_connections(self) -> int:
        """How many samples may wait for the model at once."""
        return MOST_AT_ONCE

    def connection_key(self) -> str:
        """What is counted together: all that runs on one engine."""
        return self.model_name

    def close(self) -> None:
        """Gives the model's memory back."""
        self.chat.unload()


def _in_words(error: ValidationError) -> str:
    """What is wrong with the options, each with its name."""
    faults = []
    for fault in error.errors(include_url=False):
        name = ".".join(map(str, fault["loc"])) or "options"
        unknown = fault["type"] == "extra_forbidden"
        faults.append(f"{name}: {'there is no such option' if unknown else fault['msg']}")
    return f"These model args (-M) make no sense. {'; '.join(faults)}."


def _require_asyncio() -> None:
    """Raises InvalidRequestError if Inspect runs on trio."""
    try:
        asyncio.get_running_loop()
    except RuntimeError as error:
        raise InvalidRequestError(
            "hogwild models need asyncio, Inspect's default: unset INSPECT_ASYNC_BACKEND."
        ) from error
