"""The teacher: its sessions are right, and equal those of a real team."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from statistics import mean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hogwild_agents.pocket.judge import read_steps
from hogwild_agents.pocket.tasks import score
from hogwild_agents.pocket.training.teacher import (
    FORCED,
    NO_ACCIDENTS,
    REFUSAL,
    Accidents,
    DirectAnswer,
    TaughtToken,
    Teacher,
)
from hogwild_agents.team import events as ev
from hogwild_agents.team.redundancy_check import QUESTION
from hogwild_agents.team.steps import ends_step, prefix
from hogwild_agents.team.tokenizer import Detokenizer
from tests.unit.pocket.training.playing import (
    TROUBLE,
    accidents,
    drawn,
    end,
    events_of,
    layouts,
    lead,
    numbered,
    play,
    result_of,
    seeds,
    sizes,
    stated,
    team,
    teams,
    text_of,
    tokenizer,
)
from tests.unit.pocket.training.replaying import replay, thoughts

many = settings(max_examples=80, deadline=None, derandomize=True)
seen_in_time = st.sampled_from(["combined", "contiguous"])


def ends(tokens: list[TaughtToken]) -> Iterator[int]:
    """After how many tokens a team would end a step, and the next one, and so on."""
    detokenizer, text = Detokenizer(tokenizer()), ""
    for place, token in enumerate(tokens, 1):
        new = detokenizer.push(token.id)
        text += new
        if "\n" in new and ends_step(text, len(new)):
            yield place
            text = ""


# Results.


@many
@given(seeds, layouts, teams, sizes)
def test_all_is_solved(seed: int, layout: str, workers: int, size: int) -> None:
    """The last step states all answers, and no other step states any."""
    task_list, transcript = play(seed, layout, workers, size)
    *others, last = [step for step in transcript.steps if stated(step) is not None]
    assert not others
    assert score(task_list, stated(last)) == 1
    assert drawn(last)[-1].written == transcript.passes + 1
    for step in transcript.steps:
        assert step is last or drawn(step)[-1].written <= transcript.passes + 1


@many
@given(seeds, layouts, teams, sizes)
def test_accidents_are_corrected(seed: int, layout: str, workers: int, size: int) -> None:
    """Sessions end with the right answers after all accidents but wrong results."""
    trouble = Accidents(forced=0.4, blunder=0.4, duplicate=0.4, wrong=0, asked=0.5)
    task_list, transcript = play(seed, layout, workers, size, trouble)
    answers = [stated(step) for step in transcript.steps if stated(step) is not None]
    assert [score(task_list, answer) for answer in answers] == [1]


@many
@given(seeds, layouts, teams, sizes, accidents)
def test_sessions_end(seed: int, layout: str, workers: int, size: int, odds: Accidents) -> None:
    """With all tasks in the answer, even if results are wrong."""
    task_list, transcript = play(seed, layout, workers, size, odds)
    assert transcript.passes < 1000
    (answer,) = (stated(step) for step in transcript.steps if stated(step) is not None)
    assert re.findall(r"\(([a-h])\)", answer) == [*task_list.answers]


@many
@given(seeds, layouts, teams)
def test_refusals(seed: int, layout: str, workers: int) -> None:
    """The first worker refuses what is not a list of tasks."""
    encode, names = tokenizer().encode, team(layout, workers).workers
    rng = random.Random(seed)
    teacher = Teacher(DirectAnswer(REFUSAL), names, layout, encode, rng, TROUBLE, end=end())
    transcript = teacher.play(encode("Hello!"))
    assert [stated(step) for step in transcript.steps if step.worker == 0] == [REFUSAL]
    assert {stated(step) for step in transcript.steps if step.worker > 0} <= {None}


@many
@given(seeds, seen_in_time, teams, sizes)
def test_nothing_is_done_twice(seed: int, layout: str, workers: int, size: int) -> None:
    """Every task is worked out once if workers see each other's claims in time."""
    task_list, transcript = play(seed, layout, workers, size)
    steps = read_steps(events_of(transcript), team(layout, workers).workers)
    assert sorted(label for step in steps for label in step.solved) == [*task_list.answers]


