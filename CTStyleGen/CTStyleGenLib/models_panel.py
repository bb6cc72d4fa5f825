"""The Models panel: what generating and training need on this computer, and the models that it has."""

import html
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import qt
import slicer
from CTStyleGenCore.errors import InputError
from CTStyleGenCore.model_file import SUFFIX
from slicer.i18n import tr as _

from . import models, setup
from .child_bar import ChildBar, shown
from .models import StoredModel
from .panel import Panel
from .setup_rows import SetUpRows
from .tables import fitHeight, prepareTable
from .training import trainings

_MB = 1_000_000
_ROWS_SHOWN = (4, 8)  # at least, at most; more are scrolled


class ModelsPanel(Panel):
    """Set-up of the child process, the models of the models folder, and what they take on the disk.

    One child process works for the panel at a time; what would start another one waits until it has ended.
    """

    def __init__(self, logic: Any) -> None:
        super().__init__("ModelsPanel.ui", logic)
        self.title = _("Models")
        self._models: list[StoredModel] = []  # the rows of the table
        self._problem = ""  # why there are none
        self._child = ChildBar(self.ui.progressBar, self.ui.cancelButton, self.ui.logTextEdit, self.refresh)
        self.setUpRows = SetUpRows(self.ui, self._child, self.refresh)
        self._prepareTable()
        self._connectButtons()

    def _prepareTable(self) -> None:
        table = self.ui.modelsTable
        header = prepareTable(table, [_("Model"), _("Look of"), _("Pixels"), _("MB")])
        header.setSectionResizeMode(qt.QHeaderView.ResizeToContents)
        header.setSectionResizeMode(0, qt.QHeaderView.Stretch)
        table.connect("itemSelectionChanged()", self.showModel)

    def _connectButtons(self) -> None:
        for button, slot in (
            (self.ui.useButton, self._ofSelected(self.onUse)),
            (self.ui.importButton, self.onImport),
            (self.ui.exportButton, self._ofSelected(self.onExport)),
            (self.ui.renameButton, self._ofSelected(self.onRename)),
            (self.ui.deleteButton, self._ofSelected(self.onDelete)),
            (self.ui.pictureButton, self._ofSelected(self.onPicture)),
            (self.ui.openFolderButton, self.onOpenFolder),
            (self.ui.changeFolderButton, self.onChangeFolder),
            (self.ui.removeAllButton, self.onRemoveAll),
        ):
            button.connect("clicked()", slot)

    def shown(self) -> None:
        """Shows what is on the disk now; the first time, checks the libraries as well."""
        self.refresh()
        if not self.setUpRows.isChecked and not self.isBusy:
            self.setUpRows.check()

    def cleanup(self) -> None:
        """No child process outlives the panel."""
        self._child.close()
        super().cleanup()

    @property
    def isBusy(self) -> bool:
        """Whether a child process is at work for the panel."""
        return self._child.isBusy

    # --- models -------------------------------------------------------------------------------------------------------

    def onUse(self, model: StoredModel) -> None:
        """Makes the model that of the Generate panel."""
        if self.parameters:
            self.parameters.model = model.path

    def onImport(self) -> None:
        files = qt.QFileDialog.getOpenFileNames(self.widget, _("Models"), "", _("Models") + f" (*{SUFFIX})")
        for file in files:
            with shown():
                self.refresh(select=models.importModel(file))

    def onExport(self, model: StoredModel) -> None:
        proposal = str(Path.home() / model.path.name)
        file = qt.QFileDialog.getSaveFileName(self.widget, _("Export model"), proposal, _("Models") + f" (*{SUFFIX})")
        if file:
            with shown():
                models.exportModel(model.path, file)

    def onRename(self, model: StoredModel) -> None:
        name = qt.QInputDialog.getText(self.widget, _("Rename model"), _("New name:"), qt.QLineEdit.Normal, model.name)
        if not name or name == model.name:
            return
        with shown():
            path = models.renameModel(model.path, name)
            if self.parameters and self.parameters.model == model.path:
                self.parameters.model = path
            self.refresh(select=path)

    def onDelete(self, model: StoredModel) -> None:
        question = _("The model {name} will be removed from the disk. That can't be undone.").format(name=model.name)
        if slicer.util.confirmOkCancelDisplay(question):
            with shown():
                models.deleteModel(model.path)
            self.refresh()

    def onPicture(self, model: StoredModel) -> None:
        """Has the child process draw the model's picture."""
        self._child.run(lambda onEvent: setup.startPreview(model.path, models.picturePath(model.path), onEvent))

    # --- the folder ---------------------------------------------------------------------------------------------------

    def onOpenFolder(self) -> None:
        with shown():
            qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(models.modelsFolder())))

    def onChangeFolder(self) -> None:
        folder = qt.QFileDialog.getExistingDirectory(self.widget, _("Folder for models and weights"))
        if folder:
            models.setModelsFolder(folder)
            self.refresh()

    def onRemoveAll(self) -> None:
        """Leaves nothing of ours; trainings at work are ended."""
        question = _(
            "All models, trainings and VGG weights in {folder} will be removed from the disk. That can't be undone."
        )
        with shown():
            if slicer.util.confirmOkCancelDisplay(question.format(folder=models.modelsFolder())):
                for training in trainings():
                    training.discard()
                models.removeAll()
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
        self._models, weights, self._problem = [], None, ""
        try:
            self._models, weights = models.storedModels(), models.featureWeights()
            self._showStorage()
        except (InputError, OSError) as error:  # the folder is not there
            self._problem = self.ui.storageLabel.text = str(error)
        self._showTable([model.path for model in self._models].index(wanted) if wanted in self._paths() else 0)
        self.setUpRows.show(weights)
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
        fitHeight(table, *_ROWS_SHOWN)
        if self._models:
            table.selectRow(current)
        table.blockSignals(wasBlocked)

    def showModel(self) -> None:
        """Shows the selected model's card and picture."""
        model = self.selectedModel()
        none = self._problem or _("There is no model yet: train one, or import a file.")
        self.ui.cardLabel.text = cardText(model) if model else none
        pixmap = qt.QPixmap(str(model.picture)) if model and model.picture else qt.QPixmap()
        if pixmap.isNull():
            self.ui.pictureLabel.text = _("No picture yet") if model and model.card else ""
        else:
            size = self.ui.pictureLabel.maximumSize
            self.ui.pictureLabel.setPixmap(pixmap.scaled(size, qt.Qt.KeepAspectRatio, qt.Qt.SmoothTransformation))
        self._enableButtons(model)

    def _showStorage(self) -> None:
        self.ui.storageLabel.text = f"{models.modelsFolder()}\n{sizesText(self._models)}"

    def _enableButtons(self, model: StoredModel | None) -> None:
        isUsable = model is not None and model.card is not None
        for button in (self.ui.useButton, self.ui.exportButton):
            button.enabled = isUsable
        for button in (self.ui.renameButton, self.ui.deleteButton):
            button.enabled = model is not None
        self.ui.pictureButton.enabled = isUsable and not self.isBusy


def sizesText(stored: Sequence[StoredModel]) -> str:
    """How large models, trainings and weights are."""
    sizes = {
        "models": sum(model.sizeBytes for model in stored),
        "trainings": models.sizeOf(models.trainingsFolder()),  # with the CTs that they learn from
        "weights": models.sizeOf(models.weightsFolder()),
    }
    return _("Models: {models} MB. Trainings: {trainings} MB. VGG weights: {weights} MB.").format(
        **{what: f"{size / _MB:.1f}" for what, size in sizes.items()}
    )


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
        (_("Near copies of training slices"), models.nearCopiesText(card)),
        (_("Made with"), ", ".join(f"{name} {version}" for name, version in versions.items())),
    )
    lines = [f"<b>{html.escape(name)}:</b> {html.escape(text)}" for name, text in rows]
    return "<br>".join([f"<b>{html.escape(model.name)}</b>", *lines, html.escape(str(card.get("use", "")))])


def _names(anatomy: dict[str, Any]) -> str:
    return f"{anatomy['name']} (" + ", ".join(organ["name"] for organ in anatomy["organs"]) + ")"
