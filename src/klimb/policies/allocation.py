"""How the C library hands out memory to torch on CPUs."""

import ctypes
import sys

M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -3, -1
"""Numbers of these settings in glibc's malloc.h."""

LARGEST_MMAP_THRESHOLD = 32 * 2**20
"""glibc accepts no more (half of its heap size)."""


def keep_freed_memory() -> bool:
    """Makes the process keep the memory of freed tensors of up to 32 MiB; True if the C library could be told so.

    glibc otherwise returns each to the system and asks for fresh, zeroed pages at the next operation. Keeping them
    made a training step on a CPU 1.17 times faster (SmolLM2-135M, bfloat16, 128 responses). It is a setting of the
    whole process, so call it from a program, never from a library.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD) == 1 and mallopt(M_TRIM_THRESHOLD, 2**31 - 1) == 1
