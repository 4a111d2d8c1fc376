"""Clocks for a device, and the bandwidth at which it copies memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

COPY_BYTES = {"cpu": 2**28, "cuda": 2**30}
"""Size of the copy that measures a device's bandwidth: many times its caches."""

COPIES = 7
"""Number of copies; the fastest one counts."""


def copy_bandwidth(device: torch.device) -> float:
    """Bytes per second of a large copy on the device, counting reads and writes."""
    size = COPY_BYTES.get(device.type, COPY_BYTES["cpu"])
    if device.type == "cuda":
        size = min(size, torch.cuda.mem_get_info(device)[0] // 4)
    source = torch.randint(0, 256, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = min(device_seconds(lambda: target.copy_(source), device) for _ in range(COPIES))
    return 2 * size / seconds


def wall_seconds(run: Callable[[], object], device: torch.device) -> float:
    """How long a function takes, until the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def device_seconds(run: Callable[[], object], device: torch.device) -> float:
    """The same, but on a CUDA card without the host's time."""
    if device.type != "cuda":
        return wall_seconds(run, device)
    event: Any = torch.cuda.Event
    start, stop = (event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    start.record()
    run()
    stop.record()
    stop.synchronize()
    seconds: float = 1e-3 * start.elapsed_time(stop)
    return seconds
