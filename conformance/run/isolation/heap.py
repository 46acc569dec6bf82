"""The heap: memory that a worker has freed is reused for its next arrays."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
_FREED = 2**28
_MOST_FROM_HEAP = 2**25  # the largest value that glibc accepts


def keep_freed_memory() -> None:
    """Let the C library keep a quarter of a gigabyte of freed memory, where it can.

    By default it returns the memory of every large array to the system, so that each stage
    of a large call gets its pages made and zeroed anew: twice the time of all that is
    computed on them.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library than glibc
        return
    mallopt(_TRIM_THRESHOLD, _FREED)
    mallopt(_MMAP_THRESHOLD, _MOST_FROM_HEAP)
