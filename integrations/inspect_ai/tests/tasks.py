"""Local tasks for the tests."""

from __future__ import annotations

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes
from inspect_ai.solver import generate, use_tools
from inspect_ai.tool import Tool, ToolFunction, tool

SUMS = {"4731 + 2869": "7600", "12 + 30": "42", "55 + 44": "99", "310 + 205": "515"}


@task
def sums() -> Task:
    """Lists of two small tasks, as the pocket model knows them."""
    samples = [
        Sample(input=f"Solve these tasks.\n(a) {asked}\n(b) reverse nirok", target=f"(a) {result}")
        for asked, result in SUMS.items()
    ]
    return Task(dataset=samples, solver=generate(), scorer=includes())


@tool
def add() -> Tool:
    """A tool for the model."""

    async def execute(x: int, y: int) -> str:
        """Adds two numbers.

        Args:
            x: The first number.
            y: The second number.
        """
        return f"The sum is {x + y}."

    return execute


@task
def calls() -> Task:
    """One sample whose first reply must call the tool; after its result the model replies."""
    return Task(
        dataset=[Sample(input="Call add with x = 12 and y = 30.", target="sum")],
        solver=[use_tools(add(), tool_choice=ToolFunction("add")), generate()],
        scorer=includes(),
    )
