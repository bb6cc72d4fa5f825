"""Makes slicer-core, the real libraries of 3D Slicer without the application, enough of a `slicer` for the tests."""

import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import slicer

_HERE = Path(__file__).parent
_MODULE_FOLDER = _HERE.parents[2]  # the one with CTStyleGen.py


def prepare() -> bool:
    """Adds scene, application, module logics and what scripted modules import; False in the real Slicer, as it is."""
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
    slicer.app = SimpleNamespace(
        applicationLogic=lambda: logic,
        applicationVersion="slicer-core",
        testingEnabled=lambda: True,
        # Kept alive here: the scene reads and writes .mrb files through them.
        dataManagers=_dataManagers(scene, logic),
    )
    return True


def _modules(logic: Any, scene: Any) -> dict[str, Any]:
    """The modules whose logics the tested code, or slicer.util under it, asks for."""
    colors = logic.GetColorLogic()
    colors.SetMRMLScene(scene)
    colors.AddDefaultColorNodes()
    logics = {
        "Colors": colors,
        "Volumes": slicer.vtkSlicerVolumesLogic(),
        "SubjectHierarchy": slicer.vtkSlicerSubjectHierarchyModuleLogic(),
        "Segmentations": slicer.vtkSlicerSegmentationsModuleLogic(),
    }
    for name, moduleLogic in logics.items():
        if moduleLogic is not colors:
            moduleLogic.SetMRMLApplicationLogic(logic)
            moduleLogic.SetMRMLScene(scene)
        logic.SetModuleLogic(name, moduleLogic)
    return {name.lower(): _module(moduleLogic) for name, moduleLogic in logics.items()}


def _module(moduleLogic: Any) -> SimpleNamespace:
    return SimpleNamespace(logic=lambda: moduleLogic)


def _dataManagers(scene: Any, logic: Any) -> tuple[Any, ...]:
    """What reading a .mrb needs, with a folder of its own that goes when the tests end."""
    cache = tempfile.TemporaryDirectory(prefix="CTStyleGenTesting-")
    remote = slicer.vtkMRMLRemoteIOLogic()
    remote.GetCacheManager().SetRemoteCacheDirectory(cache.name)
    remote.SetMRMLScene(scene)
    dataIO = slicer.vtkDataIOManagerLogic()
    dataIO.SetMRMLApplicationLogic(logic)
    dataIO.SetAndObserveDataIOManager(remote.GetDataIOManager())
    remote.AddDataIOToScene()
    return remote, dataIO, cache
