"""PythonQt's ways over PySide6, as strict as can be: what the application's `qt` wouldn't take raises here.

Properties are attributes without parentheses (`button.text = "Go"`), setters stay methods, signals are named by their
signature (`button.connect("clicked(bool)", f)`), and f is given only as many arguments as it takes.
"""

import inspect
import types
from collections.abc import Callable, Iterable
from typing import Any

import shiboken6
from PySide6 import QtCore, QtGui, QtWidgets

slotErrors: list[BaseException] = []  # what slots raised: Qt can't pass it on to whoever caused the signal
_FIRST_ONLY = ("getOpenFileName", "getOpenFileNames", "getSaveFileName", "getText")  # PySide6 adds more
_PROPERTY_KINDS: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "int": (int,),
    "double": (int, float),
    "QString": (str,),
    "QStringList": (list, tuple),
}
_wrappers: dict[type, type] = {}


class _WrappedType(type):
    """Gives a wrapper class the enums and static functions of its PySide6 class."""

    _pyside: type

    def __getattr__(cls, name: str) -> Any:
        value = None if name.startswith("_") else getattr(cls._pyside, name, None)
        if isinstance(value, types.BuiltinFunctionType):
            return _function(value, firstOnly=name in _FIRST_ONLY)
        if value is None or inspect.isroutine(value):
            raise AttributeError(f"qt.{cls.__name__} has no '{name}' outside of its objects")
        return value


