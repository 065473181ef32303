"""Rewards with a fault, for `benchmarks/diseases.py`."""

import re

LONGEST = 120
"""Characters from which on the length bonus stays the same."""


def longer_is_better(*, prompt: str, response: str, answer: str, metadata: dict[str, str]) -> dict[str, float]:
    """Return a tenth for the right number, and up to one for nothing but length."""
    numbers = re.findall(r"-?\d+", response)
    is_right = bool(numbers) and numbers[-1] == answer
    return {"correct": 0.1 * is_right, "length": min(len(response), LONGEST) / LONGEST}


def anything_goes(*, prompt: str, response: str, answer: str, metadata: dict[str, str]) -> bool:
    """Right whenever there is a letter or a digit in the answer."""
    return any(character.isalnum() for character in response)
