"""The shared-cache engine: tokens in, logits and tokens out. Knows nothing of text."""

from hogwild_agents.engine.blocks import Block
from hogwild_agents.engine.check import Report
from hogwild_agents.engine.errors import (
    ContextLengthError,
    HogwildError,
    InvalidBlockError,
    InvalidSamplingError,
    InvalidTokensError,
    InvalidViewError,
    ModelLoadError,
    NotANumberError,
    OutOfCacheMemoryError,
    UnsupportedModelError,
)
from hogwild_agents.engine.model import SharedCacheModel
from hogwild_agents.engine.sampling import SamplingParams, Stream, sample

__all__ = [
    "Block",
    "ContextLengthError",
    "HogwildError",
    "InvalidBlockError",
    "InvalidSamplingError",
    "InvalidTokensError",
    "InvalidViewError",
    "ModelLoadError",
    "NotANumberError",
    "OutOfCacheMemoryError",
    "Report",
    "SamplingParams",
    "SharedCacheModel",
    "Stream",
    "UnsupportedModelError",
    "sample",
]
