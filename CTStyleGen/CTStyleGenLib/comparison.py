"""The section Compare of the Generate panel: a synthetic CT over its reference in the slice views."""

from collections.abc import Callable, Iterator
from typing import Any

import slicer
from slicer.i18n import tr as _

from .outputs import SYNTHETIC, windowLevelOf

_WINDOWS = {"abdomen": (350, 40), "lung": (1400, -500), "bone": (1000, 400)}  # width, level in HU: Slicer's presets


class Comparison:
    """How much of the synthetic CT is seen, and the window in which both are, so that they can be compared at all."""

    def __init__(self, ui: Any) -> None:
        """``ui``: the widgets of the Generate panel."""
        for name, button in (("abdomen", ui.abdomenButton), ("lung", ui.lungButton), ("bone", ui.boneButton)):
            width, level = _WINDOWS[name]
            button.toolTip = _("Shows both CTs in a window of {width} HU around {level} HU.").format(
                width=width, level=level
            )
            button.connect("clicked()", self._windowSetter(width, level))
        ui.asReferenceButton.connect("clicked()", self._onAsReference)

    def show(self, reference: "slicer.vtkMRMLScalarVolumeNode | None", result: Any, percent: float) -> None:
        """Shows the result over the reference, in the views as they are."""
        background = reference if reference is not None and reference.GetScene() else "keep-current"
        slicer.util.setSliceViewerLayers(background=background, foreground=result)
        self.fade(percent)

    def fade(self, percent: float) -> None:
        """Shows so much of the synthetic CTs."""
        for view, _reference, _synthetic in self._views():
            view.SetForegroundOpacity(percent / 100)

    def _views(self) -> Iterator[tuple[Any, Any, Any]]:
        """The slice views with a synthetic CT in the foreground, and what is behind it there, if anything."""
        for view in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
            front = slicer.mrmlScene.GetNodeByID(view.GetForegroundVolumeID() or "")
            if front is not None and front.GetAttribute(SYNTHETIC):
                yield view, slicer.mrmlScene.GetNodeByID(view.GetBackgroundVolumeID() or ""), front

    def _windowSetter(self, width: float, level: float) -> Callable[[], None]:
        def set() -> None:
            for _view, reference, synthetic in self._views():
                for volume in filter(None, (reference, synthetic)):
                    _setWindow(volume, width, level)

        return set

    def _onAsReference(self) -> None:
        for _view, reference, synthetic in self._views():
            if reference is not None:
                _setWindow(synthetic, *windowLevelOf(reference))


def _setWindow(volumeNode: "slicer.vtkMRMLScalarVolumeNode", width: float, level: float) -> None:
    display = volumeNode.GetDisplayNode()
    if display is not None:
        display.AutoWindowLevelOff()
        display.SetWindowLevel(width, level)
