"""A model provider of Inspect: `hogwild/...` is a team of workers over one shared cache.

Nothing has to be imported: Inspect finds the provider by its entry point.
"""

from importlib.metadata import version

__version__ = version("hogwild-agents-inspect")

__all__ = ["__version__"]
