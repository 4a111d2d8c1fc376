"""Does a team answer sooner? The pocket model on tasks that it has not seen, in a minute.

python examples/evaluate_pocket.py [FOLDER]
"""

import sys
import tempfile

from hogwild_agents.evaluation import evaluate, load, strategies_of


def main(folder: str | None = None) -> None:
    """Compares one worker with teams of two and four, and writes a page with charts."""
    problems = load("pocket", limit=8).problems
    strategies = strategies_of(["single", "hogwild"], workers=[2, 4])
    out = folder or tempfile.mkdtemp()
    evaluation = evaluate(problems, strategies, out, budgets=[64, 128, 256])
    for row in evaluation.analysis().summaries:
        print(f"{row.strategy:10} {row.budget:4} passes: {row.accuracy.value:4.0%} right")
    print(f"Report: {evaluation.report()}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
