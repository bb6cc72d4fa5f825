"""Stand-in for Slicer's parameter nodes: checks the declaration as Slicer does, and refuses what it doesn't know."""

import typing
from dataclasses import dataclass
from pathlib import Path

import slicer


@dataclass(frozen=True)
class WithinRange:
    minimum: float
    maximum: float

    def check(self, value: float) -> None:
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"{value} isn't within {self.minimum} and {self.maximum}")


_ZEROS = {str: "", int: 0, float: 0.0, bool: False, Path: Path()}


def parameterNodeWrapper(declared: type) -> type:
    """The class itself, once its annotations and defaults are found to be such as Slicer takes."""
    for name, hint in typing.get_type_hints(declared, include_extras=True).items():
        kind, *checks = typing.get_args(hint) if typing.get_origin(hint) is typing.Annotated else (hint,)
        if kind in _ZEROS:
            default = getattr(declared, name, _ZEROS[kind])
            if type(default) is not kind and not (kind is Path and isinstance(default, Path)):
                raise TypeError(f"{declared.__name__}.{name}: {default!r} is no {kind.__name__}")
            for check in checks:
                check.check(default)
        elif not (isinstance(kind, type) and issubclass(kind, slicer.vtkMRMLNode)) or hasattr(declared, name):
            raise TypeError(f"{declared.__name__}.{name}: unknown kind of parameter {hint}")
    return declared
