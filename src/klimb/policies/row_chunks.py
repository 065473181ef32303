"""Portions of rows that an element-wise computation finishes before it begins the next."""

from torch import Tensor

CPU_CHUNK_BYTES = 2**19
"""With its temporaries, a portion stays in a core's second-level cache."""


def row_chunks(rows: Tensor) -> list[slice]:
    """Slices of the first axis; one for all on devices where launches cost more than memory traffic."""
    num_rows = len(rows)
    if rows.device.type != "cpu":
        return [slice(0, num_rows)]
    size = max(1, CPU_CHUNK_BYTES // max(1, rows[:1].nbytes))
    return [slice(start, min(start + size, num_rows)) for start in range(0, num_rows, size)]
