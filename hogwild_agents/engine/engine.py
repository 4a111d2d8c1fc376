"""Engine: one background thread that runs the forward passes of every session.

Submit a job from any thread or from asyncio and get a handle: it streams events, returns the
result, and stops or cancels the job. No other module deals with the thread.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any, ClassVar, Generic, Self, TypeVar

import torch

from hogwild_agents.engine.cache.pages import PAGE
from hogwild_agents.engine.model import SharedCacheModel
from hogwild_agents.engine.scheduling.feed import Feed
from hogwild_agents.engine.scheduling.jobs import Job
from hogwild_agents.engine.scheduling.scheduler import Scheduler
from hogwild_agents.engine.scheduling.task import Task
from hogwild_agents.errors import (
    EngineClosedError,
    InvalidJobError,
    SessionEndedError,
    SessionFailedError,
)

PREFILL_CHUNK = 512
"""The most prompt tokens in a pass by default; running teams wait while these are computed."""

PREFIX_CACHE_SHARE = 0.25
"""The share of the cache that cached prompts may take by default."""

E = TypeVar("E")
R = TypeVar("R")


class Handle(Generic[E, R]):
    """A submitted job. Iterate over it for its events; every iteration begins with the first one.

    Both `for event in handle` and `async for event in handle` work, and so do `handle.result()` and
    `await handle`. As a context manager it cancels the job at the end of the block if it still
    runs.
    """

    def __init__(self, engine: Engine, job: Job[E, R]) -> None:
        self._engine = engine  # keeps the engine alive as long as the handle
        self._job = job
        self._feed: Feed[E] = Feed()
        self._ended: tuple[R | None, BaseException | None] = (None, None)  # result and error
        self._abandoned: BaseException | None = None
        tokens = engine._loop.scheduler.check(job)
        self._task = Task(job, self._feed.extend, self._close, tokens)

    def __repr__(self) -> str:
        return f"<Handle of a session that {'has ended' if self.done else 'is running'}>"

    @property
    def done(self) -> bool:
        """Whether the job has ended."""
        return self._feed.closed

    def result(self, timeout: float | None = None) -> R:
        """Blocks until the job has ended, and returns its result.

        Args:
            timeout: The most seconds to wait; the job continues afterwards.

        Raises:
            TimeoutError: The job is still running.
            SessionFailedError: The job failed; `partial` is what it had reached.
            InvalidJobError: The engine's own thread would wait for itself.
            EngineClosedError: This is a forked process, which does not have the engine's thread.
        """
        self._engine._loop.require_another_thread()
        self._require_thread()
        if not self._feed.wait_closed(timeout):
            raise TimeoutError(f"The session is still running after {timeout} s; cancel() ends it.")
        return self._outcome()

    def cancel(self) -> None:
        """Ends the job within one pass; its result is what it had reached. No effect when done."""
        if not self.done:
            self._engine._loop.cancel(self._task)

    def abandon(self, error: BaseException) -> None:
        """Cancels the job and ends all waiting for it; `result` raises `error` from now on.

        For a job that `cancel` cannot end because its engine is stuck in a pass. No effect when
        done.
        """
        self.cancel()
        if not self.done:
            self._abandoned = error
            self._feed.extend([], close=True)

    def stop(self) -> None:
        """Asks the job to finish properly and soon: a team stops thinking and answers."""
        self._job.stop()

    def say(self, message: Any) -> None:
        """Sends the job a message that it takes into account before its next pass.

        Args:
            message: Whatever the job takes; for a team a text.

        Raises:
            SessionEndedError: The job has ended.
            HogwildError: The job does not take this message.
        """
        if self.done:
            raise SessionEndedError("The session has ended: the message would not be read.")
        self._job.hear(message)

    def __iter__(self) -> Iterator[E]:
        """The job's events; blocks until the job has ended."""
        self._require_thread()
        return iter(self._feed)

    def __aiter__(self) -> AsyncIterator[E]:
        """The job's events; suspends until the job has ended."""
        self._require_thread()
        return aiter(self._feed)

    def __await__(self) -> Generator[Any, None, R]:
        """As `result`, without blocking the event loop."""
        self._require_thread()
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

    def _require_thread(self) -> None:
        """Raises EngineClosedError in a forked process if the job would never end there."""
        if self._engine._loop.forked and not self.done:
            self._engine._loop.require_open()

    def _close(self, result: R | None, error: BaseException | None) -> None:
        if not self.done:
            self._ended = result, error
            self._feed.extend([], close=True)

    def _outcome(self) -> R:
        if self._abandoned is not None:
            raise self._abandoned
        result, error = self._ended
        if error is not None:
            notes = getattr(error, "__notes__", ())  # such as the interrupt that raised it
            reason = "; ".join((f"{type(error).__name__}: {error}".rstrip("."), *notes))
            raise SessionFailedError(
                f"The session failed: {reason}. What it had reached is in this error's `partial`.",
                result,
            ) from error
        return result  # type: ignore[return-value]  # only a failed job has no result


