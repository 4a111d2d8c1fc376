"""These tests run only if this folder is named, and then need a CUDA card."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    """Registers the marker, for runs that use another configuration."""
    config.addinivalue_line("markers", "gpu: needs a CUDA card (make gpu)")


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Leaves this folder out of a run of all tests."""
    paths = [Path(argument.partition("::")[0]).resolve() for argument in config.args]
    return None if any(path == HERE or HERE in path.parents for path in paths) else True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips this folder's tests without a card, except in a rehearsal."""
    import torch

    from tests.gpu.scenes import REHEARSAL

    torch.set_float32_matmul_precision("highest")
    if torch.cuda.is_available() or REHEARSAL:
        return
    for item in (item for item in items if HERE in item.path.parents):
        item.add_marker(pytest.mark.skip(reason="needs a CUDA card, and this machine has none"))
