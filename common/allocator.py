"""The C library's allocator, told to keep freed memory for what comes next.

Every pass of training takes the same hundreds of megabytes, and every block of noise the same few.
By default the C library hands them back to the system each time, which then clears every page
anew: a sixth of the time of two threads that train, a third of two that draw.
"""

import ctypes

# Numbers and bounds are those of glibc's malloc.h; the threshold is the largest that it takes.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
KEPT_BYTES, LARGEST_MMAP_THRESHOLD = 1 << 30, 32 << 20


def keep_freed_memory() -> bool:
    """Lets this process keep up to a gigabyte of freed memory, and its threads share one heap.

    What is larger than 32 MB by itself still comes from the system and goes back to it.

    Returns:
      Whether the C library took all of it; one other than glibc takes nothing, and works as before.

    Reference: mallopt(3).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = {
        M_MMAP_THRESHOLD: LARGEST_MMAP_THRESHOLD,
        M_TRIM_THRESHOLD: KEPT_BYTES,
        M_ARENA_MAX: 1,
    }
    return all(mallopt(key, value) == 1 for key, value in settings.items())
