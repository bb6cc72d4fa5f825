"""Stand-in for Slicer's parameter nodes: typed values in a node of the scene, bound to widgets in both directions.

It takes flat classes of text, numbers, truth values, paths, enums and nodes, and refuses everything else, also what
Slicer takes without a word: a default out of range, True for a number, a misspelt parameter.
"""

import enum
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import slicer
import vtk

_PROPERTY = "SlicerParameterName"
_ZEROS = {str: "", int: 0, float: 0.0, bool: False, Path: Path()}


@dataclass(frozen=True)
class Minimum:
    minimum: float

    def check(self, value: float) -> None:
        if value < self.minimum:
            raise ValueError(f"{value} is less than {self.minimum}")


@dataclass(frozen=True)
class Maximum:
    maximum: float

    def check(self, value: float) -> None:
        if value > self.maximum:
            raise ValueError(f"{value} is more than {self.maximum}")


@dataclass(frozen=True)
class WithinRange:
    minimum: float
    maximum: float

    def check(self, value: float) -> None:
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"{value} isn't within {self.minimum} and {self.maximum}")


@dataclass(frozen=True)
class Choice:
    choices: Any

    def check(self, value: Any) -> None:
        if value not in self.choices:
            raise ValueError(f"{value!r} is none of {self.choices}")


@dataclass(frozen=True)
class Default:
    value: Any


class _Parameter:
    """One parameter: its name, kind, checks and default; a descriptor of the class that declares it."""

    def __init__(self, name: str, hint: Any, declared: type) -> None:
        self.name = name
        self.kind, *notes = typing.get_args(hint) if typing.get_origin(hint) is typing.Annotated else (hint,)
        if typing.get_origin(self.kind) is typing.Union:  # Optional[node]
            kinds = [kind for kind in typing.get_args(self.kind) if kind is not type(None)]
            self.kind = kinds[0] if len(kinds) == 1 else None
        self.isNode = isinstance(self.kind, type) and issubclass(self.kind, slicer.vtkMRMLNode)
        isEnum = isinstance(self.kind, type) and issubclass(self.kind, enum.Enum)
        if not (self.kind in _ZEROS or isEnum or self.isNode):
            raise TypeError(f"{declared.__name__}.{name}: unknown kind of parameter {hint}")
        self.checks = [note for note in notes if hasattr(note, "check")]
        defaults = [note.value for note in notes if isinstance(note, Default)] + [
            vars(declared)[n] for n in (name,) if n in vars(declared)
        ]
        if len(defaults) > 1 or len(self.checks) + len(defaults) < len(notes):
            raise TypeError(f"{declared.__name__}.{name}: can't take {notes} together")
        zero = None if self.isNode else next(iter(self.kind)) if isEnum else _ZEROS[self.kind]
        self.default = defaults[0] if defaults else zero
        self.check(self.default)

    def check(self, value: Any) -> None:
        """Raises TypeError or ValueError for a value that the parameter can't have."""
        if self.isNode:
            if value is not None and not isinstance(value, self.kind):
                raise TypeError(f"{self.name} takes a {self.kind.__name__}, not {value!r}")
            return
        isKind = isinstance(value, Path) if self.kind is Path else type(value) is self.kind
        if not isKind and not (self.kind is float and type(value) is int):
            raise TypeError(f"{self.name} takes {self.kind.__name__}, not {value!r}")
        for check in self.checks:
            check.check(value)

    def __get__(self, wrapper: Any, owner: type) -> Any:
        if wrapper is None:
            return self
        node = wrapper.parameterNode
        if self.isNode:
            return node.GetNodeReference(self.name)
        text = node.GetParameter(self.name)
        if issubclass(self.kind, enum.Enum):
            return self.kind[text]
        return text == "True" if self.kind is bool else self.kind(text)

    def __set__(self, wrapper: Any, value: Any) -> None:
        self.check(value)
        if self.isNode:
            wrapper.parameterNode.SetNodeReferenceID(self.name, value.GetID() if value else None)
        else:
            wrapper.parameterNode.SetParameter(self.name, value.name if isinstance(value, enum.Enum) else str(value))


def parameterNodeWrapper(declared: type) -> type:
    """The class with its annotations turned into parameters."""
    hints = typing.get_type_hints(declared, include_extras=True)
    parameters = {name: _Parameter(name, hint, declared) for name, hint in hints.items()}
    return type(
        declared.__name__, (_Wrapper,), {**parameters, "allParameters": parameters, "__doc__": declared.__doc__}
    )


