"""Packing: one forward pass over a transcript predicts what a team's many passes predict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from itertools import product
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import Qwen3Config, Qwen3ForCausalLM

from hogwild_agents.engine import CacheBlock, SharedCacheModel
from hogwild_agents.pocket.training.packed_attention import ATTENTION, Rotations
from hogwild_agents.pocket.training.packing import NO_TARGET, PackedTranscript, pack
from hogwild_agents.pocket.training.teacher import (
    NO_ACCIDENTS,
    Accidents,
    TaughtStep,
    TaughtToken,
    TaughtTranscript,
)
from hogwild_agents.team.layouts import LAYOUTS, SOLO, TeamBlocks, Views
from tests.unit.pocket.training.playing import (
    TROUBLE,
    layouts,
    play,
    seeds,
    sizes,
    talk,
    team,
    teams,
)

many = settings(max_examples=40, deadline=None, derandomize=True)
THETA, HEAD, TOLERANCE = 1e4, 16, 1e-4


@cache
def models() -> tuple[Qwen3ForCausalLM, SharedCacheModel]:
    """A tiny model with large random weights, twice: for packed transcripts and for the engine."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=384,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=HEAD,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": THETA},
        max_position_embeddings=4096,
    )
    plain = Qwen3ForCausalLM(config)
    plain.train(False)
    for parameter in plain.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    with TemporaryDirectory() as folder:
        plain.save_pretrained(folder)
        shared = SharedCacheModel.from_pretrained(folder, device="cpu", dtype="float32")
    plain.set_attn_implementation(ATTENTION)
    return plain, shared


@dataclass
class Replay:
    """Decodes a transcript pass by pass, as a team does.

    Attributes:
        transcript: The transcript.
        rows: The logits after the last token that a worker writes in a pass, by the number of the
            step and the token's place in it.
    """

    transcript: TaughtTranscript
    rows: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Goes through all passes."""
        _, self._model = models()
        transcript, alone = self.transcript, self.transcript.layout == "solo"
        self._layout = SOLO if alone else LAYOUTS[transcript.layout]
        self._prompt = self._written([], transcript.prompt[:-1] if alone else transcript.prompt)
        headers = team(workers=transcript.workers).header_tokens()
        self._fixed = [self._written([self._prompt], header) for header in headers]
        self._work = [self._model.new_block() for _ in range(transcript.workers)]
        before = self._views([])
        last = max(token.written for step in transcript.steps for token in step.tokens)
        for number in range(1, last + 1):
            before = self._run_pass(number, before)

    def _written(self, view: list[CacheBlock], tokens: Sequence[int]) -> CacheBlock:
        block = self._model.new_block()
        self._model.forward([[*view, block]], [[*tokens]])
        return block

    def _views(self, closing: Sequence[CacheBlock]) -> Views:
        common = (self._prompt, *closing)
        others, own, *pauses = self._fixed
        return self._layout.arrange(
            TeamBlocks(common, others, own, tuple(pauses), tuple(self._work))
        )

    def _run_pass(self, number: int, before: Views) -> Views:
        """Runs one pass; returns the views after it."""
        closing: list[CacheBlock] = []
        writes: list[tuple[Sequence[CacheBlock], list[int], tuple[int, int]]] = []
        steps = [*enumerate(self.transcript.steps)]
        if self._layout.commits:
            for index, step in sorted(steps, key=lambda pair: pair[1].worker):
                if step.closes == number:
                    last = len(step.tokens) - 1
                    writes.append((before[step.worker], [step.tokens[last].id], (index, last)))
                    closing.append(self._work[step.worker])
                    self._work[step.worker] = self._model.new_block()
        views = self._views(closing)
        for worker in range(self.transcript.workers):
            new = [
                (token.id, (index, place))
                for index, step in steps
                if step.worker == worker and not (self._layout.commits and step.closes == number)
                for place, token in enumerate(step.tokens)
                if token.written == number
            ]
            if new:
                writes.append((views[worker], [token for token, _ in new], new[-1][1]))
        logits = self._model.forward([view for view, *_ in writes], [ids for _, ids, _ in writes])
        for (*_, key), row in zip(writes, logits, strict=True):
            self.rows[key] = row
        for block in closing:
            self._prompt.extend(block)
            block.free()
        return self._views([])

    def free(self) -> None:
        """Gives all memory back."""
        for block in (self._prompt, *self._fixed, *self._work):
            block.free()


def packed_logits(packed: PackedTranscript) -> Tensor:
    """What the model predicts after each token of a packed transcript."""
    plain, _ = models()
    zeros = torch.zeros_like(packed.ids)[None]
    rotations = Rotations(packed, THETA, HEAD)
    with torch.no_grad():
        out = plain(input_ids=packed.ids[None], position_ids=zeros, rotations=rotations)
    logits: Tensor = out.logits[0]
    return logits


def packed_rows(
    transcript: TaughtTranscript, packed: PackedTranscript
) -> dict[tuple[int, int], int]:
    """Where each token of each step lies among the packed ones: worker by worker."""
    steps = sorted(enumerate(transcript.steps), key=lambda pair: pair[1].worker)
    keys = [(index, place) for index, step in steps for place in range(len(step.tokens))]
    return {key: len(packed.ids) - len(keys) + row for row, key in enumerate(keys)}


@pytest.mark.parametrize("odds", [NO_ACCIDENTS, TROUBLE], ids=["smooth", "troubled"])
@pytest.mark.parametrize(
    ("layout", "workers"),
    [("solo", 1), *product(("combined", "contiguous", "interleaved"), (2, 3, 4))],
)
def test_as_the_engine_decodes(layout: str, workers: int, odds: Accidents) -> None:
    """Every prediction equals the engine's."""
    layout = "combined" if workers == 1 else layout
    _, transcript = play(7, layout, workers, 4, odds)
    assert compare(transcript) > transcript.passes * workers * 0.9


