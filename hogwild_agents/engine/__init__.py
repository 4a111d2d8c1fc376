"""The shared-cache engine: tokens in, logits and tokens out. It knows nothing of text."""

from hogwild_agents.engine.cache.blocks import CacheBlock
from hogwild_agents.engine.check.self_check import Report
from hogwild_agents.engine.engine import Engine, Handle
from hogwild_agents.engine.model import SharedCacheModel
from hogwild_agents.engine.sampling import SamplerState, SamplingParams, sample
from hogwild_agents.engine.scheduling.jobs import BatchEntry, Job, Lease, Usage, Write

__all__ = [
    "BatchEntry",
    "CacheBlock",
    "Engine",
    "Handle",
    "Job",
    "Lease",
    "Report",
    "SamplerState",
    "SamplingParams",
    "SharedCacheModel",
    "Usage",
    "Write",
    "sample",
]