class Wrapped(metaclass=_WrappedType):
    """An object of a class that derives from QObject, as PythonQt shows it."""

    _pyside: type = QtCore.QObject
    _object: Any

    def __init__(self, *arguments: Any) -> None:
        object.__setattr__(self, "_object", self._pyside(*map(unwrap, arguments)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Wrapped) and self._object is other._object

    def __hash__(self) -> int:
        return hash(self._object)

    def __repr__(self) -> str:
        return f"{type(self).__name__} '{self._object.objectName()}'" if shiboken6.isValid(self._object) else "deleted"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        qtProperty = self._property(name)
        if qtProperty is not None:
            return wrap(qtProperty.read(self._object))
        if name.startswith("is") and self._property(name[2:3].lower() + name[3:]) is not None:
            raise AttributeError(f"{self!r}: '{name[2:3].lower() + name[3:]}' is a property, without parentheses")
        value = getattr(self._object, name)
        if isinstance(value, QtCore.SignalInstance):
            return _Signal(self, name)
        return _function(value) if callable(value) else value

    def __setattr__(self, name: str, value: Any) -> None:
        qtProperty = self._property(name)
        if qtProperty is None or not qtProperty.isWritable():
            raise AttributeError(f"{self!r} has no property '{name}' to set")
        kinds = _PROPERTY_KINDS.get(qtProperty.typeName())
        isNumber = kinds is not None and bool not in kinds
        if kinds and (not isinstance(value, kinds) or (isNumber and isinstance(value, bool))):
            raise TypeError(f"{self!r}: {name} is {qtProperty.typeName()}, not {value!r}")
        setter = getattr(self._object, f"set{qtProperty.name()[0].upper()}{qtProperty.name()[1:]}", None)
        if setter:
            setter(unwrap(value))
        elif not qtProperty.write(self._object, unwrap(value)):
            raise TypeError(f"{self!r}: {name} is {qtProperty.typeName()}, not {value!r}")

    def connect(self, signal: str, slot: Callable[..., object]) -> bool:
        """Connects the signal of that signature."""
        made = _slot(slot)
        signature = self._signature(signal)
        QtCore.QObject.connect(self._object, QtCore.SIGNAL(signature), made)
        self._connections().append((signature, slot, made))
        return True

    def disconnect(self, signal: str, slot: Callable[..., object]) -> bool:
        """Disconnects what was connected so."""
        signature = self._signature(signal)
        for connection in self._connections():
            if connection[:2] == (signature, slot):
                QtCore.QObject.disconnect(self._object, QtCore.SIGNAL(signature), connection[2])
                self._connections().remove(connection)
                return True
        raise ValueError(f"{self!r}: {signal} isn't connected with {slot}")

    def className(self) -> str:
        return self._object.metaObject().className()

    def delete(self) -> None:
        shiboken6.delete(self._object)

    def _property(self, name: str) -> QtCore.QMetaProperty | None:
        meta = self._object.metaObject()
        if name == "singleShot" and isinstance(self._object, QtCore.QTimer):
            return None  # the static function of the same name hides it
        index = meta.indexOfProperty("objectName" if name == "name" else name)
        return meta.property(index) if index >= 0 else None

    def _signature(self, signal: str) -> str:
        signature = signalSignature(type(self._object), signal)
        if signature is None:
            raise ValueError(f"{self!r} has no signal {signal}")
        return signature

    def _connections(self) -> list[tuple[str, Callable[..., object], Callable[..., object]]]:
        return self._object.__dict__.setdefault("_pythonqtConnections", [])


class _Signal:
    """`widget.clicked`, to be connected."""

    def __init__(self, sender: Wrapped, name: str) -> None:
        meta = sender._object.metaObject()
        methods = [meta.method(index) for index in range(meta.methodCount())]
        signals = [m for m in methods if m.methodType() == QtCore.QMetaMethod.MethodType.Signal]
        self._sender = sender
        self._signature = next(bytes(m.methodSignature().data()).decode() for m in signals if m.name() == name.encode())

    def connect(self, slot: Callable[..., object]) -> None:
        self._sender.connect(self._signature, slot)

    def disconnect(self, slot: Callable[..., object]) -> None:
        self._sender.disconnect(self._signature, slot)


def deleteWhatIsToBeDeletedLater() -> None:
    """Only an event loop that runs does that by itself."""
    QtCore.QCoreApplication.sendPostedEvents(None, QtCore.QEvent.Type.DeferredDelete)


def signalSignature(kind: type, signal: str) -> str | None:
    """The signal's signature as PySide6 knows it, None if the class has no such signal.

    Where it passes nodes, a class says so in ``nodeSignals``, for PySide6 knows no VTK.
    """
    signature = bytes(QtCore.QMetaObject.normalizedSignature(signal).data()).decode()
    if "vtk" in signature:
        if not any(signature in vars(base).get("nodeSignals", ()) for base in kind.__mro__):
            return None
        signature = f"{signature.partition('(')[0]}(PyObject)"
    return signature if kind.staticMetaObject.indexOfSignal(signature) >= 0 else None


def wrapperOf(kind: type) -> type:
    """The class that stands for a PySide6 class derived from QObject."""
    if kind not in _wrappers:
        bases = tuple(wrapperOf(base) for base in kind.__bases__ if issubclass(base, QtCore.QObject)) or (Wrapped,)
        _wrappers[kind] = _WrappedType(kind.__name__, bases, {"_pyside": kind})
    return _wrappers[kind]


def wrap(value: Any) -> Any:
    """What PythonQt makes of a value that comes from Qt."""
    if isinstance(value, QtCore.QObject):
        made = object.__new__(wrapperOf(type(value)))
        object.__setattr__(made, "_object", value)
        return made
    if isinstance(value, list | tuple):
        return tuple(wrap(one) for one in value)
    return value


def unwrap(value: Any) -> Any:
    """What PySide6 takes for a value of PythonQt."""
    if isinstance(value, Wrapped):
        return value._object
    if isinstance(value, type) and issubclass(value, Wrapped):
        return value._pyside
    if isinstance(value, list | tuple):
        return [unwrap(one) for one in value]
    if isinstance(value, types.FunctionType | types.MethodType):
        return _slot(value)
    return value


def module(name: str, extra: Iterable[type]) -> types.ModuleType:
    """A module with the classes ``extra`` and, if it is "qt", Qt's own."""
    own = {kind.__name__: kind for kind in extra}
    made = types.ModuleType(name)

    def find(attribute: str) -> Any:
        sources = (QtCore, QtGui, QtWidgets) if name == "qt" and attribute.startswith("Q") else ()
        found = own.get(attribute) or next(filter(None, (getattr(s, attribute, None) for s in sources)), None)
        if not isinstance(found, type):
            raise AttributeError(f"{name} has no '{attribute}'")
        return wrapperOf(found) if issubclass(found, QtCore.QObject) else found

    made.__getattr__ = find  # type: ignore[method-assign]
    return made


def _function(function: Callable[..., Any], firstOnly: bool = False) -> Callable[..., Any]:
    """The function with its arguments and result translated."""

    def call(*arguments: Any) -> Any:
        result = function(*map(unwrap, arguments))
        return wrap(result[0] if firstOnly else result)

    return call


def _slot(target: Callable[..., object]) -> Callable[..., object]:
    """The target, given as many arguments as its code takes; defaults count, so `lambda n=name: ...` is given one."""
    function = getattr(target, "__func__", target)
    code = getattr(function, "__code__", None)
    count = None
    if code and not code.co_flags & inspect.CO_VARARGS:
        count = code.co_argcount - (function is not target)

    def slot(*arguments: Any) -> None:
        try:
            target(*[wrap(argument) for argument in arguments[:count]])
        except BaseException as error:
            slotErrors.append(error)
            raise

    return slot
