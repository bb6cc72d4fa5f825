"""The Train panel: a model from CTs and their segmentations."""

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import qt
import slicer
from CTStyleGenCore.errors import InputError
from CTStyleGenCore.estimates import Estimate
from slicer.i18n import tr as _

from . import training_cases
from .case_table import CaseRow, CaseTable
from .conditioning import referenceOf
from .devices import Devices
from .jobs import JobCanceled
from .models import featureWeights, modelPath
from .panel import Panel
from .parameters import CaseSource, Features, TableChoice
from .python_call import copyAsPython
from .setup import deviceTitle
from .speed import inWords
from .training import TrainingOptions, check, isTaken
from .training_cases import CaseChecks, TrainingCase
from .training_list import TrainingList

_REST_MS = 300  # after a change, before it is checked
_GIGABYTE = 1e9


class TrainPanel(Panel):
    """Cases and a recipe in; a model, watched while it learns, out."""

    def __init__(self, logic: Any) -> None:
        super().__init__("TrainPanel.ui", logic)
        self.title = _("Train")
        self._checks = CaseChecks()
        self._devices = Devices(self.widget, self._refresh)
        self._caseTable = CaseTable(self.ui.casesTable, self._onStyle, self._onRename)
        self._checkTimer = qt.QTimer(self.widget)
        self._checkTimer.setSingleShot(True)
        self._checkTimer.connect("timeout()", self.check)
        self._sceneTimer = qt.QTimer(self.widget)
        self._sceneTimer.setSingleShot(True)
        self._sceneTimer.connect("timeout()", self._refresh)
        self.trainings = TrainingList(self.ui, self.widget, self._onTrainings)
        self.ui.segmentationSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._onSegmentation)
        self.ui.deviceComboBox.connect("activated(int)", self._onDevice)
        for button, slot in (
            (self.ui.addButton, self._onAdd),
            (self.ui.addAllButton, self._onAddAll),
            (self.ui.removeButton, self._onRemove),
            (self.ui.startButton, self._onStart),
            (self.ui.copyButton, self._onCopy),
        ):
            button.connect("clicked()", slot)
        for event in (slicer.mrmlScene.NodeAddedEvent, slicer.mrmlScene.NodeRemovedEvent):
            self.addObserver(slicer.mrmlScene, event, self._onScene)

    # --- coming and going ---

    def setParameterNode(self, parameterNode: Any) -> None:
        """Binds the panel; proposes a name."""
        if parameterNode and not parameterNode.trainName:
            parameterNode.trainName = _freeName()
        if not parameterNode:
            self._checkTimer.stop()
        super().setParameterNode(parameterNode)

    def shown(self) -> None:
        """Segmentations, models and trainings may have changed."""
        self.trainings.refresh()
        if self.parameters:
            self.update()
        self._devices.find()

    def cleanup(self) -> None:
        """Trainings go on; only the panel ends."""
        for timer in (self._checkTimer, self._sceneTimer):
            timer.stop()
        self.trainings.close()
        self._devices.close()
        super().cleanup()

    # --- what is asked for ---

    @property
    def cases(self) -> list[TrainingCase] | Path:
        """What is learned from."""
        if self.parameters.trainSource is CaseSource.FOLDER:
            return self.parameters.trainFolder
        return training_cases.casesInScene()

    @property
    def options(self) -> TrainingOptions:
        """What is asked for, besides the cases."""
        chosen = self.parameters
        return TrainingOptions(
            name=chosen.trainName,
            styles=[row.name for row in self._caseRows() if row.isStyle],
            preset=chosen.trainPreset,
            size=int(chosen.trainSize),
            epochs=chosen.trainEpochs or None,
            device=chosen.trainDevice,
            features={Features.RANDOM: "random", Features.DOWNLOAD: "vgg19"}.get(chosen.trainFeatures, "auto"),
            featureWeights=chosen.trainWeights if chosen.trainFeatures is Features.FILE else None,
            download=chosen.trainFeatures is Features.DOWNLOAD,
            outlives=chosen.trainOutlives,
            anatomy=self._table(),
        )

    def _table(self) -> str | Path:
        chosen = self.parameters
        return chosen.trainOrgansFile if chosen.trainOrgans is TableChoice.FILE else chosen.trainOrgans.value

    def _caseRows(self) -> list[CaseRow]:
        """The cases as the table shows them; none where the folder has none."""
        if self.parameters.trainSource is CaseSource.SCENE:
            return [
                CaseRow(
                    case.name,
                    training_cases.isStyle(case.segmentationNode),
                    case.segmentationNode.GetName(),
                    case.volumeNode.GetName() if case.volumeNode else _("(deleted)"),
                )
                for case in training_cases.casesInScene()
            ]
        styles = self._folderStyles()
        try:
            files = training_cases.casesIn(self.parameters.trainFolder)
        except InputError:  # said by the check
            return []
        return [CaseRow(one.case_id, one.case_id in styles, one.labels.name, one.ct.name) for one in files]

    def _folderStyles(self) -> list[str]:
        try:
            told = json.loads(self.parameters.trainFolderStyles or "[]")
        except ValueError:  # of a scene that something else has written
            return []
        return [str(name) for name in told] if isinstance(told, list) else []

    # --- showing it ---

    def update(self) -> None:
        """Shows what follows from the parameters at once, and checks them after a rest."""
        chosen = self.parameters
        ofScene = chosen.trainSource is CaseSource.SCENE
        for widget in (
            self.ui.segmentationLabel,
            self.ui.segmentationSelector,
            self.ui.ctLabel,
            self.ui.ctSelector,
            self.ui.addButton,
            self.ui.addAllButton,
            self.ui.removeButton,
        ):
            widget.visible = ofScene
        self.ui.folderLabel.visible = self.ui.folderPathLineEdit.visible = not ofScene
        ofFile = chosen.trainFeatures is Features.FILE
        self.ui.weightsLabel.visible = self.ui.weightsPathLineEdit.visible = ofFile
        isOwnTable = chosen.trainOrgans is TableChoice.FILE
        self.ui.organsFileLabel.visible = self.ui.organsPathLineEdit.visible = isOwnTable
        self.ui.presetHintLabel.text = _presetHint(chosen.trainPreset)
        self._caseTable.show(self._caseRows(), canRename=ofScene)
        self._showDevices()
        self._checkTimer.start(_REST_MS)

    def check(self) -> None:
        """Says what a click on Start will do."""
        if not self.parameters:
            return
        options = self.options
        device = self._devices.best(options.device)
        known = replace(options, device=device["name"] if device else "cpu")  # the guess for Automatic
        result = check(self.cases, known if options.device == "auto" else options, self._checks)
        ready = False
        if result.estimate is None:
            text = result.problems[0]
        elif self.trainings.isAtWork:
            text = _("A training is at work: wait for its end, or pause it.")
        else:
            ready, text = True, "\n".join([self._preflight(options, result.estimate), *result.problems])
        self.ui.preflightLabel.text = text
        self.ui.startButton.enabled = ready
        self.ui.copyButton.enabled = result.ready
        self.ui.startButton.toolTip = _("Train the model, in a process of its own.") if ready else text

    def _preflight(self, options: TrainingOptions, needs: Estimate) -> str:
        """What a click will do."""
        device = self._devices.best(options.device)
        expected = [inWords(needs.seconds)] if needs.seconds else []
        if device:
            where = device["title"]
        elif options.device == "auto":  # not found out yet, or it can't be
            where = _("a graphics card if one works, else on the processor")
        else:
            where = options.device
        if needs.memory_bytes:
            expected.append(_("{memory:.1f} GB of memory").format(memory=needs.memory_bytes / _GIGABYTE))
        lines = [_("Learns in {steps} steps on {device}.").format(steps=needs.steps, device=where)]
        if expected and (device or options.device != "auto"):
            lines.append(_("Expected: about {needs}.").format(needs=", ".join(expected)))
        elif expected:
            lines.append(_("Expected on the processor: about {needs}.").format(needs=", ".join(expected)))
        if not needs.seconds:
            lines.append(_("The time is measured as it learns: nothing like it has been measured before."))
        memory = device.get("memory_bytes") if device else None
        if memory and needs.memory_bytes and needs.memory_bytes > memory:
            lines.append(_("That is more memory than the device has: choose a smaller size."))
        if options.features == "auto" and not options.featureWeights and featureWeights() is None:
            lines.append(_("Unless VGG-19 weights are found, random filters measure the style: see the Models tab."))
        return "\n".join(lines)

    # --- cases ---

    def _onScene(self, caller: Any, event: str) -> None:
        """A node of a case may have come or gone."""
        if self.parameters:
            self._sceneTimer.start(0)  # once for many

    def _refresh(self) -> None:
        if self.parameters:
            self.update()

    def _onSegmentation(self, node: Any) -> None:
        """Proposes the CT that the segmentation was drawn on."""
        if volume := referenceOf(node):
            self.ui.ctSelector.setCurrentNode(volume)

    def _onAdd(self) -> None:
        segmentation, volume = self.ui.segmentationSelector.currentNode(), self.ui.ctSelector.currentNode()
        if segmentation is None or volume is None:
            slicer.util.showStatusMessage(_("Choose a segmentation and its CT first."), 3000)
            return
        training_cases.addCase(volume, segmentation)
        self._refresh()

    def _onAddAll(self) -> None:
        added, without = training_cases.addCasesByReference()
        text = _("{added} added").format(added=added)
        if without:
            text = _("{text}; {without} have no source volume: choose their CT and click Add").format(
                text=text, without=without
            )
        slicer.util.showStatusMessage(text, 5000)
        self._refresh()

    def _onRemove(self) -> None:
        if case := self._caseAt(self._caseTable.current()):
            training_cases.removeCase(case.segmentationNode)
            self._refresh()

    def _onStyle(self, row: int, isStyle: bool) -> None:
        if case := self._caseAt(row):
            training_cases.setStyle(case.segmentationNode, isStyle)
            self._refresh()
        else:
            name = self._caseRows()[row].name
            styles = [style for style in self._folderStyles() if style != name] + [name] * isStyle
            self.parameters.trainFolderStyles = json.dumps(styles)

    def _onRename(self, row: int, name: str) -> None:
        if case := self._caseAt(row):
            training_cases.renameCase(case.segmentationNode, name)
            self._refresh()

    def _caseAt(self, row: int) -> TrainingCase | None:
        """The case of the scene in that row, None for another row or cases of a folder."""
        if self.parameters.trainSource is CaseSource.FOLDER:
            return None
        cases = training_cases.casesInScene()
        return cases[row] if 0 <= row < len(cases) else None

    # --- devices ---

    def _showDevices(self) -> None:
        """Lists the devices, and the chosen one if it isn't there (any more)."""
        names = {"auto": _("Automatic"), "cpu": _("Processor")} | {
            device["name"]: deviceTitle(device) for device in self._devices.known
        }
        if best := self._devices.best("auto"):
            names["auto"] = _("Automatic: {device}").format(device=deviceTitle(best))
        chosen, combo = self.parameters.trainDevice, self.ui.deviceComboBox
        names.setdefault(chosen, chosen)
        combo.clear()
        for name, title in names.items():
            combo.addItem(title, name)
        combo.currentIndex = list(names).index(chosen)

    def _onDevice(self, index: int) -> None:
        if self.parameters:
            self.parameters.trainDevice = self.ui.deviceComboBox.itemData(index)

    # --- trainings ---

    def _asked(self) -> dict[str, Any]:
        """What is asked for: the arguments of the Logic's train."""
        cases, options = self.cases, self.options
        pairs = cases if isinstance(cases, Path) else {c.name: (c.volumeNode, c.segmentationNode) for c in cases}
        return {"cases": pairs, **{name: getattr(options, name) for name in options.__dataclass_fields__}}

    def _onStart(self) -> None:
        shown = slicer.util.tryWithErrorDisplay(_("No training was started."), waitCursor=True)
        with shown, contextlib.suppress(JobCanceled):
            begun = self.logic.train(**self._asked())
            self.parameters.trainName = _freeName()
            self.trainings.refresh(select=begun)
        self.check()

    def _onCopy(self) -> None:
        copyAsPython(self.logic.train, **self._asked())

    def _onTrainings(self) -> None:
        """Where nothing could be generated before, a model that has come is chosen for that."""
        for training in self.trainings.done():
            if self.parameters and not self.parameters.model.is_file():
                self.parameters.model = training.model
        self.check()


def _presetHint(preset: str) -> str:
    """What a preset is for, in a line."""
    hints = {
        "paper": _("The method as it was published; one look."),
        "paper-relative": _("The published method, rewarded for the style's own gray values; one look."),
        "quick": _("For a first try without VGG weights; one look."),
        "styles": _("All looks in one model, to be mixed organ by organ. No tick: all of them."),
    }
    return hints.get(preset, "")


def _freeName() -> str:
    """A name that no model and no training has; the first where there is no folder, of which the check tells."""
    names = [f"model-{number}" for number in range(1, 10_000)]
    with contextlib.suppress(InputError):
        return next(name for name in names if not isTaken(modelPath(name)))
    return names[0]
