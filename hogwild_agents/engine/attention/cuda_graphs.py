"""Recorded passes: CUDA graphs of the unmodified model, one for each shape of a pass.

Launching a pass of a large model kernel by kernel takes longer than running it. A recorded pass is
launched as one: its kernels read the integers of an `AttentionMetadata` from memory that is filled
anew before every replay. These are padded to few shapes, so that a session needs but a handful of
recordings.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from hogwild_agents.engine.attention.interface import Attend, Pass
from hogwild_agents.engine.attention.tiles import AttentionMetadata, Shape
from hogwild_agents.engine.attention.triton import TritonAttend, TritonPool, sheet_of
from hogwild_agents.engine.cache.pool import CachePool

logger = logging.getLogger(__name__)

MOST_TOKENS = 256
"""Longer passes are not recorded: there launching takes a small part of the time."""

MOST_RECORDINGS = 64
"""Kept at a time; the one that was used longest ago makes room."""

Call = Callable[[Tensor, Tensor, Tensor, Attend], Tensor]
"""Runs the model: ids [tokens], positions [tokens], last tokens [rows] to logits [rows, vocab]."""

Record = Callable[[Callable[[], Tensor]], tuple[Tensor, Callable[[], None]]]
"""Runs something once; returns its result, and what runs it again into the same result."""


class CapturedPass(NamedTuple):
    """A recorded pass.

    Attributes:
        numbers: int64, what it reads: a sheet of its shape.
        logits: [rows, vocab], what it writes.
        replay: Runs it.
    """

    numbers: Tensor
    logits: Tensor
    replay: Callable[[], None]


def record_graph(run: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
    """Records a CUDA graph; see `Record`."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run()  # compiles kernels and fills what libraries keep, none of which may be recorded
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        result = run()
    return result, graph.replay


class CudaGraphRunner:
    """Runs short passes of one model by recordings, made when a shape comes for the second time.

    Args:
        pool: The model's cache, of the triton backend.
        call: Runs the model.
        record: How to record.

    Attributes:
        works: Whether the model can be recorded, as far as is known.
    """

    def __init__(self, pool: CachePool, call: Call, record: Record = record_graph) -> None:
        assert isinstance(pool, TritonPool)
        self._pool = pool
        self._call = call
        self._record = record
        self._seen: Counter[Shape] = Counter()
        self._kept: OrderedDict[Shape, CapturedPass] = OrderedDict()
        self.works = True

    def run(self, current: Pass) -> Tensor | None:
        """The logits of a pass: float32 [rows, vocab]; None if it is not one for a recording."""
        if not self.works or len(current.ids) > MOST_TOKENS:
            return None
        sheet = sheet_of(current).padded()
        shape = sheet.shape
        recording = self._kept.get(shape)
        if recording is None:
            self._seen[shape] += 1
            if self._seen[shape] < 2:
                return None
            recording = self._make(sheet)
            if recording is None:
                return None
        else:
            self._kept.move_to_end(shape)
            recording.numbers.copy_(torch.from_numpy(sheet.numbers()), non_blocking=True)
            recording.replay()
        return recording.logits[: len(current.last)].to(torch.float32, copy=True)

    def _make(self, sheet: AttentionMetadata) -> CapturedPass | None:
        """Records a pass, which runs it as well; None if this model cannot be recorded."""
        numbers = self._pool.tensor(sheet.numbers())
        filled = sheet.over(numbers)

        def run() -> Tensor:
            ids, positions, last = map(torch.as_tensor, (filled.ids, filled.positions, filled.last))
            return self._call(ids, positions, last, TritonAttend(filled, self._pool))

        try:
            logits, replay = self._record(run)
            replay()  # a recording does not run while it is made
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # what CUDA says when an operation cannot be recorded
            self.works = False
            logger.warning(
                "Passes of this model cannot be recorded as CUDA graphs and are launched kernel by "
                "kernel, which is slower: %s",
                error,
            )
            return None
        while len(self._kept) >= MOST_RECORDINGS:
            self._kept.popitem(last=False)
        recording = self._kept[sheet.shape] = CapturedPass(numbers, logits, replay)
        return recording
