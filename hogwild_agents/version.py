"""The version of this package."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("hogwild-agents")
except PackageNotFoundError:  # used from its source, without an installation
    __version__ = "0+source"