@pytest.mark.parametrize(
    ("layout", "workers"),
    [("solo", 1), *product(("combined", "contiguous", "interleaved"), (2, 4))],
)
def test_replies_as_the_engine_decodes(layout: str, workers: int) -> None:
    """After a list of tasks, and of conversations with tools and without."""
    layout = "combined" if workers == 1 else layout
    _, transcript = play(7, layout, workers, 3, TROUBLE, reply="(a) 5.")
    assert compare(transcript) > transcript.passes
    for seed in range(3):
        _, transcript = talk(seed, layout, workers, TROUBLE)
        assert compare(transcript) > transcript.passes


def compare(transcript: TaughtTranscript) -> int:
    """Compares all predictions with the engine's; returns their number."""
    packed = pack(transcript, team(workers=transcript.workers).header_tokens())
    replay = Replay(transcript)
    logits, rows = packed_logits(packed), packed_rows(transcript, packed)
    scale = logits.std()
    for key, row in replay.rows.items():
        assert (logits[rows[key]] - row).abs().max() <= TOLERANCE * scale, key
    replay.free()
    assert models()[1].pool.used_pages == 0
    return len(replay.rows)


# By hand: tokens are letters, and a view is a text.

HEADERS = "<", ">", "|", "!"
"""Over the others' work, over one's own, and the pauses of Alice and of Bob."""


def step(
    worker: int, text: str, begin: int, closes: int | None = None, prefix: int = 1
) -> TaughtStep:
    """A step whose first `prefix` letters are the system's."""
    written = [max(begin, begin + 1 + at - prefix) for at in range(len(text))]
    tokens = [TaughtToken(ord(text[at]), when, at >= prefix) for at, when in enumerate(written)]
    return TaughtStep(worker, tokens, closes)


STEPS = [
    step(0, "ABC", 1, 3),
    step(1, "abcde", 1, 5),
    step(0, "DEF", 3, 5),
    step(0, "GH", 5),
    step(1, "fgh", 5, prefix=2),
]
"""Alice ends a step in pass 3; both do so in pass 5; pass 6 is the last."""

EXPECTED = {
    "combined": {
        "A": "P<a!>A",
        "B": "P<ab!>AB",
        "C": "P<abc!>ABC",
        "D": "PABC<abc!>D",
        "E": "PABC<abcd!>DE",
        "F": "PABC<abcde!>DEF",
        "G": "PABCDEFabcde<fg!>G",
        "H": "PABCDEFabcde<fgh!>GH",
        "a": "P<A|>a",
        "b": "P<AB|>ab",
        "c": "PABC<D|>abc",
        "d": "PABC<DE|>abcd",
        "e": "PABC<DEF|>abcde",
        "f": "PABCDEFabcde<G|>f",
        "g": "PABCDEFabcde<G|>fg",
        "h": "PABCDEFabcde<GH|>fgh",
    },
    "interleaved": {
        "A": "PA",
        "B": "PAB",
        "C": "PABC",
        "D": "PABCD",
        "E": "PABCDE",
        "F": "PABCDEF",
        "G": "PABCDEFabcdeG",
        "H": "PABCDEFabcdeGH",
        "a": "Pa",
        "b": "Pab",
        "c": "PABCabc",
        "d": "PABCabcd",
        "e": "PABCabcde",
        "f": "PABCDEFabcdef",
        "g": "PABCDEFabcdefg",
        "h": "PABCDEFabcdefgh",
    },
    "contiguous": {
        "A": "Pa!A",
        "B": "Pab!AB",
        "C": "Pabc!ABC",
        "D": "Pabc!ABCD",
        "E": "Pabcd!ABCDE",
        "F": "Pabcdefg!ABCDEF",
        "G": "Pabcdefg!ABCDEFG",
        "H": "Pabcdefgh!ABCDEFGH",
        "a": "PA|a",
        "b": "PAB|ab",
        "c": "PABCD|abc",
        "d": "PABCDE|abcd",
        "e": "PABCDEFG|abcde",
        "f": "PABCDEFG|abcdef",
        "g": "PABCDEFG|abcdefg",
        "h": "PABCDEFGH|abcdefgh",
    },
}
"""What each token is computed from, in the order of its view."""


