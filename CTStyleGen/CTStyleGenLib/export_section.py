"""The section Export of the Generate panel: an annotated data set to train with, of the chosen segmentation or more."""

import contextlib
import html
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer
from CTStyleGenCore.anatomy import Anatomy
from CTStyleGenCore.errors import InputError
from CTStyleGenCore.model_file import read_card
from slicer.i18n import tr as _

from .conditioning import referenceOf
from .job_bar import JobBar
from .job_queue import QueuedJob, State
from .jobs import JobCanceled
from .panel import Panel
from .parameters import ExportCases, ExportLook
from .python_call import copyAsPython
from .style_cases import StyleCases, lookChosen, missingOrgans
from .training_cases import Given, isSafeName

_REST_MS = 300  # after a change, before cases are looked for on the disk
_MB, _GB = 10**6, 10**9


class ExportSection(Panel):
    """Cases, a plan and a place in; there, a folder with many annotated images out (`docs/data_sets.md`)."""

    def __init__(self, logic: Any, onJob: Callable[[], None]) -> None:
        """``onJob`` is called when a job begins or ends to wait in the queue."""
        super().__init__("ExportSection.ui", logic)
        self._onJob = onJob
        self._jobs = JobBar(self.ui.progressBar, self.ui.cancelButton, _("{done} of {total} images"))
        self._timer = qt.QTimer(self.widget)
        self._timer.setSingleShot(True)
        self._timer.connect("timeout()", self.check)
        self.ui.exportButton.connect("clicked(bool)", self._onExport)
        self.ui.copyButton.connect("clicked(bool)", self._onCopy)
        self.ui.exportSection.connect("contentsCollapsed(bool)", self._onCollapsed)

    def setParameterNode(self, parameterNode: Any) -> None:
        """Binds the section."""
        super().setParameterNode(parameterNode)
        if not parameterNode:
            self._timer.stop()

    def cleanup(self) -> None:
        """Nothing may come back here any more."""
        self._timer.stop()
        self._jobs.close()
        super().cleanup()

    @property
    def output(self) -> Path:
        """The folder to make."""
        return self.parameters.exportFolder / self.parameters.exportName

    @property
    def _isBegun(self) -> bool:
        """Whether that folder holds a data set that was not brought to its end."""
        return (self.output / "plan.json").is_file() and not (self.output / "dataset.json").exists()

    def update(self) -> None:
        """Shows what follows from the parameters at once, and checks them after a rest."""
        self.ui.casesPathLineEdit.enabled = self.parameters.exportCases is ExportCases.FOLDER
        self._timer.start(_REST_MS)

    def _onCollapsed(self, isCollapsed: bool) -> None:
        self._jobs.show()  # an opened section shows all its widgets, the bar of no job as well
        self.check()

    def check(self) -> None:
        """Says what a click will do, and how much room that takes."""
        if not self.parameters or self.ui.exportSection.collapsed:
            return
        try:
            said, missing = self._preflight(), ""
        except InputError as error:
            said = missing = str(error)
        self.ui.preflightLabel.text = said
        self.ui.exportButton.enabled = self.ui.copyButton.enabled = not missing
        self.ui.exportButton.toolTip = missing or _("Make the data set, and write it to the disk.")

    def _preflight(self) -> str:
        """What a click will do. Raises InputError, with what is missing."""
        chosen = self.parameters
        if self._jobs.jobs:
            raise InputError(_("A data set is being made: wait until it has ended, or cancel it."))
        if not chosen.model.is_file():
            raise InputError(_("Choose a model: train or import one in the other tabs, or open a file."))
        expected = self.logic.estimateExpansion(self._cases(), perCase=chosen.exportPerCase, dicom=chosen.exportDicom)
        anatomy = Anatomy.from_json(read_card(chosen.model)["anatomy"])
        notes = list(missingOrgans(self._look()[1], {organ.name for organ in anatomy.organs[1:]}, anatomy))
        if chosen.exportFolder == Path() or not chosen.exportFolder.is_dir():
            raise InputError(_("Choose the folder to make the data set in."))
        if not isSafeName(chosen.exportName):
            raise InputError(_("Name the data set with letters, digits, spaces, '.', '-' and '_'."))
        isBegun = self._isBegun
        if not isBegun and self.output.exists():
            raise InputError(_("{folder} exists already: choose another name.").format(folder=self.output))
        free = shutil.disk_usage(chosen.exportFolder).free
        text = _("Makes {images} images (cases: {cases}), about {size}. The disk has {free} free.").format(
            images=expected.images, cases=expected.cases, size=_inWords(expected.size_bytes), free=_inWords(free)
        )
        if isBegun:
            notes.insert(0, _("Keeps those that are there already, and makes the others, if all is chosen as then."))
        return "\n".join([text, *notes])

    def _cases(self) -> Given:
        """What to make images of. Raises InputError where nothing is chosen."""
        chosen = self.parameters
        if chosen.exportCases is ExportCases.FOLDER:
            if chosen.exportCasesFolder == Path():
                raise InputError(_("Choose the folder of cases."))
            return chosen.exportCasesFolder
        if chosen.segmentation is None:
            raise InputError(_("Choose a segmentation."))
        reference = chosen.referenceVolume or referenceOf(chosen.segmentation)
        if reference is None:
            raise InputError(_("Choose the reference CT: the segmentation was drawn on no volume of the scene."))
        return [(reference, chosen.segmentation)]

    def _look(self) -> tuple[list[str], StyleCases]:
        """Styles and style cases. Raises InputError for a style CT without a segmentation."""
        if self.parameters.exportLook is ExportLook.TURNS:
            return [], {}
        return lookChosen(self.parameters, read_card(self.parameters.model))

    def _asked(self) -> dict[str, Any]:
        """What is asked for: the arguments of the Logic's expand."""
        chosen = self.parameters
        styles, styleCases = self._look()
        return {
            "cases": self._cases(),
            "output": self.output,
            "model": chosen.model.absolute(),
            "perCase": chosen.exportPerCase,
            "amount": chosen.exportAmount,
            "styles": styles or (),
            "styleCases": styleCases or None,
            "dicom": chosen.exportDicom,
            "seed": chosen.exportSeed,
            "device": chosen.device.value,
            "resume": self._isBegun,
        }

    def _onExport(self) -> None:
        """Adds a job to the queue."""
        self.ui.resultLabel.text = ""
        shown = slicer.util.tryWithErrorDisplay(_("No data set was made."), waitCursor=True)
        with shown, contextlib.suppress(JobCanceled):
            job = self.logic.expand(**self._asked(), wait=False)
            notices: list[str] = []
            self._jobs.add(job, lambda job: self._end(job, notices), notices.append)
        self.check()
        self._onJob()

    def _onCopy(self) -> None:
        with slicer.util.tryWithErrorDisplay(_("Nothing was copied.")):
            copyAsPython(self.logic.expand, **self._asked())

    def _end(self, job: QueuedJob, notices: list[str]) -> None:
        self._onJob()
        self.check()
        if job.state is State.DONE:
            link = f'<a href="{job.result.as_uri()}">{html.escape(str(job.result))}</a>'
            lines = [_("The data set is in {folder}.").format(folder=link), *map(html.escape, notices)]
            self.ui.resultLabel.text = "<br>".join(lines)
        elif job.state is State.FAILED:
            slicer.util.errorDisplay(_("The data set is not whole. {reason}").format(reason=job.error))


def _inWords(size: int) -> str:
    """A size on the disk, as one says it."""
    if size < _GB:
        return _("{size} MB").format(size=max(1, round(size / _MB)))
    return _("{size} GB").format(size=f"{size / _GB:.1f}")
