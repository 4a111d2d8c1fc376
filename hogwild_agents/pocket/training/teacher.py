"""The teacher: a program that plays a whole team, so that a model can learn to be any worker of it.

It decides every token from what a worker sees at that moment in its layout, and nothing else. Its
rules are:

- A worker takes the next free task: it writes the task's label, which claims it, and works it out.
  In the interleaved layout workers see claims too late, so the tasks are dealt out in turn.
- If several workers choose in the same pass, the first in the team takes the first free task, the
  next one the second, and so on.
- When no task is free, one worker begins the final list, and adds results as they arrive.
- The other workers check results, or wait.
- A worker that has claimed a task after another worker says so and chooses again.
- A worker that is asked whether its work is redundant tells the truth.
- If there is nothing to share out, the first worker states at once what is to be done.
- If there is a reply, the worker that stated the answer writes it.

The model does not learn what the system writes: prefixes, questions, and claims that it forces on
workers. Nor does it learn the teacher's deliberate mistakes; they are there so that it learns to
correct them.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from hogwild_agents.pocket.tasks import LABELS, TaskList
from hogwild_agents.team import steps
from hogwild_agents.team.redundancy_check import QUESTION

FORCED = "I take ({}). "
"""The system writes this to force a claim on a worker."""

REFUSAL = (
    "I only solve lists of tasks: add, subtract, compare, largest, smallest, reverse, sort, count"
)
WAITING = " ..."
PATIENCE = 6
"""How often a waiting worker writes ` ...` before its step ends."""

Encode: TypeAlias = Callable[[str], list[int]]


class DirectAnswer(NamedTuple):
    """What a team states at once, because there is nothing to share out."""

    text: str


class ReplyPart(NamedTuple):
    """A part of a reply; it is learnt unless a grammar forces it."""

    text: str
    learnt: bool = True


class TaughtToken(NamedTuple):
    """One token of a step.

    Attributes:
        id: Its id.
        written: The forward pass that writes it into the cache, counted from 1.
        learnt: Whether the model learns to predict it.
    """

    id: int
    written: int
    learnt: bool


@dataclass(slots=True)
class TaughtStep:
    """One step of a worker.

    Attributes:
        worker: The worker's place in the team.
        tokens: All tokens of the step, first those that the system wrote.
        closes: The pass that writes the last token; None if the step is not finished.
    """

    worker: int
    tokens: list[TaughtToken] = field(default_factory=list)
    closes: int | None = None


@dataclass(frozen=True, slots=True)
class TaughtTranscript:
    """A whole session.

    Attributes:
        layout: Name of its layout, `solo` for one worker.
        workers: Number of workers.
        prompt: Ids that were in the cache before the first pass.
        steps: All steps, in the order in which they were begun.
        passes: Forward passes of thinking.
    """

    layout: str
    workers: int
    prompt: Sequence[int]
    steps: Sequence[TaughtStep]
    passes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Accidents:
    """How often the teacher makes trouble, as shares of all steps but each worker's first.

    Attributes:
        forced: The system makes a worker claim a task, free or not.
        blunder: A worker claims another worker's task, and should notice at once.
        duplicate: A worker repeats another worker's task without noticing.
        wrong: A worker states a wrong result.
        asked: The system asks about redundant work.
    """

    forced: float = 0.06
    blunder: float = 0.06
    duplicate: float = 0.03
    wrong: float = 0.02
    asked: float = 0.15


NO_ACCIDENTS = Accidents(forced=0, blunder=0, duplicate=0, wrong=0, asked=0)


class _Claim(NamedTuple):
    """A worker has written a task's label; all see it from pass `visible_from` on."""

    visible_from: int
    worker: int
    label: str


class _Result(NamedTuple):
    """A worker has stated a task's result, perhaps as a check of another's."""

    visible_from: int
    worker: int
    label: str
    answer: str


@dataclass(slots=True)
class _Player:
    """The teacher's notes on one worker.

    Attributes:
        place: Its place in the team.
        step: The step that it is writing.
        plan: Ids that it will draw, each with whether it is learnt.
        then: What it decides when the plan is used up; None if the step ends there.
        label: The task that it has in hand.
        unaware: Whether it does not notice in this step that it repeats another's work.
        repeated: The task that it repeated in its previous step, or nothing.
        result: The result that its step will have stated when it ends.
        listed: Labels in the final list that it is writing.
    """

    place: int
    step: TaughtStep
    plan: deque[tuple[int, bool]] = field(default_factory=deque)
    then: Callable[[_Player], None] | None = None
    label: str = ""
    unaware: bool = False
    repeated: str = ""
    result: _Result | None = None
    listed: list[str] = field(default_factory=list)


