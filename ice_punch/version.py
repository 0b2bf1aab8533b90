"""The version of this package, for modules that know nothing else of it."""

__version__ = "0.1.0"
