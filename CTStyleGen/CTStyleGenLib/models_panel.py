"""The Models panel: what generating and training need on this computer, and the models that it has."""

import html
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import qt
import slicer
from CTStyleGenCore.errors import InputError
from CTStyleGenCore.model_file import SUFFIX
from slicer.i18n import tr as _

from . import models, setup
from .jobs import Event, Job, JobCanceled, JobError
from .models import StoredModel
from .panel import Panel
from .setup import Library, State

_POLL_MS = 100
_MB = 1_000_000
_MARKS = {State.UNCHECKED: "…", State.READY: "✓", State.MISSING: "✗", State.OUTDATED: "✗", State.BROKEN: "✗"}
_BY_TORCH_EXTENSION = ("torch", "torchvision")


class ModelsPanel(Panel):
    """Set-up of the child process, the models of the models folder, and what they take on the disk.

    One job of a child process runs at a time; what would start another one waits until it has ended.
    """

    def __init__(self, logic: Any) -> None:
        super().__init__("ModelsPanel.ui", logic)
        self.title = _("Models")
        self._models: list[StoredModel] = []  # the rows of the table
        self._weights: Path | None = None  # of the VGG
        self._libraries = setup.libraries([])
        self._job: Job | None = None
        self._onDone: Callable[[], None]  # called when the job has ended
        self._onFailed: Callable[[Exception], None]
        self._timer = qt.QTimer()
        self._timer.interval = _POLL_MS
        self._timer.connect("timeout()", self.onTimer)
        self._prepareTable()
        self._connectButtons()

    def _prepareTable(self) -> None:
        table = self.ui.modelsTable
        table.setColumnCount(4)
        table.setHorizontalHeaderLabels([_("Model"), _("Look of"), _("Pixels"), _("MB")])
        table.verticalHeader().hide()
        header = table.horizontalHeader()
        header.setSectionResizeMode(qt.QHeaderView.ResizeToContents)
        header.setSectionResizeMode(0, qt.QHeaderView.Stretch)
        table.verticalHeader().setDefaultSectionSize(table.fontMetrics().height() + 6)
        table.connect("itemSelectionChanged()", self.showModel)

    def _connectButtons(self) -> None:
        for button, slot in (
            (self.ui.checkButton, self.check),
            (self.ui.torchButton, self.onInstallTorch),
            (self.ui.torchvisionButton, self.onInstallTorch),
            (self.ui.safetensorsButton, self.onInstallSafetensors),
            (self.ui.wheelsButton, self.onWheels),
            (self.ui.downloadWeightsButton, self.onDownloadWeights),
            (self.ui.weightsFileButton, self.onWeightsFile),
            (self.ui.cancelButton, self.onCancel),
            (self.ui.useButton, self._ofSelected(self.onUse)),
            (self.ui.importButton, self.onImport),
            (self.ui.exportButton, self._ofSelected(self.onExport)),
            (self.ui.renameButton, self._ofSelected(self.onRename)),
            (self.ui.deleteButton, self._ofSelected(self.onDelete)),
            (self.ui.pictureButton, self._ofSelected(self.onPicture)),
            (self.ui.openFolderButton, self.onOpenFolder),
            (self.ui.changeFolderButton, self.onChangeFolder),
            (self.ui.removeWeightsButton, self.onRemoveWeights),
        ):
            button.connect("clicked()", slot)

    def shown(self) -> None:
        """Shows what is on the disk now; the first time, checks the libraries as well."""
        self.refresh()
        if all(library.state is State.UNCHECKED for library in self._libraries) and not self.isBusy:
            self.check()

    def cleanup(self) -> None:
        """No child process outlives the panel."""
        self._timer.stop()
        if self._job:
            self._job.cancel()
        super().cleanup()

    @property
    def isBusy(self) -> bool:
        """Whether a child process is at work for the panel."""
        return self._job is not None

    # --- one job at a time --------------------------------------------------------------------------------------------

    def run(
        self,
        start: Callable[[Callable[[Event], None]], Job],
        onDone: Callable[[], None] = lambda: None,
        onFailed: Callable[[Exception], None] = lambda error: slicer.util.errorDisplay(str(error)),
    ) -> None:
        """Starts a job; calls ``onDone`` or, unless it was canceled, ``onFailed`` when it has ended."""
        self.ui.logTextEdit.clear()
        self.ui.logTextEdit.hide()
        self.ui.progressBar.setRange(0, 0)  # busy
        with _shown():
            self._job, self._onDone, self._onFailed = start(self.onEvent), onDone, onFailed
            self._timer.start()
        self._enableButtons()

    def onEvent(self, event: Event) -> None:
        """Shows how far the job is, and what it says."""
        total = event.get("total")
        if event["event"] == "progress" and total:
            self.ui.progressBar.setRange(0, 1000)
            self.ui.progressBar.value = 1000 * event["done"] // total
            self.ui.progressBar.format = _("{done} of {total} MB").format(
                done=event["done"] // _MB, total=-(-total // _MB)
            )
        elif event["event"] == "notice":
            self.ui.logTextEdit.show()
            self.ui.logTextEdit.appendPlainText(event["message"])

    def onTimer(self) -> None:
        """Follows the job, and ends it when the child process has ended."""
        if not self._job or not self._job.poll():
            return
        job, self._job = self._job, None
        self._timer.stop()
        try:
            job.result()
        except JobCanceled:
            pass
        except (InputError, JobError) as error:
            self._onFailed(error)
        else:
            self._onDone()
        self.refresh()

    def onCancel(self) -> None:
        """Ends the job; nothing half done is left of a download."""
        if self._job:
            self._job.cancel()

    # --- set-up -------------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Asks the child process which libraries work; one that crashes it is found out by that."""
        events: list[Event] = []

        def told(event: Event) -> None:
            events.append(event)
            show()

        def show(hasEnded: bool = False) -> None:
            self._libraries = setup.libraries(events, hasEnded)
            self._showLibraries()

        show()
        self.run(lambda onEvent: setup.startCheck(told), self._fold, lambda error: show(hasEnded=True))

    def _fold(self) -> None:
        """Folds the set-up when a check finds nothing to do there."""
        isComplete = self._weights and all(library.state is State.READY for library in self._libraries)
        self.ui.setUpCollapsibleButton.collapsed = bool(isComplete)

    def onInstallTorch(self) -> None:
        """PyTorch and torchvision together, since each version of one needs a version of the other."""
        if not setup.hasTorchExtension():
            slicer.util.infoDisplay(
                _(
                    "PyTorch comes with the PyTorch extension: install that in the Extensions Manager, and restart "
                    "Slicer. Without internet, use 'Install offline'."
                )
            )
            return
        question = _(
            "PyTorch and torchvision will be downloaded and installed into Slicer's Python, in the build that fits "
            "this computer's graphics card. That takes minutes and 1 to 6 GB of disk."
        )
        if slicer.util.confirmOkCancelDisplay(question):
            self._install([library for library in self._libraries if library.package in _BY_TORCH_EXTENSION])

    def onInstallSafetensors(self) -> None:
        self._install([library for library in self._libraries if library.package not in _BY_TORCH_EXTENSION])

    def onWheels(self) -> None:
        """Installs what doesn't work yet from files."""
        folder = qt.QFileDialog.getExistingDirectory(self.widget, _("Folder with wheel files (.whl)"))
        if folder:
            self._install([library for library in self._libraries if library.state is not State.READY], folder)

    def _install(self, wanted: list[Library], wheels: str | None = None) -> None:
        self.run(lambda onEvent: setup.startInstall(wanted, onEvent, wheels), self.check)

    def onDownloadWeights(self) -> None:
        question = _("The VGG-19 weights (550 MB) will be downloaded from pytorch.org to {folder}.")
        if slicer.util.confirmOkCancelDisplay(question.format(folder=models.weightsFolder())):
            self.run(setup.startDownloadOfWeights, self._keepNewestWeights)

    def onWeightsFile(self) -> None:
        """Takes the weights from a file, on a computer without internet."""
        file = qt.QFileDialog.getOpenFileName(
            self.widget, _("VGG-19 weights"), "", _("PyTorch or safetensors") + " (*.pth *.safetensors)"
        )
        if file:
            self.run(lambda onEvent: setup.startCopyOfWeights(file, onEvent), self._keepNewestWeights)

    def _keepNewestWeights(self) -> None:
        models.removeWeights(but=models.featureWeights())

    def onRemoveWeights(self) -> None:
        question = _("The VGG-19 weights in {folder} will be removed from the disk.")
        if slicer.util.confirmOkCancelDisplay(question.format(folder=models.weightsFolder())):
            with _shown():
                models.removeWeights()
        self.refresh()

    # --- models -------------------------------------------------------------------------------------------------------

    def onUse(self, model: StoredModel) -> None:
        """Makes the model that of the Generate panel."""
        if self.parameters:
            self.parameters.model = model.path

    def onImport(self) -> None:
        files = qt.QFileDialog.getOpenFileNames(self.widget, _("Models"), "", _("Models") + f" (*{SUFFIX})")
        for file in files:
            with _shown():
                self.refresh(select=models.importModel(file))

    def onExport(self, model: StoredModel) -> None:
        proposal = str(Path.home() / model.path.name)
        file = qt.QFileDialog.getSaveFileName(self.widget, _("Export model"), proposal, _("Models") + f" (*{SUFFIX})")
        if file:
            with _shown():
                models.exportModel(model.path, file)

    def onRename(self, model: StoredModel) -> None:
        name = qt.QInputDialog.getText(self.widget, _("Rename model"), _("New name:"), qt.QLineEdit.Normal, model.name)
        if not name or name == model.name:
            return
        with _shown():
            path = models.renameModel(model.path, name)
            if self.parameters and self.parameters.model == model.path:
                self.parameters.model = path
            self.refresh(select=path)

    def onDelete(self, model: StoredModel) -> None:
        question = _("The model {name} will be removed from the disk. That can't be undone.").format(name=model.name)
        if slicer.util.confirmOkCancelDisplay(question):
            with _shown():
                models.deleteModel(model.path)
            self.refresh()

    def onPicture(self, model: StoredModel) -> None:
        """Has the child process draw the model's picture."""
        self.run(lambda onEvent: setup.startPreview(model.path, models.picturePath(model.path), onEvent))

    # --- the folder ---------------------------------------------------------------------------------------------------

    def onOpenFolder(self) -> None:
        with _shown():
            qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(models.modelsFolder())))

    def onChangeFolder(self) -> None:
        folder = qt.QFileDialog.getExistingDirectory(self.widget, _("Folder for models and weights"))
        if folder:
            models.setModelsFolder(folder)
            self.refresh()

    # --- what is shown ------------------------------------------------------------------------------------------------

    def selectedModel(self) -> StoredModel | None:
        """The model of the selected row, None if there is none."""
        row = self.ui.modelsTable.currentRow()
        return self._models[row] if 0 <= row < len(self._models) else None

    def _ofSelected(self, action: Callable[[StoredModel], None]) -> Callable[[], None]:
        """The action as a button's slot: for the selected model, if there is one."""

        def slot() -> None:
            if model := self.selectedModel():
                action(model)

        return slot

    def refresh(self, select: Path | None = None) -> None:
        """Shows what is in the models folder now; ``select``, or what was selected, is selected."""
        selected = self.selectedModel()
        wanted = select or (selected.path if selected else None)
        self._models, self._weights = [], None
        self.ui.storageLabel.text = ""
        with _shown():
            self._models, self._weights = models.storedModels(), models.featureWeights()
            self._showStorage()
        self._showTable([model.path for model in self._models].index(wanted) if wanted in self._paths() else 0)
        self._showLibraries()
        self.showModel()

    def _paths(self) -> list[Path]:
        return [model.path for model in self._models]

    def _showTable(self, current: int) -> None:
        table = self.ui.modelsTable
        wasBlocked = table.blockSignals(True)
        table.setRowCount(len(self._models))
        for row, model in enumerate(self._models):
            card = model.card or {}
            looks = ", ".join(map(str, card.get("styles", []))) if card else _("can't be used")
            texts = (model.name, looks, str(card.get("size", "")), f"{model.sizeBytes / _MB:.1f}")
            for column, text in enumerate(texts):
                item = qt.QTableWidgetItem(text)
                item.setToolTip(model.problem or text)
                table.setItem(row, column, item)
        if self._models:
            table.selectRow(current)
        table.blockSignals(wasBlocked)

    def showModel(self) -> None:
        """Shows the selected model's card and picture."""
        model = self.selectedModel()
        self.ui.cardLabel.text = cardText(model) if model else _("There is no model yet: train one, or import a file.")
        pixmap = qt.QPixmap(str(model.picture)) if model and model.picture else qt.QPixmap()
        if pixmap.isNull():
            self.ui.pictureLabel.text = _("No picture yet") if model and model.card else ""
        else:
            size = self.ui.pictureLabel.maximumSize
            self.ui.pictureLabel.setPixmap(pixmap.scaled(size, qt.Qt.KeepAspectRatio, qt.Qt.SmoothTransformation))
        self._enableButtons()

    def _showLibraries(self) -> None:
        labels = {
            "torch": (self.ui.torchStateLabel, self.ui.torchLabel),
            "torchvision": (self.ui.torchvisionStateLabel, self.ui.torchvisionLabel),
            "safetensors": (self.ui.safetensorsStateLabel, self.ui.safetensorsLabel),
        }
        for library in self._libraries:
            state, text = labels[library.package]
            state.text, text.text = _MARKS[library.state], library.message
        problems = [library for library in self._libraries if library.state not in (State.READY, State.UNCHECKED)]
        title = _("Set-up: {name} needs attention").format(name=problems[0].title) if problems else _("Set-up")
        if all(library.state is State.READY for library in self._libraries):
            title = _("Set-up: complete")
        self.ui.setUpCollapsibleButton.text = title
        self.ui.weightsStateLabel.text = "✓" if self._weights else "-"
        if self._weights:
            text = _("VGG-19 weights: {name}").format(name=self._weights.name)
        else:
            text = _("No VGG-19 weights: training measures style with fixed random filters (optional)")
        self.ui.weightsLabel.text = text
        self._enableButtons()

    def _showStorage(self) -> None:
        self.ui.storageLabel.text = _("{folder}\nModels: {models} MB. VGG weights: {weights} MB.").format(
            folder=models.modelsFolder(),
            models=f"{sum(model.sizeBytes for model in self._models) / _MB:.1f}",
            weights=f"{models.sizeOf(models.weightsFolder()) / _MB:.1f}",
        )

    def _enableButtons(self) -> None:
        """Only what can be done now can be clicked."""
        isIdle, model = not self.isBusy, self.selectedModel()
        states = {library.package: library.state for library in self._libraries}
        isMissing = {p: s in (State.MISSING, State.OUTDATED, State.BROKEN) for p, s in states.items()}
        for button, package in (
            (self.ui.torchButton, "torch"),
            (self.ui.torchvisionButton, "torchvision"),
            (self.ui.safetensorsButton, "safetensors"),
        ):
            button.visible, button.enabled = isMissing[package], isIdle
        self.ui.wheelsButton.enabled = isIdle and any(isMissing.values())
        canCompute = all(state is State.READY for state in states.values())
        self.ui.checkButton.enabled = isIdle
        for button in (self.ui.downloadWeightsButton, self.ui.weightsFileButton):
            button.enabled = isIdle and canCompute
        self.ui.removeWeightsButton.enabled = isIdle and self._weights is not None
        self.ui.downloadWeightsButton.visible = self._weights is None
        self.ui.progressBar.visible = self.ui.cancelButton.visible = not isIdle
        isUsable = model is not None and model.card is not None
        for button in (self.ui.useButton, self.ui.exportButton):
            button.enabled = isUsable
        for button in (self.ui.renameButton, self.ui.deleteButton):
            button.enabled = model is not None
        self.ui.pictureButton.enabled = isIdle and isUsable


