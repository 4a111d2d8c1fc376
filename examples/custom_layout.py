"""Your own layout: what each worker sees is a plain list of blocks.

python examples/custom_layout.py
"""

from hogwild_agents import ChatHogwild
from hogwild_agents.pocket.tasks import make_task_list
from hogwild_agents.team import TeamBlocks
from hogwild_agents.team.layouts import Views


def round_table(blocks: TeamBlocks) -> Views:
    """Like `contiguous`, but each worker reads first the worker after it, and so on in a circle."""
    views = []
    count = len(blocks.work)
    for place, own in enumerate(blocks.work):
        others = [(place + distance) % count for distance in range(1, count)]
        seen = [part for other in others for part in (blocks.work[other], blocks.pauses[other])]
        views.append([*blocks.common, *seen, own])
    return views


def main() -> None:
    """Solves the same tasks in three layouts."""
    problem = make_task_list(seed=4, size=6).text
    for layout in ("combined", "contiguous", round_table):
        message = ChatHogwild(workers=3, layout=layout).invoke(problem)
        metadata = message.response_metadata
        print(f"{metadata['layout']:>12}: {metadata['passes']} passes, {message.text}")


if __name__ == "__main__":
    main()
