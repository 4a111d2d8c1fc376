"""SharedCacheModel: one unmodified transformers model, many workers, one cache."""

from __future__ import annotations

import inspect
import logging
import os
import reprlib
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from hogwild_agents.engine.attention.backend import Backend, BackendName, choose_backend
from hogwild_agents.engine.attention.interface import CURRENT, NAME, Attend, Pass, Row
from hogwild_agents.engine.cache.blocks import PAGE, CacheBlock
from hogwild_agents.engine.cache.pool import bytes_per_token
from hogwild_agents.engine.check.self_check import CHECK_PAGES, Report, compare, measure
from hogwild_agents.engine.limits import default_cache_bytes, freeze_longrope, position_limit
from hogwild_agents.engine.loading import load_model, on_device
from hogwild_agents.errors import (
    ContextLengthError,
    InvalidTokensError,
    InvalidViewError,
    ModelLoadError,
    NotANumberError,
)

if TYPE_CHECKING:
    from hogwild_agents.engine.attention.cuda_graphs import CudaGraphRunner

logger = logging.getLogger(__name__)

CHUNK = 1024
"""Most tokens in one run of the model where a pass may be split: bounds memory of long prompts."""

_LOADING = threading.Lock()
"""While transformers loads a model, tensors made by any thread may lie nowhere or be of its dtype:
models are loaded and measured one after the other."""

COMPILED_TOKENS = 16
"""Longest pass that runs compiled; each length is compiled once, longer passes run eagerly."""


def _after_fork() -> None:
    """In a forked process: nobody would give back a lock that another thread held."""
    global _LOADING
    _LOADING = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

View = Sequence[CacheBlock]
Tokens = Sequence[int] | np.ndarray[Any, Any] | Tensor