def cardText(model: StoredModel) -> str:
    """A model's card as rich text for the panel."""
    if model.card is None:
        return html.escape(model.problem)
    card = model.card
    versions, features = card["versions"], card["features"]
    measured = str(features.get("kind", "?"))
    if features.get("sha256"):
        measured += " " + _("(SHA-256 {digits}...)").format(digits=str(features["sha256"])[:12])
    rows = (
        (_("Look of"), ", ".join(map(str, card["styles"]))),
        (_("Anatomy"), _names(card["anatomy"])),
        (_("Recipe"), f"{card['preset'].get('name', '?')}, {card['size']} px"),
        (_("Trained"), _("{steps} steps, {date}").format(steps=card.get("steps", "?"), date=card.get("created", "?"))),
        (_("Cases"), f"{len(card['cases'])}: " + ", ".join(map(str, card["cases"]))),
        (_("Measured by"), measured),
        (_("Made with"), ", ".join(f"{name} {version}" for name, version in versions.items())),
    )
    lines = [f"<b>{html.escape(name)}:</b> {html.escape(text)}" for name, text in rows]
    return "<br>".join([f"<b>{html.escape(model.name)}</b>", *lines, html.escape(str(card.get("use", "")))])


def _names(anatomy: dict[str, Any]) -> str:
    return f"{anatomy['name']} (" + ", ".join(organ["name"] for organ in anatomy["organs"]) + ")"


@contextmanager
def _shown() -> Iterator[None]:
    """Shows what went wrong, in its one sentence."""
    try:
        yield
    except (InputError, JobError, OSError) as error:
        slicer.util.errorDisplay(str(error))
