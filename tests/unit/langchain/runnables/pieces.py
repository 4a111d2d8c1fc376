"""What is true of every piece: it runs in each way that a runnable can, and is traced."""

from __future__ import annotations

import asyncio
import copy
import pickle
from dataclasses import asdict
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableConfig

from hogwild_agents.team import Interruption


class Runs(BaseCallbackHandler):
    """Notes the runs that tracers see: name, kind, and outcome."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.kinds: list[str | None] = []
        self.parents: list[Any] = []
        self.outcomes: list[Any] = []

    def on_chain_start(self, *_: Any, name: str = "", run_type: Any = None, **more: Any) -> None:
        self.names.append(name)
        self.kinds.append(run_type)
        self.parents.append(more.get("parent_run_id"))

    def on_chain_end(self, outputs: Any, **_: Any) -> None:
        self.outcomes.append(outputs)

    def on_chain_error(self, error: BaseException, **_: Any) -> None:
        self.outcomes.append(type(error))


def check_ways(piece: Runnable[Any, Any], given: Any, expected: Any) -> None:
    """Invokes, batches and streams it, with and without asyncio; copies do the same."""

    async def awaited() -> list[Any]:
        return [
            await piece.ainvoke(given),
            *await piece.abatch([given, given]),
            *[chunk async for chunk in piece.astream(given)],
        ]

    assert piece.invoke(given) == expected
    assert piece.batch([given, given]) == [expected, expected]
    assert list(piece.stream(given)) == [expected]
    assert asyncio.run(awaited()) == [expected] * 4
    for twin in (copy.copy(piece), copy.deepcopy(piece), pickle.loads(pickle.dumps(piece))):
        assert twin == piece
        assert repr(twin) == repr(piece)
        assert twin.invoke(given) == expected
    assert " at 0x" not in repr(piece)
    assert piece.get_input_jsonschema()
    assert piece.get_output_jsonschema()


def check_runs(piece: Runnable[Any, Any], given: Any, name: str, kind: str | None = None) -> None:
    """Tracers see one run of its name, with its outcome, and under the name that a config gives."""
    configs = (RunnableConfig(), name), (RunnableConfig(run_name="renamed"), "renamed")
    for config, expected in configs:
        runs, later = Runs(), Runs()
        outcome = piece.invoke(given, RunnableConfig(callbacks=[runs], **config))
        asyncio.run(piece.ainvoke(given, RunnableConfig(callbacks=[later], **config)))
        for seen in (runs, later):
            assert (seen.names[0], seen.kinds[0], seen.parents[0]) == (expected, kind, None)
            assert seen.outcomes[-1] == outcome
            assert seen.parents.count(None) == 1


def message(text: str = "", **thoughts: str) -> AIMessage:
    """A message of `ChatHogwild`'s."""
    return AIMessage(
        text,
        additional_kwargs={
            "thoughts": [
                {"index": index, "worker": worker, "text": thought}
                for index, (worker, thought) in enumerate(thoughts.items())
            ]
        },
        response_metadata={
            "model_provider": "hogwild",
            "model_name": "pocket",
            "workers": [*thoughts],
            "answer": None,
            "interruptions": [asdict(record) for record in RECORDS],
        },
    )


RECORDS = [
    Interruption("RedundancyCheck", "Bob", 2, 9, "Redundant? ", answer=True, followed="yes.\n\n"),
    Interruption("half_time", "Alice", 3, 20, "(Half of the time is over.) "),
]
