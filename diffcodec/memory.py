"""How this process asks the system for memory."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_KEPT, _LARGEST = 256 << 20, 32 << 20


def keep_freed_memory() -> None:
    """Let the C library keep freed blocks, where it is glibc; for programs, not for libraries.

    Each step of the network makes and frees tensors of some MiB. Unless told otherwise glibc gives
    those back to the system at once, which then clears the same pages again and again.
    """
    if sys.platform != "linux":
        return
    tune = getattr(ctypes.CDLL(None), "mallopt", None)
    if tune is not None:
        tune(_M_MMAP_THRESHOLD, _LARGEST)
        tune(_M_TRIM_THRESHOLD, _KEPT)
