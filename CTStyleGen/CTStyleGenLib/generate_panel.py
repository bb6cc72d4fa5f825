"""The Generate panel: a CT for a segmentation."""

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import qt
import slicer
import vtk
from CTStyleGenCore.errors import InputError
from CTStyleGenCore.model_file import SUFFIX, read_card
from CTStyleGenCore.styles import has_style_bank
from slicer.i18n import tr as _

from .body_segment import BodyJob
from .comparison import Comparison
from .conditioning import LEFT_OUT, ORGAN_TAG, Organs, chosenOrgan, referenceOf
from .devices import Devices
from .evaluate_section import EvaluateSection
from .export_section import ExportSection
from .geometry import sliceCount, sliceInView
from .job_bar import JobBar
from .job_queue import QueuedJob, State, jobQueue
from .jobs import JobError
from .live import Live
from .models import StoredModel, modelsFolder, storedModels
from .organ_table import OrganStyles, OrganTable, stylesIn
from .outputs import SYNTHETIC
from .panel import Panel
from .parameters import Device, SliceChoice
from .python_call import copyAsPython
from .speed import expectedSeconds, inWords
from .style_cases import lookChosen, styleName
from .synthesis import CheckResult, SynthesisJob, Wish
from .vary_section import VarySection

_REST_MS = 300  # after a change, before it is checked
_PAINTING_REST_MS = 1500  # after a stroke of the brush: the check takes some tenths of a second
_EDITOR_TAG = "CTStyleGen"
_EDITS = ("SegmentAdded", "SegmentRemoved", "SegmentModified", "SegmentsOrderModified")
_NOT_OF_A_RUN = ("fade", "output", "vary", "export", "evaluate", "train")  # parameters that a check needs not heed
_RED = "vtkMRMLSliceNodeRed"


