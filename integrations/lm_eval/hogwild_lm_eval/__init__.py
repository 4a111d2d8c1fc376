"""A model for lm_eval: `hogwild`, a team of workers over one shared cache.

lm_eval has no entry points for models, so importing this package registers `hogwild`.
"""

from importlib.metadata import version

import lm_eval.models  # noqa: F401  lm_eval registers its own models only if the registry is empty
from lm_eval.api.registry import model_registry

__version__ = version("hogwild-agents-lm-eval")

__all__ = ["__version__"]

model_registry.register("hogwild", target="hogwild_lm_eval.model:HogwildLM")
