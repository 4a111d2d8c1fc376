"""Runs one pass for many jobs, and finds out whose fault it is when one fails."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice
from typing import TypeAlias

import torch
from torch import Tensor

from hogwild_agents.engine.model import SharedCacheModel
from hogwild_agents.engine.sampling import SamplerState, choose, note
from hogwild_agents.engine.scheduling.jobs import Drawn
from hogwild_agents.engine.scheduling.task import Task

DEVICE_RETRIES = 8
"""Attempts at a pass for which the device has no memory, each with half of the jobs."""

FULL_AGAIN = 32
"""Passes after which a batch that was halved for want of memory may double."""

_NO_MEMORY = re.compile(
    r"out of memory|not enough memory|can(no|')t allocate memory", re.IGNORECASE
)

Outcomes: TypeAlias = "dict[Task, Drawn | Exception]"
"""For every job that took part: the tokens drawn for its writes, or why it failed."""


class PassExecutor:
    """Runs passes on one model.

    Attributes:
        most: The most jobs that the device has had memory for lately; 0 if it never lacked any.
    """

    def __init__(self, model: SharedCacheModel) -> None:
        self._model = model
        self.most = 0
        self._good = 0  # passes since then

    def run(self, batch: Sequence[Task]) -> Outcomes:
        """One pass. An error is charged to the job that causes it: the rest run without it.

        Returns:
            The outcomes; jobs that are missing were left out for want of memory on the device, and
            nothing has happened to them.
        """
        try:
            logits = self._forward(batch)
        except Exception as error:  # noqa: BLE001  whatever a model or a device may raise
            if is_memory_error(error):
                return self._run_fewer(batch)
            return self._blame(batch, error)
        if self.most:
            self._good += 1
            if self._good >= FULL_AGAIN:
                self.most, self._good = (2 * self.most if len(batch) >= self.most else 0), 0
        return self._draw(batch, logits)

    def _forward(self, batch: Sequence[Task]) -> Tensor:
        """The pass itself; float32 [writes of all jobs, vocab], which nobody has looked at yet."""
        writes = [write for task in batch for write in task.writes()]
        return self._model.forward(
            [write.view for write in writes], [write.tokens for write in writes], check=False
        )

    def _blame(self, batch: Sequence[Task], error: Exception) -> Outcomes:
        """Repeats a failed pass job by job."""
        if len(batch) == 1:
            return {batch[0]: error}
        outcomes: Outcomes = {}
        for task in batch:
            outcomes |= self.run([task])
        return outcomes

    def _run_fewer(self, batch: Sequence[Task]) -> Outcomes:
        """Repeats a pass for which the device had no memory, each time with half of the jobs."""
        # Only here: an engine that never runs out of memory needs no tenacity.
        from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

        size = len(batch)

        def attempt() -> Tensor:
            nonlocal size
            size = max(1, size // 2)
            if self._model.device.type == "cuda":
                torch.cuda.empty_cache()
            return self._forward(batch[:size])

        retry = Retrying(
            retry=retry_if_exception(is_memory_error),
            stop=stop_after_attempt(DEVICE_RETRIES),
            wait=wait_exponential(multiplier=0.01, max=1),
            reraise=True,
        )
        try:
            logits = retry(attempt)
        except Exception as error:  # noqa: BLE001  as in run
            return self._blame(batch[:size], error)
        self.most, self._good = size, 0
        return self._draw(batch[:size], logits)

    def _draw(self, batch: Sequence[Task], logits: Tensor) -> Outcomes:
        """Tokens for all writes that want one."""
        writes = [write for task in batch for write in task.writes()]
        rows = [row for row, write in enumerate(writes) if write.sampler is not None]
        samplers = [write.sampler for write in writes if write.sampler is not None]
        try:
            tokens = self._settle(logits, rows, samplers, [writes[row].allowed for row in rows])
        except Exception as error:  # noqa: BLE001  a job's NaN, grammar or sampling parameters
            if len(batch) == 1:
                return {batch[0]: error}
            outcomes: Outcomes = {}
            at = 0
            for task in batch:
                stop = at + len(task.writes())
                outcomes |= self._draw([task], logits[at:stop])
                at = stop
            return outcomes
        drawn: list[int | None] = [None] * len(writes)
        for row, token in zip(rows, tokens, strict=True):
            drawn[row] = token
        left = iter(drawn)
        return {task: list(islice(left, len(task.writes()))) for task in batch}

    def _settle(
        self,
        logits: Tensor,
        rows: Sequence[int],
        samplers: Sequence[SamplerState],
        allowed: Sequence[Tensor | None],
    ) -> list[int]:
        """Tokens for some rows of a pass; everything comes back from the device in one copy.

        Raises:
            NotANumberError: Any row of the pass holds NaN.
            InvalidSamplingError: As `sample`.
        """
        back = logits.isnan().any(-1).long()
        if rows:
            own = logits if len(rows) == len(logits) else logits[list(rows)]
            back = torch.cat([back, choose(own, samplers, _masks(allowed, own))])
        found = back.tolist()
        bad, chosen = found[: len(logits)], found[len(logits) :]
        self._model.refuse_nan([row for row, wrong in enumerate(bad) if wrong])
        return note(chosen, samplers)


def is_memory_error(error: BaseException) -> bool:
    """Whether a pass failed for want of memory, which may be there a moment later."""
    # torch's CPU allocator raises plain RuntimeErrors
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        type(error) is RuntimeError and _NO_MEMORY.search(str(error)) is not None
    )


def _masks(allowed: Sequence[Tensor | None], logits: Tensor) -> Tensor | None:
    """What grammars allow: bool [rows, vocab] on the device; None if there is no grammar."""
    if all(mask is None for mask in allowed):
        return None
    masks = torch.ones(logits.shape, dtype=torch.bool, device=logits.device)
    for row, mask in enumerate(allowed):
        if mask is not None:
            masks[row] = mask.to(logits.device, non_blocking=True)
    return masks
