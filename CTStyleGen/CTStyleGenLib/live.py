"""Live: the slice in view is generated again by itself, as soon as its segments were edited."""

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import qt
import SimpleITK as sitk
import slicer
import vtk
from CTStyleGenCore.anatomy import Anatomy
from CTStyleGenCore.errors import InputError
from CTStyleGenCore.files import PrivateFolder
from CTStyleGenCore.model_file import read_card
from CTStyleGenCore.volumes import write_volume
from slicer.i18n import tr as _

from .conditioning import labelsOfSlice, referenceOf, segmentTimes
from .geometry import requireGrid, sliceInView
from .jobs import Event
from .outputs import Place
from .style_cases import styleMix, stylesInFolder
from .synthesis import Wish, exportedStyles, provenanceOf
from .worker import Worker

_POLL_MS = 50
_REST_SECONDS = 0.25  # after the last edit: a stroke of the brush is many edits
_VIEW = "vtkMRMLSliceNodeRed"
_STYLES = "styles-"  # folders with CTs of the scene, whose look the worker measures
_EDITS = ("RepresentationModified", "SourceRepresentationModified", "SegmentModified", "SegmentAdded", "SegmentRemoved")


class Live(slicer.util.VTKObservationMixin):
    """Follows a segmentation and the axial view, and keeps the slice in view of a synthetic volume up to date.

    >>> live = Live(segmentationNode, referenceVolumeNode, Wish(model))
    >>> live.onStatus = print
    >>> live.output  # the volume
    >>> live.stop()
    """

    def __init__(
        self,
        segmentationNode: "slicer.vtkMRMLSegmentationNode",
        referenceVolumeNode: "slicer.vtkMRMLScalarVolumeNode | None",
        wish: Wish,
        outputVolumeNode: "slicer.vtkMRMLScalarVolumeNode | None" = None,
    ) -> None:
        """Starts the worker, which loads the model. Raises InputError for what can't work, JobError without a process.

        ``outputVolumeNode``: a synthetic volume in the reference's grid whose slices are renewed; without, a new one.
        """
        super().__init__()
        reference = referenceVolumeNode or referenceOf(segmentationNode)
        requireGrid(reference)
        self._segmentation: Any = segmentationNode
        self._reference: Any = reference
        self.onStatus: Callable[[str], None] = lambda sentence: None
        self.onEnd: Callable[[str], None] = lambda sentence: None  # told when it ends by itself, and why
        self._wish: Wish | None = None
        self._cases: tuple[object, ...] | None = None  # what was exported for styles
        self._touchedAt = 0.0  # 0: not since the slice was renewed
        whole = Place(self._segmentation, self._reference)
        self._folder = PrivateFolder()
        try:
            self.change(wish)
            self._worker: Worker | None = Worker(self._folder.name, wish.device)
        except BaseException:
            self._folder.cleanup()
            raise
        self._worker.ask("load", self._onLoaded, model=str(wish.model))
        if outputVolumeNode is None or not whole.fits(outputVolumeNode):
            air = np.full(whole.shape, round(self._card["hu_range"][0]), np.int16)
            outputVolumeNode = whole.add(air, self._provenance)
        self.output = outputVolumeNode
        self._observe()
        self._timer = qt.QTimer()
        self._timer.interval = _POLL_MS
        self._timer.connect("timeout()", self.poll)
        self._timer.start()

    def change(self, wish: Wish) -> None:
        """Generates with another model, look, seed or choice of organs from now on. Raises InputError."""
        if wish == self._wish:
            return
        card = read_card(wish.model)
        styleMix(card, wish.styles or (), wish.styleCases or {})
        segmentations = [segmentation.GetSegmentation() for _volume, segmentation in (wish.styleCases or {}).values()]
        cases = card["anatomy"], wish.styleCases, *map(segmentTimes, segmentations)
        if cases != self._cases:  # what is exported follows from it, and a whole CT takes seconds
            folder = Path(tempfile.mkdtemp(prefix=_STYLES, dir=self._folder.name))
            exportedStyles(wish, folder, card)
            self._cases, self._styleFolder = cases, folder
        self._styles = stylesInFolder(wish.styles or (), wish.styleCases or {}, self._styleFolder)
        self._wish, self._card, self._anatomy = wish, card, Anatomy.from_json(card["anatomy"])
        self._provenance = provenanceOf(self._segmentation, card, wish)
        self._made: dict[int, np.ndarray] = {}  # by slice: the labels that it was made of
        self._touch()

    def poll(self) -> None:
        """Goes on; called by a timer."""
        if self._worker is None:
            return
        if any(node.GetScene() is None for node in (self._segmentation, self._reference, self.output)):
            self._endWith(_("Live has ended, because one of its nodes was deleted."))
        elif self._worker.poll():
            self._endWith(_("Live has ended, because its process has."))
        elif self._touchedAt and time.monotonic() - self._touchedAt > _REST_SECONDS and not self._worker.isBusy:
            self._touchedAt = 0.0
            try:
                self._renew()
            except InputError as error:
                self.onStatus(str(error))

    def stop(self) -> None:
        """Ends it, with its process; the volume stays."""
        if self._worker is None:
            return
        self._timer.stop()
        self._timer.disconnect("timeout()", self.poll)
        self.removeObservers()
        worker, self._worker = self._worker, None
        try:
            worker.close()
        finally:
            self._folder.cleanup()

    def _observe(self) -> None:
        segmentation = self._segmentation.GetSegmentation()
        for event in _EDITS:
            self.addObserver(segmentation, getattr(segmentation, event), self._touch)
        view = self._view()
        if view is not None:
            self.addObserver(view, vtk.vtkCommand.ModifiedEvent, self._touch)

    def _view(self) -> "slicer.vtkMRMLSliceNode | None":
        return self._reference.GetScene().GetNodeByID(_VIEW)

    def _touch(self, caller: Any = None, event: Any = None) -> None:
        self._touchedAt = time.monotonic()

    def _renew(self) -> None:
        """Asks for the slice in view, unless it is up to date."""
        number = sliceInView(self._reference, self._view())
        if number is None or self._worker is None or self._wish is None:
            self.onStatus(_("The axial view shows no slice of the reference CT."))
            return
        labels = labelsOfSlice(self._segmentation, self._reference, self._anatomy, number, self._wish.organs)
        if number in self._made and np.array_equal(labels, self._made[number]):
            self.onStatus(_("Slice {number} is up to date.").format(number=number))
            return
        if not labels.any():
            self._show(number, labels, np.full(labels.shape, round(self._card["hu_range"][0]), np.int16))
            self.onStatus(_("There is no organ in slice {number}.").format(number=number))
            return
        folder, wish = Path(self._folder.name), self._wish
        for exported in folder.glob(f"{_STYLES}*"):
            if exported != self._styleFolder:  # an earlier look's, that the idle worker doesn't read any more
                shutil.rmtree(exported, ignore_errors=True)
        place = Place(self._segmentation, self._reference, range(number, number + 1))
        write_volume(place.image(labels), folder / "labels.nrrd", compress=False)
        styles = {"style": self._styles} if self._styles else {}

        def onAnswer(event: Event) -> None:
            if event["event"] == "done":
                self._show(number, labels, sitk.GetArrayFromImage(sitk.ReadImage(event["outputs"][0])))
                self.onStatus(_("Slice {number} took {seconds:.2f} s.").format(number=number, seconds=event["seconds"]))
            elif event["event"] == "error":
                self.onStatus(event["message"])

        self._worker.ask(
            "synthesize",
            onAnswer,
            model=str(wish.model),
            segmentation=str(folder / "labels.nrrd"),
            output=str(folder / "slice.nrrd"),
            seed=wish.seed,
            **styles,
        )
        self.onStatus(_("Generating slice {number} ...").format(number=number))

    def _show(self, number: int, labels: np.ndarray, voxels: np.ndarray) -> None:
        """Puts a slice into the volume."""
        place = Place(self._segmentation, self._reference, range(number, number + 1))
        if not place.fits(self.output):
            return  # the reference or the volume got another grid meanwhile
        place.renew(self.output, voxels, self._provenance)
        self._made[number] = labels

    def _onLoaded(self, event: Event) -> None:
        if event["event"] == "error":
            self.onStatus(event["message"])
        else:
            self._touch()

    def _endWith(self, sentence: str) -> None:
        try:
            self.stop()
        finally:
            self.onEnd(sentence)
