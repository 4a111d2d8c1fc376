"""Engine: one background thread that runs the forward passes of every session.

Submit a job from any thread or from asyncio and get a handle: it streams events, gives the result,
and stops or cancels the job. Nobody else needs to know that there is a thread.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any, ClassVar, Generic, Self, TypeVar

from hogwild_agents.engine.blocks import PAGE
from hogwild_agents.engine.errors import EngineClosedError, InvalidJobError, SessionFailedError
from hogwild_agents.engine.feed import Feed
from hogwild_agents.engine.jobs import Job
from hogwild_agents.engine.model import SharedCacheModel
from hogwild_agents.engine.scheduler import Scheduler
from hogwild_agents.engine.task import Task

CHUNK = 512
"""Most prompt tokens in a pass by default; what a running team may have to wait for."""

PREFIX_SHARE = 4
"""Kept prompts take at most one part in this many of the cache by default."""

E = TypeVar("E")
R = TypeVar("R")


class Handle(Generic[E, R]):
    """A submitted job. Iterate over it for its events, from the first one on, as often as you like.

    Both `for event in handle` and `async for event in handle` work, and so do `handle.result()` and
    `await handle`. As a context manager it cancels the job on the way out if it still runs.
    """

    def __init__(self, engine: Engine, job: Job[E, R]) -> None:
        self._engine = engine  # keeps the engine alive while anyone waits for the job
        self._job = job
        self._feed: Feed[E] = Feed()
        self._result: R | None = None
        self._error: BaseException | None = None
        tokens = engine._loop.scheduler.check(job)
        self._task = Task(job, self._feed.extend, self._close, tokens)

    @property
    def done(self) -> bool:
        """Whether the job has ended."""
        return self._feed.closed

    def result(self, timeout: float | None = None) -> R:
        """Blocks until the job has ended, and returns what it reached.

        Args:
            timeout: Seconds to wait at most; the job goes on if they pass.

        Raises:
            TimeoutError: The job is still running.
            SessionFailedError: The job failed; its `partial` is what was reached.
        """
        if not self._feed.wait_closed(timeout):
            raise TimeoutError(f"The session is still running after {timeout} s; cancel() ends it.")
        return self._outcome()

    def cancel(self) -> None:
        """Ends the job within one pass; its result is what it had reached. Harmless when done."""
        if not self.done:
            self._engine._loop.cancel(self._task)

    def stop(self) -> None:
        """Asks the job to come to its proper end soon: a team stops thinking and answers."""
        self._job.stop()

    def say(self, message: Any) -> None:
        """Gives the job something to take into account before its next pass: a team reads text.

        Raises:
            HogwildError: The job has ended, or cannot take such a message.
        """
        if self.done:
            raise EngineClosedError("The session has ended: nobody would read what you say.")
        self._job.hear(message)

    def __iter__(self) -> Iterator[E]:
        """The job's events; blocks while more are to come."""
        return iter(self._feed)

    def __aiter__(self) -> AsyncIterator[E]:
        """The job's events; suspends while more are to come."""
        return aiter(self._feed)

    def __await__(self) -> Generator[Any, None, R]:
        """As `result`, without blocking the event loop."""
        yield from self._feed.until_closed().__await__()
        return self._outcome()

    def __enter__(self) -> Self:
        """The handle; it cancels its job at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Cancels the job if it still runs."""
        self.cancel()

    async def __aenter__(self) -> Self:
        """The handle; it cancels its job at the end of the block."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Cancels the job if it still runs."""
        self.cancel()

    def _close(self, result: R | None, error: BaseException | None) -> None:
        self._result, self._error = result, error
        self._feed.extend([], close=True)

    def _outcome(self) -> R:
        if self._error is not None:
            raise SessionFailedError(
                f"The session failed: {type(self._error).__name__}: {self._error} What it had "
                "reached is in this error's `partial`.",
                self._result,
            ) from self._error
        return self._result  # type: ignore[return-value]  # only a failed job has none


