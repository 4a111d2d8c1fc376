"""A layout of your own: what each worker sees is a plain list of blocks.

python examples/custom_layout.py
"""

from hogwild_agents import ChatHogwild
from hogwild_agents.pocket.tasks import make_problem
from hogwild_agents.team import TeamBlocks
from hogwild_agents.team.layouts import Views


def round_table(blocks: TeamBlocks) -> Views:
    """As `contiguous`, but each hears first who sits at its right: the one after it comes last."""
    views = []
    for place, own in enumerate(blocks.work):
        count = len(blocks.work)
        others = [(place + step) % count for step in range(1, count)]
        seen = [part for other in others for part in (blocks.work[other], blocks.pauses[other])]
        views.append([*blocks.common, *seen, own])
    return views


def main() -> None:
    """Solves one problem in three layouts."""
    problem = make_problem(seed=4, size=6).text
    for layout in ("combined", "contiguous", round_table):
        message = ChatHogwild(workers=3, layout=layout).invoke(problem)
        about = message.response_metadata
        print(f"{about['layout']:>12}: {about['passes']} passes, {message.text}")


if __name__ == "__main__":
    main()
