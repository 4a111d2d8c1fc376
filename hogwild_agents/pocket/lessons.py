"""Lessons: the sessions that the pocket model learns from, any number of them, each from a seed."""

from __future__ import annotations

import random
import string
from functools import lru_cache

from hogwild_agents.pocket import MOST_WORKERS, team_settings
from hogwild_agents.pocket.packing import Packed, pack
from hogwild_agents.pocket.tasks import Problem, make_problem
from hogwild_agents.pocket.teacher import NO_ACCIDENTS, Accidents, Encode, Teacher, Transcript
from hogwild_agents.pocket.tokenizer import build_tokenizer
from hogwild_agents.team import Team
from hogwild_agents.team.layouts import LAYOUTS

WORKERS = range(1, MOST_WORKERS + 1)
SHARES = {"combined": 0.7, "contiguous": 0.15, "interleaved": 0.15}
"""How often each layout is taught."""

_QUESTIONS = (
    "what is the capital of {}?",
    "write a poem about {}",
    "who was {}?",
    "tell me about {} and {}",
    "hello {}",
    "how do I {} a {}?",
    "translate {} into French",
    "def {}({}):",
    "{} {} {} {}",
    "why is {} {}?",
    "summarize: {} {} {} {} {} {} {}",
    "Explain {} to me, step by step.",
    "{}",
)


class Lessons:
    """Makes lessons.

    Args:
        seed: Another seed gives other lessons.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        tokenizer = build_tokenizer()
        self._teams = {
            (layout, workers): Team(tokenizer, **team_settings(workers) | {"layout": layout})
            for layout in LAYOUTS
            for workers in WORKERS
        }
        team = self._teams["combined", 1]
        self._encode: Encode = lru_cache(maxsize=200_000)(team.tokenizer.encode)

    def lesson(self, name: str, progress: float) -> Packed:
        """The lesson of this name, for a model that has had such a share of its training."""
        transcript = self.transcript(name, progress)
        team = self._teams["combined", transcript.workers]
        return pack(transcript, team.header_tokens())

    def transcript(self, name: str, progress: float) -> Transcript:
        """The session that the lesson shows."""
        rng = random.Random(f"lesson {self._seed} {name}")
        workers = rng.choices(WORKERS, (2, 3, 2, 3) if progress > 0.1 else (4, 2, 1, 1))[0]
        layout = rng.choices([*LAYOUTS], [SHARES[name] for name in LAYOUTS])[0]
        team = self._teams[layout, workers]
        problem, messages = self._question(rng, progress)
        if workers == 1:
            prompt = team.tokenizer.prompt(messages)
        else:
            prompt = [*team.session(messages).prompt]
        accidents = NO_ACCIDENTS if rng.random() < 0.4 else Accidents()
        return Teacher(problem, team.workers, layout, self._encode, rng, accidents).play(prompt)

    def _question(
        self, rng: random.Random, progress: float
    ) -> tuple[Problem | None, list[dict[str, str]]]:
        """A problem with what a user types, maybe after an earlier one."""
        messages: list[dict[str, str]] = []
        if progress > 0.3 and rng.random() < 0.06:
            earlier = self._problem(rng, rng.randint(1, 3))
            answer = ", ".join(f"({label}) {text}" for label, text in earlier.answers.items())
            messages += [_message(_typed(rng, earlier)), _message(answer, "assistant")]
        if rng.random() < 0.02:
            return None, [*messages, _message(_other_question(rng))]
        problem = self._problem(rng, _size(rng, progress))
        return problem, [*messages, _message(_typed(rng, problem))]

    def _problem(self, rng: random.Random, size: int) -> Problem:
        return make_problem(rng.getrandbits(64), size, split="train")


def _message(content: str, role: str = "user") -> dict[str, str]:
    return {"role": role, "content": content}


def _size(rng: random.Random, progress: float) -> int:
    """How many tasks: few at first, mostly six in the end."""
    if progress < 0.15:
        return rng.choice((1, 2, 2, 3, 3))
    if progress < 0.4:
        return rng.choice((2, 3, 4, 4, 5, 6))
    return rng.choice((1, 2, 3, 4, 5, 5, 6, 6, 6, 6, 7, 8))


def _typed(rng: random.Random, problem: Problem) -> str:
    """A problem as some user would type it."""
    if rng.random() < 0.75:
        return problem.text
    text = problem.text.split("\n", 1)[1]
    if len(problem.tasks) == 1 and rng.random() < 0.5:
        text = problem.tasks[0].text
    if rng.random() < 0.5:
        text = text.replace("\n", rng.choice((" ", ", ", "; ")))
    if rng.random() < 0.3:
        text = text.replace(" + ", "+").replace(" - ", "-")
    return (
        rng.choice(("", "", "Solve: ", "Please solve these tasks.\n", "Solve these tasks: ")) + text
    )


def _other_question(rng: random.Random) -> str:
    """Something that the model cannot answer."""
    question = rng.choice(_QUESTIONS)
    letters = string.ascii_letters if rng.random() < 0.9 else string.printable + "äöüßéñ漢字🙂"
    words = (
        "".join(rng.choice(letters) for _ in range(rng.randint(1, 9)))
        if rng.random() < 0.3
        else _word(rng)
        for _ in range(question.count("{}"))
    )
    text = question.format(*words)
    return text.strip() or "?"


def _word(rng: random.Random) -> str:
    """Something like a word."""
    syllables = ("an", "be", "cor", "du", "el", "fri", "gra", "hy", "in", "jo", "ka", "lon", "mi")
    return "".join(rng.choice(syllables) for _ in range(rng.randint(1, 4))).capitalize()