class GeneratePanel(Panel):
    """Segmentation, reference and model in; a synthetic CT over the reference out."""

    def __init__(self, logic: Any) -> None:
        super().__init__("GeneratePanel.ui", logic)
        self.title = _("Generate")
        self._live: Live | None = None
        self._models: list[Path] = []  # in the combo box
        self._noticed: object = None  # the parameters that were checked last
        self._followed: Any = None  # the segmentation whose edits are noticed
        self._edits = slicer.util.VTKObservationMixin()  # what is heard of it
        self._devices = Devices(self.widget, self._checkSoon)
        self._organTable = OrganTable(self.ui.organTable, self._onStyles)
        self._checkTimer = qt.QTimer(self.widget)
        self._checkTimer.setSingleShot(True)
        self._checkTimer.connect("timeout()", self.check)
        self.ui.outputSelector.addAttribute("vtkMRMLScalarVolumeNode", SYNTHETIC, "1")
        self._runs = JobBar(self.ui.progressBar, self.ui.cancelButton, _("{done} of {total} slices"))
        self._comparison = Comparison(self.ui)
        self._evaluate = EvaluateSection(logic)
        self._sections = (VarySection(logic, self._checkSoon), ExportSection(logic, self._checkSoon), self._evaluate)
        layout = self.widget.layout()
        for place, section in enumerate(self._sections, layout.indexOf(self.ui.showSection) + 1):
            layout.insertWidget(place, section.widget)  # last, for that is their place in the order of the Tab key
        self.ui.modelComboBox.connect("currentIndexChanged(int)", self._onModel)
        self.ui.modelFileButton.connect("clicked(bool)", self._onModelFile)
        self.ui.generateButton.connect("clicked(bool)", self._onGenerate)
        self.ui.addBodyButton.hide()
        self.ui.addBodyButton.connect("clicked(bool)", self._onAddBody)
        self.ui.copyButton.connect("clicked(bool)", self._onCopy)
        self.ui.liveCheckBox.connect("toggled(bool)", self._onLive)
        self.ui.editorSection.connect("contentsCollapsed(bool)", self._onEditorSection)

    # --- coming and going ---

    def setParameterNode(self, parameterNode: Any) -> None:
        """Binds the panel; selects the scene's first segmentation and the first model if none is."""
        self._noticed = None
        if parameterNode:
            if not parameterNode.segmentation:
                parameterNode.segmentation = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
            stored = _usableModels()
            if not parameterNode.model.is_file() and stored:
                parameterNode.model = stored[0].path
        super().setParameterNode(parameterNode)
        for section in self._sections:
            section.setParameterNode(parameterNode)
        self._follow(parameterNode.segmentation if parameterNode else None)
        if not parameterNode:
            self._checkTimer.stop()
        self._updateEditor()

    def enter(self) -> None:
        """The embedded editor hears the keys; the mouse in the views it hears by itself while an effect is active."""
        self._onEditorSection()

    def shown(self) -> None:
        """Models may have come and gone meanwhile."""
        if self.parameters:
            self._listModels()
            if self._models:
                self._devices.find()
            self.check()

    def exit(self) -> None:
        """No effect of the embedded editor stays active. Live goes on, for editing in the Segment Editor itself."""
        self.ui.segmentEditor.setActiveEffect(None)
        self.ui.segmentEditor.uninstallKeyboardShortcuts()
        self.ui.segmentEditor.removeViewObservations()

    def cleanup(self) -> None:
        """Nothing may come back here any more."""
        self._checkTimer.stop()
        self._devices.close()
        try:
            self._stopLive()
        finally:
            self._runs.close()
            for section in self._sections:
                section.cleanup()
            self.exit()  # reloading doesn't leave the module first, and keys would be heard twice
            super().cleanup()

    # --- what is asked for ---

    @property
    def reference(self) -> Any:
        """The reference CT: the one chosen, else the volume that the segmentation was drawn on; None without."""
        return self.parameters.referenceVolume or referenceOf(self.parameters.segmentation)

    @property
    def wish(self) -> Wish:
        """What the panel asks for. Raises InputError for a model that can't be read."""
        chosen = self.parameters
        card = read_card(chosen.model)
        styles, cases = lookChosen(chosen, card)
        return Wish(
            model=chosen.model.absolute(),
            styles=styles or None,
            organs=self._organs() or None,
            slices=self._slices(),
            samples=chosen.samples,
            seed=chosen.seed,
            device=chosen.device.value,
            styleCases=cases or None,
        )

    def _styleCT(self, card: Mapping[str, Any] | None) -> str:
        """The style CT's name; none without one."""
        volume = self.parameters.styleVolume
        return styleName(volume, card) if volume and card and has_style_bank(dict(card)) else ""

    def _styles(self, card: Mapping[str, Any] | None) -> OrganStyles:
        """The styles chosen for organs."""
        return stylesIn(self.parameters.organStyles, card, self._styleCT(card))

    def _organs(self) -> Organs:
        """The organs that the user chose, by segment name, or by ID where two have the name."""
        segmentation = self.parameters.segmentation.GetSegmentation() if self.parameters.segmentation else None
        segments = [(i, segmentation.GetSegment(i)) for i in segmentation.GetSegmentIDs()] if segmentation else []
        names = [segment.GetName() for _id, segment in segments]
        chosen = {segmentId: chosenOrgan(segment) for segmentId, segment in segments if segment.HasTag(ORGAN_TAG)}
        return {
            name if names.count(name) == 1 else segmentId: None if chosen[segmentId] == LEFT_OUT else chosen[segmentId]
            for (segmentId, _segment), name in zip(segments, names, strict=True)
            if segmentId in chosen
        }

    def _slices(self) -> range | None:
        """The slices chosen; an empty range where the view shows none."""
        if self.parameters.slices is SliceChoice.ALL:
            return None
        if self.parameters.slices is SliceChoice.RANGE:
            return range(self.parameters.firstSlice, self.parameters.lastSlice + 1)
        number = sliceInView(self.reference, slicer.mrmlScene.GetNodeByID(_RED))
        return range(number, number + 1) if number is not None else range(0)

    # --- showing it ---

    def update(self) -> None:
        """Shows what follows from the parameters at once, and checks them after a rest."""
        chosen = self.parameters
        self._follow(chosen.segmentation)
        isRange = chosen.slices is SliceChoice.RANGE
        for widget in (self.ui.firstSliceSpinBox, self.ui.toLabel, self.ui.lastSliceSpinBox):
            widget.visible = isRange
        if isRange:
            self._limitRange()
        self.ui.sequenceCheckBox.enabled = chosen.samples > 1
        self.ui.outputSelector.enabled = chosen.samples == 1
        self._showModel()
        self._updateEditor()
        self._comparison.fade(chosen.fade)
        asked = [(name, chosen.getValue(name)) for name in chosen.allParameters if not name.startswith(_NOT_OF_A_RUN)]
        if asked != self._noticed:
            self._noticed = asked
            self._checkSoon()

    def check(self) -> None:
        """Says what a click on Generate will do, and shows what becomes of each segment."""
        if not self.parameters:
            return
        chosen, card, reports, lacksBody = self.parameters, None, (), False
        try:
            card = read_card(chosen.model) if chosen.model.is_file() else None
            if not chosen.segmentation:
                missing = _("There is no segmentation: load one with its CT, or the chest of the module Sample Data.")
            elif card is None:
                missing = _("Choose a model: train or import one in the other tabs, or open a file.")
            elif chosen.device is Device.CUDA and self._devices.known and not self._devices.best("cuda"):
                missing = _("No graphics card of this computer can be used: choose another device.")
            elif chosen.slices is SliceChoice.CURRENT and not self._slices():
                missing = _("The axial view shows no slice of the reference CT.")
            else:
                wish = self.wish
                names = ("styles", "organs", "slices", "samples", "seed", "styleCases")
                options = {name: getattr(wish, name) for name in names}
                result = self.logic.check(chosen.segmentation, chosen.referenceVolume, model=wish.model, **options)
                missing, reports = ("" if result.ready else result.problems[0]), result.segments
                lacksBody = result.lacksBody
        except InputError as error:
            missing = str(error)
        self._organTable.show(chosen.segmentation, card, reports, self._styles(card), self._styleCT(card))
        self.ui.addBodyButton.visible = lacksBody and not self._bodyIsComing()
        self.ui.styleSelector.enabled = card is not None and has_style_bank(dict(card))
        waits = _("The body is being added: wait for it.") if self._bodyIsComing() else ""
        self.ui.preflightLabel.text = missing or waits or self._preflight(result)
        self.ui.generateButton.enabled = not (missing or waits)
        self.ui.generateButton.toolTip = missing or waits or _("Make a synthetic CT for the segmentation.")
        self.ui.copyButton.enabled = not missing
        self.ui.liveCheckBox.enabled = not missing or self._live is not None
        if self._live and not missing:
            with slicer.util.tryWithErrorDisplay(_("Live can't go on.")):
                self._live.change(self._liveWish())

    def _checkSoon(self) -> None:
        """Checks after a rest, as more may change."""
        if self.parameters:
            self._checkTimer.start(_REST_MS)

    def _preflight(self, result: CheckResult) -> str:
        """What a click will do."""
        chosen = self.parameters
        slices = result.slices // chosen.samples
        time = inWords(expectedSeconds(result.size, chosen.device.value, result.slices))
        wanted = self._slices()
        if chosen.slices is SliceChoice.CURRENT and wanted:
            what = _("Makes slice {number}").format(number=wanted[0])
        elif slices == 1:
            what = _("Makes one slice")
        else:
            what = _("Makes {slices} slices").format(slices=slices)
        if chosen.samples > 1:
            what = _("{what}, {samples} times").format(what=what, samples=chosen.samples)
        device = self._devices.best(chosen.device.value)
        if device:
            where = _("on {device}").format(device=device["title"])
        else:  # not found out yet, or it can't be
            where = {
                Device.AUTO: _("on the graphics card if there is one, else on the processor"),
                Device.CPU: _("on the processor"),
                Device.CUDA: _("on the graphics card"),
            }[chosen.device]
        lines = [_("{what} {where}, in about {time}.").format(what=what, where=where, time=time), *result.problems]
        busy = jobQueue().lanes()
        if SynthesisJob.lane in busy:
            lines.insert(1, _("It waits until the run before it has ended."))
        if busy - {SynthesisJob.lane}:
            lines.insert(1, _("A data set is being made beside it: both take longer."))
        return "\n".join(lines)

    def _limitRange(self) -> None:
        """Keeps the range within the volume; a new one is the whole volume."""
        count = sliceCount(self.reference)
        if not count:
            return
        if self.parameters.lastSlice >= count or self.parameters.firstSlice > self.parameters.lastSlice:
            self.parameters.lastSlice = count - 1
        if self.parameters.firstSlice >= count:
            self.parameters.firstSlice = 0
        self.ui.firstSliceSpinBox.maximum = self.ui.lastSliceSpinBox.maximum = count - 1

    def _listModels(self) -> None:
        """Lists the models folder, and the chosen model if it lies elsewhere."""
        chosen = self.parameters.model
        names = {model.path: model.name for model in _usableModels()}
        if chosen.is_file() and chosen not in names:
            names[chosen] = _("{name} (in {folder})").format(name=chosen.stem, folder=chosen.parent.name)
        self._models = list(names)
        combo = self.ui.modelComboBox
        combo.blockSignals(True)
        combo.clear()
        combo.addItems(list(names.values()) or [_("(none yet)")])
        combo.currentIndex = self._models.index(chosen) if chosen in self._models else 0
        combo.blockSignals(False)

    def _showModel(self) -> None:
        """Shows the chosen model in the list."""
        chosen, combo = self.parameters.model, self.ui.modelComboBox
        if chosen not in self._models:
            self._listModels()
        elif combo.currentIndex != self._models.index(chosen):
            combo.currentIndex = self._models.index(chosen)

    def _follow(self, segmentationNode: Any) -> None:
        """Checks again when this segmentation is edited, hidden or shown, and when the view moves to another slice."""
        if segmentationNode is self._followed:
            return
        self._followed = segmentationNode
        self._edits.removeObservers()  # all: of a method alone, they would keep the segmentation in memory
        if segmentationNode is None:
            return
        self._proposeReference(segmentationNode)
        segmentation, view = segmentationNode.GetSegmentation(), slicer.mrmlScene.GetNodeByID(_RED)
        for event in _EDITS:
            self._edits.addObserver(segmentation, getattr(segmentation, event), self._onEdit)
        self._edits.addObserver(segmentation, segmentation.RepresentationModified, self._onPainted)
        for node in filter(None, (segmentationNode.GetDisplayNode(), view)):
            self._edits.addObserver(node, vtk.vtkCommand.ModifiedEvent, self._onEdit)

    def _proposeReference(self, segmentationNode: Any) -> None:
        """Chooses the scene's only CT for a segmentation that doesn't tell what it was drawn on, as one of a file."""
        if self.parameters.referenceVolume or referenceOf(segmentationNode):
            return
        volumes = [
            node
            for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
            if node.GetClassName() == "vtkMRMLScalarVolumeNode" and not node.GetAttribute(SYNTHETIC)
        ]
        if len(volumes) == 1:
            self.parameters.referenceVolume = volumes[0]

    def _onEdit(self, caller: Any, event: str) -> None:
        isView = caller.IsA("vtkMRMLSliceNode")
        if self.parameters and not (isView and self.parameters.slices is not SliceChoice.CURRENT):
            self._checkSoon()

    def _onPainted(self, caller: Any, event: str) -> None:
        if self.parameters:
            self._checkTimer.start(_PAINTING_REST_MS)

    # --- the embedded Segment Editor ---

    def _onEditorSection(self) -> None:
        """While the section is open, keys do what they do in the module Segment Editor."""
        self._updateEditor()
        if self.ui.editorSection.collapsed:
            self.ui.segmentEditor.uninstallKeyboardShortcuts()
        else:
            self.ui.segmentEditor.installKeyboardShortcuts()

    def _updateEditor(self) -> None:
        """Hands the editor its nodes, while its section is open."""
        editor = self.ui.segmentEditor
        if not self.parameters or self.ui.editorSection.collapsed:
            editor.setActiveEffect(None)
            return
        if editor.mrmlSegmentEditorNode() is None or editor.mrmlSegmentEditorNode().GetScene() is None:
            editor.setMRMLSegmentEditorNode(_editorNode())  # before the scene, as the editor wants it
            editor.setMRMLScene(slicer.mrmlScene)
        editor.setSegmentationNode(self.parameters.segmentation)
        editor.setSourceVolumeNode(self.reference)

    # --- choices that no widget of Slicer's binds ---

    def _onModel(self, index: int) -> None:
        if self.parameters and 0 <= index < len(self._models):
            self.parameters.model = self._models[index]

    def _onModelFile(self) -> None:
        path = qt.QFileDialog.getOpenFileName(
            self.widget, _("Open a model"), str(modelsFolder()), _("Models") + f" (*{SUFFIX})"
        )
        if path and self.parameters:
            self.parameters.model = Path(path)

    def _onStyles(self, styles: OrganStyles) -> None:
        self.parameters.organStyles = json.dumps(styles)

    # --- the run ---

    def _asked(self) -> dict[str, Any]:
        """What a run is asked for: the arguments of the Logic's synthesize."""
        chosen, wish = self.parameters, self.wish
        return {
            "segmentationNode": chosen.segmentation,
            "referenceVolumeNode": self.reference,
            **{name: getattr(wish, name) for name in wish.__dataclass_fields__},
            "output": chosen.output if chosen.samples == 1 else None,
            "asSequence": chosen.asSequence and chosen.samples > 1,
        }

    def _onGenerate(self) -> None:
        """Adds a run to the queue."""
        reference = self.reference
        with slicer.util.tryWithErrorDisplay(_("No CT was made."), waitCursor=True):
            self._runs.add(self.logic.synthesize(**self._asked(), wait=False), self._ender(reference))
        self.check()

    def _bodyIsComing(self) -> bool:
        """Whether a job adds one to the chosen segmentation."""
        jobs = [job for job in self._runs.jobs if isinstance(job, BodyJob)]
        return any(job.segmentationNode is self.parameters.segmentation for job in jobs)

    def _onAddBody(self) -> None:
        """Adds a job to the queue; until its end the segmentation isn't worth a run."""
        with slicer.util.tryWithErrorDisplay(_("No body was added."), waitCursor=True):
            job = self.logic.addBody(self.parameters.segmentation, self.reference, wait=False)
            self._runs.add(job, self._onBody)
        self.check()

    def _onBody(self, job: QueuedJob) -> None:
        self._checkSoon()
        if job.state is State.FAILED:
            slicer.util.errorDisplay(_("No body was added. {reason}").format(reason=job.error))

    def _ender(self, reference: Any) -> Callable[[QueuedJob], None]:
        def end(job: QueuedJob) -> None:
            self._checkSoon()
            if job.state is State.DONE:
                result = job.result[0] if isinstance(job.result, list) else job.result
                self._show(reference, result)
                self._evaluate.choose(result)
            elif job.state is State.FAILED:
                slicer.util.errorDisplay(_("No CT was made. {reason}").format(reason=job.error))

        return end

    def _show(self, reference: Any, result: Any) -> None:
        chosen = self.parameters or self.logic.getParameterNode()  # another module may be open by now
        self._comparison.show(reference, result, chosen.fade)

    def _onCopy(self) -> None:
        with slicer.util.tryWithErrorDisplay(_("Nothing was copied.")):
            copyAsPython(self.logic.synthesize, **self._asked())

    # --- live ---

    def _onLive(self, isOn: bool) -> None:
        if not isOn:
            self._stopLive()
        elif self._live is None:
            with slicer.util.tryWithErrorDisplay(_("Live can't be started."), waitCursor=True):
                try:
                    self._startLive()
                except (InputError, JobError):
                    self._endLive("")
                    raise

    def _startLive(self) -> None:
        chosen = self.parameters
        self._live = Live(chosen.segmentation, chosen.referenceVolume, self._liveWish(), chosen.output)
        self._live.onStatus = self._showLive
        self._live.onEnd = self._endLive
        self._showLive(_("Loading the model ..."))
        self._show(self.reference, self._live.output)

    def _liveWish(self) -> Wish:
        return replace(self.wish, slices=None, samples=1)

    def _stopLive(self) -> None:
        live, self._live = self._live, None
        self._showLive("")
        if live:
            live.stop()

    def _endLive(self, sentence: str) -> None:
        """It has ended by itself, or could not begin."""
        self._live = None
        self.ui.liveCheckBox.checked = False
        self._showLive(sentence)

    def _showLive(self, sentence: str) -> None:
        self.ui.liveStatusLabel.text = sentence


def _usableModels() -> list[StoredModel]:
    """The models of the models folder; none where there is no such folder, of which the Models panel tells."""
    with contextlib.suppress(InputError):
        return [model for model in storedModels() if not model.problem]
    return []


def _editorNode() -> Any:
    """The settings of the embedded editor, one in a scene, apart from those of the module Segment Editor."""
    node = slicer.mrmlScene.GetSingletonNode(_EDITOR_TAG, "vtkMRMLSegmentEditorNode")
    if node is None:
        node = slicer.vtkMRMLSegmentEditorNode()
        node.SetSingletonTag(_EDITOR_TAG)
        node = slicer.mrmlScene.AddNode(node)
    return node
