"""The Train panel: a model from CTs and their segmentations."""

import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import qt
import slicer
from CTStyleGenCore.errors import InputError
from CTStyleGenCore.estimates import Estimate
from CTStyleGenCore.model_file import read_card
from slicer.i18n import tr as _

from . import training_cases
from .case_table import CaseRow, CaseTable
from .conditioning import referenceOf
from .devices import Devices
from .loss_plot import lossTitle, relativeLosses, showLossPlot, updateLossPlot
from .models import featureWeights, modelPath, nearCopiesText
from .panel import Panel
from .parameters import CaseSource, Features
from .python_call import copyAsPython
from .setup import deviceTitle
from .speed import inWords
from .training import TrainingOptions, check, isTaken, trainings
from .training_cases import CaseChecks, TrainingCase
from .training_run import State, Training

_REST_MS = 300  # after a change, before it is checked
_POLL_MS = 1000
_AT_WORK = (State.RUNNING, State.STOPPING)
_GIGABYTE = 1e9


class TrainPanel(Panel):
    """Cases and a recipe in; a model, watched while it learns, out."""

    def __init__(self, logic: Any) -> None:
        super().__init__("TrainPanel.ui", logic)
        self.title = _("Train")
        self._checks = CaseChecks()
        self._trainings: list[Training] = []  # in the combo box
        self._devices = Devices(self.widget, self._refresh)
        self._shownPreview: object = ()  # file, time and width of the picture that is shown
        self._caseTable = CaseTable(self.ui.casesTable, self._onStyle, self._onRename)
        self._checkTimer = qt.QTimer(self.widget)
        self._checkTimer.singleShot = True
        self._checkTimer.connect("timeout()", self.check)
        self._sceneTimer = qt.QTimer(self.widget)
        self._sceneTimer.singleShot = True
        self._sceneTimer.connect("timeout()", self._refresh)
        self._pollTimer = qt.QTimer(self.widget)
        self._pollTimer.interval = _POLL_MS
        self._pollTimer.connect("timeout()", self.poll)
        self.ui.segmentationSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._onSegmentation)
        self.ui.deviceComboBox.connect("activated(int)", self._onDevice)
        self.ui.trainingComboBox.connect("currentIndexChanged(int)", self._showTraining)
        self.ui.goesOnCheckBox.connect("clicked(bool)", self._onGoesOn)
        for button, slot in (
            (self.ui.addButton, self._onAdd),
            (self.ui.addAllButton, self._onAddAll),
            (self.ui.removeButton, self._onRemove),
            (self.ui.startButton, self._onStart),
            (self.ui.copyButton, self._onCopy),
            (self.ui.pauseButton, self._ofSelected(self._onPause)),
            (self.ui.stopButton, self._ofSelected(Training.stop)),
            (self.ui.curvesButton, self._ofSelected(showLossPlot)),
            (self.ui.discardButton, self._ofSelected(self._onDiscard)),
        ):
            button.connect("clicked()", slot)
        for event in (slicer.mrmlScene.NodeAddedEvent, slicer.mrmlScene.NodeRemovedEvent):
            self.addObserver(slicer.mrmlScene, event, self._onScene)
        self._listTrainings()

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
        self._listTrainings()
        if self.parameters:
            self.update()
        self._devices.find()

    def cleanup(self) -> None:
        """Trainings go on; only the panel ends."""
        for timer in (self._checkTimer, self._sceneTimer, self._pollTimer):
            timer.stop()
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
        )

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
        return json.loads(self.parameters.trainFolderStyles or "[]")

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
        elif any(training.state in _AT_WORK for training in self._trainings):
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
            names["auto"] = _("Automatic: {device}").format(device=best["title"])
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
        with slicer.util.tryWithErrorDisplay(_("No training was started."), waitCursor=True):
            begun = self.logic.train(**self._asked())
            self._trainings.append(begun)
            self.parameters.trainName = _freeName()
            self._listTrainings(begun.folder)
        self.check()

    def _onCopy(self) -> None:
        copyAsPython(self.logic.train, **self._asked())

    def poll(self) -> None:
        """Follows the trainings."""
        before = [training.state for training in self._trainings]
        for training in self._trainings:
            with slicer.util.tryWithErrorDisplay(_("The training of {name}").format(name=training.name)):
                training.poll()
            updateLossPlot(training)
        after = [training.state for training in self._trainings]
        if after != before:
            self._nameTrainings()
            self._useFirstModel()
            self.check()
        self._showTraining()
        if not any(state in _AT_WORK for state in after):
            self._pollTimer.stop()

    def _listTrainings(self, selected: Path | None = None) -> None:
        """Lists the trainings of the models folder; ``selected``, else what was selected, is selected."""
        current = self.selectedTraining
        wanted = selected or (current.folder if current else None)
        known = {(training.folder, training.started): training for training in self._trainings}
        with slicer.util.tryWithErrorDisplay(_("The trainings can't be listed.")):
            self._trainings = [known.get((found.folder, found.started), found) for found in trainings()]
        folders = [training.folder for training in self._trainings]
        combo = self.ui.trainingComboBox
        combo.blockSignals(True)
        combo.clear()
        combo.addItems([""] * len(folders) or [_("(none yet)")])
        combo.currentIndex = folders.index(wanted) if wanted in folders else 0
        combo.blockSignals(False)
        self._nameTrainings()
        self._showTraining()
        self._pollTimer.start()

    def _nameTrainings(self) -> None:
        for index, training in enumerate(self._trainings):
            text = _("{name} ({state})").format(name=training.name, state=training.state.label())
            self.ui.trainingComboBox.setItemText(index, text)

    @property
    def selectedTraining(self) -> Training | None:
        index = self.ui.trainingComboBox.currentIndex
        return self._trainings[index] if 0 <= index < len(self._trainings) else None

    def _showTraining(self) -> None:
        """Shows how far the selected training is."""
        training = self.selectedTraining
        for widget in (
            self.ui.goesOnCheckBox,
            self.ui.progressBar,
            self.ui.statusLabel,
            self.ui.pauseButton,
            self.ui.stopButton,
            self.ui.curvesButton,
            self.ui.discardButton,
        ):
            widget.visible = training is not None
        self._showPreview(training.preview if training else None)
        if training is None:
            return
        isRunning = training.state is State.RUNNING
        canGoOn = training.state in (State.PAUSED, State.FAILED) and training.checkpoint.is_file()
        self.ui.goesOnCheckBox.checked = training.outlives
        self.ui.goesOnCheckBox.enabled = training.state in _AT_WORK and training.startedHere
        self.ui.progressBar.maximum = training.total or (0 if isRunning else 1)  # 0: the bar says that it is at work
        self.ui.progressBar.value = training.done
        self.ui.statusLabel.text = _status(training)
        self.ui.statusLabel.toolTip = training.log() if training.state is State.FAILED else ""
        self.ui.pauseButton.text = _("Resume") if canGoOn else _("Pause")
        self.ui.pauseButton.enabled = isRunning or canGoOn
        self.ui.stopButton.enabled = isRunning or canGoOn
        self.ui.curvesButton.enabled = bool(training.curve.steps)

    def _showPreview(self, preview: Path | None) -> None:
        label = self.ui.previewLabel
        width = max(240, self.ui.progressSection.width - 20)
        shown = (preview, preview.stat().st_mtime, width) if preview else None
        if shown == self._shownPreview:
            return
        self._shownPreview = shown
        label.visible = self.ui.previewCaptionLabel.visible = preview is not None
        if preview:
            label.setPixmap(qt.QPixmap(str(preview)).scaledToWidth(width, qt.Qt.SmoothTransformation))

    def _useFirstModel(self) -> None:
        """Where nothing could be generated before, the model that has come is chosen for that."""
        for training in self._trainings:
            if self.parameters and training.state is State.DONE and not self.parameters.model.is_file():
                self.parameters.model = training.model

    def _ofSelected(self, action: Callable[[Training], Any]) -> Callable[[], None]:
        """The action as a button's slot: for the selected training, if there is one."""

        def slot() -> None:
            training = self.selectedTraining
            if training is None:
                return
            with slicer.util.tryWithErrorDisplay(_("That can't be done."), waitCursor=True):
                action(training)
            self._listTrainings()
            self.check()

        return slot

    def _onPause(self, training: Training) -> None:
        if training.state is State.RUNNING:
            training.pause()
        else:
            training.resume()

    def _onDiscard(self, training: Training) -> None:
        question = _("The training of {name} will be removed from the disk. That can't be undone.")
        if training.state is State.DONE or slicer.util.confirmOkCancelDisplay(question.format(name=training.name)):
            training.discard()

    def _onGoesOn(self, checked: bool) -> None:
        if training := self.selectedTraining:
            training.outlives = checked


def _status(training: Training) -> str:
    """Where a training is, in a sentence or two."""
    if training.state is State.RUNNING and training.secondsLeft is None:
        lines = [_("Starting: the cases are read ...")]
    elif training.state is State.RUNNING:
        left = inWords(training.secondsLeft or 0)
        lines = [_("Step {done} of {total}, {time} left").format(done=training.done, total=training.total, time=left)]
    elif training.state is State.STOPPING:
        lines = [_("Ends after the step that it is at ...")]
    else:
        lines = [training.message]
    if training.curve.losses and training.state in _AT_WORK:
        shares = ", ".join(f"{lossTitle(name).lower()} {share:.0%}" for name, share in relativeLosses(training).items())
        lines.append(_("Losses, of what they began with: {shares}").format(shares=shares))
    if training.state is State.DONE:
        with contextlib.suppress(InputError):  # the model was removed
            found = nearCopiesText(read_card(training.model))
            lines.append(_("Near copies of training slices: {found}").format(found=found))
    if training.notice:
        lines.append(training.notice)
    return "\n".join(lines)


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
    """A name that no model and no training has."""
    return next(name for n in range(1, 10_000) if not isTaken(modelPath(name := f"model-{n}")))
