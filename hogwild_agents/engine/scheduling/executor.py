"""Runs one pass for many jobs, and finds the job at fault when a pass fails."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from itertools import islice
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from hogwild_agents.engine.model import SharedCacheModel
from hogwild_agents.engine.rows import make_rows
from hogwild_agents.engine.sampling import SamplerState, choose, record
from hogwild_agents.engine.scheduling.jobs import Drawn
from hogwild_agents.engine.scheduling.task import Task

RETRIES = 8
"""How often a pass for which the device has no memory is repeated, each time with half the jobs."""

FIRST_DELAY, MAX_DELAY = 0.01, 1.0
"""Seconds between these retries: doubled every time, up to the second value."""

PASSES_UNTIL_GROWTH = 32
"""Passes after which a batch that was halved for lack of memory may double again."""

_NO_MEMORY = re.compile(
    r"out of memory|not enough memory|can(no|')t allocate memory", re.IGNORECASE
)

Outcomes: TypeAlias = "dict[Task, Drawn | Exception]"
"""For every job that took part: the tokens drawn for its writes, or why it failed."""


class PassExecutor:
    """Runs passes on one model.

    Attributes:
        max_jobs: The most jobs that the device has had memory for lately; 0 if it never lacked any.
    """

    def __init__(self, model: SharedCacheModel) -> None:
        self._model = model
        self.max_jobs = 0
        self._passes = 0  # since `max_jobs` was set

    def run(self, batch: Sequence[Task]) -> Outcomes:
        """Runs one pass. An error is charged to the job that causes it; the others run without it.

        Returns:
            The outcomes. Jobs that are missing were left out because the device lacked memory;
            nothing has happened to them.
        """
        try:
            logits = self._forward(batch)
        except Exception as error:  # noqa: BLE001  whatever a model or a device may raise
            if is_memory_error(error):
                return self._run_fewer(batch)
            return self._blame(batch, error)
        if self.max_jobs:
            self._passes += 1
            if self._passes >= PASSES_UNTIL_GROWTH:
                self.max_jobs = 2 * self.max_jobs if len(batch) >= self.max_jobs else 0
                self._passes = 0
        return self._draw(batch, logits)

    def _forward(self, batch: Sequence[Task]) -> Tensor:
        """The pass itself: float32 [writes of all jobs, vocab], perhaps still being computed."""
        model, writes = self._model, [write for task in batch for write in task.writes()]
        tokens = [np.asarray(write.tokens) for write in writes]  # arrays since they were checked
        rows = make_rows([write.view for write in writes], tokens, model.max_length)
        with model.pool.growing([(row.view[-1], row.count) for row in rows]):
            return model.run(rows)

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
        for attempt in range(RETRIES):
            if attempt:
                time.sleep(min(FIRST_DELAY * 2 ** (attempt - 1), MAX_DELAY))
            if self._model.device.type == "cuda":
                torch.cuda.empty_cache()
            batch = batch[: max(1, len(batch) // 2)]
            try:
                logits = self._forward(batch)
                break
            except Exception as error:  # noqa: BLE001  as in run
                if attempt == RETRIES - 1 or not is_memory_error(error):
                    return self._blame(batch, error)
        self.max_jobs, self._passes = len(batch), 0
        return self._draw(batch, logits)

    def _draw(self, batch: Sequence[Task], logits: Tensor) -> Outcomes:
        """Draws tokens for all writes that have a sampler.

        Args:
            batch: The jobs that took part.
            logits: [writes of all jobs, vocab].
        """
        writes = [write for task in batch for write in task.writes()]
        rows = [row for row, write in enumerate(writes) if write.sampler is not None]
        samplers = [write.sampler for write in writes if write.sampler is not None]
        try:
            tokens = self._sample(logits, rows, samplers, [writes[row].allowed for row in rows])
        except Exception as error:  # noqa: BLE001  a job's NaN, grammar or sampling parameters
            if len(batch) == 1:
                return {batch[0]: error}
            outcomes: Outcomes = {}
            start = 0
            for task in batch:
                stop = start + len(task.writes())
                outcomes |= self._draw([task], logits[start:stop])
                start = stop
            return outcomes
        drawn: list[int | None] = [None] * len(writes)
        for row, token in zip(rows, tokens, strict=True):
            drawn[row] = token
        remaining = iter(drawn)
        return {task: list(islice(remaining, len(task.writes()))) for task in batch}

    def _sample(
        self,
        logits: Tensor,
        rows: Sequence[int],
        samplers: Sequence[SamplerState],
        allowed: Sequence[Tensor | None],
    ) -> list[int]:
        """Draws tokens for some rows of a pass. All results leave the device in one copy.

        Args:
            logits: [all rows, vocab].
            rows: The rows to draw for.
            samplers: One for each of `rows`.
            allowed: For each of `rows`, the mask of a grammar, or None.

        Returns:
            One token for each of `rows`.

        Raises:
            NotANumberError: Any row of the pass holds NaN.
            InvalidSamplingError: As `sample`.
        """
        results = logits.isnan().any(-1).long()
        if rows:
            own = logits if len(rows) == len(logits) else logits[list(rows)]
            results = torch.cat([results, choose(own, samplers, _masks(allowed, own))])
        numbers = results.tolist()
        nans, chosen = numbers[: len(logits)], numbers[len(logits) :]
        self._model.refuse_nan([row for row, nan in enumerate(nans) if nan])
        return record(chosen, samplers)


def is_memory_error(error: BaseException) -> bool:
    """Whether a pass failed because memory was short; there may be enough a moment later."""
    # torch's CPU allocator raises plain RuntimeErrors.
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        type(error) is RuntimeError and _NO_MEMORY.search(str(error)) is not None
    )


def _masks(allowed: Sequence[Tensor | None], logits: Tensor) -> Tensor | None:
    """The masks of all rows: bool [rows, vocab] on the device; None if no row has a grammar."""
    if all(mask is None for mask in allowed):
        return None
    masks = torch.ones(logits.shape, dtype=torch.bool, device=logits.device)
    for row, mask in enumerate(allowed):
        if mask is not None:
            masks[row] = mask.to(logits.device, non_blocking=True)
    return masks
