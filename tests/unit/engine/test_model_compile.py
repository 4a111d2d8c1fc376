"""The compiled pass against the eager one."""

from __future__ import annotations

import pytest
import torch

from hogwild_agents.bench.random_model import build_shape
from hogwild_agents.engine import SharedCacheModel


@pytest.mark.slow
def test_compiled_passes_give_the_eager_logits() -> None:
    """Teams of one to ten, more lengths than torch compiles by default, in one process."""
    cpu = torch.device("cpu")
    model = build_shape("5m", torch.float32, cpu)
    eager = SharedCacheModel.from_pretrained(model)
    compiled = SharedCacheModel.from_pretrained(model, compile=True)
    for workers in range(1, 11):
        outputs = []
        for shared in (eager, compiled):
            prompt, *own = (shared.new_block() for _ in range(workers + 1))
            shared.forward([[prompt]], [list(range(50))])
            views = [[prompt, *(o for o in own if o is not block), block] for block in own]
            first = shared.forward(views, [[index] for index in range(workers)])
            outputs.append((first, shared.forward(views, first.argmax(-1, keepdim=True).tolist())))
        for ours, theirs in zip(*outputs, strict=True):
            assert (ours - theirs).abs().max() < 1e-5