class Engine:
    """Runs any number of jobs on one model, all in the same forward passes.

    Args:
        model: The model. While the engine is open, nothing else may run passes on it.
        prefill_chunk: The most tokens of prompts in a pass. With fewer, running teams wait less
            while a new prompt is read; with more, a prompt is read in fewer passes.
        prefix_bytes: The most memory that the prefix cache may hold: prompts that stay in the cache
            because the next one may begin alike. By default a quarter of the cache.

    A forked process has none of its parent's threads, so there an engine counts as closed. Start
    processes by `spawn`, or make the engine in the child, where torch computes on one thread.

    Raises:
        InvalidJobError: The model has an engine that is at work, or an argument makes no sense. An
            idle engine of the same model is closed without an error.

    Example:
        with Engine(SharedCacheModel.from_pretrained(path)) as engine:
            handle = engine.submit(job)
            for event in handle:
                print(event)
            print(handle.result())
    """

    _loops: ClassVar[weakref.WeakValueDictionary[int, _Loop]] = weakref.WeakValueDictionary()
    """The loop of each model, by the model's `id`; it must not keep either of them alive."""
    _submitted: ClassVar[weakref.WeakValueDictionary[int, Any]] = weakref.WeakValueDictionary()
    """All jobs that were submitted, by `id`."""
    _in_use: ClassVar[bool] = False
    """Whether this process has ever made an engine."""

    def __init__(
        self,
        model: SharedCacheModel,
        *,
        prefill_chunk: int = PREFILL_CHUNK,
        prefix_bytes: int | None = None,
    ) -> None:
        _require_model(model)
        _require_whole("prefill_chunk", prefill_chunk, 1)
        pool = model.pool
        if prefix_bytes is None:
            prefix_pages = int(pool.limit_pages * PREFIX_CACHE_SHARE)
        else:
            _require_whole("prefix_bytes", prefix_bytes, 0)
            prefix_pages = prefix_bytes // (pool.bytes_per_token * PAGE)
        other = Engine._loops.get(id(model))
        if other is not None:
            if not other.closed and not other.idle:
                raise InvalidJobError(
                    "This model has an engine that is at work: use that one, or close it."
                )
            other.close()  # waits until its thread has let go of the model
        self.model = model
        self._loop = _Loop(model, prefill_chunk, prefix_pages)
        Engine._loops[id(model)] = self._loop
        Engine._in_use = True
        # Only a signal: garbage collection must not wait for a thread, which may need its locks.
        weakref.finalize(self, self._loop.signal).atexit = False

    def submit(self, job: Job[E, R]) -> Handle[E, R]:
        """Queues a job; returns at once.

        Raises:
            HogwildError: The job could never run, or the engine is closed.
        """
        self.require_open()
        if not callable(getattr(job, "run", None)):
            raise InvalidJobError(
                f"Cannot run {job!r:.80}: submit a session, made by team.session(problem)."
            )
        if Engine._submitted.get(id(job)) is job:
            raise InvalidJobError("A session can be submitted once: make a new one.")
        handle = Handle(self, job)
        with contextlib.suppress(TypeError):  # jobs without weak references are not tracked
            Engine._submitted[id(job)] = job
        self._loop.submit(handle._task)
        return handle

    @property
    def closed(self) -> bool:
        """Whether the engine takes no more jobs."""
        return self._loop.closed

    def require_open(self) -> None:
        """Raises EngineClosedError, with the reason, if the engine takes no more jobs."""
        self._loop.require_open()

    def close(self) -> None:
        """Cancels all jobs, ends the thread and frees the prefix cache.

        Happens by itself when Python exits, and when an engine without references has no job left.
        """
        self._loop.close()

    def __enter__(self) -> Self:
        """The engine; it is closed at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the engine."""
        self.close()

    def __repr__(self) -> str:
        return f"<Engine of {self.model.report.name}{', closed' if self._loop.closed else ''}>"


