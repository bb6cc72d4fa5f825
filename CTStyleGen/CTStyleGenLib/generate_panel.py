"""The Generate panel: a CT for a segmentation."""

from typing import Any

import slicer
from slicer.i18n import tr as _

from .panel import Panel


class GeneratePanel(Panel):
    """Segmentation, reference and model in; a synthetic CT beside the reference out."""

    def __init__(self, logic: Any) -> None:
        super().__init__("GeneratePanel.ui", logic)
        self.title = _("Generate")
        self.ui.applyButton.connect("clicked(bool)", self.onApplyButton)

    def setParameterNode(self, parameterNode: Any) -> None:
        """Binds the panel; selects the scene's first segmentation if none is."""
        if parameterNode and not parameterNode.segmentation:
            segmentation = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
            if segmentation:
                parameterNode.segmentation = segmentation
        super().setParameterNode(parameterNode)

    def update(self) -> None:
        """Apply works when there is something to apply; its tool tip says what is missing."""
        if not self.parameters.segmentation:
            missing = _("Choose a segmentation first.")
        elif not self.parameters.model.is_file():
            missing = _("Choose a model file (.ctstyle) first.")
        else:
            missing = ""
        self.ui.applyButton.enabled = not missing
        self.ui.applyButton.toolTip = missing or _("Make a synthetic CT volume for the segmentation.")

    def onApplyButton(self) -> None:
        """Synthesizes with what is chosen, and shows the result in the slice views."""
        chosen = self.parameters
        with slicer.util.tryWithErrorDisplay(_("No CT was made."), waitCursor=True):
            volumeNode = self.logic.synthesize(
                chosen.segmentation, chosen.referenceVolume, model=chosen.model, seed=chosen.seed
            )
            slicer.util.setSliceViewerLayers(background=volumeNode)
