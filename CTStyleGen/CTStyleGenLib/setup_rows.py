"""The section Set-up of the Models panel: a row for each thing that the child process needs, and a button to get it."""

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import CTStyleGenCore
import qt
import slicer
from slicer.i18n import tr as _

from . import models, setup
from .child_bar import ChildBar, shown
from .jobs import Event
from .setup import Library, State

_MARKS = {State.UNCHECKED: "…", State.READY: "✓", State.MISSING: "✗", State.OUTDATED: "✗", State.BROKEN: "✗"}
_BY_TORCH_EXTENSION = ("torch", "torchvision")


def _withoutFolders(text: str) -> str:
    """The text without the user's own folders, which tell who that is."""
    for folder, name in ((str(models.modelsFolder()), "MODELS"), (str(Path.home()), "HOME")):
        text = text.replace(folder, name)
    return text


class SetUpRows:
    """Libraries and VGG weights: whether they are there and work, as the child process found out; getting them."""

    def __init__(self, ui: Any, child: ChildBar, onChange: Callable[[], None]) -> None:
        """``ui``: the widgets of the Models panel. ``onChange`` is called when files have changed."""
        self._ui, self._child, self._onChange = ui, child, onChange
        self._libraries = setup.libraries([])
        self._devices = ""
        self._weights: Path | None = None  # of the VGG
        for button, slot in (
            (ui.checkButton, self.check),
            (ui.torchButton, self.onInstallTorch),
            (ui.torchvisionButton, self.onInstallTorch),
            (ui.safetensorsButton, self.onInstallSafetensors),
            (ui.wheelsButton, self.onWheels),
            (ui.downloadWeightsButton, self.onDownloadWeights),
            (ui.weightsFileButton, self.onWeightsFile),
            (ui.removeWeightsButton, self.onRemoveWeights),
            (ui.reportButton, self.onCopyReport),
        ):
            button.connect("clicked()", slot)
        ui.setUpCollapsibleButton.connect("contentsCollapsed(bool)", self._enableButtons)  # opened, it shows them all

    @property
    def isChecked(self) -> bool:
        """Whether a check has told anything yet."""
        return any(library.state is not State.UNCHECKED for library in self._libraries)

    def check(self) -> None:
        """Asks the child process which libraries work; one that crashes it is found out by that."""
        events: list[Event] = []

        def told(event: Event) -> None:
            events.append(event)
            show()

        def show(hasEnded: bool = False) -> None:
            self._libraries, self._devices = setup.libraries(events, hasEnded), setup.devices(events)
            self.show(self._weights)

        show()
        self._child.run(lambda onEvent: setup.startCheck(told), self._fold, lambda error: show(hasEnded=True))

    def _fold(self) -> None:
        """Folds the set-up when a check finds nothing to do there."""
        isComplete = self._weights and all(library.state is State.READY for library in self._libraries)
        self._ui.setUpCollapsibleButton.collapsed = bool(isComplete)

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
        folder = qt.QFileDialog.getExistingDirectory(
            self._ui.setUpCollapsibleButton, _("Folder with wheel files (.whl)")
        )
        if folder:
            self._install([library for library in self._libraries if library.state is not State.READY], folder)

    def _install(self, wanted: list[Library], wheels: str | None = None) -> None:
        self._child.run(lambda onEvent: setup.startInstall(wanted, onEvent, wheels), self.check)

    def onDownloadWeights(self) -> None:
        question = _("The VGG-19 weights (550 MB) will be downloaded from pytorch.org to {folder}.")
        if slicer.util.confirmOkCancelDisplay(question.format(folder=models.weightsFolder())):
            self._child.run(setup.startDownloadOfWeights, self._keepNewestWeights)

    def onWeightsFile(self) -> None:
        """Takes the weights from a file, on a computer without internet."""
        file = qt.QFileDialog.getOpenFileName(
            self._ui.setUpCollapsibleButton,
            _("VGG-19 weights"),
            "",
            _("PyTorch or safetensors") + " (*.pth *.safetensors)",
        )
        if file:
            self._child.run(lambda onEvent: setup.startCopyOfWeights(file, onEvent), self._keepNewestWeights)

    def _keepNewestWeights(self) -> None:
        models.removeWeights(but=models.featureWeights())

    def onRemoveWeights(self) -> None:
        question = _("The VGG-19 weights in {folder} will be removed from the disk.")
        if slicer.util.confirmOkCancelDisplay(question.format(folder=models.weightsFolder())):
            with shown():
                models.removeWeights()
        self._onChange()

    def onCopyReport(self) -> None:
        """Puts on the clipboard what somebody needs to know who is to help."""
        lines = [
            f"CTStyleGen {CTStyleGenCore.__version__}, Slicer {slicer.app.applicationVersion}",
            f"Python {platform.python_version()}, {platform.platform()}",
            *(f"{library.package}: {library.state.value}. {library.message}" for library in self._libraries),
            f"devices: {self._devices or 'unknown'}",
            f"weights: {'there' if self._weights else 'none'}",
            self._ui.logTextEdit.plainText,
        ]
        qt.QApplication.clipboard().setText(_withoutFolders("\n".join(lines)).strip() + "\n")
        slicer.util.showStatusMessage(_("Copied; paste it into a message."), 3000)

    def show(self, weights: Path | None) -> None:
        """Shows what is known of the libraries, and the VGG ``weights`` that there are."""
        self._weights = weights
        labels = {
            "torch": (self._ui.torchStateLabel, self._ui.torchLabel),
            "torchvision": (self._ui.torchvisionStateLabel, self._ui.torchvisionLabel),
            "safetensors": (self._ui.safetensorsStateLabel, self._ui.safetensorsLabel),
        }
        for library in self._libraries:
            state, text = labels[library.package]
            state.text, text.text = _MARKS[library.state], library.message
        if self._devices:
            self._ui.torchLabel.text += "\n" + _("Computes on: {devices}").format(devices=self._devices)
        problems = [library for library in self._libraries if library.state not in (State.READY, State.UNCHECKED)]
        title = _("Set-up: {name} needs attention").format(name=problems[0].title) if problems else _("Set-up")
        if all(library.state is State.READY for library in self._libraries):
            title = _("Set-up: complete")
        self._ui.setUpCollapsibleButton.text = title
        self._ui.weightsStateLabel.text = "✓" if self._weights else "-"
        if self._weights:
            text = _("VGG-19 weights: {name}").format(name=self._weights.name)
        else:
            text = _("No VGG-19 weights: training measures style with fixed random filters (optional)")
        self._ui.weightsLabel.text = text
        self._enableButtons()

    def _enableButtons(self) -> None:
        """Only what can be done now can be clicked; what is there needs no button."""
        isIdle = not self._child.isBusy
        states = {library.package: library.state for library in self._libraries}
        isMissing = {p: s in (State.MISSING, State.OUTDATED, State.BROKEN) for p, s in states.items()}
        for button, package in (
            (self._ui.torchButton, "torch"),
            (self._ui.torchvisionButton, "torchvision"),
            (self._ui.safetensorsButton, "safetensors"),
        ):
            button.visible, button.enabled = isMissing[package], isIdle
        self._ui.checkButton.enabled = isIdle
        self._ui.wheelsButton.enabled = isIdle and any(isMissing.values())
        canCompute = all(state is State.READY for state in states.values())
        for button in (self._ui.downloadWeightsButton, self._ui.weightsFileButton):
            button.enabled = isIdle and canCompute
        self._ui.downloadWeightsButton.visible = self._weights is None
        self._ui.removeWeightsButton.enabled = isIdle and self._weights is not None
