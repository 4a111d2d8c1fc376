"""CUDA graphs of the unmodified model, one for each shape of a pass.

Launching a pass of a large model kernel by kernel takes longer than running it. A captured pass is
launched as a whole. Its kernels read the integers of an `AttentionMetadata` from a buffer that is
filled before every replay. The metadata is padded to few shapes, so that a session needs only a
handful of graphs.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from hogwild_agents.engine.attention.interface import Attention, Pass
from hogwild_agents.engine.attention.tiles import AttentionMetadata, MetadataShape
from hogwild_agents.engine.attention.triton import TritonAttention, TritonPool, metadata_of
from hogwild_agents.engine.cache.pool import CachePool

logger = logging.getLogger(__name__)

MAX_TOKENS = 256
"""Longer passes are not captured: launching takes only a small part of their time."""

MAX_GRAPHS = 64
"""Graphs that are held at a time; the least recently used one is dropped for a new one."""

RunModel = Callable[[Tensor, Tensor, Tensor, Attention], Tensor]
"""Runs the model: input ids [tokens], positions [tokens], logits indices [rows], attention; returns
logits [rows, vocab]."""

Capture = Callable[[Callable[[], Tensor]], tuple[Tensor, Callable[[], None]]]
"""Captures a function; returns its result, and a function that computes it again in place."""


class CapturedPass(NamedTuple):
    """A pass captured as a CUDA graph.

    Attributes:
        buffer: int64, the flattened metadata that the graph reads.
        logits: [rows, vocab], what it writes.
        replay: Runs it.
    """

    buffer: Tensor
    logits: Tensor
    replay: Callable[[], None]


def capture_graph(run: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
    """Captures a CUDA graph; see `Capture`."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run()  # compiles kernels and fills the libraries' workspaces, which cannot be captured
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        result = run()
    return result, graph.replay


class CudaGraphRunner:
    """Runs short passes of one model as CUDA graphs.

    A shape is captured when it occurs for the second time.

    Args:
        pool: The model's cache, of the triton backend.
        run_model: Runs the model.
        capture: How to capture.

    Attributes:
        capture: As above.
        supported: False once a capture has failed: this model's passes cannot be captured.
        captures: How many passes were captured.
    """

    def __init__(
        self, pool: CachePool, run_model: RunModel, capture: Capture = capture_graph
    ) -> None:
        assert isinstance(pool, TritonPool)
        self._pool = pool
        self._run_model = run_model
        self.capture = capture
        self._occurrences: Counter[MetadataShape] = Counter()
        self._captured: OrderedDict[MetadataShape, CapturedPass] = OrderedDict()
        self.supported = True
        self.captures = 0

    def run(self, current: Pass) -> Tensor | None:
        """The logits of a pass, float32 [rows, vocab]; None if it must be launched by kernels."""
        if not self.supported or len(current.input_ids) > MAX_TOKENS:
            return None
        metadata = metadata_of(current).padded()
        shape = metadata.shape
        captured = self._captured.get(shape)
        if captured is None:
            self._occurrences[shape] += 1
            if self._occurrences[shape] < 2:
                return None
            captured = self._capture_pass(metadata)
            if captured is None:
                return None
        else:
            self._captured.move_to_end(shape)
            captured.buffer.copy_(torch.from_numpy(metadata.flatten()), non_blocking=True)
            captured.replay()
        return captured.logits[: len(current.logits_indices)].to(torch.float32, copy=True)

    def _capture_pass(self, metadata: AttentionMetadata) -> CapturedPass | None:
        """Captures a pass and runs it; None if passes of this model cannot be captured."""
        buffer = self._pool.tensor(metadata.flatten())
        on_device = metadata.unflatten(buffer)

        def run() -> Tensor:
            input_ids, positions, logits_indices = map(
                torch.as_tensor,
                (on_device.input_ids, on_device.positions, on_device.logits_indices),
            )
            attention = TritonAttention(on_device, self._pool)
            return self._run_model(input_ids, positions, logits_indices, attention)

        try:
            logits, replay = self.capture(run)
            replay()  # nothing runs while a graph is captured
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # CUDA raises it for operations that cannot be captured
            self.supported = False
            logger.warning(
                "Passes of this model cannot be captured as CUDA graphs and are launched kernel by "
                "kernel, which is slower: %s",
                error,
            )
            return None
        self.captures += 1
        while len(self._captured) >= MAX_GRAPHS:
            self._captured.popitem(last=False)
        captured = self._captured[metadata.shape] = CapturedPass(buffer, logits, replay)
        return captured
