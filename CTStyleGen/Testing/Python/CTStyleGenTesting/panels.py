"""The module as the user opens it, and time that passes."""

import inspect
import time
from collections.abc import Callable
from typing import Any, ClassVar
from unittest import mock

import qt
import slicer
from CTStyleGenLib.devices import Devices

import CTStyleGen

from . import IN_APPLICATION
from .model_files import ModelsFolderTestCase

if not IN_APPLICATION:
    from . import pythonqt


def openModule() -> Any:
    """Opens the module, and returns its Python widget."""
    if IN_APPLICATION:
        slicer.util.selectModule("CTStyleGen")
        return slicer.util.getModuleWidget("CTStyleGen")
    place = slicer.modules.ctstylegen.widgetRepresentation()
    if not place.isEntered:
        place.enter()
    return place.self()


def closeModule() -> None:
    """Opens another module instead."""
    if IN_APPLICATION:
        slicer.util.selectModule("Data")
    elif slicer.modules.ctstylegen.widgetRepresentation().isEntered:
        slicer.modules.ctstylegen.widgetRepresentation().exit()


def sliceView() -> Any:
    """The node of the axial view, which is there without a view, too."""
    node = slicer.mrmlScene.GetNodeByID("vtkMRMLSliceNodeRed")
    if node is None:
        for kind in ("vtkMRMLSliceNode", "vtkMRMLSliceCompositeNode"):
            node = slicer.mrmlScene.CreateNodeByClass(kind)
            node.SetSingletonTag("Red")
            node.SetLayoutName("Red")
            node.UnRegister(None)
            slicer.mrmlScene.AddNode(node)
        node = slicer.mrmlScene.GetNodeByID("vtkMRMLSliceNodeRed")
    node.SetOrientationToAxial()
    return node


def compositeNode() -> Any:
    """What the axial view shows."""
    sliceView()
    return slicer.mrmlScene.GetNodeByID("vtkMRMLSliceCompositeNodeRed")


def passTime(seconds: float = 0.0) -> None:
    """Lets the application do what it does by itself: timers, events."""
    end = time.monotonic() + seconds
    while True:
        slicer.app.processEvents()
        if not IN_APPLICATION:
            pythonqt.deleteWhatIsToBeDeletedLater()
        if time.monotonic() >= end:
            return
        time.sleep(0.005)


def passTimeUntil(holds: Callable[[], object], seconds: float = 60.0) -> None:
    """Lets the application do what it does until something holds; AssertionError when that takes too long."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "nothing happened"
        passTime(0.01)


def argumentsOfCopied(method: str) -> dict[str, Any]:
    """All arguments that the Logic's method gets, defaults included, when the text on the clipboard is run."""
    told: list[dict[str, Any]] = []
    parameters = inspect.signature(getattr(CTStyleGen.CTStyleGenLogic, method))

    def record(*arguments: Any, **options: Any) -> None:
        bound = parameters.bind(*arguments, **options)
        bound.apply_defaults()
        told.append({name: value for name, value in bound.arguments.items() if name != "self"})

    with mock.patch.object(CTStyleGen.CTStyleGenLogic, method, record):
        exec(qt.QApplication.clipboard().text(), {"slicer": slicer})
    return told[0]


class ModuleTestCase(ModelsFolderTestCase):
    """Tests in the open module, with an empty scene and a models folder of their own."""

    # What a child process has found; none: each test that needs it waits for the process.
    devices: ClassVar[list[dict[str, Any]]] = [{"name": "cpu", "title": "CPU, 2 threads"}]

    def setUp(self) -> None:
        super().setUp()
        slicer.mrmlScene.Clear(False)
        sliceView()
        known = mock.patch.object(Devices, "known", self.devices)
        known.start()
        self.addCleanup(known.stop)
        self.module = openModule()
        self.module.ui.panelTabs.setCurrentIndex(0)
        self.addCleanup(closeModule)
        self.addCleanup(self.assertNoSlotFailed)

    def assertNoSlotFailed(self) -> None:
        """What a slot raises doesn't reach the test by itself."""
        if not IN_APPLICATION:
            failed, pythonqt.slotErrors[:] = list(pythonqt.slotErrors), []
            self.assertEqual(failed, [])