class Engine:
    """Runs any number of jobs on one model, all in the same forward passes.

    Args:
        model: The model; while the engine lives nobody else may run passes on it.
        chunk: The most tokens of prompts in a pass. Less lets running teams wait less while a new
            one's prompt is read, more reads it in fewer passes.
        prefix_bytes: The most cache memory for prompts that are kept because the next one may begin
            alike; a quarter of the cache by default.

    Raises:
        InvalidJobError: The model has an engine already, or an option makes no sense.

    Example:
        with Engine(SharedCacheModel.from_pretrained(path)) as engine:
            handle = engine.submit(job)
            for event in handle:
                print(event)
            print(handle.result())
    """

    _of: ClassVar[weakref.WeakValueDictionary[int, _Loop]] = weakref.WeakValueDictionary()
    """The loop that holds a model, by the model's `id`; it must not keep either of them alive."""

    def __init__(
        self, model: SharedCacheModel, *, chunk: int = CHUNK, prefix_bytes: int | None = None
    ) -> None:
        if chunk < 1 or (prefix_bytes is not None and prefix_bytes < 0):
            raise InvalidJobError(
                f"chunk={chunk} and prefix_bytes={prefix_bytes} must be at least 1 and 0."
            )
        other = Engine._of.get(id(model))
        if other is not None:
            if not other.closed:
                raise InvalidJobError(
                    "This model has an engine already: use that one, or close it."
                )
            other.close()  # waits until its thread has let go of the model
        self.model = model
        self._loop = _Loop(
            model,
            chunk,
            model.pool.limit_pages // PREFIX_SHARE
            if prefix_bytes is None
            else prefix_bytes // (model.pool.bytes_per_token * PAGE),
        )
        Engine._of[id(model)] = self._loop
        weakref.finalize(self, self._loop.close)  # also when Python exits

    def submit(self, job: Job[E, R]) -> Handle[E, R]:
        """Queues a job; returns at once.

        Raises:
            HogwildError: The job could never run, or the engine is closed.
        """
        self._loop.require_open()
        handle = Handle(self, job)
        self._loop.submit(handle._task)
        return handle

    def close(self) -> None:
        """Cancels what is running, ends the thread and gives kept prompts' memory back.

        Happens by itself when Python exits, or when a forgotten engine has nothing left to run.
        """
        self._loop.close()

    def __enter__(self) -> Self:
        """The engine; it is closed at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the engine."""
        self.close()


class _Loop:
    """The engine's thread and its inbox.

    It knows no `Engine`, so that one that is forgotten while nothing runs is closed by itself. What
    others want done is put into the inbox, and done between two passes.
    """

    def __init__(self, model: SharedCacheModel, chunk: int, prefix_pages: int) -> None:
        self.scheduler = Scheduler(model, chunk, prefix_pages, self._wake)
        self._changed = threading.Condition()
        self._inbox: list[Callable[[], None]] = []
        self._open: set[Task] = set()  # what the engine's thread has taken on and not ended
        self._awake = False
        self._closing = False
        self._crash: BaseException | None = None
        self._thread: threading.Thread | None = None

    @property
    def closed(self) -> bool:
        """Whether nothing can be submitted any more."""
        return self._closing

    def require_open(self) -> None:
        """Raises EngineClosedError if nothing can be submitted any more."""
        if self._closing:
            why = "is closed"
            if self._crash is not None:
                why = f"broke down ({type(self._crash).__name__}: {self._crash})"
            raise EngineClosedError(f"The engine {why}: make a new one.") from self._crash

    def submit(self, task: Task) -> None:
        def add() -> None:
            self._open.add(task)
            self.scheduler.add(task)

        with self._changed:
            self.require_open()
            if self._thread is None:
                thread = threading.Thread(target=self._serve, name="hogwild-engine", daemon=True)
                thread.start()
                self._thread = thread
            self._inbox.append(add)
            self._changed.notify()

    def cancel(self, task: Task) -> None:
        with self._changed:
            self._inbox.append(lambda: self.scheduler.cancel(task))
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _wake(self) -> None:
        with self._changed:
            self._awake = True
            self._changed.notify()

    def _serve(self) -> None:
        try:
            while not self._closing:
                self._receive()
                if self.scheduler.advance():
                    self._awake = True  # never False here: a future may have called `_wake`
                self._open = {task for task in self._open if not task.ended}
        except BaseException as error:  # noqa: BLE001  nobody must wait for a thread that is gone
            self._crash = error
        self._leave()

    def _receive(self) -> None:
        """Waits until there is something to do, and does what the inbox says."""
        with self._changed:
            self._changed.wait_for(lambda: self._awake or self._inbox or self._closing)
            self._awake = False
            inbox, self._inbox = self._inbox, []
        for action in inbox:
            action()

    def _leave(self) -> None:
        """Ends what is still open, so that no handle is left waiting."""
        with self._changed:
            self._closing = True
            inbox, self._inbox = self._inbox, []
        for action in inbox:
            action()
        for task in self._open:
            if self._crash is None:
                self.scheduler.cancel(task)
            else:
                self.scheduler.fail(task, self._crash)
        self.scheduler.prefixes.clear()