class SharedCacheModel:
    """A causal language model whose workers share one key-value cache; for one thread at a time.

    Example:
        model = SharedCacheModel.from_pretrained("path/to/model", device="cpu", dtype="float32")
        prompt, alice, bob = model.new_block(), model.new_block(), model.new_block()
        model.forward([[prompt]], [prompt_ids])
        logits = model.forward([[prompt, bob, alice], [prompt, alice, bob]], [alice_ids, bob_ids])

    Attributes:
        model: The transformers model, unmodified but for its attention implementation.
        layers: What was measured of its attention layers.
        report: What the self-check found, and what it cost.
        pool: The memory behind the blocks.
        device: Where model and cache are.
        dtype: Of keys and values as the model computes them; the cache's own is `pool.dtype`.
        max_length: The most tokens a view may hold.
        vocab_size: Token ids are below this.
        predicted: Columns of the logits; some models predict fewer ids than they read.
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
        self.model = model
        self.backend = backend
        self._recorder: CudaGraphRunner | None = None
        self._compiled = _compile(model) if compile else None
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
        model.set_attn_implementation(NAME)
        if self_check:  # in the model's own precision, whatever the cache's will be
            enough = CHECK_PAGES * PAGE * bytes_per_token(self.layers, self.dtype)
            self.pool = backend.pool(self.layers, self.dtype, self.device, enough)
            compare(self, evidence, self.report)
        else:
            logger.warning(
                "Self-check skipped for %s: should the engine compute this model wrongly, "
                "nothing will say so.",
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
            from hogwild_agents.engine.attention.cuda_graphs import (
                CudaGraphRunner,  # it needs Triton
            )

            self._recorder = CudaGraphRunner(self.pool, self._call)

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
    ) -> SharedCacheModel:
        """Loads a model, measures it and lets it prove itself; models asked for at once take turns.

        Args:
            source: A folder, a hub name, or a transformers model that is already loaded.
            device: Where to run; a CUDA card if there is one, else the CPU. A loaded model stays
                where it is by default.
            dtype: Of weights and cache: `float32`, `bfloat16`, `float16`, or `auto` for the
                checkpoint's own.
            max_length: The most tokens a view may hold; the model's own limit by default. For
                longrope models (Phi-3 128k) this chooses the frequencies for good: the short ones
                up to the original length (the default), the long ones beyond.
            cache_bytes: The most memory that keys and values may take; by default half of the
                machine's memory, or what `gpu_memory_utilization` allows.
            cache_dtype: `fp8` keeps keys and values as float8_e4m3fn: half of the memory, and a
                relative error of up to 1/16 in each number. `auto` keeps them as computed.
            gpu_memory_utilization: Share of a CUDA card's memory that may be taken by weights,
                cache and other programs together; the rest is for computing.
            self_check: Whether the model must reproduce its own plain forward before it is used.
                Skipping it saves a few forward passes, and gives up the promise that a model which
                the engine computes wrongly is refused.
            compile: Whether short passes run through `torch.compile`. On a small model a pass then
                takes about 0.75 times as long; the first pass of each length takes 15 to 40 s more.
                Raises torch's limit of recompilations for the whole process.
            backend: What computes attention; by default `triton` on a CUDA card, else `torch`.
            cuda_graphs: Whether short passes on a CUDA card are recorded, and launched as one.

        Raises:
            ModelLoadError: Nothing loadable there, an unknown dtype or device, or a `max_length` or
                `cache_bytes` that makes no sense.
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

    def forward(
        self, views: Sequence[View], tokens: Sequence[Tokens], *, check: bool = True
    ) -> Tensor:
        """One forward pass: every worker's new tokens are written, then all read.

        A worker sees what the others write in this same pass; within its own block it is causal.
        Long prompts are run in chunks where nobody else could see their tokens in this pass.

        Args:
            views: Per worker, the blocks it attends to in order. It writes to the last one. Views
                of different teams need share nothing.
            tokens: Per worker, its new token ids: any number, none for an idle worker.
            check: Whether to wait for the logits and look for NaN; who does not must look himself.

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
        rows = self._rows(views, tokens)
        with self.pool.growing([(row.view[-1], row.count) for row in rows]):
            batches = list(_batches(rows))
            if [row.worker for row in batches[0]] == list(range(len(views))) and not batches[1:]:
                logits = self._run(batches[0])  # all workers at once, in their own order
            else:
                logits = torch.full(
                    (len(views), self.predicted), torch.nan, device=self.device, dtype=torch.float32
                )
                for batch in batches:
                    logits[[row.worker for row in batch]] = self._run(batch)
            if check:
                bad = logits.isnan().any(-1).tolist()
                self.refuse_nan([row.worker for row in rows if bad[row.worker]])
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

    def _rows(self, views: Sequence[View], tokens: Sequence[Tokens]) -> list[Row]:
        """Checks one call's arguments; returns the rows that are not idle."""
        if len(views) != len(tokens):
            raise InvalidViewError(
                f"{len(views)} views but {len(tokens)} lists of tokens: give each worker both."
            )
        ids = [_as_ids(given, worker) for worker, given in enumerate(tokens)]
        if not any(len(given) for given in ids):
            raise InvalidTokensError(
                f"No tokens at all for {len(views)} workers: at least one must have a new token."
            )
        growth: dict[CacheBlock, int] = {}
        writers: dict[CacheBlock, int] = {}
        for worker, (view, given) in enumerate(zip(views, ids, strict=True)):
            if not _is_view(view):
                raise InvalidViewError(
                    f"The view of worker {worker} is {reprlib.repr(view)}: a view is a list of "
                    "blocks made by new_block()."
                )
            if not view:
                raise InvalidViewError(
                    f"The view of worker {worker} holds no block: it needs at least the one that "
                    "the worker writes to, as its last."
                )
            self.pool.require(*view)
            if len(set(view)) < len(view):
                twice = next(index for index, block in enumerate(view) if block in view[:index])
                raise InvalidViewError(
                    f"The view of worker {worker} holds the same block twice, the second time at "
                    f"{twice}: use fork() to show one text in two places."
                )
            if not len(given):
                continue
            if view[-1] in writers:
                raise InvalidViewError(
                    f"Workers {writers[view[-1]]} and {worker} both write to {view[-1]!r}: each "
                    "worker needs a block of its own at the end of its view."
                )
            writers[view[-1]] = worker
            growth[view[-1]] = len(given)
            if int(given.min()) < 0 or int(given.max()) >= self.vocab_size:
                wrong = given[(given < 0) | (given >= self.vocab_size)][0]
                raise InvalidTokensError(
                    f"Worker {worker} has token id {wrong}, but ids run from 0 to "
                    f"{self.vocab_size - 1}: is this the model's own tokenizer?"
                )
        rows = []
        for worker, (view, given) in enumerate(zip(views, ids, strict=True)):
            starts, at = [], 0
            for block in view:
                starts.append(at)
                at += len(block) + growth.get(block, 0)
            if at > self.max_length:
                raise ContextLengthError(
                    f"The view of worker {worker} would hold {at:,} tokens, "
                    f"{at - self.max_length:,} more than the {self.max_length:,} that this model "
                    "was loaded for. Clear or shorten blocks, or see max_length in from_pretrained."
                )
            if len(given):
                rows.append(Row(worker, view, given.astype(np.int64), starts, len(view[-1])))
        return rows

    def _run(self, rows: Sequence[Row]) -> Tensor:
        """Runs the model once over packed rows; their predictions, float32 [rows, vocab]."""
        if self.model.config._attn_implementation != NAME or self.model.training:
            self.model.set_attn_implementation(NAME)  # somebody used the model by itself
            self.model.train(False)
        current = Pass(self.pool, rows)
        with on_device(self.device):
            logits = None if self._recorder is None else self._recorder.run(current)
            if logits is None:
                parts = current.ids, current.positions, current.last
                ids, positions, last = map(self.pool.tensor, parts)
                compiled = self._recorder is None or not self._recorder.works
                attend = self.backend.attend(current)
                logits = self._call(ids, positions, last, attend, compiled=compiled).float()
        for row in rows:
            row.view[-1].advance(row.count)
        return logits

    def _call(
        self, ids: Tensor, positions: Tensor, last: Tensor, attend: Attend, *, compiled: bool = True
    ) -> Tensor:
        """The model itself: logits [rows, vocab] after the tokens `last` of a packed row.

        Where passes are recorded only those are compiled: their lengths are few.
        """
        token = CURRENT.set((self.layers, attend))
        options = {"logits_to_keep": last} if self._keeps_logits else {}
        compiled = compiled and self._compiled is not None and len(ids) <= COMPILED_TOKENS
        model: Any = self._compiled if compiled else self.model
        try:
            with torch.no_grad():
                out: Tensor = model(
                    input_ids=ids[None], position_ids=positions[None], use_cache=False, **options
                ).logits[0]
        finally:
            CURRENT.reset(token)
        return out if self._keeps_logits else out[last]


