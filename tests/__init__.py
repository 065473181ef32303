"""Tests mirror src; tests/oracle enumerates a tiny world in NumPy."""

from tests import typechecking

__all__ = ["typechecking"]
