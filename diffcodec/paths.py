"""What names a file."""

import os

StrPath = str | os.PathLike[str]
"""A path as text or as an object."""
