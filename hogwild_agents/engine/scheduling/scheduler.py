"""Many jobs in one batch: who takes part in the next pass, and what happens to those who cannot.

Everything here runs on one thread, one pass at a time; `engine.py` holds that thread. Rules:

- Every job that has a turn ready takes part in every pass. Jobs that read their prompt, or another
  long text, share at most `chunk` tokens of a pass, first come first served.
- A job is admitted when its prompt and a page per stream fit. When memory runs short, kept prompts
  are forgotten first, the least recently used first; then the youngest job moves to host memory. It
  comes back before any newer one is admitted. The oldest job never moves, so someone always ends;
  but if all jobs in the cache sleep, waiting for what others may compute, the youngest does.
- An error is charged to the job that causes it: a failed pass is repeated job by job.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np

from hogwild_agents.engine.cache.blocks import PAGE, Slots, pages_of, slots_of
from hogwild_agents.engine.cache.offload import OffloadedBlocks
from hogwild_agents.engine.cache.prefix_cache import PrefixCache, common_length
from hogwild_agents.engine.model import SharedCacheModel
from hogwild_agents.engine.scheduling.executor import PassExecutor
from hogwild_agents.engine.scheduling.jobs import BatchEntry, Drawn, Job, Lease, Steps, Write
from hogwild_agents.engine.scheduling.task import Task
from hogwild_agents.errors import (
    ContextLengthError,
    InvalidJobError,
    InvalidTokensError,
    NotANumberError,
    OutOfCacheMemoryError,
)


class Scheduler:
    """Runs jobs on one model; see the module for the rules.

    Args:
        model: Runs the passes.
        chunk: The most tokens of prompts and other long texts in a pass.
        prefix_pages: The most pages that kept prompts may hold.
        wake: Called, from any thread, when a future that a job waits for is done.
    """

    def __init__(
        self, model: SharedCacheModel, chunk: int, prefix_pages: int, wake: Callable[[], None]
    ) -> None:
        self.model = model
        self.pool = model.pool
        self.chunk = chunk
        self.prefixes = PrefixCache(model.pool, prefix_pages)
        self.waiting: deque[Task] = deque()
        self.running: list[Task] = []  # the oldest first, those in host memory among them
        self.passes = 0
        self._wake = wake
        self._runner = PassExecutor(model)

    def check(self, job: Job[Any, Any]) -> Slots:
        """The job's prompt, if the job can ever run here; on any thread.

        Raises:
            InvalidJobError: The prompt holds no token.
            InvalidTokensError: The prompt is no flat list of ids, or some are not the vocabulary's.
            ContextLengthError: The prompt is longer than the model takes.
            OutOfCacheMemoryError: The job would not fit into the empty cache.
        """
        tokens = np.asarray(job.prompt)
        if not tokens.size:
            raise InvalidJobError("The prompt holds no token: give at least one.")
        if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
            raise InvalidTokensError(
                f"The prompt is {tokens.dtype} of shape {tokens.shape}: give a flat list of whole "
                "numbers."
            )
        if int(tokens.min()) < 0 or int(tokens.max()) >= self.model.vocab_size:
            raise InvalidTokensError(
                f"The prompt holds ids from {tokens.min()} to {tokens.max()}, but the model's run "
                f"from 0 to {self.model.vocab_size - 1}: is this the model's own tokenizer?"
            )
        if len(tokens) > self.model.max_length:
            raise ContextLengthError(
                f"The prompt has {len(tokens):,} tokens, {len(tokens) - self.model.max_length:,} "
                f"more than the {self.model.max_length:,} that this model takes. Shorten it, or "
                "see max_length in from_pretrained."
            )
        job.check(self.model)
        # Each block may leave its last page half empty, and a stream has two while it commits.
        pages = -(-job.most_tokens // PAGE) + 2 * job.max_writers + 1
        if pages > self.pool.limit_pages:
            raise OutOfCacheMemoryError(
                f"The session may need {job.most_tokens:,} tokens of cache, {pages:,} pages of "
                f"{PAGE}, and the whole cache has {self.pool.limit_pages:,}. Lower its budget or "
                "its number of workers, or load the model with a larger cache_bytes."
            )
        return tokens.astype(np.int64)  # a copy: nobody else may change it

    def add(self, task: Task) -> None:
        """Queues a job."""
        task.usage.prompt_tokens = len(task.tokens)
        self.waiting.append(task)

    def cancel(self, task: Task) -> None:
        """Ends a job now, with what it has reached."""
        self._end(task, None, cancelled=True)

    def fail(self, task: Task, error: BaseException) -> None:
        """Ends a job with an error that is not its own."""
        self._end(task, error)

    def advance(self) -> bool:
        """Wakes, restores and admits jobs, then runs one pass; False if there was nothing to do."""
        woken = False
        for task in [*self.running]:
            if task.future is not None and task.future.done() and task.offloaded is None:
                self._resume(task)
                woken = True
        moved = self._bring_back() | self._admit()
        chosen = self._choose()
        batch = self._fit(chosen)
        if batch:
            self.passes += 1
            for task, outcome in self._runner.run(batch).items():
                self._deliver(task, outcome)
        return woken or moved or bool(chosen)

    # Admission and memory.

    def _bring_back(self) -> bool:
        """Restores jobs from host memory, the oldest first; whether any job came or went."""
        moved = False
        for task in [*self.running]:
            if task.offloaded is None or task.asleep:
                continue
            held = task.offloaded.pages
            try:
                if not self._let_in(task, held):
                    raise OutOfCacheMemoryError(self._strangers(held))
                task.offloaded.restore()
            except OutOfCacheMemoryError as error:  # of the pool or of the device
                if self._others_inside(task):
                    return moved
                self._end(task, error)  # nobody will ever make room
            task.offloaded = None
            moved = True
        return moved

    def _admit(self) -> bool:
        """Lets waiting jobs in, first come first served; whether any job came or went."""
        moved = False
        while self.waiting and all(task.offloaded is None or task.asleep for task in self.running):
            task = self.waiting[0]
            reused = self.prefixes.match(task.tokens) // PAGE
            fits = self._let_in(task, -reused)
            if not fits and self._others_inside(task):
                break
            moved = True
            if not fits:  # nobody will ever make room
                self._end(task, OutOfCacheMemoryError(self._strangers(task.unread_pages)))
                continue
            self.waiting.popleft()
            self.running.append(task)
            task.lease = Lease(self.model, usage=task.usage)
            task.entry = BatchEntry([Write([task.lease.prompt], task.tokens)])
            task.usage.waited = time.monotonic() - task.submitted
        return moved

    def _let_in(self, task: Task, pages: int) -> bool:
        """Whether a job that takes so many pages now has room, and room to grow.

        If all others sleep, nobody would ever give memory back: then the youngest sleepers go.
        """
        while not self._make_room(pages + self._growth(task)):
            others = self._others_inside(task)
            if not others or not all(other.asleep for other in others):
                return False
            self._move_out(others[-1], chosen=False)
        return True

    def _others_inside(self, newcomer: Task) -> list[Task]:
        """Jobs that have memory in the cache, but for one."""
        return [task for task in self.running if task.offloaded is None and task is not newcomer]

    def _strangers(self, pages: int) -> str:
        return (
            f"No room for a session of {pages:,} pages: {self.pool.free_pages:,} of "
            f"{self.pool.limit_pages:,} are free, and no other session will give any back. Free "
            "the blocks that were made outside of the engine."
        )

    def _growth(self, newcomer: Task) -> int:
        """Pages that the jobs in the cache will soon want, one more among them.

        What is left of their prompts, and a page per stream, which keeps what is brought in now
        from being moved out again at once. A job that has the cache for itself needs no such care.
        """
        others = self._others_inside(newcomer)
        if not others:
            return newcomer.unread_pages + 1
        soon = sum(task.unread_pages + task.job.max_writers for task in (*others, newcomer))
        return max(soon, newcomer.missed_pages)

    def _make_room(self, pages: int) -> bool:
        """Whether so many pages are free, kept prompts forgotten if need be."""
        if self.pool.free_pages < pages <= self.pool.free_pages + self.prefixes.spare_pages:
            while self.pool.free_pages < pages and self.prefixes.evict():
                continue
        return self.pool.free_pages >= pages

    def _choose(self) -> list[Task]:
        """The jobs of the next pass, and how much each of them writes."""
        ready = [task for task in self.running if task.entry is not None and task.offloaded is None]
        batch, left = [], self.chunk
        for task in ready:
            if not task.reading:
                task.share = task.left
            elif left > 0 and self._starts_now(task):
                task.share = min(left, task.left)
                left -= task.share
            else:
                continue
            batch.append(task)
        if self._runner.most:
            batch = sorted(batch, key=lambda task: task.last_pass)[: self._runner.most]
        return batch

    def _starts_now(self, task: Task) -> bool:
        """Whether a job may begin to read: not while an older one reads the same beginning."""
        if task.steps is not None or task.written:
            return True
        known = max(self.prefixes.match(task.tokens), PAGE - 1)
        for other in self.running:
            if other is task:
                break
            will_help = other.steps is None and self.prefixes.keeps(other.tokens)
            if will_help and common_length(other.tokens, task.tokens) > known:
                return False
        assert task.lease is not None
        found = self.prefixes.take(task.tokens)
        if found is not None:
            prompt, length = found
            task.lease.free(task.lease.prompt)
            task.lease.prompt = prompt
            task.lease.blocks.append(prompt)
            task.entry = BatchEntry([Write([prompt], task.tokens)])
            task.written = task.usage.reused_tokens = length
        return True

    def _fit(self, batch: list[Task]) -> list[Task]:
        """Makes room for a pass: forgets prompts, then moves the youngest jobs out."""
        while batch:
            wanted = self.pool.pages_needed([pair for task in batch for pair in task.growths()])
            if self._make_room(wanted):
                return batch
            inside = [task for task in self.running if task.offloaded is None]
            youngest = inside[-1]
            if len(inside) == 1:
                self._end(
                    youngest,
                    OutOfCacheMemoryError(
                        f"The session has the whole cache of {self.pool.limit_pages:,} pages for "
                        f"itself and needs {wanted - self.pool.free_pages:,} more. Lower its "
                        "budget, say less to it, or load the model with a larger cache_bytes."
                    ),
                )
            else:
                self._move_out(youngest, chosen=youngest in batch)
            batch = [task for task in batch if task is not youngest]
        return batch

    def _move_out(self, task: Task, *, chosen: bool) -> None:
        """Moves a job to host memory; `chosen` if it was to take part in the next pass."""
        assert task.lease is not None
        try:
            task.missed_pages = self.pool.pages_needed(task.growths()) if chosen else 0
            task.offloaded = OffloadedBlocks(task.lease.blocks)
            task.usage.preemptions += 1
        except Exception as error:  # noqa: BLE001  of the device's memory, or the job's own
            self._end(task, error)

    # A job's life.

    def _deliver(self, task: Task, outcome: Drawn | Exception) -> None:
        """Commits what is to be committed after a pass, and lets the job go on."""
        assert task.entry is not None
        task.last_pass = self.passes
        task.usage.passes += 1
        if isinstance(outcome, Exception):
            self._end(task, outcome)
        elif task.whole:
            try:
                for target, source in task.entry.commits:
                    target.extend(source)
                    source.clear()
            except Exception as error:  # noqa: BLE001  of the device's memory, or the job's own
                self._end(task, error)
                return
            task.entry, task.written = None, 0
            self._continue(task, outcome)
        else:
            task.written += task.share

    def _continue(self, task: Task, answer: Drawn | None) -> None:
        """Hands a job its tokens, or begins it when its prompt has been read."""
        if task.steps is not None:
            self._step(task, lambda steps: steps.send(answer))
            return
        assert task.lease is not None
        self.prefixes.put(task.tokens, task.lease.prompt)
        task.usage.prefilled = time.monotonic() - task.submitted
        self._step(task, next)

    def _resume(self, task: Task) -> None:
        """Hands a job the outcome of what it waited for."""
        future, task.future = task.future, None
        assert future is not None

        def go_on(steps: Steps) -> BatchEntry | Future[Any]:
            try:
                answer = future.result()
            except BaseException as error:  # noqa: BLE001  also that it was cancelled
                return steps.throw(error)
            return steps.send(answer)

        self._step(task, go_on)

    def _step(self, task: Task, go_on: Callable[[Steps], BatchEntry | Future[Any]]) -> None:
        """Lets a job say what it wants next; it is begun if need be."""
        try:
            if task.steps is None:
                assert task.lease is not None
                task.steps = task.job.run(task.lease)
            wanted = go_on(task.steps)
            if isinstance(wanted, Future):
                task.future = wanted
                wanted.add_done_callback(lambda _: self._wake())
            else:
                self._require(wanted)
                task.entry = wanted
            self._publish(task)
        except StopIteration:
            self._end(task, None)
        except BaseException as error:  # noqa: BLE001  a job's fault is the job's own
            self._end(task, error)

    def _require(self, entry: BatchEntry) -> None:
        """Raises unless an entry can be planned; the pass itself will find out the rest."""
        if not isinstance(entry, BatchEntry):
            raise InvalidJobError(
                f"The job yielded {entry!r}, which is neither BatchEntry nor Future."
            )
        if not entry.writes or not all(len(write.tokens[:1]) for write in entry.writes):
            raise InvalidJobError(f"The job yielded {entry!r}, which writes nothing.")
        for write in entry.writes:
            self.pool.require(write.view[-1])
        for target, source in entry.commits:
            self.pool.require(target, source)

    def _cleanse(self, lease: Lease) -> None:
        """Zeroes what a job with NaN leaves behind: its cause may be in the cache."""
        self.prefixes.clear()  # some may share a page with it
        for block in lease.blocks:
            pages = pages_of(block.extents)
            alone = [page for page, n in zip(pages, self.pool.owners(pages), strict=True) if n == 1]
            self.pool.erase(slots_of(alone))

    def _publish(self, task: Task) -> None:
        if task.job.events:
            events, task.job.events = task.job.events, []
            task.publish(events)

    def _end(self, task: Task, error: BaseException | None, *, cancelled: bool = False) -> None:
        """Ends a job: its memory goes back, its result goes out."""
        if task.ended:
            return
        task.ended = True
        for line in (self.running, self.waiting):
            if task in line:
                line.remove(task)
        steps, lease, result = task.steps, task.lease, None
        task.lease = task.steps = task.entry = task.future = task.offloaded = None
        try:
            try:
                if steps is not None:
                    steps.close()
            finally:
                if lease is not None:
                    if isinstance(error, NotANumberError):
                        self._cleanse(lease)
                    lease.close()
        except BaseException as fault:  # noqa: BLE001  of the job's code, or of the device
            error = error or fault
        try:
            result = task.job.result(task.usage, error, cancelled)
            self._publish(task)
        except BaseException as fault:  # noqa: BLE001  a job's fault is the job's own
            error = error or fault
        task.finish(result, error)
