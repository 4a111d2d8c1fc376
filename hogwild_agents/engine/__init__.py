"""The shared-cache engine: tokens in, logits and tokens out. Knows nothing of text."""

from hogwild_agents.engine.blocks import Block
from hogwild_agents.engine.check import Report
from hogwild_agents.engine.engine import Engine, Handle
from hogwild_agents.engine.errors import (
    ContextLengthError,
    EngineClosedError,
    HogwildError,
    InvalidBlockError,
    InvalidJobError,
    InvalidSamplingError,
    InvalidTokensError,
    InvalidViewError,
    ModelLoadError,
    NotANumberError,
    OutOfCacheMemoryError,
    SessionEndedError,
    SessionFailedError,
    UnsupportedModelError,
)
from hogwild_agents.engine.jobs import Job, Lease, Turn, Usage, Write
from hogwild_agents.engine.model import SharedCacheModel
from hogwild_agents.engine.sampling import SamplingParams, Stream, sample

__all__ = [
    "Block",
    "ContextLengthError",
    "Engine",
    "EngineClosedError",
    "Handle",
    "HogwildError",
    "InvalidBlockError",
    "InvalidJobError",
    "InvalidSamplingError",
    "InvalidTokensError",
    "InvalidViewError",
    "Job",
    "Lease",
    "ModelLoadError",
    "NotANumberError",
    "OutOfCacheMemoryError",
    "Report",
    "SamplingParams",
    "SessionEndedError",
    "SessionFailedError",
    "SharedCacheModel",
    "Stream",
    "Turn",
    "UnsupportedModelError",
    "Usage",
    "Write",
    "sample",
]
