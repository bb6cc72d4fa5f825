"""Makes slicer-core, the real libraries of 3D Slicer without the application, enough of a `slicer` for the tests."""

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import slicer

_HERE = Path(__file__).parent
_MODULE_FOLDER = _HERE.parents[2]  # the one with CTStyleGen.py


def prepare() -> bool:
    """Adds scene, application, widgets, module logics and what scripted modules import; False in the real Slicer."""
    if hasattr(slicer, "app"):
        return False
    if str(_MODULE_FOLDER) not in sys.path:
        sys.path.insert(0, str(_MODULE_FOLDER))
    slicer.__path__.append(str(_HERE / "standins"))
    scene = slicer.vtkMRMLScene()
    logic = slicer.vtkSlicerApplicationLogic()
    logic.SetMRMLScene(scene)
    slicer.mrmlScene = scene
    slicer.modules = SimpleNamespace(**_modules(logic, scene))
    slicer.app = _application(logic)
    # Kept alive here: the scene reads and writes .mrb files through them.
    slicer.app.setProperty("dataManagers", _dataManagers(scene, logic))
    return True


def _application(logic: Any) -> Any:
    """The modules qt and ctk, Slicer's widgets, and the application's object, on no screen."""
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    from PySide6 import QtCore

    from . import pythonqt, slicerwidgets, uifiles

    classes = slicerwidgets.classes()
    uiLoader = type("QUiLoader", (uifiles.UiLoader,), {})
    sys.modules["qt"] = pythonqt.module("qt", [uiLoader])
    sys.modules["ctk"] = pythonqt.module("ctk", [kind for name, kind in classes.items() if name.startswith("ctk")])
    for name, kind in classes.items():
        if name.startswith("q"):
            setattr(slicer, name, pythonqt.wrapperOf(kind))
    settings = _folder()
    QtCore.QSettings.setDefaultFormat(QtCore.QSettings.Format.IniFormat)
    QtCore.QSettings.setPath(QtCore.QSettings.Format.IniFormat, QtCore.QSettings.Scope.UserScope, settings)
    application = slicerwidgets.qSlicerApplication(logic)
    application.setOrganizationName("CTStyleGenTesting")
    application.setApplicationName("Slicer")
    application.setApplicationVersion("slicer-core")
    return pythonqt.wrap(application)


def _modules(logic: Any, scene: Any) -> dict[str, Any]:
    """The modules whose logics the tested code, or slicer.util under it, asks for; and the tested module's path."""
    colors = logic.GetColorLogic()
    colors.SetMRMLScene(scene)
    colors.AddDefaultColorNodes()
    logics = {
        "Colors": colors,
        "Volumes": slicer.vtkSlicerVolumesLogic(),
        "SubjectHierarchy": slicer.vtkSlicerSubjectHierarchyModuleLogic(),
        "Plots": slicer.vtkSlicerPlotsLogic(),
        "Sequences": slicer.vtkSlicerSequencesLogic(),
        "Segmentations": slicer.vtkSlicerSegmentationsModuleLogic(),
    }
    for name, moduleLogic in logics.items():
        if moduleLogic is not colors:
            moduleLogic.SetMRMLApplicationLogic(logic)
            moduleLogic.SetMRMLScene(scene)
        logic.SetModuleLogic(name, moduleLogic)
    return {name.lower(): _module(moduleLogic) for name, moduleLogic in logics.items()} | {
        "ctstylegen": _TestedModule()
    }


def _module(moduleLogic: Any) -> SimpleNamespace:
    return SimpleNamespace(logic=lambda: moduleLogic)


class _TestedModule:
    """The module CTStyleGen, as the application's module manager has it."""

    name = "CTStyleGen"
    path = str(_MODULE_FOLDER / "CTStyleGen.py")

    def __init__(self) -> None:
        self._widget: Any = None

    def widgetRepresentation(self) -> Any:
        """The place of the module's widget, which is made at the first call."""
        if self._widget is None:
            self._widget = slicer.qSlicerScriptedLoadableModuleWidget()
            self._widget.setMRMLScene(slicer.mrmlScene)
            self._widget.reload()
        return self._widget


def _dataManagers(scene: Any, logic: Any) -> tuple[Any, ...]:
    """What reading a .mrb needs."""
    remote = slicer.vtkMRMLRemoteIOLogic()
    remote.GetCacheManager().SetRemoteCacheDirectory(_folder())
    remote.SetMRMLScene(scene)
    dataIO = slicer.vtkDataIOManagerLogic()
    dataIO.SetMRMLApplicationLogic(logic)
    dataIO.SetAndObserveDataIOManager(remote.GetDataIOManager())
    remote.AddDataIOToScene()
    return remote, dataIO


def _folder() -> str:
    """A temporary folder that goes when the tests end."""
    folder = tempfile.mkdtemp(prefix="CTStyleGenTesting-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
