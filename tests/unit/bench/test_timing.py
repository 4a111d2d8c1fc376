"""Clocks and bandwidth."""

from __future__ import annotations

import torch

from hogwild_agents.bench.timing import copy_bandwidth


def test_bandwidth_is_measured() -> None:
    assert copy_bandwidth(torch.device("cpu")) > 0
