"""bench: diffcodec measured side by side with the codecs a user would pick instead.

It knows only diffcodec's public API. `python -m bench --help` lists the measurements.
"""

import click


class BenchError(click.ClickException):
    """A measurement that cannot be made or must not be trusted; ends the run with exit code 1."""
