"""Your questions and your model: a file with a question and an answer in each line.

python examples/evaluate_your_data.py mine.jsonl path/or/hub-name
"""

import sys
import tempfile
from pathlib import Path

from hogwild_agents.evaluation import Setting, evaluate, load, strategies_of

SAMPLE = Path(__file__).with_suffix(".jsonl")


def main(data: str = str(SAMPLE), model: str = "pocket") -> None:
    """Compares one worker with a team of two, problem by problem."""
    dataset = load(data)
    for row in dataset.malformed:
        print("Skipped", row)
    evaluation = evaluate(
        dataset.problems,
        strategies_of(["single", "hogwild"], workers=[2]),
        tempfile.mkdtemp(),
        setting=Setting(model),
        budgets=[32, 64, 128] if model == "pocket" else [512, 2048, 8192],
        data=data,
    )
    for pair in evaluation.analysis().comparisons:
        names = f"{pair.strategy} compared with {pair.other}"
        print(f"{pair.budget} passes, {names}: {pair.difference.value:+.0%}, {pair.verdict}")
    print(f"Report: {evaluation.report()}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
