"""Engine: one background thread that runs the forward passes of every session.

Submit a job from any thread or from asyncio and get a handle: it streams events, gives the result,
and stops or cancels the job. Nobody else needs to know that there is a thread.
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

from hogwild_agents.engine.cache.blocks import PAGE
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
        self._ended: tuple[R | None, BaseException | None] = (None, None)
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
        """Blocks until the job has ended, and returns what it reached.

        Args:
            timeout: Seconds to wait at most; the job goes on if they pass.

        Raises:
            TimeoutError: The job is still running.
            SessionFailedError: The job failed; its `partial` is what was reached.
            InvalidJobError: The engine's own thread would wait for itself.
            EngineClosedError: This is a forked process, which has no such thread.
        """
        self._engine._loop.require_another_thread()
        self._require_end_to_come()
        if not self._feed.wait_closed(timeout):
            raise TimeoutError(f"The session is still running after {timeout} s; cancel() ends it.")
        return self._outcome()

    def cancel(self) -> None:
        """Ends the job within one pass; its result is what it had reached. Harmless when done."""
        if not self.done:
            self._engine._loop.cancel(self._task)

    def abandon(self, error: BaseException) -> None:
        """Cancels the job and lets nobody wait for it: unless it has ended, `error` is raised.

        For a job that `cancel` does not end, as its engine is stuck in a pass.
        """
        self.cancel()
        if not self.done:
            self._abandoned = error
            self._feed.extend([], close=True)

    def stop(self) -> None:
        """Asks the job to come to its proper end soon: a team stops thinking and answers."""
        self._job.stop()

    def say(self, message: Any) -> None:
        """Gives the job something to take into account before its next pass: a team reads text.

        Raises:
            SessionEndedError: The job has ended.
            HogwildError: It cannot take such a message.
        """
        if self.done:
            raise SessionEndedError("The session has ended: nobody would read what you say.")
        self._job.hear(message)

    def __iter__(self) -> Iterator[E]:
        """The job's events; blocks while more are to come."""
        self._require_end_to_come()
        return iter(self._feed)

    def __aiter__(self) -> AsyncIterator[E]:
        """The job's events; suspends while more are to come."""
        self._require_end_to_come()
        return aiter(self._feed)

    def __await__(self) -> Generator[Any, None, R]:
        """As `result`, without blocking the event loop."""
        self._require_end_to_come()
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

    def _require_end_to_come(self) -> None:
        """Raises EngineClosedError in a forked process, where nothing more would ever come."""
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
            notes = getattr(error, "__notes__", ())  # such as whose code it was
            why = "; ".join((f"{type(error).__name__}: {error}".rstrip("."), *notes))
            raise SessionFailedError(
                f"The session failed: {why}. What it had reached is in this error's `partial`.",
                result,
            ) from error
        return result  # type: ignore[return-value]  # only a failed job has none


