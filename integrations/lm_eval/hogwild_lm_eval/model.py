"""The lm_eval model `hogwild`: teams generate replies, and the engine scores continuations."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cached_property
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm
from transformers import AutoTokenizer

from hogwild_agents import ChatHogwild, Engine
from hogwild_agents.errors import ContextLengthError, InvalidRequestError
from hogwild_agents.registry import get_engine, resolve_source
from hogwild_lm_eval.options import call_options
from hogwild_lm_eval.scoring import Pair, Score, Scoring, batches

logger = logging.getLogger(__name__)

ROWS = 64
"""Default number of continuations, or pieces of long ones, that are scored in one pass."""

DEFAULT_DEVICE = "cuda:0"
"""Default of lm_eval's own command, also on machines without a GPU."""

MAX_TEAMS = 128
"""Teams that run at the same time; each has a waiting thread."""


class Chat(str):
    """A conversation rendered by the chat template, together with its messages."""

    messages: Sequence[Mapping[str, Any]]


class HogwildLM(TemplateLM):
    """A team of workers as a model of lm_eval.

    Args:
        pretrained: `pocket`, a folder, or a name on the Hugging Face hub.
        batch_size: Continuations that are scored at once. It does not limit teams.
        max_batch_size: Not used.
        max_length: Limit on the tokens of a context and its continuation; by default the model's
            own limit.
        device: As in `ChatHogwild`.
        options: Options of `ChatHogwild`: `workers`, `budget`, `layout`, `dtype`, ...

    Raises:
        ValueError: An option is invalid.
    """

    tokenizer: Any

    def __init__(
        self,
        pretrained: str = "pocket",
        *,
        batch_size: int | str | None = None,
        max_batch_size: int | str | None = None,  # noqa: ARG002  lm_eval passes it to all
        max_length: int | None = None,
        device: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if device is not None and (device != DEFAULT_DEVICE or torch.cuda.is_available()):
            options["device"] = device
        self.chat = ChatHogwild(model=pretrained, **options)
        self.tokenizer = AutoTokenizer.from_pretrained(resolve_source(pretrained))
        self.rows = ROWS if batch_size in (None, "auto") else max(1, int(str(batch_size)))
        self._max_length = max_length
        self._passes: list[int] = []

    @cached_property
    def engine(self) -> Engine:
        """The engine that scores; teams of this model run on it too."""
        return get_engine(self.chat.model, self.chat.device, self.chat.dtype)

    @property
    def max_length(self) -> int:
        """The largest number of tokens that can be scored at once."""
        return self._max_length or self.engine.model.max_length

    # Generation.

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Replies of teams, which run at the same time."""
        with ThreadPoolExecutor(MAX_TEAMS) as pool:
            futures = [pool.submit(self._reply, *request.args) for request in requests]
            try:
                for done in tqdm(
                    as_completed(futures),
                    "Teams at work",
                    total=len(futures),
                    disable=disable_tqdm,
                ):
                    done.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [future.result() for future in futures]

    def _reply(self, context: str, arguments: Mapping[str, Any]) -> str:
        messages: Any = context.messages if isinstance(context, Chat) else [("user", context)]
        if isinstance(context, Chat) and context.messages[-1]["role"] == "assistant":
            raise InvalidRequestError(
                f"A team cannot continue a given beginning of a reply: {context[-40:]!r}. Remove "
                "gen_prefix from the task, or do not use the chat template."
            )
        try:
            message = self.chat.invoke(messages, **call_options(arguments))
        except ContextLengthError as error:
            logger.warning("A problem is too long and counts as not answered: %s", error)
            return ""
        self._passes.append(message.response_metadata["passes"])
        self.cache_hook.add_partial("generate_until", (context, arguments), message.text)
        return str(message.text)

    # Scoring.

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[tuple[str, str] | None, list[int], list[int]]],
        disable_tqdm: bool = False,
        **_: Any,
    ) -> list[tuple[float, bool]]:
        pairs = [self._fitted(context, continuation) for _, context, continuation in requests]
        scores = [Score(0.0, True)] * len(pairs)  # the score of an empty continuation
        with tqdm(total=len(pairs), desc="Scored", disable=disable_tqdm) as bar:
            for batch in batches(pairs, self.rows):
                batch_scores = self.engine.submit(Scoring([pairs[n] for n in batch])).result()
                for n, score in zip(batch, batch_scores, strict=True):
                    scores[n] = score
                    texts = requests[n][0]
                    if texts is not None:  # windows of longer texts are not cached
                        self.cache_hook.add_partial("loglikelihood", texts, tuple(score))
                bar.update(len(batch))
        return [(score.log_probability, score.greedy) for score in scores]

    def _fitted(self, context: list[int], continuation: list[int]) -> Pair:
        """Cuts the beginning of a context that is too long, as lm_eval's other models do."""
        context = context or [self.prefix_token_id]
        surplus = len(context) + len(continuation) - 1 - self.max_length
        if surplus >= len(context):
            raise ValueError(
                f"A continuation of {len(continuation):,} tokens does not fit into the context of "
                f"{self.max_length:,} tokens."
            )
        return Pair(tuple(context[max(surplus, 0) :]), tuple(continuation))

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Log-probabilities of whole texts, in windows as long as the model's context."""
        windows = [
            [
                make_disjoint_window(window)
                for window in get_rolling_token_windows(
                    self.tok_encode(request.args[0]), self.prefix_token_id, self.max_length, 1
                )
            ]
            for request in requests
        ]
        flat = [(None, *window) for of_text in windows for window in of_text]
        scores = iter(self._loglikelihood_tokens(flat, disable_tqdm))
        return [sum(next(scores)[0] for _ in of_text) for of_text in windows]

    # Texts.

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: Any
    ) -> list[int]:
        """The token ids of a text, with the special tokens that the tokenizer puts before it."""
        if add_special_tokens is None:  # the chat template may have added them already
            begin = self.tokenizer.bos_token
            add_special_tokens = not (begin and string.startswith(begin))
        ids: list[int] = self.tokenizer.encode(string, add_special_tokens=add_special_tokens)
        return ids

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """The token before a text that has no context."""
        begin = self.tokenizer.bos_token_id
        return self.eot_token_id if begin is None else int(begin)

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """A conversation as text, which is scored; teams use its messages."""
        chat = Chat(
            self.tokenizer.apply_chat_template(
                chat_history,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )
        )
        chat.messages = chat_history
        return chat

    @property
    def tokenizer_name(self) -> str:
        """Part of the name of lm_eval's request cache."""
        return self.chat.model.replace("/", "__")

    def get_model_info(self) -> dict[str, Any]:
        """Information about the team for the results file; lm_eval calls this at the end."""
        chat = self.chat
        info: dict[str, Any] = {
            name: getattr(chat, name) for name in ("model", "workers", "layout", "budget")
        }
        if self._passes:
            info["mean_passes"] = sum(self._passes) / len(self._passes)
        return {"hogwild": info}
