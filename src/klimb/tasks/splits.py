"""Dividing what belongs together into training and held-out."""

from __future__ import annotations

from typing import TypeVar

Unit = TypeVar("Unit")


def split(units: list[Unit], held_out_fraction: float) -> tuple[list[Unit], list[Unit]]:
    """Return (train, held_out); the first units are held out, so shuffle before.

    A fraction strictly between 0 and 1 leaves at least one unit on each side.

    Raises:
        ValueError: if the fraction is outside [0, 1], or a single unit is to be divided.
    """
    if not 0 <= held_out_fraction <= 1:
        raise ValueError(f"held_out_fraction must be in [0, 1], got {held_out_fraction}")
    num_held_out = round(held_out_fraction * len(units))
    if 0 < held_out_fraction < 1:
        if len(units) < 2:
            raise ValueError(
                f"{len(units)} different problem(s) cannot be divided into training and held-out ones; "
                "ask for more, or set held_out_fraction to 0 (train on all) or 1 (evaluate on all)"
            )
        num_held_out = min(max(num_held_out, 1), len(units) - 1)
    return units[num_held_out:], units[:num_held_out]
