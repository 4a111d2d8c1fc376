"""Evaluates a whole pipeline of retriever, team and answer, with one worker and with two.

python examples/evaluate_pipeline.py
"""

import tempfile

from langchain_core.documents import Document
from retrieval_chain import WordRetriever, sum_of_numbers

from hogwild_agents import ChatHogwild, FinalAnswer
from hogwild_agents.evaluation import Chain, Problem, evaluate

NUMBERS = {"north": (4731, 2869), "south": (612, 58), "east": (77, 5004), "west": (350, 951)}
NOTES = [f"Numbers of the {team} team: {a} and {b}." for team, (a, b) in NUMBERS.items()]
PROBLEMS = [
    Problem(team, f"What is the sum of the {team} team's numbers?", str(one + other), "number")
    for team, (one, other) in NUMBERS.items()
]


def pipeline(workers: int) -> Chain:
    """Looks up the numbers, asks the team, and keeps the number of the answer."""
    retriever = WordRetriever(documents=[Document(note) for note in NOTES])
    team = ChatHogwild(workers=workers, budget=96)
    chain = retriever | sum_of_numbers | team | FinalAnswer("number")
    return Chain(chain, f"pipeline-{workers}")


def main() -> None:
    """Runs both on all questions at the same time, and prints how many answers are right."""
    strategies = [pipeline(1), pipeline(2)]
    evaluation = evaluate(PROBLEMS, strategies, tempfile.mkdtemp(), budgets=[32, 64, 128])
    for row in evaluation.analysis().summaries:
        used = f"{row.passes.value:.0f} of {row.budget} passes"
        print(f"{row.strategy}: {row.accuracy.value:.0%} right with {used}")
    print(f"Report: {evaluation.report()}")


if __name__ == "__main__":
    main()
