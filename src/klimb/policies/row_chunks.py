"""Portions of rows that an element-wise computation finishes before it begins the next."""

from torch import Tensor

CPU_CHUNK_BYTES = 2**21
"""With its temporaries, a portion stays in a cache; smaller ones cost more in calls than they save."""


def row_chunks(rows: Tensor) -> list[slice]:
    """Slices of the first axis; one for all on devices where launches cost more than memory traffic."""
    num_rows = len(rows)
    if rows.device.type != "cpu":
        return [slice(0, num_rows)]
    size = max(1, CPU_CHUNK_BYTES // max(1, rows[:1].nbytes))
    return [slice(start, min(start + size, num_rows)) for start in range(0, num_rows, size)]