@many
@given(seeds, st.integers(2, 4), sizes)
def test_tasks_are_dealt_out(seed: int, workers: int, size: int) -> None:
    """In turn, if workers see each other's claims too late."""
    task_list, transcript = play(seed, "interleaved", workers, size)
    steps = read_steps(events_of(transcript), team("interleaved", workers).workers)
    done = {(step.place, label) for step in steps for label in step.solved}
    assert done == {(place % workers, label) for place, label in enumerate(task_list.answers)}


@pytest.mark.parametrize(("workers", "limit"), [(2, 0.57), (4, 0.37)])
def test_teams_are_faster(workers: int, limit: float) -> None:
    """Two and four workers need at most this share of one worker's passes."""
    alone, together = (
        mean(play(seed, "combined", count)[1].passes for seed in range(50))
        for count in (1, workers)
    )
    assert together / alone <= limit


# Steps and passes.


@many
@given(seeds, layouts, st.integers(2, 4), sizes, accidents)
def test_where_steps_end(seed: int, layout: str, workers: int, size: int, odds: Accidents) -> None:
    """A team would end them at their last token, and not before."""
    _, transcript = play(seed, layout, workers, size, odds)
    for step in transcript.steps:
        written = drawn(step)
        assert [*ends(written)] == ([] if step.closes is None else [len(written)])


@many
@given(seeds, sizes)
def test_where_paragraphs_of_a_single_worker_end(seed: int, size: int) -> None:
    """After each task, and after the answer."""
    task_list, transcript = play(seed, "combined", 1, size)
    (step,) = transcript.steps
    *paragraphs, last = ends(drawn(step))
    assert len(paragraphs) == len(task_list.tasks)
    assert last == len(drawn(step))


@many
@given(seeds, layouts, st.integers(2, 4), sizes, accidents)
def test_how_steps_begin(seed: int, layout: str, workers: int, size: int, odds: Accidents) -> None:
    """With the worker's prefix and the interrupts' texts, encoded together."""
    task_list, transcript = play(seed, layout, workers, size, odds)
    for name, index, step in numbered(transcript):
        text = text_of(lead(step))
        assert [token.id for token in lead(step)] == tokenizer().encode(text)
        interrupts = text.removeprefix(prefix(name, index))
        assert interrupts != text
        forced = interrupts.removesuffix(QUESTION)
        assert forced in ["", *map(FORCED.format, task_list.answers)]
        assert index > 1 or not interrupts
        assert odds is not NO_ACCIDENTS or not interrupts


@many
@given(seeds, layouts, teams, sizes, accidents)
def test_passes(seed: int, layout: str, workers: int, size: int, odds: Accidents) -> None:
    """Every worker draws one token per pass, and begins a step when its last one closes."""
    _, transcript = play(seed, layout, workers, size, odds)
    begins = [1] * workers
    for step in transcript.steps:
        begin, written = begins[step.worker], [token.written for token in drawn(step)]
        assert {token.written for token in lead(step)} == {begin}
        assert written == [*range(begin + 1, begin + len(written) + 1)]
        if step.closes is not None:
            assert step.closes == written[-1]
        begins[step.worker] = step.closes or 0
    last = [
        max(t.written for s in transcript.steps if s.worker == w for t in drawn(s))
        for w in range(workers)
    ]
    assert {*last} == {transcript.passes + 1}


@many
@given(seeds, sizes)
def test_a_single_worker_goes_on_from_the_prompt(seed: int, size: int) -> None:
    """Its only step begins with the prompt's last token, and never closes."""
    _, transcript = play(seed, "combined", 1, size, TROUBLE)
    (step,) = transcript.steps
    assert transcript.layout == "solo"
    assert [token.id for token in lead(step)] == [transcript.prompt[-1]]
    assert step.closes is None


