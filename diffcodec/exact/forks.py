"""Whether this process was forked. Nothing here imports torch: it must be loaded before a fork."""

import os

_LOADED_IN = os.getpid()


def is_fork() -> bool:
    """Whether the process that imported diffcodec was another one, of which this is a fork.

    The threads of OpenMP do not survive a fork, but its library would wait for them for ever.
    """
    return os.getpid() != _LOADED_IN
