"""The teacher: a program that plays a whole team, so that a model can learn to be any worker of it.

It decides every token as a worker could that sees what its layout shows it at that moment, and no
more. What a worker does where it may choose:

- It takes the next free task: it writes the task's label, which claims it, and works it out. Where
  others are seen only once they have finished a step, tasks are shared out in turn instead.
- Of several who choose in the same pass the first of the team takes the first free task, the next
  one the second, and so on.
- With nothing free, one worker begins the final list, and adds results as they come in.
- The others check results, or wait.
- Who has claimed what another has claimed before says so and chooses again.
- Who is asked whether it does redundant work tells the truth.
- Where there is nothing to share out, the first one says at once what is to be done.
- If there is to be a reply, who has stated the answer writes it.

What the system writes is not learnt: prefixes, questions, and claims that it forces on workers.
Neither are the mistakes that the teacher makes on purpose, so that mending them can be learnt.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from hogwild_agents.pocket.tasks import LABELS, TaskList
from hogwild_agents.team import steps
from hogwild_agents.team.interrupts import QUESTION

FORCED = "I take ({}). "
"""What the system writes to force a claim on a worker."""

REFUSAL = (
    "I only solve lists of tasks: add, subtract, compare, largest, smallest, reverse, sort, count"
)
WAITING = " ..."
PATIENCE = 6
"""How often a waiting worker writes ` ...` before its step ends."""

Encode: TypeAlias = Callable[[str], list[int]]


class Plain(NamedTuple):
    """Something that needs no sharing out; `answer` is what the team states at once."""

    answer: str


class Part(NamedTuple):
    """A part of a reply; `learnt` unless a grammar forces it."""

    text: str
    learnt: bool = True


class Token(NamedTuple):
    """One token of a step.

    Attributes:
        id: What it is.
        written: The forward pass that writes it into the cache, counted from 1.
        learnt: Whether a model is to learn to draw it.
    """

    id: int
    written: int
    learnt: bool


@dataclass(slots=True)
class Step:
    """One step of a worker, finished or not; `closes` is the pass that writes its last token."""

    worker: int
    tokens: list[Token] = field(default_factory=list)
    closes: int | None = None


@dataclass(frozen=True, slots=True)
class Transcript:
    """A session as it went; `prompt` is the ids that were in the cache before."""

    layout: str
    workers: int
    prompt: Sequence[int]
    steps: Sequence[Step]
    passes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Accidents:
    """How often the teacher makes trouble, as shares of all steps but first ones.

    Attributes:
        forced: The system makes a worker claim a task, free or not.
        blunder: A worker claims what another has claimed, and should notice at once.
        duplicate: A worker does what another has done without noticing.
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
    """A worker has written a task's label; all know of it from pass `known` on."""

    known: int
    worker: int
    label: str


class _Result(NamedTuple):
    """A worker has stated a task's result, maybe as a check of another's."""

    known: int
    worker: int
    label: str
    answer: str


@dataclass(slots=True)
class _Mind:
    """One worker.

    Attributes:
        place: Its index in the team.
        step: What it is writing.
        plan: Ids that it will draw, each with whether it is learnt.
        then: What it decides when the plan is used up; None if the step ends there.
        label: The task that it has in hand.
        blind: Whether it does not notice in this step that it does another's work.
        guilty: The task that it repeated in its previous step, or nothing.
        result: What its step will have shown once it is finished.
        listed: Labels in the final list that it is writing.
    """

    place: int
    step: Step
    plan: deque[tuple[int, bool]] = field(default_factory=deque)
    then: Callable[[_Mind], None] | None = None
    label: str = ""
    blind: bool = False
    guilty: str = ""
    result: _Result | None = None
    listed: list[str] = field(default_factory=list)


