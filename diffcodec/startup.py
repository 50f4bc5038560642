"""What makes a program's start shorter; nothing of it is for libraries."""

import gc
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

_LEFT_OUT, _TRIED = "torch._meta_registrations", "__version__ = '2.13."


def import_torch() -> None:
    """Import torch without what coding does not use.

    A quarter of its import tells compilers what operators do to tensors without data. It is left
    out of versions that were tried without it; the module can still be imported later. A good
    part of the rest, and of the program's end, is garbage collection that finds nothing: it is
    rare from now on, and lets alone what was imported.
    """
    if "torch" in sys.modules:
        return
    gc.set_threshold(100_000)
    found = find_spec("torch")
    if found is None or found.origin is None:
        return
    tried = _TRIED in Path(found.origin).with_name("version.py").read_text()
    if tried:
        sys.modules[_LEFT_OUT] = ModuleType(_LEFT_OUT)
    import_module("torch")
    if tried:
        del sys.modules[_LEFT_OUT]
    gc.freeze()
