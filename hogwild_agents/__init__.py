"""Several copies of one local language model think together over one shared KV cache.

Names load on first use, so that importing the package loads neither torch nor transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hogwild_agents.version import __version__

if TYPE_CHECKING:
    from hogwild_agents.engine import Engine, SharedCacheModel
    from hogwild_agents.errors import HogwildError
    from hogwild_agents.langchain.chat_models import ChatHogwild
    from hogwild_agents.langchain.runnables import (
        CollaborationPrompt,
        EarlyFinisher,
        FinalAnswer,
        Interrupt,
        InterruptRecord,
        RedundancyCheck,
    )
    from hogwild_agents.langchain.team_tool import TeamTool
    from hogwild_agents.team import Team

__all__ = [
    "ChatHogwild",
    "CollaborationPrompt",
    "EarlyFinisher",
    "Engine",
    "FinalAnswer",
    "HogwildError",
    "Interrupt",
    "InterruptRecord",
    "RedundancyCheck",
    "SharedCacheModel",
    "Team",
    "TeamTool",
    "__version__",
]

_MODULES = {
    "ChatHogwild": "langchain.chat_models",
    "CollaborationPrompt": "langchain.runnables",
    "EarlyFinisher": "langchain.runnables",
    "Engine": "engine",
    "FinalAnswer": "langchain.runnables",
    "HogwildError": "errors",
    "Interrupt": "langchain.runnables",
    "InterruptRecord": "langchain.runnables",
    "RedundancyCheck": "langchain.runnables",
    "SharedCacheModel": "engine",
    "Team": "team",
    "TeamTool": "langchain.team_tool",
}


def __getattr__(name: str) -> Any:
    """Loads a public name from its module on first use."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, loaded or not."""
    return sorted(__all__)
