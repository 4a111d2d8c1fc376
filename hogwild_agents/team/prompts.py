"""Prompts: the workers' names, how to work together, and the first words of each worker.

All workers read the same system text, so it is computed and cached once. The same team, layout and
answer always give exactly the same text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from hogwild_agents.errors import InvalidTeamError
from hogwild_agents.names import worker_names
from hogwild_agents.team.redundancy_check import QUESTION
from hogwild_agents.team.steps import (
    HISTORY_HEADER,
    NOTE_LABEL,
    OTHERS_HEADER,
    OWN_HEADER,
    PAUSE,
    SEPARATOR,
    prefix,
)

TOOL_RULE = (
    "Tools are called in the reply, after the thinking. As soon as it is clear which call comes "
    "next, whoever notices states it as the final answer."
)
"""Added to the prompt of a team that may call tools."""

Style = Literal["you", "we", "brief", "names", "none"]

STRUCTURE = "Reply with nothing but JSON that fits this schema: "
"""Precedes the JSON schema that a reply must fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CollaborationPrompt:
    """The instructions of a team, before its problem.

    Attributes:
        style: "you" speaks to the workers, "we" for them. "brief" is for small models and contexts.
            "names" only lists the team, for models that were trained as a team. "none" says
            nothing, for developers who write the whole prompt themselves.
        examples: Whether worked examples are shown.
        extra: The developer's own instructions, put last before the problem.
    """

    style: Style = "you"
    examples: bool = True
    extra: str = ""

    def __post_init__(self) -> None:
        """Checks the values."""
        if self.style not in get_args(Style):
            choices = ", ".join(map(repr, get_args(Style)))
            raise InvalidTeamError(f"style={self.style!r} does not exist: choose from {choices}.")
        if not isinstance(self.extra, str):
            raise InvalidTeamError(f"extra={self.extra!r} is not a string: write it as text.")

    @property
    def explains(self) -> bool:
        """Whether it says how to work together."""
        return self.style not in _SILENT

    def system(self, workers: Sequence[str], *, layout: str, answer: str) -> str:
        r"""The whole system text.

        Args:
            workers: The team's names.
            layout: What a worker sees: "combined", "interleaved" or "contiguous"; any other layout
                is described in general terms.
            answer: Completes "State the final answer as ...", without a full stop. If it shows a
                form in backticks, such as `\boxed{answer}`, the examples use that form too.
        """
        names = worker_names(workers)
        extra = self.extra.strip()
        if not self.explains:
            return _joined(", ".join(names) if self.style == "names" and names[1:] else "", extra)
        if len(names) == 1:
            return _joined(extra, _ALONE.format(answer=answer))
        words = _BRIEF if self.style == "brief" else _FULL
        fields = _VOICES[self.style] | {
            "count": str(len(names)),
            "team": ", ".join(names[:-1]) + " and " + names[-1],
            "first": names[0],
            "prefix": prefix(names[1], 3).strip(),
            "view": _VIEWS.get(layout, _ANY_VIEW),
            "check": QUESTION.strip(),
            "note": NOTE_LABEL.strip(),
            "answer": answer,
        }
        examples = [example.shown(names, layout, answer) for example in words.examples]
        return _joined(
            words.guide.format(**fields),
            *([words.heading.format(**fields), *examples] if self.examples else []),
            words.ending.format(**fields),
            extra,
            _TASK,
        )

    def opening(self, workers: Sequence[str], index: int) -> str:
        """The first words of a worker's first step, after its prefix; the worker continues them.

        The first worker proposes a split. Each of the others starts in a different way, because
        copies of one model that begin alike would stay alike.
        """
        names = worker_names(workers)
        if not 0 <= index < len(names):
            raise InvalidTeamError(f"index={index} is no worker's: choose 0 to {len(names) - 1}.")
        if len(names) == 1 or not self.explains:
            return ""
        return _OPENINGS[index].format(own=names[index], first=names[0])


def _joined(*parts: str) -> str:
    """The parts with blank lines between; empty ones are left out."""
    return SEPARATOR.join(part for part in parts if part)


