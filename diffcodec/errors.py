"""The exceptions that diffcodec raises; each carries one sentence for the user."""


class DiffcodecError(Exception):
    """Base of every error that diffcodec raises on purpose."""


class ImageError(DiffcodecError):
    """A picture could not be read, written, or is of a kind that diffcodec does not code."""


class FormatError(DiffcodecError):
    """The bytes are no .dfc file, or one of an unknown version or with an impossible header."""


class ModelError(DiffcodecError):
    """The file names a model that is not installed, or a model file is not usable."""


class DeviceError(DiffcodecError):
    """A device is not there, or does not compute what the format asks for."""


class CorruptError(DiffcodecError):
    """A complete file whose decoded pixels do not match their checksum."""