class Teacher:
    """Plays one session.

    Args:
        problem: What the team works on.
        names: The workers' names.
        layout: `combined`, `contiguous` or `interleaved`; any for one worker.
        encode: From text to token ids.
        rng: For accidents.
        accidents: How often they happen.
        reply: The reply to the user, if there is one. A single worker that has solved a list adds
            no reply; without a list it writes its reply at once.
        end: The id that ends a reply.
    """

    def __init__(
        self,
        problem: TaskList | DirectAnswer,
        names: Sequence[str],
        layout: str,
        encode: Encode,
        rng: random.Random,
        accidents: Accidents = NO_ACCIDENTS,
        *,
        reply: Sequence[ReplyPart] | None = None,
        end: int,
    ) -> None:
        tasks = () if isinstance(problem, DirectAnswer) else problem.tasks
        self._tasks = dict(zip(LABELS, tasks, strict=False))
        self._direct_answer = problem.text if isinstance(problem, DirectAnswer) else ""
        self._names = names
        self._layout = "solo" if len(names) == 1 else layout
        self._encode = encode
        self._rng = rng
        self._accidents = accidents
        self._reply = reply
        self._end = end
        self._claims: list[_Claim] = []
        self._checks: list[_Claim] = []
        self._final_lists: list[_Claim] = []
        self._results: list[_Result] = []
        self._choosing: list[int] = []
        self._steps: list[TaughtStep] = []
        self._pass = 1

    def play(self, prompt: Sequence[int], max_passes: int = 2000) -> TaughtTranscript:
        """Plays the session up to the final answer, or for at most this many passes."""
        players = [_Player(place, TaughtStep(place)) for place in range(len(self._names))]
        for player in players:
            self._begin(player, prompt)
        alone = self._layout == "solo"
        if alone and self._reply is not None and not self._tasks:
            self._write_reply(players[0], self._reply)
            return TaughtTranscript(self._layout, 1, prompt, self._steps, 0)
        done = False
        while not done and self._pass <= max_passes:
            deciding = [player for player in players if not player.plan]
            self._choosing = [player.place for player in deciding if player.then == self._choose]
            for player in deciding:
                assert player.then is not None
                player.then(player)
            ended = [player for player in players if self._draws_last(player)]
            self._pass += 1
            done = any(player.listed for player in ended)
            for player in ended if not done else ():
                self._begin(player, prompt)
        passes = self._pass - 1
        if done and (alone or self._reply is not None):
            author = next(player for player in ended if player.listed)
            self._write_reply(author, () if alone else self._reply or ())
        return TaughtTranscript(self._layout, len(self._names), prompt, self._steps, passes)

    def _write_reply(self, player: _Player, reply: Sequence[ReplyPart]) -> None:
        """Adds a reply and its end; a team's reply is a separate step."""
        if self._layout != "solo":
            player.step = TaughtStep(player.place)
            self._steps.append(player.step)
            header = self._encode(steps.REPLY_HEADER + steps.SEPARATOR)
            player.step.tokens += [TaughtToken(i, self._pass, learnt=False) for i in header]
        drawn = [(i, part.learnt) for part in reply for i in self._encode(part.text)]
        for token, learnt in (*drawn, (self._end, True)):
            self._pass += 1
            player.step.tokens.append(TaughtToken(token, self._pass, learnt))

    def _begin(self, player: _Player, prompt: Sequence[int]) -> None:
        """Begins a worker's next step with what the system writes."""
        player.then, player.label, player.unaware = self._choose, "", False
        if self._layout == "solo":
            if not self._steps:  # it goes on from the prompt's last token, all in one block
                player.step.tokens.append(TaughtToken(prompt[-1], self._pass, learnt=False))
                self._steps.append(player.step)
            return
        index = 1 + sum(step.worker == player.place for step in self._steps)
        player.step = TaughtStep(player.place)
        self._steps.append(player.step)
        repeated, player.repeated = player.repeated, ""
        text = steps.prefix(self._names[player.place], index)
        if index > 1 and self._tasks:
            own = {claim.label for claim in self._claims if claim.worker == player.place}
            others = [label for label in self._tasks if label not in own]
            if others and self._happens(self._accidents.forced):
                player.label = self._rng.choice(others)
                text += FORCED.format(player.label)
                self._claims.append(_Claim(self._pass, player.place, player.label))
                player.then = self._confirm_forced
            if self._happens(0.6 if repeated or player.label else self._accidents.asked):
                text += QUESTION
                forced, player.label = bool(player.label), player.label or repeated
                player.then = self._answer_forced if forced else self._answer
        player.step.tokens += [TaughtToken(i, self._pass, learnt=False) for i in self._encode(text)]

    def _draws_last(self, player: _Player) -> bool:
        """Draws the next token of a worker's plan; returns whether that ends its step."""
        token, learnt = player.plan.popleft()
        learnt = learnt and not player.unaware
        player.step.tokens.append(TaughtToken(token, self._pass + 1, learnt))
        if player.plan or player.then is not None:
            return False
        if self._layout != "solo":
            player.step.closes = self._pass + 1
        if player.result is not None:
            self._results.append(player.result._replace(visible_from=self._pass + 1))
            player.result = None
        return True

    def _write(
        self,
        player: _Player,
        text: str,
        then: Callable[[_Player], None] | None = None,
        *,
        learnt: bool = True,
    ) -> None:
        """Adds text to a worker's plan; `then` is its next decision, None if the step ends."""
        player.plan.extend((token, learnt) for token in self._encode(text))
        player.then = then

    def _happens(self, share: float) -> bool:
        return share > 0 and self._rng.random() < share

    # What a worker knows.

    def _visible(self, entry: _Claim | _Result) -> bool:
        return entry.visible_from <= self._pass

    def _owner(self, label: str) -> int:
        """The worker that a task is dealt to where claims are seen too late."""
        return LABELS.index(label) % len(self._names)

    def _rival(self, player: _Player, label: str) -> int | None:
        """Another worker that claimed a task before this one, as far as this one can know."""
        if self._layout == "interleaved":
            return None if self._owner(label) == player.place else self._owner(label)
        own = [c[:2] for c in self._claims if c.worker == player.place and c.label == label]
        limit = own[-1] if own else (self._pass, -1)
        others = [
            claim
            for claim in self._claims
            if claim.label == label and claim.worker != player.place and self._visible(claim)
        ]
        first = min(others, default=None)
        return first.worker if first is not None and first[:2] < limit else None

    def _taken(self, player: _Player) -> set[str]:
        """Labels of the tasks that are not free, as far as a worker can know."""
        own = {claim.label for claim in self._claims if claim.worker == player.place}
        if self._layout == "interleaved":
            return own | {label for label in self._tasks if self._owner(label) != player.place}
        return own | {claim.label for claim in self._claims if self._visible(claim)}

    # What it decides.

    def _choose(self, player: _Player) -> None:
        """Chooses what to do next."""
        if not self._tasks:
            self._state_direct_answer(player)
            return
        taken = self._taken(player)
        free = [label for label in self._tasks if label not in taken]
        apart = self._layout == "interleaved"
        rank = 0 if apart else self._choosing.index(player.place)
        if self._err(player, free, rank):
            return
        if rank < len(free):
            self._claim(player, free[rank])
            return
        rank -= len(free)
        listing = any(map(self._visible, self._final_lists))
        ready = any(map(self._visible, self._results)) and not listing
        if ready and (player.place == 0 if apart else rank == 0):
            self._final_lists.append(_Claim(self._pass + 1, player.place, ""))
            player.listed = []
            self._write(player, "\\boxed{", self._list)
            return
        self._check(player, rank - (ready and not apart))

    def _state_direct_answer(self, player: _Player) -> None:
        """The first worker states the answer; the others wait."""
        if player.place == 0:
            self._write(player, f"\\boxed{{{self._direct_answer}}}.\n\n")
            player.listed = ["stated"]
        else:
            self._wait(player)

    def _wait(self, player: _Player) -> None:
        self._write(player, "wait" + WAITING * PATIENCE + ".\n\n")

    def _err(self, player: _Player, free: list[str], rank: int) -> bool:
        """Perhaps claims another worker's task on purpose; returns whether it did."""
        others = [label for label in self._tasks if self._rival(player, label) is not None]
        if 0 < rank < len(free):
            others += [free[rank - 1]] * 3  # another worker claims this one in the same pass
        if len(self._names) == 1 or not others:
            return False
        if self._happens(self._accidents.blunder):
            self._claim(player, self._rng.choice(others), learnt=False)
            return True
        others = [label for label in others if label not in free]
        if others and self._happens(self._accidents.duplicate):
            player.unaware = True
            player.repeated = self._rng.choice(others)
            self._claim(player, player.repeated)
            return True
        return False

    def _claim(self, player: _Player, label: str, *, learnt: bool = True) -> None:
        player.label = label
        self._claims.append(_Claim(self._pass + 1, player.place, label))
        self._write(player, f"({label}) ", self._confirm, learnt=learnt)

    def _confirm(self, player: _Player) -> None:
        """Goes on with a claim unless another worker claimed the task first."""
        if player.unaware or not self._yield_to_rival(player, "wait, "):
            self._work(player)

    def _confirm_forced(self, player: _Player) -> None:
        if not self._yield_to_rival(player, "wait, "):
            self._write(player, f"({player.label}) ", self._work)

    def _answer_forced(self, player: _Player) -> None:
        if not self._yield_to_rival(player, "yes, "):
            self._write(player, f"no, ({player.label}) ", self._work)

    def _answer(self, player: _Player) -> None:
        if not player.label or not self._yield_to_rival(player, "yes, "):
            self._write(player, "no, ", self._choose)

    def _yield_to_rival(self, player: _Player, word: str) -> bool:
        """Gives the task in hand up if another worker claimed it first; returns whether it did."""
        rival = self._rival(player, player.label)
        if rival is None:
            return False
        text = f"{word}{self._names[rival]} has ({player.label}). "
        self._write(player, text, self._choose)
        return True

    def _work(self, player: _Player) -> None:
        """Works out the task in hand and states its result."""
        task = self._tasks[player.label]
        wrong = self._layout != "solo" and self._happens(self._accidents.wrong)
        answer = self._spoil(task.answer) if wrong else task.answer
        self._write(player, f"{task.work}, so ({player.label}) ")
        self._write(player, answer, learnt=not wrong)
        self._write(player, ".\n\n")
        player.result = _Result(0, player.place, player.label, answer)

    def _spoil(self, answer: str) -> str:
        """A wrong answer of the same length."""
        place = self._rng.randrange(len(answer))
        signs = "0123456789" if answer.isdigit() else "<>" if answer in "<>" else "aeiou"
        sign = self._rng.choice([sign for sign in signs if sign != answer[place]])
        return answer[:place] + sign + answer[place + 1 :]

    def _check(self, player: _Player, rank: int) -> None:
        """Checks another worker's result that is not checked yet, or waits."""
        checked = {
            check.label
            for check in self._checks
            if self._visible(check) or check.worker == player.place
        }
        stated = {r.label: r for r in reversed(self._results) if self._visible(r)}
        unchecked = [
            label
            for label in self._tasks
            if label in stated and label not in checked and stated[label].worker != player.place
        ]
        if rank >= len(unchecked):
            self._wait(player)
            return
        label = unchecked[rank]
        visible_from = 10**9 if self._layout == "interleaved" else self._pass + 1
        self._checks.append(_Claim(visible_from, player.place, label))
        task = self._tasks[label]
        verdict = "right" if stated[label].answer == task.answer else "wrong"
        text = f"check ({label}) {task.work}, so ({label}) {task.answer}, {verdict}.\n\n"
        self._write(player, text)
        player.result = _Result(0, player.place, label, task.answer)

    def _list(self, player: _Player) -> None:
        """Adds the next result to the final list, waits for it, or ends the list."""
        answers = {r.label: r.answer for r in self._results if self._visible(r)}
        ready = sorted(answers.keys() - player.listed)
        if ready:
            comma = ", " if player.listed else ""
            self._write(player, f"{comma}({ready[0]}) {answers[ready[0]]}", self._list)
            player.listed.append(ready[0])
        elif len(answers) < len(self._tasks):
            self._write(player, WAITING, self._list)
        else:
            self._write(player, "}.\n\n")
