"""One sentence for every setting out of its range: what came and what was expected."""

import difflib
from collections.abc import Sequence


def require(holds: bool, name: str, value: object, expected: str) -> None:
    """Raise unless the claim holds.

    Raises:
        ValueError: `name must be expected, got value`.
    """
    if not holds:
        raise ValueError(f"{name} must be {expected}, got {value}")


def require_known(name: str, value: object, known: Sequence[str]) -> None:
    """Raise unless the value is one of the names there are.

    Raises:
        ValueError: the message lists them and the nearest.
    """
    if value not in known:
        nearest = difflib.get_close_matches(str(value), known, n=1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else "."
        raise ValueError(f"unknown {name} {value!r}{hint} There are: {', '.join(known)}")