class Engine:
    """Runs any number of jobs on one model, all in the same forward passes.

    Args:
        model: The model; while the engine lives nobody else may run passes on it.
        chunk: The most tokens of prompts in a pass. Less lets running teams wait less while a new
            one's prompt is read, more reads it in fewer passes.
        prefix_bytes: The most cache memory for prompts that are kept because the next one may begin
            alike; a quarter of the cache by default.

    A forked process has none of its parent's threads: there an engine counts as closed. Start
    processes by `spawn`, or make the engine in the child, whose torch computes on one thread.

    Raises:
        InvalidJobError: The model has an engine that is at work, or an argument makes no sense. An
            idle engine of the same model is closed.

    Example:
        with Engine(SharedCacheModel.from_pretrained(path)) as engine:
            handle = engine.submit(job)
            for event in handle:
                print(event)
            print(handle.result())
    """

    _of: ClassVar[weakref.WeakValueDictionary[int, _Loop]] = weakref.WeakValueDictionary()
    """The loop that holds a model, by the model's `id`; it must not keep either of them alive."""
    _submitted: ClassVar[weakref.WeakValueDictionary[int, Any]] = weakref.WeakValueDictionary()
    _made: ClassVar[bool] = False
    """Whether there has ever been one in this process."""

    def __init__(
        self, model: SharedCacheModel, *, chunk: int = CHUNK, prefix_bytes: int | None = None
    ) -> None:
        given: Any = model
        if not isinstance(given, SharedCacheModel):
            raise InvalidJobError(
                f"An engine cannot run {type(given).__name__}: give it "
                "SharedCacheModel.from_pretrained(...)."
            )
        for name, size, least in (("chunk", chunk, 1), ("prefix_bytes", prefix_bytes or 0, 0)):
            if type(size) is not int or size < least:
                raise InvalidJobError(
                    f"{name}={size!r} makes no sense: give a whole number of {least} or more."
                )
        other = Engine._of.get(id(model))
        if other is not None:
            if not other.closed and not other.idle:
                raise InvalidJobError(
                    "This model has an engine that is at work: use that one, or close it."
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
        Engine._made = True
        # Only a signal: who collects garbage must not wait for a thread, which may need its locks.
        weakref.finalize(self, self._loop.signal).atexit = False

    def submit(self, job: Job[E, R]) -> Handle[E, R]:
        """Queues a job; returns at once.

        Raises:
            HogwildError: The job could never run, or the engine is closed.
        """
        self.require_open()
        given: Any = job
        if not callable(getattr(given, "run", None)):
            raise InvalidJobError(
                f"Cannot run {given!r:.80}: submit a session, made by team.session(problem)."
            )
        if Engine._submitted.get(id(job)) is job:
            raise InvalidJobError("A session can be submitted once: make a new one.")
        handle = Handle(self, job)
        with contextlib.suppress(TypeError):  # a job without weak references looks after itself
            Engine._submitted[id(job)] = job
        self._loop.submit(handle._task)
        return handle

    @property
    def closed(self) -> bool:
        """Whether nothing can be submitted any more."""
        return self._loop.closed

    def require_open(self) -> None:
        """Raises EngineClosedError, and says why, if nothing can be submitted any more."""
        self._loop.require_open()

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

    def __repr__(self) -> str:
        return f"<Engine of {self.model.report.name}{', closed' if self._loop.closed else ''}>"


class _Loop:
    """The engine's thread and its inbox.

    It knows no `Engine`, so that one that is forgotten while nothing runs is closed by itself. What
    others want done is put into the inbox, and done between two passes.
    """

    def __init__(self, model: SharedCacheModel, chunk: int, prefix_pages: int) -> None:
        self.scheduler = Scheduler(model, chunk, prefix_pages, self._wake)
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
        """Whether nothing can be submitted any more."""
        return self._closing

    @property
    def idle(self) -> bool:
        """Whether nothing runs and nothing waits."""
        return not self._open

    def require_open(self) -> None:
        """Raises EngineClosedError if nothing can be submitted any more."""
        if self.forked:
            raise EngineClosedError(
                "This process was forked, and the engine's thread stayed in its parent: start "
                "processes by spawn (multiprocessing.get_context('spawn')), or make the engine in "
                "the child."
            )
        if self._closing:
            why = "is closed"
            if self._crash is not None:
                why = f"broke down ({type(self._crash).__name__}: {self._crash})"
            raise EngineClosedError(f"The engine {why}: make a new one.") from self._crash

    def submit(self, task: Task) -> None:
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
        with self._changed:
            self._inbox.append(lambda: self.scheduler.cancel(task))
            self._changed.notify()

    def require_another_thread(self) -> None:
        """Raises InvalidJobError if this is the engine's own thread."""
        if threading.current_thread() is self._thread:
            raise InvalidJobError(
                "A session's own code (a layout, an answer format) waits for a session of the same "
                "engine, which would be for ever. Interrupts may: they run on other threads."
            )

    def signal(self) -> None:
        """Lets the thread end after its pass, without waiting for it."""
        with self._changed:
            self._closing = True
            self._changed.notify()

    def close(self) -> None:
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
            left, self._open = self._open, set()
        for action in inbox:
            action()
        for task in left:
            try:
                if self._crash is None:
                    self.scheduler.cancel(task)
                else:
                    self.scheduler.fail(task, self._crash)
            except BaseException as error:  # noqa: BLE001  nobody must wait for ever
                self._crash = self._crash or error
            task.finish(None, self._crash)  # does nothing if the scheduler has ended it
        self.scheduler.prefixes.clear()

    def forget_thread(self) -> None:
        """In a forked process: there is no thread, and nobody to give back a lock that it held."""
        self._changed = threading.Condition()
        self._closing = self.forked = True


def _after_fork() -> None:
    if Engine._made:
        torch.set_num_threads(1)  # OpenMP waits for ever for threads that stayed in the parent
    for loop in [*Engine._of.values()]:
        loop.forget_thread()


if hasattr(os, "register_at_fork"):  # there is none on Windows, which cannot fork
    os.register_at_fork(after_in_child=_after_fork)


@atexit.register
def _close_all() -> None:
    """Leaves no thread behind when Python exits."""
    for loop in [*Engine._of.values()]:
        loop.close()
