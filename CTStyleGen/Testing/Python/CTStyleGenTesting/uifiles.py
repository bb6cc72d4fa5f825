"""Loads .ui files as the application does, but refuses what it would pass over: unknown classes, properties, slots."""

import re
import xml.etree.ElementTree as ElementTree
from typing import Any

from PySide6 import QtCore, QtUiTools, QtWidgets

from . import pythonqt, slicerwidgets

_DYNAMIC = ("SlicerParameterName",)
_OF_FORMS = {"QLabel": ("buddy",)}  # what a form can say and the class has no property for
_LAYOUT_MARGINS = ("leftMargin", "topMargin", "rightMargin", "bottomMargin")
_SPACINGS = ("horizontalSpacing", "verticalSpacing", "spacing")


class UiLoader(QtCore.QObject):
    """Qt's QUiLoader, for this module's classes."""

    def load(self, file: QtCore.QFile) -> QtWidgets.QWidget:
        """The form in the file. Raises ValueError for one that the application wouldn't load as it is written."""
        root = ElementTree.fromstring(bytes(file.readAll().data()))
        complaints = problems(root)
        if complaints:
            raise ValueError(f"{file.fileName()}: {'; '.join(complaints)}")
        own = list(_takeOwnProperties(root))
        connections = root.find("connections")
        if connections is not None:
            root.remove(connections)
        buffer = QtCore.QBuffer()
        buffer.setData(ElementTree.tostring(root))
        form = _Factory().load(buffer)
        for widgetName, name, value in own:
            if not _named(form, widgetName).setProperty(name, value):
                raise ValueError(f"{file.fileName()}: {widgetName}.{name} can't be {value!r}")
        for connection in connections if connections is not None else ():
            sender, signal, receiver, slot = (connection.findtext(k, "") for k in _ENDS)
            source = pythonqt.wrap(_named(form, sender))
            source.connect(signal, getattr(_named(form, receiver), slot.partition("(")[0]))
        return form


_ENDS = ("sender", "signal", "receiver", "slot")


class _Factory(QtUiTools.QUiLoader):
    def createWidget(self, className: str, parent: Any = None, name: str = "") -> QtWidgets.QWidget:
        widget = _widgetClass(className)(parent)
        widget.setObjectName(name)
        return widget


def problems(root: ElementTree.Element) -> list[str]:
    """What is wrong with a form, in sentences."""
    return [*_classProblems(root), *_propertyProblems(root), *_connectionProblems(root)]


def _classProblems(root: ElementTree.Element) -> list[str]:
    widgets = list(root.iter("widget"))
    names = [widget.get("name", "") for widget in widgets]
    declared = {entry.findtext("class") for entry in root.iter("customwidget")}
    custom = {widget.get("class", "") for widget in widgets if not widget.get("class", "").startswith("Q")}
    found = [f"the name {name} is given twice" for name in sorted({n for n in names if names.count(n) > 1})]
    found += [f"there is no class {w.get('class')}" for w in widgets if _widgetClass(w.get("class", "")) is None]
    found += [f"{name} is missing among the custom widgets" for name in sorted(custom - declared)]
    return found + [f"the custom widget {name} isn't used" for name in sorted(declared - custom)]


def _propertyProblems(root: ElementTree.Element) -> list[str]:
    found = []
    for element in [*root.iter("widget"), *root.iter("layout")]:
        kind = _widgetClass(element.get("class", ""))
        if kind is None:
            continue
        own = _DYNAMIC + _OF_FORMS.get(element.get("class", ""), ())
        known = set(_LAYOUT_MARGINS + _SPACINGS) if element.tag == "layout" else set(own)
        for entry in element.findall("property"):
            name = entry.get("name", "")
            if name not in known and kind.staticMetaObject.indexOfProperty(name) < 0:
                found.append(f"{element.get('name')}, a {element.get('class')}, has no property {name}")
            if (name in _DYNAMIC) != (entry.get("stdset") == "0"):
                found.append(f"{element.get('name')}.{name}: stdset is for dynamic properties")
    return found


def _connectionProblems(root: ElementTree.Element) -> list[str]:
    kinds = {widget.get("name"): _widgetClass(widget.get("class", "")) for widget in root.iter("widget")}
    found = []
    for connection in root.iter("connection"):
        sender, signal, receiver, slot = (connection.findtext(k, "") for k in _ENDS)
        source, target = kinds.get(sender), kinds.get(receiver)
        if source is None or pythonqt.signalSignature(source, signal) is None:
            found.append(f"{sender} has no signal {signal}")
        if target is None or not _hasSlot(target, slot):
            found.append(f"{receiver} has no slot {slot}")
    return found


def _hasSlot(kind: type, slot: str) -> bool:
    if any(slot in vars(base).get("nodeSlots", ()) for base in kind.__mro__):
        return True
    return kind.staticMetaObject.indexOfSlot(slot) >= 0 or (
        kind.__module__ == slicerwidgets.__name__ and "vtk" not in slot and hasattr(kind, slot.partition("(")[0])
    )


def _widgetClass(name: str) -> Any:
    return slicerwidgets.classes().get(name) or getattr(QtWidgets, name, None)


def _takeOwnProperties(root: ElementTree.Element) -> Any:
    """Takes the properties out that a class of slicerwidgets adds to its base, which QUiLoader can't set.

    Yields the widget's name, the property's, and its value.
    """
    for element in root.iter("widget"):
        kind = slicerwidgets.classes().get(element.get("class", ""))
        if kind is None:
            continue
        meta = kind.staticMetaObject
        base = next(b for b in kind.__mro__ if b.__module__ != slicerwidgets.__name__)
        for entry in element.findall("property"):
            name = entry.get("name", "")
            if meta.indexOfProperty(name) >= base.staticMetaObject.propertyCount():
                element.remove(entry)
                yield element.get("name"), name, _value(entry[0])


def _value(value: ElementTree.Element) -> Any:
    """A property's value."""
    if value.tag == "stringlist":
        return [entry.text or "" for entry in value]
    text = value.text or ""
    if value.tag == "bool":
        return text == "true"
    if value.tag == "number":
        return int(text)
    if value.tag == "double":
        return float(text)
    if value.tag == "string":
        return text
    if value.tag == "set":
        parts = [re.fullmatch(r"(\w+)::(\w+)", part) for part in text.split("|")]
        return sum(getattr(_widgetClass(part[1]), part[2]) for part in parts if part)
    raise ValueError(f"a value of kind {value.tag}")


def _named(form: QtWidgets.QWidget, name: str) -> QtWidgets.QWidget:
    return form if form.objectName() == name else form.findChild(QtWidgets.QWidget, name)
