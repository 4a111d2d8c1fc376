"""The teacher: its sessions are right, and go as those of a real team do."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from itertools import count, product
from statistics import mean
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hogwild_agents.engine import SamplingParams
from hogwild_agents.pocket import team_settings
from hogwild_agents.pocket.dialogues import Kind
from hogwild_agents.pocket.judge import read_steps
from hogwild_agents.pocket.tasks import score
from hogwild_agents.pocket.teacher import (
    FORCED,
    NO_ACCIDENTS,
    REFUSAL,
    Accidents,
    Plain,
    Step,
    Teacher,
    Token,
    Transcript,
)
from hogwild_agents.team import RedundancyCheck, Sight, Team
from hogwild_agents.team import events as ev
from hogwild_agents.team.interrupts import QUESTION
from hogwild_agents.team.steps import ends_step, prefix
from hogwild_agents.team.text import Reader
from tests.unit.pocket.playing import (
    TROUBLE,
    drawn,
    end,
    events_of,
    layouts,
    lead,
    numbered,
    play,
    prompt_of,
    replying,
    result_of,
    seeds,
    sizes,
    talk,
    team,
    teams,
    text_of,
    thinking,
    tokenizer,
)
from tests.unit.team.voices import hold

many = settings(max_examples=80, deadline=None, derandomize=True)
accidents = st.sampled_from([NO_ACCIDENTS, Accidents(), TROUBLE])
seen_in_time = st.sampled_from(["combined", "contiguous"])


def stated(step: Step) -> Any:
    """The final answer that a step states."""
    return team_settings()["answer"].found(text_of(drawn(step)))


def ends(tokens: list[Token]) -> Iterator[int]:
    """After how many tokens a team would end a step, and the next one, and so on."""
    reader, text = Reader(tokenizer()), ""
    for place, token in enumerate(tokens, 1):
        new = reader.push(token.id)
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
    result, told = _replay(transcript, problem.text)
    assert _thoughts(told, workers) == _thoughts(events_of(transcript), workers)
    assert result.passes == transcript.passes
    assert result.finish_reason == "answer"
    assert [(i.worker, i.index, i.asked, i.answer) for i in _questions(result)] == [
        (i.worker, i.index, i.asked, i.answer) for i in _questions(result_of(transcript))
    ]


def _thoughts(events: list[ev.Event], workers: int) -> list[tuple[Any, ...]]:
    """What was thought, by whom, and when; the one step of one alone is never told to begin."""
    return [
        (type(event), event.at, event.worker, event.text)
        for event in events
        if isinstance(event, ev.Token) or (workers > 1 and isinstance(event, ev.StepBegun))
    ]


def _questions(result: ev.Result) -> list[ev.Interruption]:
    return [each for each in result.interruptions if each.text == QUESTION]


def _replay(
    transcript: Transcript,
    problem: str | list[dict[str, Any]],
    tools: Sequence[dict[str, Any]] = (),
    finisher: str = "answer",
) -> tuple[ev.Result, list[ev.Event]]:
    """A real session whose streams draw a transcript's tokens, and whose interrupts are its."""
    words = {
        (name, index): text_of(lead(step)).removeprefix(prefix(name, index))
        for name, index, step in numbered(transcript)
    }

    def force(sight: Sight) -> str:
        return words[sight.worker, sight.index].removesuffix(QUESTION)

    class Ask:
        """The check, at the teacher's times."""

        read = RedundancyCheck().read

        def __call__(self, sight: Sight) -> str | None:
            return QUESTION if words[sight.worker, sight.index].endswith(QUESTION) else None

    told = team_settings(transcript.workers) | {"sampling": SamplingParams(seed=0)}
    told |= {"finisher": finisher}
    if transcript.workers > 1:
        told |= {"layout": transcript.layout, "interrupts": [force, Ask()]}
    players = Team(tokenizer(), **told)
    assert transcript.prompt == prompt_of(players, problem, tools)
    lines: dict[int, list[int]] = {place: [] for place in range(transcript.workers)}
    for step in thinking(transcript):
        lines[step.worker] += [token.id for token in drawn(step)]
    lines[transcript.workers] = [token.id for token in replying(transcript)]
    if players.replies_at_once:
        lines[1] = lines.pop(0) + lines[1]
    return hold(players.session(problem, tools=tools), lines)


# Replies.


@many
@given(seeds, layouts, st.integers(2, 4), sizes, accidents)
def test_a_reply_is_a_step_of_its_own(
    seed: int, layout: str, workers: int, size: int, odds: Accidents
) -> None:
    """It follows all others, and changes nothing about them; who stated the answer writes it."""
    _, transcript = play(seed, layout, workers, size, odds, reply="It is (a) 5.")
    *steps, reply = transcript.steps
    (author,) = (step.worker for step in steps if stated(step) is not None)
    assert reply.worker == author
    assert reply.closes is None
    assert text_of(lead(reply)) == "### Reply\n\n"
    assert text_of(drawn(reply)) == "It is (a) 5."
    assert [token.id for token in reply.tokens].index(end()) == len(reply.tokens) - 1
    written = [token.written for token in reply.tokens[len(lead(reply)) :]]
    first = transcript.passes + 1
    assert lead(reply)[0].written == first
    assert written == [*range(first + 1, first + 1 + len(written))]
    assert all(token.learnt for token in replying(transcript))
    _, silent = play(seed, layout, workers, size, odds)
    assert (steps, transcript.passes) == (silent.steps, silent.passes)


