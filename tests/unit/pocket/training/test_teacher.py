"""The teacher: its sessions are right, and go as those of a real team do."""

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
    Plain,
    Teacher,
    Token,
)
from hogwild_agents.team import events as ev
from hogwild_agents.team.interrupts import QUESTION
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


def ends(tokens: list[Token]) -> Iterator[int]:
    """After how many tokens a team would end a step, and the next one, and so on."""
    detokenizer, text = Detokenizer(tokenizer()), ""
    for place, token in enumerate(tokens, 1):
        new = detokenizer.push(token.id)
        text += new
        if "\n" in new and ends_step(text, len(new)):
            yield place
            text = ""


# What comes of it.


@many
@given(seeds, layouts, teams, sizes)
def test_all_is_solved(seed: int, layout: str, workers: int, size: int) -> None:
    """The last step states all answers, and no other step states any."""
    problem, transcript = play(seed, layout, workers, size)
    *others, last = [step for step in transcript.steps if stated(step) is not None]
    assert not others
    assert score(problem, stated(last)) == 1
    assert drawn(last)[-1].written == transcript.passes + 1
    for step in transcript.steps:
        assert step is last or drawn(step)[-1].written <= transcript.passes + 1


@many
@given(seeds, layouts, teams, sizes)
def test_accidents_are_mended(seed: int, layout: str, workers: int, size: int) -> None:
    """Whatever happens but wrong results, sessions end with the right answers."""
    trouble = Accidents(forced=0.4, blunder=0.4, duplicate=0.4, wrong=0, asked=0.5)
    problem, transcript = play(seed, layout, workers, size, trouble)
    answers = [stated(step) for step in transcript.steps if stated(step) is not None]
    assert [score(problem, answer) for answer in answers] == [1]


@many
@given(seeds, layouts, teams, sizes, accidents)
def test_sessions_end(seed: int, layout: str, workers: int, size: int, odds: Accidents) -> None:
    """Also with wrong results; all tasks are in the answer."""
    problem, transcript = play(seed, layout, workers, size, odds)
    assert transcript.passes < 1000
    (answer,) = (stated(step) for step in transcript.steps if stated(step) is not None)
    assert re.findall(r"\(([a-h])\)", answer) == [*problem.answers]


@many
@given(seeds, layouts, teams)
def test_refusals(seed: int, layout: str, workers: int) -> None:
    """What is no list of tasks is refused by the first worker."""
    encode, names = tokenizer().encode, team(layout, workers).workers
    rng = random.Random(seed)
    teacher = Teacher(Plain(REFUSAL), names, layout, encode, rng, TROUBLE, end=end())
    transcript = teacher.play(encode("Hello!"))
    assert [stated(step) for step in transcript.steps if step.worker == 0] == [REFUSAL]
    assert {stated(step) for step in transcript.steps if step.worker > 0} <= {None}


@many
@given(seeds, seen_in_time, teams, sizes)
def test_nothing_is_done_twice(seed: int, layout: str, workers: int, size: int) -> None:
    """Every task is worked out once, where others are seen in time."""
    problem, transcript = play(seed, layout, workers, size)
    steps = read_steps(events_of(transcript), team(layout, workers).workers)
    assert sorted(label for step in steps for label in step.solved) == [*problem.answers]


@many
@given(seeds, st.integers(2, 4), sizes)
def test_tasks_are_shared_out(seed: int, workers: int, size: int) -> None:
    """In turn, where others are seen too late."""
    problem, transcript = play(seed, "interleaved", workers, size)
    steps = read_steps(events_of(transcript), team("interleaved", workers).workers)
    done = {(step.place, label) for step in steps for label in step.solved}
    assert done == {(place % workers, label) for place, label in enumerate(problem.answers)}


@pytest.mark.parametrize(("workers", "most"), [(2, 0.57), (4, 0.37)])
def test_teams_are_faster(workers: int, most: float) -> None:
    """Two and four workers need so many of one worker's passes."""
    alone, together = (
        mean(play(seed, "combined", count)[1].passes for seed in range(50))
        for count in (1, workers)
    )
    assert together / alone <= most


# How it goes.


@many
@given(seeds, layouts, st.integers(2, 4), sizes, accidents)
def test_where_steps_end(seed: int, layout: str, workers: int, size: int, odds: Accidents) -> None:
    """At their last token as a team finds it, and never before."""
    _, transcript = play(seed, layout, workers, size, odds)
    for step in transcript.steps:
        written = drawn(step)
        assert [*ends(written)] == ([] if step.closes is None else [len(written)])


@many
@given(seeds, sizes)
def test_where_steps_of_one_end(seed: int, size: int) -> None:
    """After each task, and after the answer."""
    problem, transcript = play(seed, "combined", 1, size)
    (step,) = transcript.steps
    *paragraphs, last = ends(drawn(step))
    assert len(paragraphs) == len(problem.tasks)
    assert last == len(drawn(step))


