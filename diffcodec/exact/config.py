"""Configurations of model files: frozen dataclasses, read from JSON and checked field by field.

A field is an `Annotated[int, allowed]`, where `allowed` is whatever has the values that it may
take; a tuple of one kind of fields, which JSON has as a list; or another dataclass. A file may lack
a field that has a default.
"""

from dataclasses import MISSING, asdict, fields, is_dataclass
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from diffcodec.errors import ModelError

T = TypeVar("T")

Size = Annotated[int, range(1, 1 << 12)]
"""Channels of a layer, rows of a table, or the like."""

Count = Annotated[int, range(1 << 12)]
"""Layers or the like, of which there may be none."""

Flag = Annotated[int, (0, 1)]
"""Whether something is so."""

Significand = Annotated[int, (8, 24)]
"""Bits of activations: those of bfloat16's significand, or of float32's."""


def to_json(config: Any) -> dict[str, Any]:
    """A configuration as it stands in a model file: its fields and the name of its process."""
    return {"process": config.PROCESS, **asdict(config)}


def from_json(kind: type[T], config: dict[str, Any]) -> T:
    """Read a configuration of this kind.

    Args:
        kind: a dataclass; its `PROCESS` names the forward process that it belongs to.
        config: what `to_json` gave.

    Raises ModelError if it is of another process, or a field is missing, unknown or out of range.
    """
    process = kind.PROCESS  # type: ignore[attr-defined]
    if config.get("process") != process:
        other = config.get("process")
        raise ModelError(f"The model file is of the process {other}, not {process}.")
    own = {name: value for name, value in config.items() if name != "process"}
    result: T = _read(kind, own, "configuration")
    return result


def _read(kind: Any, value: Any, name: str) -> Any:
    if is_dataclass(kind):
        names = {field.name for field in fields(kind)}
        needed = {field.name for field in fields(kind) if field.default is MISSING}
        if not isinstance(value, dict) or not needed <= value.keys() <= names:
            raise ModelError(f"The model file's {name} has not exactly the fields it should have.")
        hints = get_type_hints(kind, include_extras=True)
        return kind(**{n: _read(hints[n], value[n], n) for n in value})  # type: ignore[operator]
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise ModelError(f"The model file's {name} is no list.")
        return tuple(_read(get_args(kind)[0], item, name) for item in value)
    allowed = kind.__metadata__[0]
    if type(value) is not int or value not in allowed:
        raise ModelError(f"The model file has an unknown {name}: {value!r}.")
    return value
