"""Triton's interpreter where there is no CUDA card, and the tests that coverage measures."""

from __future__ import annotations

import os
import sys

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is first imported

REPEATING = ("test_equality", "test_machine", "test_blocks_machine", "test_scheduler_parity")
"""Modules that run the same lines thousands of times, which other tests run once."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Before Python 3.12, coverage measures the first case of each test only.

    Tracing all of tests/unit/team takes 58 % more CPU time with Python 3.11, and this way 7 %. From
    3.12 on a line costs nothing after its first time, so all tests are measured.
    """
    if sys.version_info >= (3, 12) or not config.pluginmanager.has_plugin("_cov"):
        return
    measured: set[str] = set()
    for item in items:
        test = item.nodeid.partition("[")[0]
        if test in measured or item.path.stem in REPEATING:
            item.add_marker("no_cover")
        measured.add(test)
