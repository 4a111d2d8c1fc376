"""Your questions, your model: a file with a question and an answer in each line.

python examples/evaluate_your_data.py mine.jsonl path/or/hub-name
"""

import sys
import tempfile
from pathlib import Path

from hogwild_agents.evaluation import Setting, evaluate, load, strategies_of

SAMPLE = Path(__file__).with_suffix(".jsonl")


def main(data: str = str(SAMPLE), model: str = "pocket") -> None:
    """Compares one worker with a team of two, problem by problem."""
    loaded = load(data)
    for row in loaded.malformed:
        print("Skipped", row)
    done = evaluate(
        loaded.problems,
        strategies_of(["single", "hogwild"], workers=[2]),
        tempfile.mkdtemp(),
        setting=Setting(model),
        budgets=[32, 64, 128] if model == "pocket" else [512, 2048, 8192],
        data=data,
    )
    for pair in done.analysis().comparisons:
        told = f"{pair.strategy} against {pair.other}: {pair.difference.value:+.0%}, {pair.verdict}"
        print(f"{pair.budget} passes: {told}")
    print(f"Report: {done.report()}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
