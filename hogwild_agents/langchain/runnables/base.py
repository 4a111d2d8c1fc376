"""The base of all runnables here: frozen fields, and traced runs."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Self

from langchain_core.runnables import RunnableConfig, RunnableSerializable
from langchain_core.runnables.config import run_in_executor
from pydantic import ConfigDict


class HogwildRunnable(RunnableSerializable[Any, Any]):
    """A runnable that is one function; asynchronous callers run it on a thread.

    Attributes:
        run_type: The kind of its runs in traces; None for a chain.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, frozen=True)

    run_type: ClassVar[str | None] = None

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)

    @abstractmethod
    def _run(self, value: Any, /, **options: Any) -> Any:
        """Computes the output."""

    async def _arun(self, value: Any, /, **options: Any) -> Any:
        """As `_run`; overridden where no thread is needed."""
        return await run_in_executor(None, self._run, value, **options)

    def invoke(
        self,
        input: Any,  # noqa: A002
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> Any:
        """The output for `input`."""
        return self._call_with_config(self._run, input, config, run_type=self.run_type, **kwargs)

    async def ainvoke(
        self,
        input: Any,  # noqa: A002
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> Any:
        """As `invoke`."""
        return await self._acall_with_config(
            self._arun, input, config, run_type=self.run_type, **kwargs
        )

    def partial(self, **fields: Any) -> Self:
        """A copy with other fields."""
        return type(self)(**{**dict(self), **fields})