class Teacher:
    """Plays one session.

    Args:
        problem: What is to be solved.
        names: The team's names.
        layout: `combined`, `contiguous` or `interleaved`; any for one worker.
        encode: From text to token ids.
        rng: For accidents.
        accidents: How often they happen.
        reply: What is written to the user in the end, if anything is. One worker alone has written
            all when it has solved a problem, and without one writes its reply at once.
        end: The id that ends a reply.
    """

    def __init__(
        self,
        problem: TaskList | Plain,
        names: Sequence[str],
        layout: str,
        encode: Encode,
        rng: random.Random,
        accidents: Accidents = NO_ACCIDENTS,
        *,
        reply: Sequence[Part] | None = None,
        end: int,
    ) -> None:
        tasks = () if isinstance(problem, Plain) else problem.tasks
        self._tasks = dict(zip(LABELS, tasks, strict=False))
        self._stated = problem.answer if isinstance(problem, Plain) else ""
        self._names = names
        self._layout = "solo" if len(names) == 1 else layout
        self._encode = encode
        self._rng = rng
        self._odds = accidents
        self._reply = reply
        self._end = end
        self._claims: list[_Claim] = []
        self._checks: list[_Claim] = []
        self._boxes: list[_Claim] = []
        self._results: list[_Result] = []
        self._choosing: list[int] = []
        self._steps: list[Step] = []
        self._pass = 1

    def play(self, prompt: Sequence[int], most: int = 2000) -> Transcript:
        """The session up to the final answer, or up to so many passes."""
        minds = [_Mind(place, Step(place)) for place in range(len(self._names))]
        for mind in minds:
            self._begin(mind, prompt)
        alone = self._layout == "solo"
        if alone and self._reply is not None and not self._tasks:
            self._write_reply(minds[0], self._reply)
            return Transcript(self._layout, 1, prompt, self._steps, 0)
        done = False
        while not done and self._pass <= most:
            deciding = [mind for mind in minds if not mind.plan]
            self._choosing = [mind.place for mind in deciding if mind.then == self._choose]
            for mind in deciding:
                assert mind.then is not None
                mind.then(mind)
            ended = [mind for mind in minds if self._draws_last(mind)]
            self._pass += 1
            done = any(mind.listed for mind in ended)
            for mind in ended if not done else ():
                self._begin(mind, prompt)
        passes = self._pass - 1
        if done and (alone or self._reply is not None):
            author = next(mind for mind in ended if mind.listed)
            self._write_reply(author, () if alone else self._reply or ())
        return Transcript(self._layout, len(self._names), prompt, self._steps, passes)

    def _write_reply(self, mind: _Mind, reply: Sequence[Part]) -> None:
        """Adds a reply and its end; in a team that is a step of its own."""
        if self._layout != "solo":
            mind.step = Step(mind.place)
            self._steps.append(mind.step)
            header = self._encode(steps.REPLY_HEADER + steps.SEPARATOR)
            mind.step.tokens += [Token(i, self._pass, learnt=False) for i in header]
        drawn = [(i, part.learnt) for part in reply for i in self._encode(part.text)]
        for token, learnt in (*drawn, (self._end, True)):
            self._pass += 1
            mind.step.tokens.append(Token(token, self._pass, learnt))

    def _begin(self, mind: _Mind, prompt: Sequence[int]) -> None:
        """Begins a worker's next step with what the system writes."""
        mind.then, mind.label, mind.blind = self._choose, "", False
        if self._layout == "solo":
            if not self._steps:  # it goes on from the prompt's last token, all in one block
                mind.step.tokens.append(Token(prompt[-1], self._pass, learnt=False))
                self._steps.append(mind.step)
            return
        index = 1 + sum(step.worker == mind.place for step in self._steps)
        mind.step = Step(mind.place)
        self._steps.append(mind.step)
        guilty, mind.guilty = mind.guilty, ""
        words = steps.prefix(self._names[mind.place], index)
        if index > 1 and self._tasks:
            mine = {claim.label for claim in self._claims if claim.worker == mind.place}
            others = [label for label in self._tasks if label not in mine]
            if others and self._happens(self._odds.forced):
                mind.label = self._rng.choice(others)
                words += FORCED.format(mind.label)
                self._claims.append(_Claim(self._pass, mind.place, mind.label))
                mind.then = self._confirm_forced
            if self._happens(0.6 if guilty or mind.label else self._odds.asked):
                words += QUESTION
                forced, mind.label = bool(mind.label), mind.label or guilty
                mind.then = self._answer_forced if forced else self._answer
        mind.step.tokens += [Token(i, self._pass, learnt=False) for i in self._encode(words)]

    def _draws_last(self, mind: _Mind) -> bool:
        """Draws the next token of a worker's plan; whether that ends its step."""
        token, learnt = mind.plan.popleft()
        mind.step.tokens.append(Token(token, self._pass + 1, learnt and not mind.blind))
        if mind.plan or mind.then is not None:
            return False
        if self._layout != "solo":
            mind.step.closes = self._pass + 1
        if mind.result is not None:
            self._results.append(mind.result._replace(known=self._pass + 1))
            mind.result = None
        return True

    def _say(
        self,
        mind: _Mind,
        text: str,
        then: Callable[[_Mind], None] | None = None,
        *,
        learnt: bool = True,
    ) -> None:
        mind.plan.extend((token, learnt) for token in self._encode(text))
        mind.then = then

    def _happens(self, share: float) -> bool:
        return share > 0 and self._rng.random() < share

    # What a worker knows.

    def _known(self, result: _Result) -> bool:
        return result.known <= self._pass

    def _owner(self, label: str) -> int:
        """Who has a task where claims are not seen in time: they are shared out in turn."""
        return LABELS.index(label) % len(self._names)

    def _rival(self, mind: _Mind, label: str) -> int | None:
        """Another worker who claimed a task before this one did, as far as it can know."""
        if self._layout == "interleaved":
            return None if self._owner(label) == mind.place else self._owner(label)
        mine = [c[:2] for c in self._claims if c.worker == mind.place and c.label == label]
        limit = mine[-1] if mine else (self._pass, -1)
        earlier = [
            claim
            for claim in self._claims
            if claim.label == label and claim.worker != mind.place and claim.known <= self._pass
        ]
        first = min(earlier, default=None)
        return first.worker if first is not None and first[:2] < limit else None

    def _taken(self, mind: _Mind) -> set[str]:
        """Tasks that are not free, as far as a worker can know."""
        own = {claim.label for claim in self._claims if claim.worker == mind.place}
        if self._layout == "interleaved":
            return own | {label for label in self._tasks if self._owner(label) != mind.place}
        return own | {claim.label for claim in self._claims if claim.known <= self._pass}

    # What it decides.

    def _choose(self, mind: _Mind) -> None:
        """What to do next."""
        if not self._tasks:
            self._state(mind)
            return
        taken = self._taken(mind)
        free = [label for label in self._tasks if label not in taken]
        apart = self._layout == "interleaved"
        rank = 0 if apart else self._choosing.index(mind.place)
        if self._err(mind, free, rank):
            return
        if rank < len(free):
            self._claim(mind, free[rank])
            return
        rank -= len(free)
        boxed = any(box.known <= self._pass for box in self._boxes)
        ready = any(map(self._known, self._results)) and not boxed
        if ready and (mind.place == 0 if apart else rank == 0):
            self._boxes.append(_Claim(self._pass + 1, mind.place, ""))
            mind.listed = []
            self._say(mind, "\\boxed{", self._list)
            return
        self._check(mind, rank - (ready and not apart))

    def _state(self, mind: _Mind) -> None:
        """Says what is to be done, where there is nothing to share out."""
        if mind.place == 0:
            self._say(mind, f"\\boxed{{{self._stated}}}.\n\n")
            mind.listed = ["stated"]
        else:
            self._wait(mind)

    def _wait(self, mind: _Mind) -> None:
        self._say(mind, "wait" + WAITING * PATIENCE + ".\n\n")

    def _err(self, mind: _Mind, free: list[str], rank: int) -> bool:
        """Claims what another has, on purpose; whether it did."""
        theirs = [label for label in self._tasks if self._rival(mind, label) is not None]
        if 0 < rank < len(free):
            theirs += [free[rank - 1]] * 3  # what another claims in this very pass
        if len(self._names) == 1 or not theirs:
            return False
        if self._happens(self._odds.blunder):
            self._claim(mind, self._rng.choice(theirs), learnt=False)
            return True
        theirs = [label for label in theirs if label not in free]
        if theirs and self._happens(self._odds.duplicate):
            mind.blind = True
            mind.guilty = self._rng.choice(theirs)
            self._claim(mind, mind.guilty)
            return True
        return False

    def _claim(self, mind: _Mind, label: str, *, learnt: bool = True) -> None:
        mind.label = label
        self._claims.append(_Claim(self._pass + 1, mind.place, label))
        self._say(mind, f"({label}) ", self._confirm, learnt=learnt)

    def _confirm(self, mind: _Mind) -> None:
        """Goes on with a claim unless another's holds."""
        if mind.blind or not self._yield_to_rival(mind, "wait, "):
            self._work(mind)

    def _confirm_forced(self, mind: _Mind) -> None:
        if not self._yield_to_rival(mind, "wait, "):
            self._say(mind, f"({mind.label}) ", self._work)

    def _answer_forced(self, mind: _Mind) -> None:
        if not self._yield_to_rival(mind, "yes, "):
            self._say(mind, f"no, ({mind.label}) ", self._work)

    def _answer(self, mind: _Mind) -> None:
        if not mind.label or not self._yield_to_rival(mind, "yes, "):
            self._say(mind, "no, ", self._choose)

    def _yield_to_rival(self, mind: _Mind, word: str) -> bool:
        rival = self._rival(mind, mind.label)
        if rival is None:
            return False
        self._say(mind, f"{word}{self._names[rival]} has ({mind.label}). ", self._choose)
        return True

    def _work(self, mind: _Mind) -> None:
        """Works out the task in hand and states its result."""
        task = self._tasks[mind.label]
        answer, wrong = task.answer, self._layout != "solo" and self._happens(self._odds.wrong)
        if wrong:
            answer = self._spoil(answer)
        self._say(mind, f"{task.work}, so ({mind.label}) ")
        self._say(mind, answer, learnt=not wrong)
        self._say(mind, ".\n\n")
        mind.result = _Result(0, mind.place, mind.label, answer)

    def _spoil(self, answer: str) -> str:
        """Another answer of the same length."""
        place = self._rng.randrange(len(answer))
        signs = "0123456789" if answer.isdigit() else "<>" if answer in "<>" else "aeiou"
        sign = self._rng.choice([sign for sign in signs if sign != answer[place]])
        return answer[:place] + sign + answer[place + 1 :]

    def _check(self, mind: _Mind, rank: int) -> None:
        """Checks a result of another that nobody has checked, or waits."""
        seen = {c.label for c in self._checks if c.known <= self._pass or c.worker == mind.place}
        stated = {r.label: r for r in reversed(self._results) if self._known(r)}
        theirs = [
            label
            for label in self._tasks
            if label in stated and label not in seen and stated[label].worker != mind.place
        ]
        if rank >= len(theirs):
            self._wait(mind)
            return
        label = theirs[rank]
        known = 10**9 if self._layout == "interleaved" else self._pass + 1
        self._checks.append(_Claim(known, mind.place, label))
        task = self._tasks[label]
        verdict = "right" if stated[label].answer == task.answer else "wrong"
        self._say(mind, f"check ({label}) {task.work}, so ({label}) {task.answer}, {verdict}.\n\n")
        mind.result = _Result(0, mind.place, label, task.answer)

    def _list(self, mind: _Mind) -> None:
        """Adds the next result to the final list, waits for it, or ends the list."""
        known = {result.label: result.answer for result in self._results if self._known(result)}
        ready = sorted(known.keys() - mind.listed)
        if ready:
            comma = ", " if mind.listed else ""
            self._say(mind, f"{comma}({ready[0]}) {known[ready[0]]}", self._list)
            mind.listed.append(ready[0])
        elif len(known) < len(self._tasks):
            self._say(mind, WAITING, self._list)
        else:
            self._say(mind, "}.\n\n")
