"""Copy as Python: a call of the Logic, as the text that repeats it in Slicer's Python console."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

_LONGEST = 100  # characters of an argument on one line


def copyAsPython(method: Callable[..., Any], **arguments: Any) -> None:
    """Puts the call on the clipboard, and says so."""
    qt.QApplication.clipboard().setText(pythonCall(method, **arguments))
    slicer.util.showStatusMessage(_("Copied; paste it into the Python console."), 3000)


def pythonCall(method: Callable[..., Any], **arguments: Any) -> str:
    """Python that calls the Logic's method with these arguments, without those that are as by default.

    Nodes are found by their names if no others have them, else by their IDs in this scene.
    """
    lines = []
    for name, value in arguments.items():
        default = inspect.signature(method).parameters[name].default
        if default is inspect.Parameter.empty or value != default:
            lines.append(f"    {name}={_python(value)},")
    call = f"result = CTStyleGenLogic().{method.__name__}("
    return "\n".join(["from CTStyleGen import CTStyleGenLogic", "", call, *lines, ")"])


def _python(value: Any) -> str:
    if isinstance(value, slicer.vtkMRMLNode):
        return _finding(value)
    if isinstance(value, Path):
        return repr(str(value))
    if isinstance(value, Mapping):
        return _listed("{", (f"{_python(key)}: {_python(one)}" for key, one in value.items()), "}")
    if isinstance(value, list):
        return _listed("[", map(_python, value), "]")
    if isinstance(value, tuple) and value:
        return f"({', '.join(map(_python, value))},)"
    return repr(value)


def _listed(opening: str, parts: Iterable[str], closing: str) -> str:
    """On one line, or on as many as there are parts."""
    texts = list(parts)
    line = opening + ", ".join(texts) + closing
    if len(line) <= _LONGEST:
        return line
    return "\n".join([opening, *(f"        {text}," for text in texts), f"    {closing}"])


def _finding(node: "slicer.vtkMRMLNode") -> str:
    if slicer.mrmlScene.GetNodesByName(node.GetName()).GetNumberOfItems() == 1:
        return f"slicer.mrmlScene.GetFirstNodeByName({node.GetName()!r})"
    return f"slicer.mrmlScene.GetNodeByID({node.GetID()!r})"
