"""A model of lm_eval: `hogwild`, a team of workers over one shared cache.

lm_eval has no entry points for models: it knows `hogwild` as soon as this package is imported.
"""

from importlib.metadata import version

import lm_eval.models  # noqa: F401  lm_eval fills an empty registry only: its own models first
from lm_eval.api.registry import model_registry

__version__ = version("hogwild-agents-lm-eval")

__all__ = ["__version__"]

model_registry.register("hogwild", target="hogwild_lm_eval.model:HogwildLM")
