"""Many jobs in one batch: which of them take part in the next pass, and which must make room.

Everything here runs on one thread, one pass at a time; `engine.py` holds that thread. Rules:

- Every job that has an entry ready takes part in every pass. Prompts and other long texts share at
  most `prefill_chunk` tokens of a pass, first come, first served.
- A job is admitted when its prompt and a page per worker fit. When memory runs short, prompts are
  evicted from the prefix cache first. Then the youngest job is preempted: it moves to host memory,
  and is restored before any newer job is admitted. The oldest job is never preempted, so some job
  always ends. There is one exception: if all jobs in the cache sleep, waiting for what others may
  compute, the youngest of them is preempted.
- An error is charged to the job that causes it: a failed pass is repeated job by job.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from hogwild_agents.engine.cache.blocks import require_usable
from hogwild_agents.engine.cache.offload import OffloadedBlocks
from hogwild_agents.engine.cache.pages import PAGE, Ints, pages_for, pages_of, slots_of
from hogwild_agents.engine.cache.prefix_cache import PrefixCache, common_length
from hogwild_agents.engine.model import SharedCacheModel
from hogwild_agents.engine.rows import check_tokens, check_view
from hogwild_agents.engine.scheduling.executor import PassExecutor
from hogwild_agents.engine.scheduling.jobs import BatchEntry, Drawn, Job, Lease, Steps, Write
from hogwild_agents.engine.scheduling.task import Task
from hogwild_agents.errors import (
    ContextLengthError,
    InvalidJobError,
    NotANumberError,
    OutOfCacheMemoryError,
)


class Scheduler:
    """Runs jobs on one model; the docstring of this module has the rules.

    Args:
        model: Runs the passes.
        prefill_chunk: The most tokens of prompts and other long texts in a pass.
        prefix_pages: The most pages that the prefix cache may hold.
        wake: Called, on any thread, when a future that a job waits for is done.
    """

    def __init__(
        self,
        model: SharedCacheModel,
        prefill_chunk: int,
        prefix_pages: int,
        wake: Callable[[], None],
    ) -> None:
        self.model = model
        self.pool = model.pool
        self.prefill_chunk = prefill_chunk
        self.prefix_cache = PrefixCache(model.pool, prefix_pages)
        self.waiting: deque[Task] = deque()
        self.running: list[Task] = []  # the oldest first, preempted ones included
        self.passes = 0
        self._wake = wake
        self._executor = PassExecutor(model)

    def check(self, job: Job[Any, Any]) -> Ints:
        """Refuses a job that can never run here; on any thread.

        Returns:
            A copy of its prompt: int64 [tokens].

        Raises:
            InvalidJobError: The prompt holds no token.
            InvalidTokensError: The prompt is not a flat list of ids from the vocabulary.
            ContextLengthError: The prompt is longer than the model takes.
            OutOfCacheMemoryError: The job would not fit into the empty cache.
        """
        tokens = check_tokens(job.prompt, self.model.vocab_size, "The prompt")
        if not len(tokens):
            raise InvalidJobError("The prompt holds no token: give at least one.")
        if len(tokens) > self.model.max_length:
            raise ContextLengthError(
                f"The prompt has {len(tokens):,} tokens, {len(tokens) - self.model.max_length:,} "
                f"more than the {self.model.max_length:,} that this model takes. Shorten it, or "
                "see max_length in from_pretrained."
            )
        job.check(self.model)
        # Each block may leave its last page half empty, and a worker has two while it commits.
        pages = pages_for(job.max_cache_tokens) + 2 * job.max_writers + 1
        if pages > self.pool.limit_pages:
            raise OutOfCacheMemoryError(
                f"The session may need {job.max_cache_tokens:,} tokens of cache, {pages:,} pages "
                f"of {PAGE}, and the whole cache has {self.pool.limit_pages:,}. Lower its budget "
                "or its number of workers, or load the model with a larger cache_bytes."
            )
        return tokens

    def add(self, task: Task) -> None:
        """Queues a job."""
        task.usage.prompt_tokens = len(task.tokens)
        self.waiting.append(task)

    def cancel(self, task: Task) -> None:
        """Ends a job now, with what it has reached."""
        self._end(task, None, cancelled=True)

    def fail(self, task: Task, error: BaseException) -> None:
        """Ends a job with an error that it has not caused."""
        self._end(task, error)

    def advance(self) -> bool:
        """Wakes, restores and admits jobs, then runs one pass; False if there was nothing to do."""
        woken = False
        for task in [*self.running]:
            if task.future is not None and task.future.done() and task.offloaded is None:
                self._resume(task)
                woken = True
        moved = self._restore() | self._admit()
        chosen = self._choose()
        batch = self._fit(chosen)
        if batch:
            self.passes += 1
            for task, outcome in self._executor.run(batch).items():
                self._deliver(task, outcome)
        return woken or moved or bool(chosen)

    # Admission and memory.

    def _restore(self) -> bool:
        """Restores preempted jobs, the oldest first; whether any was restored or ended."""
        moved = False
        for task in [*self.running]:
            if task.offloaded is None or task.asleep:
                continue
            pages = task.offloaded.pages
            try:
                if not self._make_room_for(task, pages):
                    raise OutOfCacheMemoryError(self._no_room(pages))
                task.offloaded.restore()
            except OutOfCacheMemoryError as error:  # of the pool or of the device
                if self._in_cache_except(task):
                    return moved
                self._end(task, error)  # no other job will ever make room
            task.offloaded = None
            moved = True
        return moved

    def _admit(self) -> bool:
        """Admits waiting jobs, first come, first served; whether any was admitted or ended."""
        moved = False
        while self.waiting and all(task.offloaded is None or task.asleep for task in self.running):
            task = self.waiting[0]
            reused = self.prefix_cache.match(task.tokens) // PAGE
            fits = self._make_room_for(task, -reused)
            if not fits and self._in_cache_except(task):
                break
            moved = True
            if not fits:  # no other job will ever make room
                self._end(task, OutOfCacheMemoryError(self._no_room(task.unread_pages)))
                continue
            self.waiting.popleft()
            self.running.append(task)
            task.lease = Lease(self.model, usage=task.usage)
            task.entry = BatchEntry([Write([task.lease.prompt], task.tokens)])
            task.usage.waited = time.monotonic() - task.submitted
        return moved

    def _make_room_for(self, newcomer: Task, pages: int) -> bool:
        """Whether a job that takes so many pages now has room, and room to grow.

        If all others sleep, they would never give memory back: then the youngest ones are
        preempted.
        """
        while not self._free_up(pages + self._growth_with(newcomer)):
            others = self._in_cache_except(newcomer)
            if not others or not all(other.asleep for other in others):
                return False
            self._preempt(others[-1], chosen=False)
        return True

    def _in_cache_except(self, newcomer: Task) -> list[Task]:
        """All jobs but one that have memory in the cache."""
        return [task for task in self.running if task.offloaded is None and task is not newcomer]

    def _no_room(self, pages: int) -> str:
        return (
            f"No room for a session of {pages:,} pages: {self.pool.free_pages:,} of "
            f"{self.pool.limit_pages:,} are free, and no other session will give any back. Free "
            "the blocks that were made outside of the engine."
        )

    def _growth_with(self, newcomer: Task) -> int:
        """Pages that the jobs in the cache will soon need if one more joins them.

        These are the rest of their prompts, and a page per worker, so that the newcomer is not
        preempted again at once. A job that has the cache for itself needs no such reserve.
        """
        others = self._in_cache_except(newcomer)
        if not others:
            return newcomer.unread_pages + 1
        growth = sum(task.unread_pages + task.job.max_writers for task in (*others, newcomer))
        return max(growth, newcomer.missed_pages)

    def _free_up(self, pages: int) -> bool:
        """Whether so many pages are free, after evicting prompts if that is enough."""
        free = self.pool.free_pages
        if free < pages <= free + self.prefix_cache.evictable_pages:
            while self.pool.free_pages < pages and self.prefix_cache.evict():
                pass
        return self.pool.free_pages >= pages

    def _choose(self) -> list[Task]:
        """The jobs of the next pass; decides how much each of them writes."""
        ready = [task for task in self.running if task.entry is not None and task.offloaded is None]
        batch, left = [], self.prefill_chunk
        for task in ready:
            if not task.divisible:
                task.scheduled = task.remaining
            elif left > 0 and self._may_prefill(task):
                task.scheduled = min(left, task.remaining)
                left -= task.scheduled
            else:
                continue
            batch.append(task)
        if self._executor.max_jobs:
            batch = sorted(batch, key=lambda task: task.last_pass)[: self._executor.max_jobs]
        return batch

    def _may_prefill(self, task: Task) -> bool:
        """Whether a job may begin its prompt now; takes its beginning from the prefix cache.

        It waits while an older job reads the same beginning, which it can reuse afterwards.
        """
        if task.steps is not None or task.written:
            return True
        cached = max(self.prefix_cache.match(task.tokens), PAGE - 1)
        for other in self.running:
            if other is task:
                break
            will_be_cached = other.steps is None and self.prefix_cache.accepts(other.tokens)
            if will_be_cached and common_length(other.tokens, task.tokens) > cached:
                return False
        assert task.lease is not None
        match = self.prefix_cache.take(task.tokens)
        if match is not None:
            prompt, length = match
            task.lease.free(task.lease.prompt)
            task.lease.prompt = prompt
            task.lease.blocks.append(prompt)
            task.entry = BatchEntry([Write([prompt], task.tokens)])
            task.written = task.usage.reused_tokens = length
        return True

    def _fit(self, batch: list[Task]) -> list[Task]:
        """Makes room for a pass: evicts prompts, then preempts the youngest jobs.

        Returns:
            The jobs of the batch that remain.
        """
        while batch:
            pages = self.pool.pages_needed([pair for task in batch for pair in task.growth()])
            if self._free_up(pages):
                return batch
            in_cache = [task for task in self.running if task.offloaded is None]
            youngest = in_cache[-1]
            if len(in_cache) == 1:
                self._end(
                    youngest,
                    OutOfCacheMemoryError(
                        f"The session has the whole cache of {self.pool.limit_pages:,} pages for "
                        f"itself and needs {pages - self.pool.free_pages:,} more. Lower its "
                        "budget, say less to it, or load the model with a larger cache_bytes."
                    ),
                )
            else:
                self._preempt(youngest, chosen=youngest in batch)
            batch = [task for task in batch if task is not youngest]
        return batch

    def _preempt(self, task: Task, *, chosen: bool) -> None:
        """Moves a job to host memory; `chosen` if it was to take part in the next pass."""
        assert task.lease is not None
        try:
            task.missed_pages = self.pool.pages_needed(task.growth()) if chosen else 0
            task.offloaded = OffloadedBlocks(task.lease.blocks)
            task.usage.preemptions += 1
        except Exception as error:  # noqa: BLE001  of the device's memory, or the job's fault
            self._end(task, error)

    # A job's life.

    def _deliver(self, task: Task, outcome: Drawn | Exception) -> None:
        """Commits after a pass, and lets the job continue."""
        assert task.entry is not None
        task.last_pass = self.passes
        task.usage.passes += 1
        if isinstance(outcome, Exception):
            self._end(task, outcome)
        elif task.completes:
            try:
                for target, source in task.entry.commits:
                    target.extend(source)
                    source.clear()
            except Exception as error:  # noqa: BLE001  of the device's memory, or the job's fault
                self._end(task, error)
                return
            task.entry, task.written = None, 0
            self._continue(task, outcome)
        else:
            task.written += task.scheduled

    def _continue(self, task: Task, drawn: Drawn) -> None:
        """Sends a job its tokens, or begins it once its prompt has been read."""
        if task.steps is not None:
            self._step(task, lambda steps: steps.send(drawn))
            return
        assert task.lease is not None
        self.prefix_cache.put(task.tokens, task.lease.prompt)
        task.usage.prefilled = time.monotonic() - task.submitted
        self._step(task, next)

    def _resume(self, task: Task) -> None:
        """Sends a job the result of its future, or throws the future's error into it."""
        future, task.future = task.future, None
        assert future is not None

        def resume(steps: Steps) -> BatchEntry | Future[Any]:
            try:
                result = future.result()
            except BaseException as error:  # noqa: BLE001  also a CancelledError
                return steps.throw(error)
            return steps.send(result)

        self._step(task, resume)

    def _step(self, task: Task, resume: Callable[[Steps], BatchEntry | Future[Any]]) -> None:
        """Runs a job up to its next yield."""
        try:
            if task.steps is None:
                assert task.lease is not None
                task.steps = task.job.run(task.lease)
            request = resume(task.steps)
            if isinstance(request, Future):
                task.future = request
                request.add_done_callback(lambda _: self._wake())
            else:
                task.entry = self._checked(request)
            self._publish(task)
        except StopIteration:
            self._end(task, None)
        except BaseException as error:  # noqa: BLE001  charged to the job
            self._end(task, error)

    def _checked(self, entry: BatchEntry) -> BatchEntry:
        """A copy of an entry that passes may run without checking it again.

        Raises:
            InvalidJobError: It is not an entry, or a write has no tokens.
            InvalidViewError: A write has no proper view.
            InvalidTokensError: A write has ids that the model does not have.
            InvalidBlockError: A block is freed or belongs to another model.
        """
        if not isinstance(entry, BatchEntry):
            raise InvalidJobError(
                f"The job yielded {entry!r}, which is neither BatchEntry nor Future."
            )
        writes = []
        for worker, write in enumerate(entry.writes):
            check_view(write.view, self.pool, worker)
            ids = check_tokens(write.tokens, self.model.vocab_size, f"Worker {worker}")
            writes.append(Write([*write.view], ids, write.sampler, write.allowed))
        if not writes or not all(len(write.tokens) for write in writes):
            raise InvalidJobError(f"The job yielded {entry!r}, which writes nothing.")
        for target, source in entry.commits:
            require_usable(self.pool, target, source)
        return BatchEntry(writes, [*entry.commits])

    def _erase(self, lease: Lease) -> None:
        """Zeroes the memory of a job whose logits held NaN: the cause may be in the cache."""
        self.prefix_cache.clear()  # some prompts may share a page with the job
        for block in lease.blocks:
            pages = pages_of(block.extents)
            owners = self.pool.owners(pages)
            unshared = [page for page, count in zip(pages, owners, strict=True) if count == 1]
            self.pool.erase(slots_of(unshared))

    def _publish(self, task: Task) -> None:
        if task.job.events:
            events, task.job.events = task.job.events, []
            task.publish(events)

    def _end(self, task: Task, error: BaseException | None, *, cancelled: bool = False) -> None:
        """Ends a job: frees its memory and hands over its result."""
        if task.ended:
            return
        task.ended = True
        for queue in (self.running, self.waiting):
            if task in queue:
                queue.remove(task)
        steps, lease, result = task.steps, task.lease, None
        task.lease = task.steps = task.entry = task.future = task.offloaded = None
        try:
            try:
                if steps is not None:
                    steps.close()
            finally:
                if lease is not None:
                    if isinstance(error, NotANumberError):
                        self._erase(lease)
                    lease.close()
        except BaseException as fault:  # noqa: BLE001  of the job's code, or of the device
            error = error or fault
        try:
            result = task.job.result(task.usage, error, cancelled)
            self._publish(task)
        except BaseException as fault:  # noqa: BLE001  charged to the job
            error = error or fault
        task.finish(result, error)
