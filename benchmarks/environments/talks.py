"""What came of a conversation on either side, and where two of them differ."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Talk:
    """A conversation as a trainer has it.

    Attributes:
        prompt_ids: of the first turn, with the tools and what the environment opened with.
        response_ids: all that follows.
        is_drawn: of each of those: whether the policy drew it; TRL's tool mask.
        results: what the tools said, in order.
        reward: of the conversation.
    """

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    is_drawn: tuple[bool, ...]
    results: tuple[str, ...]
    reward: float

    @property
    def num_drawn(self) -> int:
        """Tokens that the policy drew."""
        return sum(self.is_drawn)


def differences(one: Talk, other: Talk) -> Mapping[str, tuple[Any, Any]]:
    """Return by name the fields in which two conversations differ, with both values."""
    pairs = {field.name: (getattr(one, field.name), getattr(other, field.name)) for field in fields(Talk)}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
