"""The command line: arguments, progress bars and messages around the public API.

Commands import what they need when they run, so that `diffcodec --help` does not wait for torch.
"""

import atexit
import gc
import os

import click

from diffcodec import __version__
from diffcodec.cli.coding import decode, encode, sample
from diffcodec.cli.common import Commands
from diffcodec.cli.inspect import info, preview
from diffcodec.cli.likelihood import likelihood
from diffcodec.cli.training import export, fit, learn, pack, train


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="diffcodec", message="%(prog)s %(version)s")
def main() -> None:
    """Progressive, bit-for-bit lossless image coding with a diffusion model.

    Every prefix of a .dfc file is a picture; the whole file is the original.

    \b
    diffcodec encode photo.png               makes photo.dfc
    diffcodec decode photo.dfc -o copy.png   the same pixels
    diffcodec COMMAND --help                 says more of one command
    """
    # Threads of OpenMP that wait for work take the processor from whoever has some, unless told so
    # before torch is loaded. To wake them takes longer than a small layer does: GCC's may wait for
    # some microseconds.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "passive"
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # oneDNN keeps what it has made for each shape of a layer, of which large pictures have many.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    # A third of the time that torch takes to load and to leave is garbage collection that finds
    # nothing.
    gc.set_threshold(100_000)
    atexit.register(gc.freeze)


for command in (
    encode,
    decode,
    sample,
    info,
    preview,
    likelihood,
    pack,
    train,
    export,
    fit,
    learn,
):
    main.add_command(command)