class _Loop:
    """The engine's thread and its inbox.

    It has no reference to its `Engine`, so that an idle engine without other references is closed
    by itself. Other threads put actions into the inbox; they are executed between two passes.
    """

    def __init__(self, model: SharedCacheModel, prefill_chunk: int, prefix_pages: int) -> None:
        self.scheduler = Scheduler(model, prefill_chunk, prefix_pages, self._wake)
        self._changed = threading.Condition()
        self._inbox: list[Callable[[], None]] = []
        self._open: set[Task] = set()  # submitted and not ended
        self._awake = False
        self._closing = False
        self._crash: BaseException | None = None
        self._thread: threading.Thread | None = None
        self.forked = False

    @property
    def closed(self) -> bool:
        """Whether the engine takes no more jobs."""
        return self._closing

    @property
    def idle(self) -> bool:
        """Whether no job runs or waits."""
        return not self._open

    def require_open(self) -> None:
        """Raises EngineClosedError if the engine takes no more jobs."""
        if self.forked:
            raise EngineClosedError(
                "This process was forked, and the engine's thread exists only in its parent: start "
                "processes by spawn (multiprocessing.get_context('spawn')), or make the engine in "
                "the child."
            )
        if self._closing:
            state = "is closed"
            if self._crash is not None:
                state = f"broke down ({type(self._crash).__name__}: {self._crash})"
            raise EngineClosedError(f"The engine {state}: make a new one.") from self._crash

    def submit(self, task: Task) -> None:
        """Queues a job, and starts the thread if this is the first one."""
        with self._changed:
            self.require_open()
            if self._thread is None:
                thread = threading.Thread(target=self._serve, name="hogwild-engine", daemon=True)
                thread.start()
                self._thread = thread
            self._open.add(task)
            self._inbox.append(lambda: self.scheduler.add(task))
            self._changed.notify()

    def cancel(self, task: Task) -> None:
        """Ends a job before the next pass."""
        with self._changed:
            self._inbox.append(lambda: self.scheduler.cancel(task))
            self._changed.notify()

    def require_another_thread(self) -> None:
        """Raises InvalidJobError if this is the engine's own thread."""
        if threading.current_thread() is self._thread:
            raise InvalidJobError(
                "A session's own code (a layout, an answer format) would wait forever for a "
                "session of the same engine. Interrupts may wait: they run on other threads."
            )

    def signal(self) -> None:
        """Makes the thread end after its pass; does not wait for it."""
        with self._changed:
            self._closing = True
            self._changed.notify()

    def close(self) -> None:
        """Makes the thread end after its pass, and waits for it."""
        self.signal()
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
                with self._changed:
                    self._open = {task for task in self._open if not task.ended}
        except BaseException as error:  # noqa: BLE001  no handle may wait for a dead thread
            self._crash = error
        self._leave()

    def _receive(self) -> None:
        """Waits until there is something to do, and executes the inbox."""
        with self._changed:
            self._changed.wait_for(lambda: self._awake or self._inbox or self._closing)
            self._awake = False
            inbox, self._inbox = self._inbox, []
        for action in inbox:
            action()

    def _leave(self) -> None:
        """Ends all open jobs, so that no handle waits forever."""
        with self._changed:
            self._closing = True
            inbox, self._inbox = self._inbox, []
            tasks, self._open = self._open, set()
        for action in inbox:
            action()
        for task in tasks:
            try:
                if self._crash is None:
                    self.scheduler.cancel(task)
                else:
                    self.scheduler.fail(task, self._crash)
            except BaseException as error:  # noqa: BLE001  no handle may wait forever
                self._crash = self._crash or error
            task.finish(None, self._crash)  # does nothing if the scheduler has ended it
        self.scheduler.prefix_cache.clear()

    def forget_thread(self) -> None:
        """For a forked process, where the thread does not exist; it may have held the lock."""
        self._changed = threading.Condition()
        self._closing = self.forked = True


def _require_model(model: object) -> None:
    if not isinstance(model, SharedCacheModel):
        raise InvalidJobError(
            f"An engine cannot run {type(model).__name__}: give it "
            "SharedCacheModel.from_pretrained(...)."
        )


def _require_whole(name: str, value: object, minimum: int) -> None:
    if type(value) is not int or value < minimum:
        raise InvalidJobError(
            f"{name}={value!r} makes no sense: give a whole number of {minimum} or more."
        )


def _after_fork() -> None:
    if Engine._in_use:
        torch.set_num_threads(1)  # OpenMP would wait forever for threads of the parent
    for loop in [*Engine._loops.values()]:
        loop.forget_thread()


if hasattr(os, "register_at_fork"):  # Windows cannot fork
    os.register_at_fork(after_in_child=_after_fork)


@atexit.register
def _close_all() -> None:
    """Ends all threads when Python exits."""
    for loop in [*Engine._loops.values()]:
        loop.close()
