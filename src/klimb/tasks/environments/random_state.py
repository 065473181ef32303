"""The random numbers of one environment: Python's and NumPy's global ones, its own while it is at work."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

MOST_NUMPY_SEED = 2**32
"""NumPy's global generator takes no larger seed."""


class RandomState:
    """What `random` and `numpy.random` draw from while an environment is at work, and nobody else.

    Environments that share a process, and whoever holds them, so never draw from each other's numbers. NumPy is seeded
    once it is imported. Generators that an environment makes itself, with `numpy.random.default_rng()` say, are not
    reached: it should make them from `random.random()` or from the `seed` that its `reset` may take.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._python = random.Random(seed).getstate()
        self._numpy: Any = None

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Put these numbers in the place of the process's own for the duration."""
        before, numpys = random.getstate(), sys.modules.get("numpy.random")
        numpy_before = None if numpys is None else numpys.get_state()
        random.setstate(self._python)
        if numpys is not None and self._numpy is None:
            numpys.seed(self._seed % MOST_NUMPY_SEED)
        elif numpys is not None:
            numpys.set_state(self._numpy)
        try:
            yield
        finally:
            self._python = random.getstate()
            random.setstate(before)
            if numpys is not None:
                self._numpy = numpys.get_state()
                numpys.set_state(numpy_before)
