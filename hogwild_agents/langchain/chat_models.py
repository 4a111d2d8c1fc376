"""ChatHogwild: a LangChain chat model that is a team of workers on one shared cache."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput, ModelProfile
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, LLMResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import ContextThreadPoolExecutor, get_config_list
from langchain_core.tools import BaseTool
from tenacity import (
    AsyncRetrying,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from hogwild_agents.engine import Handle
from hogwild_agents.langchain.cache_key import cache_key
from hogwild_agents.langchain.call import RunningCall
from hogwild_agents.langchain.errors import SessionFailedError, as_langchain_errors
from hogwild_agents.langchain.messages import PROVIDER, to_conversation
from hogwild_agents.langchain.options import Options
from hogwild_agents.langchain.profiles import profile_of
from hogwild_agents.langchain.reply_format import parse_reply_format, parse_tool
from hogwild_agents.langchain.request import Request, prepare
from hogwild_agents.langchain.responses import ChunkMaker, MessageOptions, whole_message
from hogwild_agents.langchain.structured_output import Method, structured_output
from hogwild_agents.registry import get_tokenizer, unload_engine
from hogwild_agents.team import Event, Result

MAX_CONCURRENT_CALLS = 128
"""How many calls of a batch run at the same time; each waits on a thread."""


class ChatHogwild(Options):
    r"""Several copies of one local model that think together and answer as one chat model.

    The model is loaded on first use, once per process for equal `model`, `device` and `dtype`. All
    instances share its engine, and calls that run at the same time share its forward passes.

    A message's content is the reply. The workers' thoughts are in its content blocks, one reasoning
    block per worker, and in `additional_kwargs["thoughts"]`. `response_metadata` holds the
    extracted answer, the number of forward passes, and the answers to redundancy checks.

    Every argument except `engine`, `streaming` and `api_key` can also be given for one call:
    `model.invoke(question, workers=4)`. `ChatHogwild.model_fields` and the
    documentation's page Options describe them all.

    Example:
        from hogwild_agents import ChatHogwild

        model = ChatHogwild(workers=4)  # the pocket model, which ships inside
        print(model.invoke("Solve these tasks.\n(a) 4731 + 2869\n(b) reverse nirok").text)
    """

    # One call.

    def submit(
        self, problem: LanguageModelInput, *, stop: list[str] | None = None, **kwargs: Any
    ) -> Handle[Event, Result]:
        """Starts a session and returns its handle, for more control than a message gives.

        Iterate over the handle for events, `say` something to the team, `stop` its thinking, or
        `cancel` it; `result()` is the whole record. Blocks while the model is loaded.

        Raises:
            ModelError: The request makes no sense, or the model cannot be loaded.
        """
        messages = self._convert_input(problem).to_messages()
        return prepare(self._for_call(kwargs), messages, stop, kwargs).submit()

    async def asubmit(
        self, problem: LanguageModelInput, *, stop: list[str] | None = None, **kwargs: Any
    ) -> Handle[Event, Result]:
        """As `submit`, without blocking the event loop while the model is loaded."""
        messages = self._convert_input(problem).to_messages()
        options = self._for_call(kwargs)
        request = await asyncio.to_thread(prepare, options, messages, stop, kwargs)
        return request.submit()

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,
    ) -> ChatResult:
        request, call = self._start(messages, stop, kwargs)
        with call:
            return _chat_result(call.result(), request.message)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,
    ) -> ChatResult:
        request, call = await self._astart(messages, stop, kwargs)
        with call:
            return _chat_result(await call.aresult(), request.message)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        request, call = self._start(messages, stop, kwargs)
        with call:
            maker = ChunkMaker(request.message)
            for event in call.events():
                for chunk in maker.chunks(event):
                    yield ChatGenerationChunk(message=chunk)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        request, call = await self._astart(messages, stop, kwargs)
        with call:
            maker = ChunkMaker(request.message)
            async for event in call.aevents():
                for chunk in maker.chunks(event):
                    yield ChatGenerationChunk(message=chunk)

    def unload(self) -> None:
        """Frees the model's memory: closes the engine that all its instances share.

        Sessions that run on it are cancelled, and the next call loads the model anew. Your own
        engine stays as it is: close it yourself.
        """
        if self.engine is None:
            unload_engine(self.model, self.device, self.dtype)

    def _start(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]
    ) -> tuple[Request, RunningCall]:
        """Prepares and starts a call, again if the engine fails before the thinking begins."""
        options = self._for_call(kwargs)

        def attempt() -> tuple[Request, RunningCall]:
            request = prepare(options, messages, stop, kwargs)
            return request, RunningCall.start(request, options.timeout)

        return Retrying(**options._retries())(attempt)

    async def _astart(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]
    ) -> tuple[Request, RunningCall]:
        """As `_start`, without blocking the event loop."""
        options = self._for_call(kwargs)

        async def attempt() -> tuple[Request, RunningCall]:
            # Only this part runs on a thread: a session submitted there would survive the
            # cancellation of this coroutine.
            request = await asyncio.to_thread(prepare, options, messages, stop, kwargs)
            return request, await RunningCall.astart(request, options.timeout)

        return await AsyncRetrying(**options._retries())(attempt)

    def _retries(self) -> dict[str, Any]:
        return {
            "retry": retry_if_exception_type(SessionFailedError),
            "stop": stop_after_attempt(self.max_retries + 1),
            "wait": wait_random_exponential(multiplier=0.1, max=5),
            "reraise": True,
        }

    # Many calls.

    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """As `Runnable.batch`, with up to 128 calls at once unless the config sets a limit.

        All of them run in the same forward passes.
        """
        configs = _concurrent(config, len(inputs))
        return super().batch(inputs, configs, return_exceptions=return_exceptions, **kwargs)

    def batch_as_completed(
        self,
        inputs: Sequence[LanguageModelInput],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        **kwargs: Any,
    ) -> Iterator[tuple[int, Any]]:
        """As `Runnable.batch_as_completed`, with as many calls at once as `batch`."""
        configs = _concurrent(config, len(inputs))
        yield from super().batch_as_completed(inputs, configs, **kwargs)

    def generate(
        self,
        messages: list[list[BaseMessage]],
        stop: list[str] | None = None,
        callbacks: Any = None,
        **kwargs: Any,
    ) -> LLMResult:
        """As `BaseChatModel.generate`, with as many prompts at once as `batch`."""
        if len(messages) <= 1:
            return super().generate(messages, stop, callbacks, **kwargs)
        generate: Callable[..., LLMResult] = super().generate
        run_ids = [kwargs.pop("run_id", None), *[None] * (len(messages) - 1)]

        def answer(prompt: list[BaseMessage], run_id: Any) -> LLMResult:
            return generate([prompt], stop, callbacks, run_id=run_id, **kwargs)

        with ContextThreadPoolExecutor(min(len(messages), MAX_CONCURRENT_CALLS)) as pool:
            results = [*pool.map(answer, messages, run_ids)]
        return LLMResult(
            generations=[result.generations[0] for result in results],
            llm_output=self._combine_llm_outputs([result.llm_output or {} for result in results]),
            run=[run for result in results for run in result.run or ()],
        )

    # Tools and schemas.

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: dict[str, Any] | str | bool | None = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Lets replies call tools, in the model's own format and always with valid arguments.

        Args:
            tools: Pydantic classes, functions, LangChain's tools, or schemas.
            tool_choice: `auto` lets the model decide, `any` demands a call, `none` allows none, and
                a name demands a call of that tool.
            strict: Added to the schemas; calls fit them in any case.
            kwargs: Passed on to every call; `parallel_tool_calls=False` allows one call at most.

        Raises:
            InvalidRequestError: An entry is not a tool, or the choice names none of them.
        """
        shown = [parse_tool(tool, strict) for tool in tools]
        parse_reply_format(shown, tool_choice)
        if tool_choice is not None:
            kwargs["tool_choice"] = tool_choice
        return self.bind(tools=shown, **kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        method: Method = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Replies that fit a schema: instances of a pydantic class, or dicts for all other schemas.

        Args:
            schema: A pydantic class, a TypedDict, or a JSON schema.
            method: `json_schema` shows the model the schema, `function_calling` makes it call a
                tool of that schema, `json_mode` shows it nothing; replies fit in any case.
            include_raw: Whether to return `{"raw": message, "parsed": ..., "parsing_error": ...}`.
            strict: Added to the schema; replies fit it in any case.
            kwargs: Passed on to every call.

        Raises:
            InvalidRequestError: There is no such method, or the schema is not one.
        """
        return structured_output(
            self, schema, method=method, include_raw=include_raw, strict=strict, **kwargs
        )

    # LangChain's own hooks.

    @property
    def _llm_type(self) -> str:
        return PROVIDER

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """All options that the answer depends on; LangChain's caches use them as their key."""
        irrelevant = {"engine", "api_key", "timeout", "max_retries", "streaming", "stop"}
        names = type(self).model_fields.keys() - BaseChatModel.model_fields.keys() - irrelevant
        params = {name: cache_key(getattr(self, name)) for name in sorted(names)}
        # LangChain adds a call's own stop strings under the name "stop".
        return params | {"default_stop": self.stop, "output_version": self.output_version}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop or self.stop, **kwargs)
        params["ls_provider"] = PROVIDER
        return params

    def _resolve_model_profile(self) -> ModelProfile | None:
        return profile_of(self.model)

    def get_token_ids(self, text: str) -> list[int]:
        """The token ids of a text; loads the model's tokenizer, but not its weights."""
        if self.custom_get_token_ids is not None:
            return self.custom_get_token_ids(text)
        with as_langchain_errors():
            return get_tokenizer(self.model).encode(text)

    def get_num_tokens_from_messages(
        self, messages: list[BaseMessage], tools: Sequence[Any] | None = None
    ) -> int:
        """Tokens of a conversation in the model's chat template, without the team's own prompt."""
        with as_langchain_errors():
            shown = parse_reply_format(tools).tools
            tokens = get_tokenizer(self.model).prompt(to_conversation(messages), tools=shown)
        return len(tokens)


def _chat_result(result: Result, options: MessageOptions) -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=whole_message(result, options))])


def _concurrent(config: Any, count: int) -> list[RunnableConfig]:
    """One config for each of `count` calls, so that all of them run at once."""
    width = min(max(count, 1), MAX_CONCURRENT_CALLS)
    return [
        single | {"max_concurrency": single.get("max_concurrency") or width}
        for single in get_config_list(config, count)
    ]