class _Example(NamedTuple):
    """A solved problem as one of two workers sees it at one moment.

    Its steps alternate; the last two are the other's, still unfinished, and the viewer's own.
    """

    lesson: str
    problem: str
    result: str
    steps: tuple[str, ...]

    def shown(self, names: Sequence[str], layout: str, answer: str) -> str:
        """The example with the team's first worker as the other and its last as the viewer."""
        other, own = names[0], names[-1]
        shape = re.search(r"`([^`]*\{answer\}[^`]*)`", answer)
        final = shape[1].replace("{answer}", f"{{{self.result}}}") if shape else self.result
        steps = [
            prefix((other, own)[i % 2], i // 2 + 1)
            + text.format(other=other, own=own, check=QUESTION, final=final)
            for i, text in enumerate(self.steps)
        ]
        *history, others_step, own_step = steps
        match layout:
            case "combined":
                live = (OTHERS_HEADER, others_step + PAUSE, OWN_HEADER, own_step)
                view = (HISTORY_HEADER, *history, *live)
            case "interleaved":
                view = (HISTORY_HEADER, *history, own_step)
            case "contiguous":
                view = (*steps[:-2:2], others_step + PAUSE, *steps[1::2])
            case _:
                view = (*history, own_step)
        title = f"<example>\n{self.lesson}\nProblem: {self.problem}\n{own} sees and writes:"
        return _joined(title, *view) + "\n</example>"


class _Words(NamedTuple):
    """The parts of a system text, in reading order."""

    guide: str
    heading: str
    examples: tuple[_Example, ...]
    ending: str


_SPLIT = _Example(
    lesson="Splitting at once, and stating the answer.",
    problem="A theatre sells 36 tickets at 14 coins and 25 at 9 coins, and pays 129 coins of rent. "
    "How many coins are left?",
    result="600",
    steps=(
        "Two independent products: I take the 36 tickets, {own} takes the 25. Whoever is done "
        "first adds up and subtracts the rent.",
        "I take the 25 tickets, as {other} proposes: 25 * 9 = 225 coins.",
        "My part: 36 * 14 = 504 coins.",
        "{check}no, {other} has the 36 tickets and nobody has added up yet. I take that: "
        "504 + 225 = 729 coins.",
        "While {own} adds up, I check my product another way: 36 * 7 = 252, and twice that",
        "Less the rent, 729 - 129 = 600 coins are left. Both parts are in, so the final answer is "
        "{final}.",
    ),
)

_OVERLAP = _Example(
    lesson="Noticing overlap, and changing task.",
    problem="How many whole numbers from 1 to 100 are divisible by 3 or by 7?",
    result="43",
    steps=(
        "Count both and subtract what is counted twice: I take the multiples of 3, {own} those "
        "of 7.",
        "The multiples of 3 are 3, 6, 9, but stop, {other} has just claimed them. I take those "
        "of 7: 7 * 14 = 98, so there are 14.",
        "3 * 33 = 99, so there are 33. I go on with the multiples of 21, counted twice.",
        "What is divisible by both 3 and 7 is counted twice, so I list 21, 42, 63 and 84.",
        "21 * 4 = 84, so 4 numbers are counted twice, which makes the total",
        "{check}yes, {other} has the multiples of 21. I leave them and prepare a check by another "
        "way: 1 to 21 holds 9 such numbers, so 1 to 84 holds 4 * 9 = 36; 85 to 100 holds 7 more, "
        "and 36 + 7 = 43. {other}, compare this with your total.",
    ),
)

_TINY = _Example(
    lesson="Only an example.",
    problem="17 * 4 + 23 * 3",
    result="137",
    steps=(
        "I take 17 * 4 = 68, {own} takes 23 * 3.",
        "23 * 3 = 69.",
        "Checking 69:",
        "68 + 69 = 137. The final answer is {final}.",
    ),
)

_FULL = _Words(
    guide="""\
# Working together

{are} {count} assistants, {team}, who solve one problem together. All of {us} think and write at \
the same time, in steps: short paragraphs of one thought each, ended by a blank line. The system \
puts a prefix such as `{prefix}` before every step, which says who is writing. Speak as that one \
only, and write only what follows: no prefixes, no headers, no steps of others.

# What {we} see below the problem

{view}

All of this changes while {we} write: what was missing a moment ago may be there now.

# How {we} work

- Split at once: in the first step {first} says who takes what, with a part for each of {team}. \
Parts may be sub-questions, cases, ranges or, where nothing can be divided, different methods.
- Never wait: until there is a split, begin where the others are least likely to begin. Where a \
result is still missing, do something else meanwhile or carry it along as an unknown.
- Claim before starting: write "I take ..." and leave to others what they have claimed. If two \
claim the same part, the earlier claim holds.
- Read before writing: begin each step from the newest steps of the others, and build on their \
results instead of working them out again.
- Share results: end each piece of work with its result in one plain sentence that the others can \
use. Do not repeat the problem or what has been said.
- Notice overlap: when another is doing, or has done, the same work, stop even in mid-step, say \
so, and change to a free part, another method, or a check. A check is worth doing if the answer \
depends on the result and it is reached another way.
- React: answer questions from the others, name a mistake as soon as it shows, trace differing \
results to the line where they part, and drop an approach that leads nowhere, saying so.
- Heed the user: what follows `{note}` in the history was said meanwhile, and comes first.
- Be truthful in quick checks: now and then the system begins {our} step with `{check}`. Compare \
the work in hand with what the others have done and are doing, and answer yes or no first. After \
yes, say what to do instead, and do it. After no, go on.""",
    heading="""\
# Examples

Two problems already solved, with two workers, to show the way of working. Nothing in them belongs \
to {our} problem.""",
    examples=(_SPLIT, _OVERLAP),
    ending="""\
# The final answer

As soon as the team has all that the answer needs, whoever notices first states it, without asking \
the others. Not before it is complete, and only once. State the final answer as {answer}.""",
)

_BRIEF = _Words(
    guide="""\
{team} solve one problem together, all at once, in steps: short paragraphs ended by a blank line. \
A prefix such as `{prefix}` says who you are; write only what follows.

{view}

Split the work at once, claim a part, never wait. Use the others' results. When you repeat their \
work, say so and change task. Answer `{check}` truthfully.""",
    heading="",
    examples=(_TINY,),
    ending="State the final answer as {answer}, once, when known.",
)

_TASK = "Solve the next problem together."
_ALONE = "Think step by step, in short paragraphs. State the final answer as {answer}."

_SILENT: tuple[Style, ...] = ("names", "none")
"""Styles that do not explain how to work together."""

_VOICES: dict[Style, dict[str, str]] = {
    "you": {"are": "You are one of", "we": "you", "us": "you", "our": "your"},
    "we": {"are": "We are", "we": "we", "us": "us", "our": "our"},
    "brief": {},
}

_VIEWS = {
    "combined": f"`{HISTORY_HEADER}`: everyone's finished steps. "
    f"`{OTHERS_HEADER}`: what the others are writing now, cut off at `{PAUSE}`. "
    f"`{OWN_HEADER}`: the step to continue.",
    "interleaved": f"`{HISTORY_HEADER}`: everyone's finished steps, then the step to continue. "
    "What the others are writing shows only once it is finished, so keep steps short.",
    "contiguous": "All that the others have written so far, growing word by word and cut off at "
    f"`{PAUSE}`; last one's own work so far, to continue.",
}
_ANY_VIEW = "Everyone's steps, and last one's own, to continue."

_OPENINGS = (
    "I'm {own}. Let me split this so that everyone can start at once: I will",
    "{own} here. While {first} writes the split, I start from the end: what is asked for is",
    "Hello from {own}. Until there is a split I look for a different way to do this, perhaps",
    "This is {own}, starting with the simplest case that tells us something, for instance",
    "Hi, it's {own}. I collect the facts and rules that all of us will need, first of all",
    "My name is {own}. I look for conditions that are easy to overlook, such as",
    "You can count on {own}. I ask where this is most likely to go wrong, and suspect",
    "Let {own} think about the check at the end. A right answer must",
)
