"""SharedCacheModel: one unmodified transformers model, many workers, one cache."""

from __future__ import annotations

import inspect
import logging
import os
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import Tensor

from hogwild_agents.engine.attention.backend import Backend, BackendName, choose_backend
from hogwild_agents.engine.attention.interface import (
    ATTN_IMPLEMENTATION,
    CURRENT_ATTENTION,
    Attention,
    Pass,
    Row,
    register_attention,
)
from hogwild_agents.engine.cache.blocks import CacheBlock
from hogwild_agents.engine.cache.pages import PAGE
from hogwild_agents.engine.cache.pool import bytes_per_token
from hogwild_agents.engine.check.self_check import CHECK_PAGES, Report, compare, measure
from hogwild_agents.engine.limits import default_cache_bytes, freeze_longrope, position_limit
from hogwild_agents.engine.loading import load_model, on_device
from hogwild_agents.engine.rows import (
    Tokens,
    View,
    check_tokens,
    check_view,
    cut_rows,
    make_rows,
)
from hogwild_agents.errors import (
    InvalidTokensError,
    InvalidViewError,
    ModelLoadError,
    NotANumberError,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hogwild_agents.engine.attention.cuda_graphs import CudaGraphRunner

logger = logging.getLogger(__name__)

MAX_COMPILED_TOKENS = 16
"""The longest pass that runs compiled. Each length is compiled once; longer passes run eagerly."""

_LOADING = threading.Lock()
"""Models are loaded and measured one at a time: while transformers loads one, tensors that any
thread makes may be on the meta device or have the model's dtype."""


def _after_fork() -> None:
    """In a forked process the thread that held the lock does not exist."""
    global _LOADING
    _LOADING = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class SharedCacheModel:
    """A causal language model whose workers share one key-value cache; for one thread at a time.

    Example:
        model = SharedCacheModel.from_pretrained("path/to/model", device="cpu", dtype="float32")
        prompt, alice, bob = model.new_block(), model.new_block(), model.new_block()
        model.forward([[prompt]], [prompt_ids])
        logits = model.forward([[prompt, bob, alice], [prompt, alice, bob]], [alice_ids, bob_ids])

    Attributes:
        model: The transformers model. Only its attention implementation is changed.
        layers: Its attention layers, as measured on load.
        report: The result of the self-check.
        pool: The memory behind the blocks.
        backend: Computes attention.
        device: The device of model and cache.
        dtype: The dtype of keys and values as the model computes them; `pool.dtype` is the cache's.
        max_length: The most tokens that a view may hold.
        vocab_size: Every token id is below.
        predicted: Columns of the logits; some models predict fewer ids than they read.
        graphs: The CUDA graphs of short passes; None if passes are launched kernel by kernel.
        compiled: The model compiled by torch for the shortest passes; None if not requested.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        max_length: int,
        cache_bytes: int,
        cache_dtype: torch.dtype | None,
        self_check: bool,
        compile: bool,  # noqa: A002  torch's own word for it
        backend: Backend,
        cuda_graphs: bool,
    ) -> None:
        register_attention()
        self.model = model
        self.backend = backend
        self.graphs: CudaGraphRunner | None = None
        self.compiled: Any = compile_model(model) if compile else None
        self.max_length = max_length
        embedding: Any = model.get_input_embeddings()
        self.vocab_size: int = embedding.weight.shape[0]
        self.device = next(model.parameters()).device
        self._keeps_logits = "logits_to_keep" in inspect.signature(model.forward).parameters
        self.report = Report(model.config._name_or_path or type(model).__name__)
        evidence = measure(model, self.vocab_size, self.report)
        self.predicted = evidence.logits.shape[-1]
        self.layers = evidence.layers
        self.dtype = evidence.calls[0].key.dtype  # a quantised model's own dtype says nothing
        model.set_attn_implementation(ATTN_IMPLEMENTATION)
        if self_check:  # in the model's own precision, whatever the cache's will be
            check_bytes = CHECK_PAGES * PAGE * bytes_per_token(self.layers, self.dtype)
            self.pool = backend.pool(self.layers, self.dtype, self.device, check_bytes)
            compare(evidence, self.pool, backend, self.forward, self.report)
        else:
            logger.warning(
                "Self-check skipped for %s: if the engine computes this model wrongly, nothing "
                "will say so.",
                self.report.name,
            )
        self.pool = backend.pool(self.layers, cache_dtype or self.dtype, self.device, cache_bytes)
        needed = CHECK_PAGES if self_check else 1
        if self.pool.limit_pages < needed:
            raise ModelLoadError(
                f"cache_bytes={cache_bytes} is too little: {needed} pages of {PAGE} tokens take "
                f"{needed * PAGE * self.pool.bytes_per_token} bytes, and a session takes many more."
            )
        if cuda_graphs and backend.name == "triton" and self.device.type == "cuda":
            # Needs Triton.
            from hogwild_agents.engine.attention.cuda_graphs import CudaGraphRunner

            self.graphs = CudaGraphRunner(self.pool, self.run_model)

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str] | PreTrainedModel,
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype = "auto",
        max_length: int | None = None,
        cache_bytes: int | None = None,
        cache_dtype: Literal["auto", "fp8"] = "auto",
        gpu_memory_utilization: float = 0.9,
        self_check: bool = True,
        compile: bool = False,  # noqa: A002
        backend: BackendName | None = None,
        cuda_graphs: bool = True,
    ) -> Self:
        """Loads a model, measures it and checks it against its own plain forward.

        From several threads at once, models are loaded one after the other.

        Args:
            source: A folder, a hub name, or a transformers model that is already loaded.
            device: Where to run: by default a CUDA card if there is one, else the CPU. A loaded
                model stays where it is by default.
            dtype: The dtype of weights and cache: `float32`, `bfloat16`, `float16`, or `auto` for
                the checkpoint's own.
            max_length: The most tokens that a view may hold; by default the model's own limit. For
                longrope models (Phi-3 128k) this fixes the frequencies: the short ones up to the
                original length (the default), the long ones beyond.
            cache_bytes: The most memory that keys and values may take; by default half of the
                machine's memory, or what `gpu_memory_utilization` allows.
            cache_dtype: `fp8` stores keys and values as float8_e4m3fn: half of the memory, and a
                relative error of up to 1/16 in each number. `auto` stores them as computed.
            gpu_memory_utilization: The share of a CUDA card's memory that weights, cache and other
                programs may take together; the rest is left for computing.
            self_check: Whether the model must reproduce its own plain forward before it is used.
                Skipping it saves a few forward passes. A model that the engine computes wrongly
                is then not refused.
            compile: Whether short passes run through `torch.compile`. On a small model a pass then
                takes about 0.75 times as long; the first pass of each length takes 15 to 40 s more.
                Raises torch's limit of recompilations for the whole process.
            backend: What computes attention; by default `triton` on a CUDA card, else `torch`.
            cuda_graphs: Whether short passes on a CUDA card are captured and replayed as CUDA
                graphs.

        Raises:
            ModelLoadError: The model cannot be loaded, or `dtype`, `device`, `max_length`,
                `cache_bytes` or `cache_dtype` makes no sense.
            UnsupportedModelError: The engine cannot compute this model faithfully.
        """
        with _LOADING:
            model = load_model(source, device, dtype)
            model.train(False)
            limit = freeze_longrope(model, max_length) or position_limit(model.config)
            if max_length is not None:
                if not 1 <= max_length <= limit:
                    raise ModelLoadError(
                        f"max_length={max_length} is not between 1 and the {limit:,} positions "
                        "that this model allows."
                    )
                limit = max_length
            if cache_bytes is None:
                device = next(model.parameters()).device
                cache_bytes = default_cache_bytes(device, gpu_memory_utilization)
            if cache_dtype not in ("auto", "fp8"):
                raise ModelLoadError(f"Unknown cache_dtype {cache_dtype!r}: use auto or fp8.")
            return cls(
                model,
                max_length=limit,
                cache_bytes=cache_bytes,
                cache_dtype=torch.float8_e4m3fn if cache_dtype == "fp8" else None,
                self_check=self_check,
                compile=compile,
                backend=choose_backend(backend, next(model.parameters()).device),
                cuda_graphs=cuda_graphs,
            )

    def new_block(self) -> CacheBlock:
        """An empty block."""
        return CacheBlock(self.pool)

    def forward(self, views: Sequence[View], tokens: Sequence[Tokens]) -> Tensor:
        """One forward pass: every worker's new tokens are written first, then all workers read.

        A worker sees what the others write in the same pass; within its own block it is causal.
        A long prompt runs in chunks if no other worker can see its tokens in this pass.

        Args:
            views: Per worker, the blocks that it attends to, in order. It writes to the last one.
                Views of different teams need share nothing.
            tokens: Per worker, its new token ids: any number, none for an idle worker.

        Returns:
            float32 [workers, vocab]: the prediction after each worker's last token; NaN for an idle
            worker.

        Raises:
            InvalidViewError: A view without a block, a block twice in a view, two workers writing
                to one block, or not as many views as token lists.
            InvalidBlockError: A block that is freed or belongs to another model.
            InvalidTokensError: No tokens at all, or ids outside of the vocabulary.
            ContextLengthError: A view would hold more tokens than `max_length`.
            OutOfCacheMemoryError: The new tokens do not fit into the cache.
            NotANumberError: The model's logits hold NaN.

            After any error every block is as it was before the call.
        """
        if len(views) != len(tokens):
            raise InvalidViewError(
                f"{len(views)} views but {len(tokens)} lists of tokens: give each worker both."
            )
        ids = [check_tokens(t, self.vocab_size, f"Worker {w}") for w, t in enumerate(tokens)]
        if not any(map(len, ids)):
            raise InvalidTokensError(
                f"No tokens at all for {len(views)} workers: at least one must have a new token."
            )
        for worker, view in enumerate(views):
            check_view(view, self.pool, worker)
        rows = make_rows(views, ids, self.max_length)
        workers = [row.worker for row in rows]
        with self.pool.growing([(row.view[-1], row.count) for row in rows]):
            logits = self.run(rows)
            bad = logits.isnan().any(-1).tolist()
            self.refuse_nan([worker for worker, nan in zip(workers, bad, strict=True) if nan])
        if len(rows) == len(views):
            return logits
        everyone = logits.new_full((len(views), logits.shape[1]), torch.nan)
        everyone[workers] = logits
        return everyone

    def run(self, rows: Sequence[Row]) -> Tensor:
        """The pass behind `forward`. It checks nothing, and does not wait for the device.

        Args:
            rows: At least one, as `make_rows` makes them, in whose blocks the pool has reserved
                room for the new tokens.

        Returns:
            float32 [rows, vocab]: the prediction after each row's last token.
        """
        runs = cut_rows(rows)
        if len(runs) == 1:
            return self._run(rows)  # in the order of the call
        index = {row.worker: index for index, row in enumerate(rows)}
        shape = len(rows), self.predicted
        logits = torch.empty(shape, device=self.device, dtype=torch.float32)
        for run in runs:
            logits[[index[row.worker] for row in run]] = self._run(run)
        return logits

    def refuse_nan(self, workers: Sequence[int]) -> None:
        """Raises NotANumberError if the logits of any workers hold NaN."""
        if workers:
            half = self.dtype == torch.float16
            raise NotANumberError(
                f"The logits of workers {list(workers)} hold NaN. Check the checkpoint's weights"
                + ("; float16 overflows easily, try bfloat16." if half else "."),
                tuple(workers),
            )

    def _run(self, rows: Sequence[Row]) -> Tensor:
        """Runs the model once over packed rows: float32 [rows, vocab]."""
        if self.model.config._attn_implementation != ATTN_IMPLEMENTATION or self.model.training:
            # The caller has used the model by itself.
            self.model.set_attn_implementation(ATTN_IMPLEMENTATION)
            self.model.train(False)
        current = Pass(self.pool, rows)
        with on_device(self.device):
            logits = None if self.graphs is None else self.graphs.run(current)
            if logits is None:
                parts = current.input_ids, current.positions, current.logits_indices
                input_ids, positions, logits_indices = map(self.pool.tensor, parts)
                compiled = self.graphs is None or not self.graphs.supported
                logits = self.run_model(
                    input_ids,
                    positions,
                    logits_indices,
                    self.backend.prepare(current),
                    compiled=compiled,
                ).float()
        for row in rows:
            row.view[-1].advance(row.count)
        return logits

    def run_model(
        self,
        input_ids: Tensor,
        positions: Tensor,
        logits_indices: Tensor,
        attention: Attention,
        *,
        compiled: bool = True,
    ) -> Tensor:
        """Calls the model on a packed row of tokens.

        With CUDA graphs only captured passes are compiled, as they have few lengths.

        Args:
            input_ids: int64 [tokens].
            positions: int64 [tokens], block-local.
            logits_indices: int64 [rows], the tokens whose predictions are returned.
            attention: The backend, prepared for this pass.
            compiled: Whether to use the compiled model, if there is one.

        Returns:
            [rows, vocab], in the model's own dtype.
        """
        token = CURRENT_ATTENTION.set((self.layers, attention))
        options = {"logits_to_keep": logits_indices} if self._keeps_logits else {}
        compiled = compiled and self.compiled is not None and len(input_ids) <= MAX_COMPILED_TOKENS
        model: Any = self.compiled if compiled else self.model
        try:
            with torch.no_grad():
                out: Tensor = model(
                    input_ids=input_ids[None],
                    position_ids=positions[None],
                    use_cache=False,
                    **options,
                ).logits[0]
        finally:
            CURRENT_ATTENTION.reset(token)
        return out if self._keeps_logits else out[logits_indices]


def compile_model(model: PreTrainedModel) -> Any:
    """The model compiled by torch, once for each length of a pass."""
    import torch._dynamo  # takes seconds to import

    # By default torch gives up on a function after 8 shapes; every length of a pass is a shape.
    limit = torch._dynamo.config.recompile_limit
    torch._dynamo.config.recompile_limit = max(limit, 4 * MAX_COMPILED_TOKENS)
    return torch.compile(model, fullgraph=True, dynamic=False)
