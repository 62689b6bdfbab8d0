"""The C library's allocator, set to keep freed memory for reuse.

Every pass of training takes the same hundreds of megabytes, and every block of noise the same few.
By default the C library returns them to the system each time, and the system clears every page
again: that took a sixth of the time of two threads that train, and a third of two that draw noise.
"""

import ctypes

# Numbers and bounds are those of glibc's malloc.h; the threshold is the largest that it accepts.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
KEPT_BYTES, LARGEST_MMAP_THRESHOLD = 1 << 30, 32 << 20


def keep_freed_memory() -> bool:
    """Lets this process keep up to a gigabyte of freed memory, and its threads share one heap.

    A single block above 32 MB still comes from the system and goes back to it. Returns whether the
    C library accepted every setting; one other than glibc accepts none, and works as before.

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