@pytest.mark.parametrize("odds", [NO_ACCIDENTS, TROUBLE], ids=["smooth", "troubled"])
@pytest.mark.parametrize("workers", [1, 2, 3, 4])
@pytest.mark.parametrize("layout", ["combined", "contiguous", "interleaved"])
def test_a_real_team(layout: str, workers: int, odds: Accidents) -> None:
    """With the teacher's tokens, a real session is the same as the teacher's."""
    task_list, transcript = play(workers, layout, workers, 5, odds)
    result, events = replay(transcript, task_list.text)
    assert thoughts(events, workers) == thoughts(events_of(transcript), workers)
    assert result.passes == transcript.passes
    assert result.finish_reason == "answer"
    assert [(i.worker, i.index, i.asked, i.answer) for i in _questions(result)] == [
        (i.worker, i.index, i.asked, i.answer) for i in _questions(result_of(transcript))
    ]


def _questions(result: ev.Result) -> list[ev.Interruption]:
    return [asked for asked in result.interruptions if asked.text == QUESTION]


# What is learnt.


@many
@given(seeds, layouts, teams, sizes, accidents)
def test_what_is_learnt(seed: int, layout: str, workers: int, size: int, odds: Accidents) -> None:
    """Nothing that the system wrote; without accidents, all that workers drew."""
    _, transcript = play(seed, layout, workers, size, odds)
    for step in transcript.steps:
        assert not any(token.learnt for token in lead(step))
        assert odds is not NO_ACCIDENTS or all(token.learnt for token in drawn(step))


@many
@given(seeds, seen_in_time, st.integers(2, 4), sizes)
def test_blunders_are_not_learnt(seed: int, layout: str, workers: int, size: int) -> None:
    """Claims are learnt unless another worker's came first; corrections always are."""
    _, transcript = play(seed, layout, workers, size, TROUBLE)
    marks = {tokenizer().encode(f"({label}) ")[0]: label for label in "abcdefgh"}
    claims: list[tuple[int, int, str, bool]] = []
    for step in transcript.steps:
        beginning = text_of(lead(step))
        if "I take (" in beginning:
            label = beginning[beginning.index("I take (") + 8]
            claims.append((step.tokens[0].written, step.worker, label, False))
        before = "" if not beginning.endswith(QUESTION) else ": "
        for token in drawn(step):
            if token.id in marks and re.search(r"(^|\. |no, |: )$", before):
                claims.append((token.written, step.worker, marks[token.id], token.learnt))
            before += text_of([token])
    for written, worker, label, learnt in claims:
        is_late = any(
            (pass_, other) < (written, worker) and claimed == label and other != worker
            for pass_, other, claimed, _ in claims
        )
        again = any(
            (other, claimed) == (worker, label) and pass_ < written
            for pass_, other, claimed, _ in claims
        )
        if learnt and not again:
            assert not is_late, (written, worker, label)


@many
@given(seeds, layouts, st.integers(2, 4), sizes)
def test_wrong_results_are_not_learnt(seed: int, layout: str, workers: int, size: int) -> None:
    """No token of a wrong result that a worker worked out is learnt."""
    task_list, transcript = play(seed, layout, workers, size, TROUBLE)
    for step in transcript.steps:
        text = text_of(drawn(step))
        match = re.search(r", so \(([a-h])\) (.*)\.\n\n", text)
        if match and "check (" not in text and match[2] != task_list.answers[match[1]]:
            tail = drawn(step)[-1 - len(tokenizer().encode(match[2])) : -1]
            assert text_of(tail) == match[2]
            assert not any(token.learnt for token in tail)


@many
@given(seeds, layouts, st.integers(2, 4))
def test_unnoticed_duplicates_are_not_learnt(seed: int, layout: str, workers: int) -> None:
    """Nothing of a step that repeats another worker's task is learnt."""
    odds = Accidents(forced=0, blunder=0, duplicate=0.5, wrong=0, asked=0)
    _, transcript = play(seed, layout, workers, 6, odds)
    solved: set[str] = set()
    in_order = sorted(transcript.steps, key=lambda step: (step.closes or 10**9, step.worker))
    for step in in_order:
        text = text_of(drawn(step))
        match = re.fullmatch(r"\(([a-h])\) .*, so \(\1\) .*\.\n\n", text)
        if match and match[1] in solved and layout != "interleaved":
            assert not any(token.learnt for token in step.tokens)
        if match:
            solved.add(match[1])