def _batches(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Cuts a call into runs of the model of about `CHUNK` tokens, without changing its meaning.

    Rows of which one sees what another writes must run together. A row that stands alone in this
    sense may be cut into chunks: its later tokens see the earlier ones in the cache all the same.
    """
    if sum(row.count for row in rows) <= CHUNK:
        yield list(rows)
        return
    batch: list[Row] = []
    size = 0
    for unit in _units(rows):
        count = sum(row.count for row in unit)
        if batch and size + count > CHUNK:
            yield batch
            batch, size = [], 0
        batch += unit
        size += count
    yield batch


def _units(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Rows that must run together, in turn; a row alone comes in chunks."""
    written = {row.view[-1]: index for index, row in enumerate(rows)}
    unit_of = list(range(len(rows)))
    for index, row in enumerate(rows):
        for block in row.view[:-1]:
            other = written.get(block)
            if other is not None:
                old, new = unit_of[other], unit_of[index]
                unit_of = [new if unit == old else unit for unit in unit_of]
    for unit in dict.fromkeys(unit_of):
        members = [row for row, of in zip(rows, unit_of, strict=True) if of == unit]
        if len(members) > 1:
            yield members
            continue
        (row,) = members
        for at in range(0, row.count, CHUNK):
            part = row.tokens[at : at + CHUNK]
            yield [Row(row.worker, row.view, part, row.starts, row.position + at)]


def _compile(model: PreTrainedModel) -> Any:
    import torch._dynamo  # only here: it takes seconds to load

    # torch gives up on a function after 8 shapes by default; here every length of a pass is one.
    limit = torch._dynamo.config.recompile_limit
    torch._dynamo.config.recompile_limit = max(limit, 4 * COMPILED_TOKENS)
    return torch.compile(model, fullgraph=True, dynamic=False)


def _is_view(given: object) -> bool:
    """Whether `given` is a sequence of blocks (a single block is none)."""
    return isinstance(given, Sequence) and all(isinstance(block, CacheBlock) for block in given)


def _as_ids(tokens: Tokens, worker: int) -> np.ndarray[Any, Any]:
    """One worker's tokens as whole numbers [count], not yet checked against the vocabulary."""
    if isinstance(tokens, Tensor):
        tensor = tokens.detach().cpu()
        array = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    else:
        try:
            array = np.asarray(tokens)
        except ValueError as error:
            raise InvalidTokensError(
                f"The tokens of worker {worker} are no flat list of whole numbers: {error}"
            ) from error
    if array.size == 0:
        return np.empty(0, np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InvalidTokensError(
            f"The tokens of worker {worker} are {array.dtype} of shape {array.shape}: give a flat "
            "list of whole numbers."
        )
    return array
