"""ChatHogwild: a LangChain chat model that is a team of workers over one shared cache."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from functools import partial
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

from hogwild_agents.engine import Engine, Handle
from hogwild_agents.errors import EngineClosedError
from hogwild_agents.langchain.cache_key import identity
from hogwild_agents.langchain.call import Run
from hogwild_agents.langchain.errors import (
    InvalidRequestError,
    SessionFailedError,
    as_langchain_errors,
)
from hogwild_agents.langchain.messages import PROVIDER, to_conversation, without_collaboration
from hogwild_agents.langchain.options import Options
from hogwild_agents.langchain.profiles import profile_of
from hogwild_agents.langchain.request import described, form_of
from hogwild_agents.langchain.responses import ChunkMaker, Shape, whole_message
from hogwild_agents.langchain.structured_output import Method, structured_output
from hogwild_agents.langchain.teams import cut_answer, team_of
from hogwild_agents.registry import get_compiler, get_engine, get_tokenizer, unload_engine
from hogwild_agents.team import Event, Result, Session
from hogwild_agents.team.tool_format import HERMES, ToolCallFormat

WIDTH = 128
"""Calls of a batch that run at once; each waits on a thread."""


class ChatHogwild(Options):
    r"""Several copies of one local model that think together and answer as one chat model.

    Weights are loaded on first use, once per process for equal `model`, `device` and `dtype`; all
    instances share the engine, so whatever runs at the same time runs in the same forward passes.

    A message's content is the reply. What the workers thought is in its content blocks, one
    reasoning block per worker, and in `additional_kwargs["thoughts"]`; `response_metadata` holds
    the extracted answer, the forward passes, and how redundancy checks were answered.

    Every argument but `engine`, `streaming` and `api_key` can also be given for one call:
    `model.invoke(question, workers=4)`. `ChatHogwild.model_fields` and the
    documentation's page Options say what each one is.

    Example:
        from hogwild_agents import ChatHogwild

        model = ChatHogwild(workers=4)  # the pocket model, which ships inside
        print(model.invoke("Solve these tasks.\n(a) 4731 + 2869\n(b) reverse nirok").text)
    """

    # One call.

    def submit(
        self, problem: LanguageModelInput, *, stop: list[str] | None = None, **kwargs: Any
    ) -> Handle[Event, Result]:
        """Starts a session and returns its handle, for those who want more than a message.

        Iterate over the handle for events, `say` something to the team, `stop` its thinking, or
        `cancel` it; `result()` is the whole record. Blocks while the model is loaded.

        Raises:
            ModelError: The request makes no sense, or the model cannot be had.
        """
        messages = self._convert_input(problem).to_messages()
        engine, session, _ = self._for_call(kwargs)._ready(messages, stop, kwargs)
        with as_langchain_errors():
            return engine.submit(session)

    async def asubmit(
        self, problem: LanguageModelInput, *, stop: list[str] | None = None, **kwargs: Any
    ) -> Handle[Event, Result]:
        """As `submit`, without blocking the event loop while the model is loaded."""
        messages = self._convert_input(problem).to_messages()
        call = self._for_call(kwargs)
        engine, session, _ = await asyncio.to_thread(call._ready, messages, stop, kwargs)
        with as_langchain_errors():
            return engine.submit(session)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,
    ) -> ChatResult:
        call = self._for_call(kwargs)
        with Retrying(**call._retries())(call._begin, messages, stop, kwargs) as run:
            return _as_result(run.result(), run)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,
    ) -> ChatResult:
        call = self._for_call(kwargs)
        run: Run = await AsyncRetrying(**call._retries())(call._abegin, messages, stop, kwargs)
        with run:
            return _as_result(await run.aresult(), run)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        call = self._for_call(kwargs)
        with Retrying(**call._retries())(call._begin, messages, stop, kwargs) as run:
            maker = ChunkMaker(run.shape)
            for event in run.events():
                for message in maker.take(event):
                    yield ChatGenerationChunk(message=message)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        call = self._for_call(kwargs)
        run: Run = await AsyncRetrying(**call._retries())(call._abegin, messages, stop, kwargs)
        with run:
            maker = ChunkMaker(run.shape)
            async for event in run.aevents():
                for message in maker.take(event):
                    yield ChatGenerationChunk(message=message)

    def unload(self) -> None:
        """Gives the model's memory back: closes the engine that all instances of it share.

        What is running on it is cancelled, and whoever needs the model next loads it anew. An
        engine of your own stays as it is: close that yourself.
        """
        if self.engine is None:
            unload_engine(self.model, self.device, self.dtype)

    def _begin(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]
    ) -> Run:
        return self._run(*self._ready(messages, stop, kwargs)).begin()

    async def _abegin(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]
    ) -> Run:
        # Nothing is submitted on the other thread: who cancels this would not know of it.
        ready = await asyncio.to_thread(self._ready, messages, stop, kwargs)
        return await self._run(*ready).abegin()

    def _ready(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: Mapping[str, Any]
    ) -> tuple[Engine, Session, ToolCallFormat | None]:
        """All that it takes to begin; may take long the first time, as it loads the model."""
        session, calls = self._prepare(messages, stop, kwargs)
        with as_langchain_errors():
            if self.engine is None:
                return get_engine(self.model, self.device, self.dtype), session, calls
        try:
            self.engine.require_open()
        except EngineClosedError as error:  # to try again would not help
            raise InvalidRequestError(f"{self.engine!r} cannot take more. {error}") from error
        return self.engine, session, calls

    def _run(self, engine: Engine, session: Session, calls: ToolCallFormat | None) -> Run:
        with as_langchain_errors():
            handle = engine.submit(session)
        about = {"model_name": self.model, "answer_format": session.team.answer.name}
        cut = partial(cut_answer, session.team, self.max_tokens)
        return Run(handle, self.timeout, Shape(calls, self.reasoning, cut, about))

    def _prepare(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: Mapping[str, Any]
    ) -> tuple[Session, ToolCallFormat | None]:
        """A session, and how its reply writes calls of tools if it may; needs no weights."""
        with as_langchain_errors():
            form = form_of(**kwargs)
            told, messages = without_collaboration(messages)
            conversation = to_conversation(messages)
            if form.told:
                conversation.insert(0, {"role": "system", "content": form.told})
            tokenizer = get_tokenizer(self.model)
            team = team_of(self, tokenizer, form, self.stop if stop is None else stop, told)
            if form.free:
                return team.session(conversation), None
            calls = tokenizer.tool_call_format or HERMES
            guide = form.grammar(get_compiler(self.model), calls).guide()
            session = team.session(conversation, tools=form.tools, guide=guide)
            return session, calls if form.callable else None

    def _retries(self) -> dict[str, Any]:
        return {
            "retry": retry_if_exception_type(SessionFailedError),
            "stop": stop_after_attempt(self.max_retries + 1),
            "wait": wait_random_exponential(multiplier=0.1, max=5),
            "reraise": True,
        }

    # Many calls: all of them run in the same forward passes.

    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """As `Runnable.batch`, up to 128 at once unless a limit is given."""
        configs = _wide(config, len(inputs))
        return super().batch(inputs, configs, return_exceptions=return_exceptions, **kwargs)

    def batch_as_completed(
        self,
        inputs: Sequence[LanguageModelInput],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        **kwargs: Any,
    ) -> Iterator[tuple[int, Any]]:
        """As `Runnable.batch_as_completed`, as wide as `batch`."""
        yield from super().batch_as_completed(inputs, _wide(config, len(inputs)), **kwargs)

    def generate(
        self,
        messages: list[list[BaseMessage]],
        stop: list[str] | None = None,
        callbacks: Any = None,
        **kwargs: Any,
    ) -> LLMResult:
        """As `BaseChatModel.generate`, with all prompts at once."""
        if len(messages) <= 1:
            return super().generate(messages, stop, callbacks, **kwargs)
        one: Callable[..., LLMResult] = super().generate
        ids = [kwargs.pop("run_id", None), *[None] * (len(messages) - 1)]

        def answer(given: list[BaseMessage], run_id: Any) -> LLMResult:
            return one([given], stop, callbacks, run_id=run_id, **kwargs)

        with ContextThreadPoolExecutor(min(len(messages), WIDTH)) as pool:
            results = [*pool.map(answer, messages, ids)]
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
        """Lets replies call tools, in the model's own form and always with valid arguments.

        Args:
            tools: Pydantic classes, functions, LangChain's tools, or schemas.
            tool_choice: `auto` lets the model decide, `any` demands a call, `none` allows none, and
                a name demands that tool.
            strict: Put into the schemas; calls fit them in any case.
            kwargs: Passed on to every call; `parallel_tool_calls=False` allows one call at most.

        Raises:
            InvalidRequestError: One is no tool, or the choice names none.
        """
        listed = [described(tool, strict) for tool in tools]
        form_of(listed, tool_choice)
        if tool_choice is not None:
            kwargs["tool_choice"] = tool_choice
        return self.bind(tools=listed, **kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        method: Method = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Replies that fit a schema: a pydantic class gives its instances, all else gives dicts.

        Args:
            schema: A pydantic class, a TypedDict, or a JSON schema.
            method: `json_schema` tells the model the schema, `function_calling` makes it call a
                tool of that schema, `json_mode` leaves the telling to you; replies always fit.
            include_raw: Whether to give `{"raw": message, "parsed": ..., "parsing_error": ...}`.
            strict: Put into the schema; replies fit it in any case.
            kwargs: Passed on to every call.

        Raises:
            InvalidRequestError: No such method, or no schema.
        """
        return structured_output(
            self, schema, method=method, include_raw=include_raw, strict=strict, **kwargs
        )

    # What LangChain asks of a chat model.

    @property
    def _llm_type(self) -> str:
        return PROVIDER

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """All that the answer depends on; the key of caches."""
        beside = {"engine", "api_key", "timeout", "max_retries", "streaming", "stop"}
        own = type(self).model_fields.keys() - BaseChatModel.model_fields.keys() - beside
        params = {name: identity(getattr(self, name)) for name in sorted(own)}
        # A call's own stop strings are in the key under their name.
        return params | {"default_stop": self.stop, "output_version": self.output_version}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop or self.stop, **kwargs)
        params["ls_provider"] = PROVIDER
        return params

    def _resolve_model_profile(self) -> ModelProfile | None:
        return profile_of(self.model)

    def get_token_ids(self, text: str) -> list[int]:
        """The ids of a text, by the model's own tokenizer; loads that, and not the weights."""
        if self.custom_get_token_ids is not None:
            return self.custom_get_token_ids(text)
        with as_langchain_errors():
            return get_tokenizer(self.model).encode(text)

    def get_num_tokens_from_messages(
        self, messages: list[BaseMessage], tools: Sequence[Any] | None = None
    ) -> int:
        """Tokens of a conversation in the model's chat template, without what a team is told."""
        with as_langchain_errors():
            form = form_of(tools)
            tokens = get_tokenizer(self.model).prompt(to_conversation(messages), tools=form.tools)
        return len(tokens)


def _as_result(result: Result, run: Run) -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=whole_message(result, run.shape))])


def _wide(config: Any, count: int) -> list[RunnableConfig]:
    """Settings for each of so many calls, which all run at once."""
    width = min(max(count, 1), WIDTH)
    listed = get_config_list(config, count)
    return [one | {"max_concurrency": one.get("max_concurrency") or width} for one in listed]
