"""The trainer: a model with its optimizers and lessons, and the files of a trained model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed
from torch.nn.functional import cross_entropy, linear
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from hogwild_agents.pocket.tokenizer import CONTEXT, build_tokenizer
from hogwild_agents.pocket.training.lessons import Lessons
from hogwild_agents.pocket.training.muon import Muon
from hogwild_agents.pocket.training.packed_attention import ATTENTION, Rotations
from hogwild_agents.pocket.training.packing import NO_TARGET, PackedTranscript

THETA = 1e4
HEAD = 32
"""Numbers in an attention head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The settings of a training; on one machine, one recipe always gives the same weights.

    Attributes:
        seed: Of the first weights and of all lessons.
        steps: Steps of the optimizers.
        tokens: The least tokens per step, of all processes together.
        processes: Number of processes that share each step's lessons.
        hidden: Size of the model's hidden states.
        layers: Number of its layers.
        muon: Learning rate of the matrices.
        adam: Learning rate of embeddings and norms.
        warmup: Steps until the learning rates are full.
        decay: Last share of the steps, in which the learning rates fall to a hundredth.
        start: Folder of a trained model of these sizes to go on from. Its training skips the easy
            lessons.
    """

    seed: int = 1
    steps: int = 4600
    tokens: int = 3072
    processes: int = 2
    hidden: int = 128
    layers: int = 6
    muon: float = 0.02
    adam: float = 3e-3
    warmup: int = 100
    decay: float = 0.45
    start: str | None = None

    def rate(self, step: int) -> float:
        """Share of the full learning rates in a step."""
        left = (self.steps - step) / (self.steps * self.decay)
        return min(1.0, (step + 1) / self.warmup, 0.01 + 0.99 * left)


def build_model(recipe: Recipe) -> Qwen3ForCausalLM:
    """Builds the model that a training begins with."""
    torch.manual_seed(recipe.seed)
    config = Qwen3Config(
        vocab_size=-(-len(build_tokenizer()) // 16) * 16,
        hidden_size=recipe.hidden,
        intermediate_size=3 * recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.hidden // HEAD,
        num_key_value_heads=recipe.hidden // HEAD,
        head_dim=HEAD,
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_type": "default", "rope_theta": THETA},
        tie_word_embeddings=True,
    )
    model = Qwen3ForCausalLM(config)
    model.set_attn_implementation(ATTENTION)
    if recipe.start is not None:
        _load_weights(model, recipe.start)
    return model


def _load_weights(model: Qwen3ForCausalLM, folder: str) -> None:
    """Loads a trained model's weights; words that its tokenizer lacks stay untrained."""
    weights = Qwen3ForCausalLM.from_pretrained(folder, dtype="float32").state_dict()
    old_rows = AutoTokenizer.from_pretrained(folder).get_vocab()
    embeddings = "model.embed_tokens.weight"
    words = model.state_dict()[embeddings].clone()
    for word, row in build_tokenizer().get_vocab().items():
        if word in old_rows:
            words[row] = weights[embeddings][old_rows[word]]
    model.load_state_dict(weights | {embeddings: words, "lm_head.weight": words})


class Trainer:
    """A model with its optimizers and the state of its training; one in each process.

    Args:
        recipe: The settings.
        rank: Number of this process.
        device: Where the model is trained.

    Attributes:
        model: The model.
        step: Steps done.
        losses: Mean loss per learnt token of each step.
    """

    def __init__(self, recipe: Recipe, rank: int = 0, device: str = "cpu") -> None:
        self.recipe = recipe
        self._rank = rank
        self._device = torch.device(device)
        self.model = build_model(recipe)
        self.model.to(device)  # type: ignore[arg-type]  # transformers wraps it untyped
        self._lessons = Lessons(recipe.seed)
        parameters = dict(self.model.named_parameters())
        matrices = [p for name, p in parameters.items() if p.ndim == 2 and "embed" not in name]
        rest = [p for name, p in parameters.items() if p.ndim != 2 or "embed" in name]
        self._optimizers = [
            Muon(matrices, lr=recipe.muon),
            torch.optim.AdamW(rest, lr=recipe.adam, betas=(0.9, 0.95), weight_decay=0.0),
        ]
        self._full_rates = (recipe.muon, recipe.adam)
        self.step = 0
        self.losses: list[float] = []

    def state(self) -> dict[str, Any]:
        """All that is needed to go on."""
        return {
            "recipe": asdict(self.recipe),
            "step": self.step,
            "losses": self.losses,
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes back to a state of the same recipe."""
        self.step, self.losses = state["step"], state["losses"]
        self.model.load_state_dict(state["model"])
        for optimizer, optimizer_state in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(optimizer_state)

    def advance(self) -> None:
        """Trains one step."""
        loss, learnt = 0.0, 0
        for lesson in self._next_lessons():
            lesson_loss = self._loss(lesson)
            lesson_loss.backward()  # type: ignore[no-untyped-call]
            loss += lesson_loss.item()
            learnt += int((lesson.targets != NO_TARGET).sum())
        self.losses.append(self._share_gradients(loss, learnt))
        for optimizer, full_rate in zip(self._optimizers, self._full_rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = full_rate * self.recipe.rate(self.step)
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1

    def _next_lessons(self) -> Iterator[PackedTranscript]:
        """This process's lessons of the step; every run of the recipe gets the same ones."""
        left = self.recipe.tokens / self.recipe.processes
        progress = self.step / self.recipe.steps if self.recipe.start is None else 1.0
        for number in count():
            name = f"{self.step} {self._rank} {number}"
            lesson = self._lessons.lesson(name, progress)
            yield lesson.to(self._device)
            left -= len(lesson.ids)
            if left <= 0:
                return

    def _loss(self, lesson: PackedTranscript) -> Tensor:
        """The sum of the losses of all learnt tokens."""
        states = self.model.model(
            input_ids=lesson.ids[None],
            position_ids=torch.zeros_like(lesson.ids)[None],
            use_cache=False,
            rotations=Rotations(lesson, THETA, self.model.config.head_dim),
        ).last_hidden_state[0]
        learnt = lesson.targets != NO_TARGET
        logits = linear(states[learnt], self.model.lm_head.weight)
        return cross_entropy(logits, lesson.targets[learnt], reduction="sum")

    def _share_gradients(self, loss: float, learnt: int) -> float:
        """Gives every process the mean gradient per learnt token; returns the mean loss."""
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        totals = torch.tensor([loss, learnt], dtype=torch.float64)
        if self.recipe.processes > 1:
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            distributed.all_reduce(flat)
            distributed.all_reduce(totals)
            parts = torch.split(flat, [gradient.numel() for gradient in gradients])
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view_as(gradient))
        total_loss, total_learnt = totals.tolist()
        for gradient in gradients:
            gradient /= total_learnt
        return float(total_loss / total_learnt)


def export(model: Qwen3ForCausalLM, folder: Path) -> None:
    """Writes float16 weights, which `from_pretrained` loads as float32, and the tokenizer."""
    twin: Any = Qwen3ForCausalLM(model.config)
    twin.half()
    tokenizer = build_tokenizer()
    twin.config.eos_token_id = twin.generation_config.eos_token_id = tokenizer.eos_token_id
    twin.load_state_dict(model.state_dict())
    twin.generation_config.do_sample = False
    twin.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # safetensors lets only its owner read it
    config = folder / "config.json"  # half precision saves space, but is slow on CPUs
    config.write_text(config.read_text().replace('"dtype": "float16"', '"dtype": "float32"'))
