"""What the pieces have in common: fields that stay as they are, and a run that is traced."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Self

from langchain_core.runnables import RunnableConfig, RunnableSerializable
from langchain_core.runnables.config import run_in_executor
from pydantic import ConfigDict


class HogwildRunnable(RunnableSerializable[Any, Any]):
    """A runnable whose work is one function, on a thread of its own where a caller awaits it.

    Attributes:
        run_type: What tracers call its runs; None for a chain.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, frozen=True)

    run_type: ClassVar[str | None] = None

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)

    @abstractmethod
    def _run(self, given: Any, **options: Any) -> Any:
        """The work."""

    async def _arun(self, given: Any, **options: Any) -> Any:
        """The work of those that can wait for others without a thread."""
        return await run_in_executor(None, self._run, given, **options)

    def invoke(
        self,
        input: Any,  # noqa: A002
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> Any:
        """What it makes of `input`."""
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