class _Wrapper:
    """What the wrapper adds to the class."""

    allParameters: dict[str, _Parameter]

    def __init__(self, parameterNode: Any) -> None:
        self.__dict__.update(parameterNode=parameterNode, _bound={}, _observers={}, _isUpdating=False)
        for name, parameter in self.allParameters.items():
            if not parameter.isNode and not parameterNode.GetParameter(name):
                setattr(self, name, parameter.default)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.allParameters:
            raise AttributeError(f"there is no parameter '{name}'")
        super().__setattr__(name, value)

    def getValue(self, name: str) -> Any:
        return getattr(self, self._known(name))

    def setValue(self, name: str, value: Any) -> None:
        setattr(self, name, value)

    def _known(self, name: str) -> str:
        if name not in self.allParameters:
            raise ValueError(f"there is no parameter '{name}'")
        return name

    def AddObserver(self, event: Any, callback: Callable[..., None], priority: float = 0.0) -> int:
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag: int) -> None:
        self.parameterNode.RemoveObserver(tag)

    def StartModify(self) -> int:
        return self.parameterNode.StartModify()

    def EndModify(self, wasModifying: int) -> int:
        return self.parameterNode.EndModify(wasModifying)

    def Modified(self) -> None:
        self.parameterNode.Modified()

    def connectGui(self, ui: Any) -> int:
        """Binds the widgets that have the property SlicerParameterName; returns what disconnectGui takes."""
        bound = {w.property(_PROPERTY): w for w in vars(ui).values() if w.property(_PROPERTY)}
        return self.connectParametersToGui(bound)

    def connectParametersToGui(self, mapping: dict[str, Any]) -> int:
        connectors = {name: _Connector(self.allParameters[self._known(name)], w) for name, w in mapping.items()}
        tag = len(self._bound)
        self._bound[tag] = connectors
        for name, connector in connectors.items():
            connector.write(getattr(self, name))
            connector.start(self._writer(name, connector))
        self._observers[tag] = self.AddObserver(vtk.vtkCommand.ModifiedEvent, self._toGui)
        return tag

    def disconnectGui(self, tag: int) -> None:
        for connector in self._bound[tag].values():
            connector.stop()
        self._bound[tag] = {}
        self.RemoveObserver(self._observers.pop(tag))

    def _writer(self, name: str, connector: "_Connector") -> Callable[[], None]:
        def write() -> None:
            if not self._isUpdating:
                with slicer.util.NodeModify(self):
                    setattr(self, name, connector.read())

        return write

    def _toGui(self, caller: Any, event: str) -> None:
        if self._isUpdating:
            return
        self.__dict__["_isUpdating"] = True
        try:
            for connectors in self._bound.values():
                for name, connector in connectors.items():
                    connector.write(getattr(self, name))
        finally:
            self.__dict__["_isUpdating"] = False


# Widget class: kinds of parameter, signal, property read and written (None: handled in _Connector).
_CONNECTORS: dict[str, tuple[tuple[type, ...], str, str | None]] = {
    "QCheckBox": ((bool,), "toggled(bool)", "checked"),
    "QPushButton": ((bool,), "toggled(bool)", "checked"),
    "QSpinBox": ((int,), "valueChanged(int)", "value"),
    "QSlider": ((int,), "valueChanged(int)", "value"),
    "QDoubleSpinBox": ((float,), "valueChanged(double)", "value"),
    "ctkSliderWidget": ((float,), "valueChanged(double)", "value"),
    "QLineEdit": ((str,), "textChanged(QString)", "text"),
    "QComboBox": ((int, float, str, bool, enum.Enum), "currentIndexChanged(int)", None),
    "ctkComboBox": ((int, float, str, bool, enum.Enum), "currentIndexChanged(int)", None),
    "ctkPathLineEdit": ((Path,), "currentPathChanged(QString)", "currentPath"),
    "ctkDirectoryButton": ((Path,), "directoryChanged(QString)", "directory"),
    "qMRMLNodeComboBox": ((slicer.vtkMRMLNode,), "currentNodeChanged(vtkMRMLNode*)", None),
}


class _Connector:
    """Between one parameter and its widget."""

    def __init__(self, parameter: _Parameter, widget: Any) -> None:
        self.parameter, self.widget = parameter, widget
        kinds, self.signal, self.property = _CONNECTORS.get(widget.className(), ((), "", None))
        if not issubclass(parameter.kind, kinds):
            raise RuntimeError(f"{parameter.name}, {parameter.kind.__name__}, has no connector with {widget!r}")
        if widget.className() == "QPushButton" and not widget.checkable:
            raise RuntimeError(f"{widget!r} must be checkable")
        self.choices = self._choices()
        if parameter.kind in (int, float) and not self.choices:
            self._setRange()
        if parameter.isNode:
            widget.nodeTypes = [parameter.kind.__name__]

    def _choices(self) -> list[Any]:
        """The values of a combo box, which gets their texts."""
        if not self.widget.className().endswith("ComboBox") or self.parameter.isNode:
            return []
        if issubclass(self.parameter.kind, enum.Enum):
            choices = list(self.parameter.kind)
            texts = [one.label() if hasattr(one, "label") else one.name for one in choices]
        else:
            choices = [one for check in self.parameter.checks for one in check.choices]
            texts = [str(one) for one in choices]
        if not choices:
            raise RuntimeError(f"{self.parameter.name} needs Choice for {self.widget!r}")
        self.widget.clear()
        for text in texts:
            self.widget.addItem(text)
        return choices

    def _setRange(self) -> None:
        """The widget's range is the parameter's; a range in the .ui file doesn't count, and sliders need one."""
        low = [check.minimum for check in self.parameter.checks if hasattr(check, "minimum")]
        high = [check.maximum for check in self.parameter.checks if hasattr(check, "maximum")]
        if not (low and high) and self.widget.className() in ("QSlider", "ctkSliderWidget"):
            raise RuntimeError(f"{self.parameter.name} needs WithinRange for {self.widget!r}")
        limit = 2**31 - 1
        self.widget.minimum = low[0] if low else -limit - 1
        self.widget.maximum = high[0] if high else limit

    def start(self, changed: Callable[[], None]) -> None:
        self.changed = changed
        self.widget.connect(self.signal, changed)

    def stop(self) -> None:
        self.widget.disconnect(self.signal, self.changed)

    def read(self) -> Any:
        if self.parameter.isNode:
            return self.widget.currentNode()
        if self.choices:
            return self.choices[self.widget.currentIndex]
        return self.parameter.kind(getattr(self.widget, self.property))

    def write(self, value: Any) -> None:
        if self.parameter.isNode:
            self.widget.setCurrentNode(value)
        elif self.choices:
            self.widget.currentIndex = self.choices.index(value)
        elif self.widget.className() != "QLineEdit" or value != self.widget.text:
            setattr(self.widget, self.property, str(value) if self.parameter.kind is Path else value)