@many
@given(seeds, layouts, st.integers(2, 4), sizes, accidents)
def test_how_steps_begin(seed: int, layout: str, workers: int, size: int, odds: Accidents) -> None:
    """With the worker's prefix and what interrupts say, encoded in one."""
    problem, transcript = play(seed, layout, workers, size, odds)
    for name, index, step in numbered(transcript):
        begun = lead(step)
        text = text_of(begun)
        assert [token.id for token in begun] == tokenizer().encode(text)
        said = text.removeprefix(prefix(name, index))
        assert said != text
        forced = said.removesuffix(QUESTION)
        assert forced in ["", *map(FORCED.format, problem.answers)]
        assert index > 1 or not said
        assert odds is not NO_ACCIDENTS or not said


@many
@given(seeds, layouts, teams, sizes, accidents)
def test_passes(seed: int, layout: str, workers: int, size: int, odds: Accidents) -> None:
    """Every worker draws one token per pass, and begins a step when the last one closes."""
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
def test_one_alone_goes_on_from_the_prompt(seed: int, size: int) -> None:
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
    """Who draws the teacher's tokens in a real session lives through the very same session."""
    problem, transcript = play(workers, layout, workers, 5, odds)
    result, told = replay(transcript, problem.text)
    assert thoughts(told, workers) == thoughts(events_of(transcript), workers)
    assert result.passes == transcript.passes
    assert result.finish_reason == "answer"
    assert [(i.worker, i.index, i.asked, i.answer) for i in _questions(result)] == [
        (i.worker, i.index, i.asked, i.answer) for i in _questions(result_of(transcript))
    ]


def _questions(result: ev.Result) -> list[ev.Interruption]:
    return [each for each in result.interruptions if each.text == QUESTION]


# What is learnt.


@many
@given(seeds, layouts, teams, sizes, accidents)
def test_what_is_learnt(seed: int, layout: str, workers: int, size: int, odds: Accidents) -> None:
    """Nothing that the system wrote; all that workers drew, where nothing went wrong."""
    _, transcript = play(seed, layout, workers, size, odds)
    for step in transcript.steps:
        assert not any(token.learnt for token in lead(step))
        assert odds is not NO_ACCIDENTS or all(token.learnt for token in drawn(step))


@many
@given(seeds, seen_in_time, st.integers(2, 4), sizes)
def test_blunders_are_not_learnt(seed: int, layout: str, workers: int, size: int) -> None:
    """Claims are learnt unless another's holds, and mending them always is."""
    _, transcript = play(seed, layout, workers, size, TROUBLE)
    marks = {tokenizer().encode(f"({label}) ")[0]: label for label in "abcdefgh"}
    claims: list[tuple[int, int, str, bool]] = []
    for step in transcript.steps:
        said = text_of(lead(step))
        if "I take (" in said:
            label = said[said.index("I take (") + 8]
            claims.append((step.tokens[0].written, step.worker, label, False))
        before = "" if not said.endswith(QUESTION) else ": "
        for token in drawn(step):
            if token.id in marks and re.search(r"(^|\. |no, |: )$", before):
                claims.append((token.written, step.worker, marks[token.id], token.learnt))
            before += text_of([token])
    for known, worker, label, learnt in claims:
        holds = any(
            (k, w) < (known, worker) and (w, o) == (w, label) and w != worker
            for k, w, o, _ in claims
        )
        again = sum((w, o) == (worker, label) and k < known for k, w, o, _ in claims)
        if learnt and not again:
            assert not holds, (known, worker, label)


@many
@given(seeds, layouts, st.integers(2, 4), sizes)
def test_wrong_results_are_not_learnt(seed: int, layout: str, workers: int, size: int) -> None:
    """No token of a wrong result, where a worker worked it out."""
    problem, transcript = play(seed, layout, workers, size, TROUBLE)
    for step in transcript.steps:
        text = text_of(drawn(step))
        found = re.search(r", so \(([a-h])\) (.*)\.\n\n", text)
        if found and "check (" not in text and found[2] != problem.answers[found[1]]:
            tail = drawn(step)[-1 - len(tokenizer().encode(found[2])) : -1]
            assert text_of(tail) == found[2]
            assert not any(token.learnt for token in tail)


@many
@given(seeds, layouts, st.integers(2, 4))
def test_unnoticed_duplicates_are_not_learnt(seed: int, layout: str, workers: int) -> None:
    """A step in which a worker does another's work teaches nothing from there on."""
    odds = Accidents(forced=0, blunder=0, duplicate=0.5, wrong=0, asked=0)
    _, transcript = play(seed, layout, workers, 6, odds)
    solved: set[str] = set()
    in_order = sorted(transcript.steps, key=lambda step: (step.closes or 10**9, step.worker))
    for step in in_order:
        text = text_of(drawn(step))
        found = re.fullmatch(r"\(([a-h])\) .*, so \(\1\) .*\.\n\n", text)
        if found and found[1] in solved and layout != "interleaved":
            assert not any(token.learnt for token in step.tokens)
        if found:
            solved.add(found[1])
