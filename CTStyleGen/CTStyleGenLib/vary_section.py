"""The section Vary of the Generate panel: new segmentations from the chosen one, to look at and to choose from."""

from collections.abc import Callable
from typing import Any

import slicer
from slicer.i18n import tr as _

from .conditioning import referenceOf
from .job_bar import JobBar
from .job_queue import QueuedJob, State
from .outputs import ATTRIBUTE_PREFIX
from .panel import Panel
from .python_call import copyAsPython

_TABLE = "thorax"  # organ table where no model says its own


class VarySection(Panel):
    """Amount, count and seed in; segmentation nodes beside the source out, shown as outlines.

    What is made is chosen as the Generate panel's segmentation like any other.
    """

    def __init__(self, logic: Any, onJob: Callable[[], None]) -> None:
        """``onJob`` is called when a job begins or ends to wait in the queue."""
        super().__init__("VarySection.ui", logic)
        self._onJob = onJob
        self._jobs = JobBar(self.ui.progressBar, self.ui.cancelButton, _("{done} of {total} segmentations"))
        self.ui.varyButton.connect("clicked(bool)", self._onVary)
        self.ui.copyButton.connect("clicked(bool)", self._onCopy)
        self.ui.varySection.connect("contentsCollapsed(bool)", self._onCollapsed)
        self.ui.outlinesCheckBox.connect("toggled(bool)", self._onOutlines)

    def cleanup(self) -> None:
        """Nothing may come back here any more."""
        self._jobs.close()
        super().cleanup()

    def update(self) -> None:
        """Says what a click will do, or what is missing."""
        chosen = self.parameters
        reference = chosen.referenceVolume or referenceOf(chosen.segmentation)
        if chosen.segmentation is None:
            missing = _("Choose a segmentation.")
        elif reference is None:
            missing = _("Choose the reference CT: '{segmentation}' was drawn on no volume of the scene.").format(
                segmentation=chosen.segmentation.GetName()
            )
        else:
            missing = ""
        self.ui.varyButton.enabled = self.ui.copyButton.enabled = not missing
        self.ui.varyButton.toolTip = missing or _("Make new segmentations beside this one.")
        self.ui.statusLabel.text = missing

    def _onCollapsed(self, isCollapsed: bool) -> None:
        self._jobs.show()  # an opened section shows all its widgets, the bar of no job as well

    def _asked(self) -> dict[str, Any]:
        """What is asked for: the arguments of the Logic's vary."""
        chosen = self.parameters
        return {
            "segmentationNode": chosen.segmentation,
            "referenceVolumeNode": chosen.referenceVolume or referenceOf(chosen.segmentation),
            "count": chosen.varyCount,
            "amount": chosen.varyAmount,
            "seed": chosen.varySeed,
            "way": chosen.varyWay.value,
            # The model's organ table, as the segments' organs were chosen from it.
            "anatomy": chosen.model.absolute() if chosen.model.is_file() else _TABLE,
        }

    def _onVary(self) -> None:
        """Adds a job to the queue."""
        with slicer.util.tryWithErrorDisplay(_("Nothing was varied."), waitCursor=True):
            job = self.logic.vary(**self._asked(), wait=False)
            self.ui.statusLabel.text = ""
            self._jobs.add(job, self._end)
        self._onJob()

    def _onCopy(self) -> None:
        copyAsPython(self.logic.vary, **self._asked())

    def _end(self, job: QueuedJob) -> None:
        self._onJob()
        if job.state is State.DONE:
            text = _("Made {count}: choose one as the segmentation above to generate its CT.")
            self.ui.statusLabel.text = text.format(count=len(job.result))
            self._onOutlines(self.ui.outlinesCheckBox.checked)
        elif job.state is State.FAILED:
            slicer.util.errorDisplay(_("Nothing was varied. {reason}").format(reason=job.error))

    def _onOutlines(self, areShown: bool) -> None:
        """Shows or hides all variations in the views."""
        for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
            if node.GetAttribute(ATTRIBUTE_PREFIX + "Variation") and node.GetDisplayNode():
                node.GetDisplayNode().SetVisibility(areShown)
