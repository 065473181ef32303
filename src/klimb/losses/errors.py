"""One sentence for every setting out of its range: what came and what was expected."""


def require(holds: bool, name: str, value: object, expected: str) -> None:
    """Raise unless the claim holds.

    Raises:
        ValueError: `name must be expected, got value`.
    """
    if not holds:
        raise ValueError(f"{name} must be {expected}, got {value}")
