"""Interrupts of your own: what the system says to a worker, and how the worker took it.

python examples/custom_interrupt.py
python examples/custom_interrupt.py path/or/hub-name "How many primes are there below 100?"
"""

import sys

from hogwild_agents import ChatHogwild
from hogwild_agents.langchain.runnables import Interrupt, InterruptRecord, RedundancyCheck
from hogwild_agents.pocket.tasks import make_problem
from hogwild_agents.team import InterruptContext


@Interrupt
def half_time(context: InterruptContext) -> str | None:
    """Any function from what a worker sees to a text or None; asked when a worker begins a step."""
    first = context.since == context.tokens  # tokens since it last spoke: all, so it never has
    late = context.passes > context.budget // 2
    return f"{context.worker}, half of the time is over." if first and late else None


def politely(question: str) -> str:
    """Goes behind an interrupt with |, and is called only when that has something to say."""
    return f"({question.strip()}) "


def main(model: str = "pocket", problem: str = make_problem(seed=4, size=6).text) -> None:
    """Lets a team think, and prints what it was told meanwhile."""
    interrupts = [RedundancyCheck(every=64), half_time | politely]
    message = ChatHogwild(model=model, interrupts=interrupts, budget=160).invoke(problem)
    for said in InterruptRecord().invoke(message):
        print(
            f"pass {said.asked}, {said.name} to {said.worker}: {said.text}{said.followed.strip()}"
        )
    checks = InterruptRecord("RedundancyCheck").invoke(message)
    print(f"{len(checks)} checks, {sum(check.answer is True for check in checks)} found overlap")
    print(message.text)


if __name__ == "__main__":
    main(*sys.argv[1:3])
