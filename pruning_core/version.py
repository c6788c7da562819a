"""The version of the package, which long runs carry in their hash."""

__version__ = "0.1.0"
