"""The version, for parts of the package that must not import all that the package offers."""

__version__ = "0.1.0"
