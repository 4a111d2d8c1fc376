"""Several copies of one local language model think together over one shared KV cache.

Names load on first use, so that importing the package loads neither torch nor transformers.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hogwild_agents.engine import Engine, HogwildError, SharedCacheModel
    from hogwild_agents.team import RedundancyCheck, Team

__version__ = version("hogwild-agents")

__all__ = [
    "Engine",
    "HogwildError",
    "RedundancyCheck",
    "SharedCacheModel",
    "Team",
    "__version__",
]

_HOMES = {
    "Engine": "hogwild_agents.engine",
    "HogwildError": "hogwild_agents.engine.errors",
    "RedundancyCheck": "hogwild_agents.team",
    "SharedCacheModel": "hogwild_agents.engine",
    "Team": "hogwild_agents.team",
}


def __getattr__(name: str) -> Any:
    """Loads a public name from its module on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, loaded or not."""
    return sorted(__all__)