@many
@given(seeds, sizes)
def test_one_alone_has_said_all(seed: int, size: int) -> None:
    """Once its tasks are solved it ends, and learns to."""
    _, silent = play(seed, workers=1, size=size)
    _, transcript = play(seed, workers=1, size=size, reply="It is (a) 5.")
    assert transcript == silent
    (last,) = replying(transcript)
    assert last == Token(end(), transcript.passes + 2, learnt=True)


@many
@given(seeds)
def test_one_alone_replies_at_once(seed: int) -> None:
    """Where there is nothing to share out it thinks nothing."""
    dialogue, transcript = talk(seed, workers=1)
    (step,) = transcript.steps
    first, *said, last = step.tokens
    assert (transcript.layout, transcript.passes) == ("solo", 0)
    assert first == Token(transcript.prompt[-1], 1, learnt=False)
    assert text_of(said) == dialogue.text
    assert (last.id, last.learnt) == (end(), True)
    assert [token.written for token in step.tokens] == [*range(1, len(step.tokens) + 1)]


@many
@given(seeds, layouts, st.integers(2, 4), accidents)
def test_teams_state_what_is_to_be_done(
    seed: int, layout: str, workers: int, odds: Accidents
) -> None:
    """The first one does, in its first step; the others wait meanwhile, and it replies."""
    dialogue, transcript = talk(seed, layout, workers, odds)
    assert isinstance(dialogue.problem, Plain)
    first, *others, reply = transcript.steps
    assert text_of(drawn(first)) == f"\\boxed{{{dialogue.problem.answer}}}.\n\n"
    assert {step.worker for step in others} == {*range(1, workers)}
    for step in others:
        assert re.fullmatch(r"(wait( \.\.\.)*(\.\n\n)?)?", text_of(drawn(step)))
    assert (first.worker, reply.worker) == (0, 0)
    assert text_of(drawn(reply)) == dialogue.text


@many
@given(seeds, layouts, teams)
def test_what_a_grammar_forces_is_not_learnt(seed: int, layout: str, workers: int) -> None:
    """All else of a reply is, and its end."""
    dialogue, transcript = talk(seed, layout, workers)
    *said, last = replying(transcript)
    assert last.learnt
    learnt = [part.learnt for part in dialogue.reply or () for _ in tokenizer().encode(part.text)]
    assert [token.learnt for token in said] == learnt


@pytest.mark.parametrize("kind", ["call", "result", "structured", "refusal", "forced"])
@pytest.mark.parametrize(
    ("layout", "workers"),
    [("solo", 1), *product(("combined", "contiguous", "interleaved"), (2, 4))],
)
def test_a_real_team_replies(layout: str, workers: int, kind: Kind) -> None:
    """As the teacher's does, token by token, in as many passes."""
    layout = "combined" if workers == 1 else layout
    seed = next(n for n in count() if talk(n, workers=1)[0].kind == kind)
    dialogue, transcript = talk(seed, layout, workers)
    result, told = _replay(transcript, dialogue.messages, dialogue.tools, "reply")
    _same(told, transcript)
    assert result.reply == dialogue.text
    assert result.reply_reason == "stop"
    assert result.passes == transcript.passes
    assert result.reply_passes == len(replying(transcript))


@pytest.mark.parametrize("odds", [NO_ACCIDENTS, TROUBLE], ids=["smooth", "troubled"])
@pytest.mark.parametrize("layout", ["combined", "contiguous", "interleaved"])
def test_a_real_team_replies_with_its_answers(
    layout: str, odds: Accidents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a list of tasks, in the words that the teacher puts before."""
    problem, transcript = play(3, layout, 3, 4, odds, reply="(a) 5, so there.")
    headers: list[list[int]] = []
    begin = Team.closing_tokens

    def spy(players: Team, between: str) -> list[int]:
        headers.append(begin(players, between))
        return headers[-1]

    monkeypatch.setattr(Team, "closing_tokens", spy)
    result, told = _replay(transcript, problem.text, finisher="reply")
    _same(told, transcript)
    assert result.reply == "(a) 5, so there."
    assert headers == [[token.id for token in lead(transcript.steps[-1])]]
    assert result.answer is not None
    assert score(problem, result.answer) == 1 or odds is TROUBLE


def test_a_real_worker_alone_replies_with_its_work() -> None:
    """All that it writes is the reply."""
    problem, transcript = play(3, workers=1, size=4, reply="never said")
    result, _ = _replay(transcript, problem.text, finisher="reply")
    (step,) = transcript.steps
    assert result.reply == text_of(drawn(step))
    assert score(problem, stated(step)) == 1
    assert (result.passes, result.reply_passes) == (0, len(step.tokens) - 1)


def _same(told: list[ev.Event], transcript: Transcript) -> None:
    """What is told of a session is what a transcript holds: thoughts with their passes, reply."""
    assert _thoughts(told, transcript.workers) == _thoughts(
        events_of(transcript), transcript.workers
    )
    replied = [event.token for event in told if isinstance(event, ev.ReplyToken)]
    assert replied == [token.id for token in replying(transcript)]


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
