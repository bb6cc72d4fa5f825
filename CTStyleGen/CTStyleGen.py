"""The module CTStyleGen of 3D Slicer: a CT for a segmentation. What it does is in CTStyleGenLib and CTStyleGenCore."""

import sys
import unittest
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import slicer
from CTStyleGenLib import synthesis
from CTStyleGenLib.generate_panel import GeneratePanel
from CTStyleGenLib.panel import Panel
from CTStyleGenLib.parameters import CTStyleGenParameterNode
from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin


class CTStyleGen(ScriptedLoadableModule):
    """What the application shows of the module before it is opened."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("CT Style Generation")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Image Synthesis")]
        parent.dependencies = ["Segmentations", "SubjectHierarchy", "Volumes"]
        parent.contributors = ["CTStyleGen contributors"]
        parent.helpText = _(
            "Makes a CT volume for a segmentation, in the look of the CT that a model was trained with. "
            "For research use only, not for diagnosis or treatment."
        )
        parent.acknowledgementText = _(
            'The method is that of A. Krishna and K. Mueller, "Medical (CT) Image Generation with Style". '
            "For research use only."
        )


class CTStyleGenWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The module's window: a tab for each panel."""

    logic: Any = None
    panels: Sequence[Panel] = ()

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)

    def setup(self) -> None:
        """Called when the module is opened for the first time."""
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/CTStyleGen.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = CTStyleGenLogic()
        self.panels = [GeneratePanel(self.logic)]
        for panel in self.panels:
            self.ui.panelTabs.addTab(panel.widget, panel.title)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)

    def cleanup(self) -> None:
        """Called when the application closes or the module is reloaded."""
        self.setParameterNode(None)
        self.removeObservers()
        for panel in self.panels:
            panel.cleanup()

    def enter(self) -> None:
        """Called each time the module is opened."""
        self.setParameterNode(self.logic.getParameterNode())
        for panel in self.panels:
            panel.enter()

    def exit(self) -> None:
        """Called each time another module is opened."""
        for panel in self.panels:
            panel.exit()
        self.setParameterNode(None)

    def onReload(self) -> None:
        """Reloads the libraries, too, which stay as they were otherwise."""
        for name in [name for name in sys.modules if name.partition(".")[0] in ("CTStyleGenLib", "CTStyleGenCore")]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def onSceneStartClose(self, caller: Any, event: Any) -> None:
        """No panel may hold on to nodes that are about to go."""
        self.setParameterNode(None)

    def onSceneEndClose(self, caller: Any, event: Any) -> None:
        """The empty scene gets parameters of its own."""
        if self.parent.isEntered:
            self.setParameterNode(self.logic.getParameterNode())

    def setParameterNode(self, parameterNode: CTStyleGenParameterNode | None) -> None:
        """Binds all panels to the parameters of a scene, or to none."""
        for panel in self.panels:
            panel.setParameterNode(parameterNode)


class CTStyleGenLogic(ScriptedLoadableModuleLogic):
    """The module for Python scripts; shows no dialogs.

    >>> logic = CTStyleGenLogic()
    >>> logic.check(segmentationNode, model="chest.ctstyle").problems
    ("The segment 'Tumor' is left out: ...",)
    >>> volumeNode = logic.synthesize(segmentationNode, model="chest.ctstyle", seed=3)
    """

    def getParameterNode(self) -> CTStyleGenParameterNode:
        """The panel's parameters, as saved in the scene."""
        node = ScriptedLoadableModuleLogic.getParameterNode(self)
        return CTStyleGenParameterNode(node)  # type: ignore[call-arg] # the wrapper gives it its constructor

    def check(
        self,
        segmentationNode: vtkMRMLSegmentationNode | None,
        referenceVolumeNode: vtkMRMLScalarVolumeNode | None = None,
        *,
        model: str | Path,
        styles: Sequence[str] | None = None,
    ) -> synthesis.CheckResult:
        """What would become of each segment (segments), what is wrong (problems), and whether it can start (ready)."""
        return synthesis.check(segmentationNode, referenceVolumeNode, model, styles)

    def synthesize(
        self,
        segmentationNode: vtkMRMLSegmentationNode,
        referenceVolumeNode: vtkMRMLScalarVolumeNode | None = None,
        *,
        model: str | Path,
        styles: Sequence[str] | None = None,
        seed: int = 0,
        device: str = "auto",
    ) -> vtkMRMLScalarVolumeNode:
        """A CT for the segmentation, as a new volume node with exactly the reference's grid and parent transform.

        Without a reference it is the volume that the segmentation was drawn on. ``styles``: the model's, unless given,
        and no others in a model with one look. ``seed``: another one, another CT. ``device``: auto, cpu or cuda.
        Waits until the CT is there. Raises CTStyleGenCore.errors.InputError, with one sentence, for bad input, and
        CTStyleGenLib.jobs.JobError when the process that computes fails; then nothing is added to the scene.
        """
        return synthesis.synthesize(segmentationNode, referenceVolumeNode, model, styles, seed, device)


class CTStyleGenTest(ScriptedLoadableModuleTest):
    """The module's self-test: all tests of Testing/Python, in the running application."""

    def runTest(self) -> None:
        folder = Path(__file__).parent / "Testing" / "Python"
        self.assertTrue(folder.is_dir(), f"The tests come with the source code; there is no {folder}.")
        result = unittest.TextTestRunner(verbosity=2).run(unittest.defaultTestLoader.discover(str(folder)))
        self.assertTrue(result.testsRun and result.wasSuccessful(), f"{len(result.failures + result.errors)} failed")
