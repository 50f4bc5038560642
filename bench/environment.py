"""An environment of its own for CompressAI, which pins numpy below 2 and needs torchvision."""

import os
import subprocess
import venv
from pathlib import Path

import click

from bench import BenchError

_ROOT = Path(__file__).parent.parent

_PAIR = ("torch", "torchvision")  # their builds fit each other only from one index


_LARGE = (
    "On Linux, torch and torchvision are builds for CUDA: about 3 GB to download and 6 GB on disk. "
    "(With --index of builds for the CPU they are under 1 GB.) Go on?"
)


def make(folder: Path, index: str | None, yes: bool) -> None:
    """Create the environment and, where they can be had, download the zoo's weights.

    Args:
        folder: where it goes.
        index: a package index for torch and torchvision; None for the usual one.
        yes: ask nothing.

    Raises BenchError where a package cannot be installed, Abort where the answer is no.
    """
    if not yes:
        click.confirm(_LARGE if index is None else f"torch and torchvision of {index}?", abort=True)
    venv.EnvBuilder(with_pip=True).create(folder)
    python = folder.resolve() / ("Scripts" if os.name == "nt" else "bin") / "python"
    install = [str(python), "-m", "pip", "install"]
    _run([*install, *_PAIR, *(["--index-url", index] if index else [])])
    _run([*install, "numpy<2", "compressai", f"{_ROOT}[bench,test]"])
    _run([str(python), "-c", "import compressai.zoo"])
    click.echo(f"Ready: {python} -m bench rd ..., and -m bench.hyperprior trains a model.")
    if yes or click.confirm("Download the weights of the zoo, about 1.5 GB?"):
        try:
            _run([str(python), "-m", "bench.learned"])
        except BenchError as error:
            click.echo(f"Without the zoo's weights: {error}", err=True)


def _run(command: list[str]) -> None:
    if code := subprocess.run(command, cwd=_ROOT).returncode:
        raise BenchError(f"{' '.join(command[1:])}: exit code {code}")
