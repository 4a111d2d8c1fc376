"""A model provider for Inspect: `hogwild/...` is a team of workers over one shared cache.

There is nothing to import: Inspect finds the provider by its entry point.
"""

from importlib.metadata import version

__version__ = version("hogwild-agents-inspect")

__all__ = ["__version__"]