def view(packed: PackedTranscript, row: int) -> str:
    """What a token sees, in the order of distance; there are no gaps."""
    block = {
        column: index
        for index, (start, end) in enumerate(packed.block_columns)
        for column in range(start, end)
    }
    places: dict[int, str] = {}
    for column in (~packed.hidden[row]).nonzero().flatten().tolist():
        if column not in block or packed.committed[row, column]:
            distance = packed.query_positions[0, row] - packed.history_positions[column]
        else:
            distance = (
                packed.query_positions[1 + block[column], row] - packed.block_positions[column]
            )
        assert int(distance) not in places
        places[int(distance)] = chr(packed.ids[column])
    assert sorted(places) == [*range(len(places))]
    return "".join(places[distance] for distance in sorted(places, reverse=True))


@pytest.mark.parametrize("layout", EXPECTED)
def test_views(layout: str) -> None:
    """Every token sees what its worker saw, in the same order, and nothing else."""
    closing = STEPS if layout != "contiguous" else [TaughtStep(s.worker, s.tokens) for s in STEPS]
    transcript = TaughtTranscript(layout, 2, [ord("P")], closing, 5)
    packed = pack(transcript, [[ord(header)] for header in HEADERS])
    seen = {chr(packed.ids[row]): view(packed, row) for row in range(len(packed.ids))}
    letters = {letter: seen[letter] for letter in seen if letter.isalpha() and letter != "P"}
    assert letters == EXPECTED[layout]
    fixed = {} if layout == "interleaved" else {header: f"P{header}" for header in HEADERS}
    assert seen.keys() - letters.keys() == fixed.keys() | {"P"}
    assert {header: seen[header] for header in fixed} == fixed
    assert seen["P"] == "P"


def test_views_of_one_alone() -> None:
    """It sees all earlier tokens; the prompt's last token is its first."""
    transcript = TaughtTranscript("solo", 1, [*map(ord, "PQ")], [step(0, "Qab", 1)], 2)
    packed = pack(transcript, [[ord(header)] for header in HEADERS[:3]])
    assert [view(packed, row) for row in range(len(packed.ids))] == ["P", "PQ", "PQa", "PQab"]
    assert packed.targets.tolist() == [NO_TARGET, ord("a"), ord("b"), NO_TARGET]


@many
@given(seeds, layouts, teams, sizes, st.booleans())
def test_targets(seed: int, layout: str, workers: int, size: int, talks: bool) -> None:
    """Each one is the next token of the same step, if that is learnt."""
    _, transcript = (
        talk(seed, layout, workers, TROUBLE)
        if talks
        else play(seed, layout, workers, size, TROUBLE, reply="(a) 5.")
    )
    packed = pack(transcript, team(workers=workers).header_tokens())
    rows = packed_rows(transcript, packed)
    expected = torch.full_like(packed.ids, NO_TARGET)
    for (index, place), row in rows.items():
        tokens = transcript.steps[index].tokens
        assert packed.ids[row] == tokens[place].id
        if place + 1 < len(tokens) and tokens[place + 1].learnt:
            expected[row] = tokens[place + 1].id
    assert packed.targets.tolist() == expected.tolist()


@many
@given(seeds, layouts, st.integers(1, 4))
def test_no_gaps(seed: int, layout: str, workers: int) -> None:
    """In any transcript, every token sees adjacent positions, the last of them its own."""
    _, transcript = play(seed, layout, workers, 2, TROUBLE, reply="(a) 5.")
    packed = pack(transcript, team(workers=workers).header_tokens())
    for row in range(0, len(packed.ids), 17):
        assert view(packed, row)[-1] == chr(packed.ids[row])


def test_another_device() -> None:
    """All tensors move, and nothing else changes."""
    packed = pack(play(1)[1], team().header_tokens())
    moved = packed.to(torch.device("meta"))
    assert moved.block_columns == packed.block_columns
    for name in {each.name for each in fields(packed)} - {"block_columns"}:
        assert getattr(moved, name).device.type == "meta"
        assert getattr(moved, name).shape == getattr(packed, name).shape
    assert Rotations(moved, THETA, HEAD).queries[0].device.type == "meta"
