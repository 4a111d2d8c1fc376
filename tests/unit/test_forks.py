"""Forked processes, which have none of their parent's threads: nobody waits there for ever."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
import multiprocessing
import threading

from hogwild_agents import ChatHogwild, Engine, SharedCacheModel
from hogwild_agents.errors import EngineClosedError
from hogwild_agents.registry import _engines
from hogwild_agents.langchain.errors import InvalidRequestError
from hogwild_agents.pocket import FOLDER

TASK = "Solve these tasks.\\n(a) 4731 + 2869"
shared = ChatHogwild(workers=2)
mine = Engine(SharedCacheModel.from_pretrained(FOLDER))
own = ChatHogwild(engine=mine, max_retries=9)
assert "7600" in shared.invoke(TASK).text
assert "7600" in own.invoke(TASK).text
handle = shared.submit(TASK)

def refused(kind, ask):
    try:
        ask()
    except kind as error:
        assert "forked" in str(error) and "spawn" in str(error), error
    else:
        raise AssertionError("not refused")

def child():
    assert not _engines and mine.closed
    refused(EngineClosedError, handle.result)
    refused(EngineClosedError, lambda: list(handle))
    refused(InvalidRequestError, lambda: own.invoke(TASK))
    assert "7600" in ChatHogwild(workers=2, timeout=60).invoke(TASK).text
    assert "7600" in shared.invoke(TASK).text
    with Engine(SharedCacheModel.from_pretrained(FOLDER)) as engine:
        assert "7600" in ChatHogwild(engine=engine).invoke(TASK).text
    mine.close()
    print("child done", flush=True)

with mine._loop._changed:  # as if the engine's thread were just at work
    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
process.join(90)
code = process.exitcode
process.kill()
assert code == 0, code
assert "7600" in handle.result().answer
assert "7600" in shared.invoke(TASK).text
print("parent done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_forked_child(threads: str) -> None:
    """Loads shared models anew; engines and handles of its parent's are refused, not waited for."""
    environment = {**os.environ, "OMP_NUM_THREADS": threads}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split("\n")[:2] == ["child done", "parent done"]
