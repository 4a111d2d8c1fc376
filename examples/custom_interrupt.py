"""Your own interrupts: texts that the system writes to a worker while it thinks.

python examples/custom_interrupt.py
python examples/custom_interrupt.py path/or/hub-name "How many primes are there below 100?"
"""

import sys

from hogwild_agents import ChatHogwild
from hogwild_agents.langchain.runnables import Interrupt, InterruptRecord, RedundancyCheck
from hogwild_agents.pocket.tasks import make_task_list
from hogwild_agents.team import InterruptContext


@Interrupt
def half_time(context: InterruptContext) -> str | None:
    """Tells each worker once that half of the time is over.

    An interrupt is any function from what a worker sees to a text or None. It is called whenever a
    worker begins a step.
    """
    first = context.since == context.tokens  # all tokens were written since it last spoke
    late = context.passes > context.budget // 2
    return f"{context.worker}, half of the time is over." if first and late else None


def politely(question: str) -> str:
    """Changes an interrupt's text; `|` puts it behind the interrupt."""
    return f"({question.strip()}) "


def main(model: str = "pocket", problem: str = make_task_list(seed=4, size=6).text) -> None:
    """Runs a team, and prints what the interrupts wrote and what the workers answered."""
    interrupts = [RedundancyCheck(every=64), half_time | politely]
    message = ChatHogwild(model=model, interrupts=interrupts, budget=160).invoke(problem)
    for entry in InterruptRecord().invoke(message):
        text = f"{entry.text}{entry.followed.strip()}"
        print(f"pass {entry.asked}, {entry.name} to {entry.worker}: {text}")
    checks = InterruptRecord("RedundancyCheck").invoke(message)
    print(f"{len(checks)} checks, {sum(check.answer is True for check in checks)} found overlap")
    print(message.text)


if __name__ == "__main__":
    main(*sys.argv[1:3])
