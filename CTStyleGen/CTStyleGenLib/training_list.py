"""The section Trainings of the Train panel: those of the models folder, the selected one watched and steered."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer
from CTStyleGenCore.errors import InputError
from CTStyleGenCore.model_file import read_card
from slicer.i18n import tr as _

from .jobs import JobError
from .loss_plot import lossTitle, relativeLosses, showLossPlot, updateLossPlot
from .models import nearCopiesText
from .speed import inWords
from .training import trainings
from .training_run import State, Training

_POLL_MS = 1000
_AT_WORK = (State.RUNNING, State.STOPPING)


class TrainingList:
    """A combo box of trainings; progress, losses and picture of the selected one; the buttons that steer it."""

    def __init__(self, ui: Any, parent: Any, onChange: Callable[[], None]) -> None:
        """``ui``: the widgets of the Train panel. ``onChange`` is told when a training got another state."""
        self._ui, self._onChange = ui, onChange
        self._trainings: list[Training] = []  # in the combo box
        self._problem = ""  # why they can't be listed
        self._shownPreview: object = ()  # file, time and width of the picture that is shown
        self._timer = qt.QTimer(parent)
        self._timer.interval = _POLL_MS
        self._timer.connect("timeout()", self.poll)
        ui.trainingComboBox.connect("currentIndexChanged(int)", self._show)
        ui.goesOnCheckBox.connect("clicked(bool)", self._onGoesOn)
        for button, slot in (
            (ui.pauseButton, self._ofSelected(self._onPause)),
            (ui.stopButton, self._ofSelected(Training.stop)),
            (ui.curvesButton, self._ofSelected(showLossPlot)),
            (ui.discardButton, self._ofSelected(self._onDiscard)),
        ):
            button.connect("clicked()", slot)
        self.refresh()

    @property
    def selected(self) -> Training | None:
        """The training that is shown."""
        index = self._ui.trainingComboBox.currentIndex
        return self._trainings[index] if 0 <= index < len(self._trainings) else None

    @property
    def isAtWork(self) -> bool:
        """Whether any training is."""
        return any(training.state in _AT_WORK for training in self._trainings)

    def done(self) -> list[Training]:
        """Those whose models are there."""
        return [training for training in self._trainings if training.state is State.DONE]

    def refresh(self, select: Training | None = None) -> None:
        """Lists the trainings of the models folder; ``select``, else what was selected, is selected."""
        current = select or self.selected
        known = {(one.folder, one.started): one for one in [*self._trainings, *filter(None, [select])]}
        try:
            self._trainings, self._problem = [known.get((t.folder, t.started), t) for t in trainings()], ""
        except (InputError, OSError) as error:  # the folder is not there: said, not raised, so that the module opens
            self._trainings, self._problem = [], str(error)
        folders = [training.folder for training in self._trainings]
        combo = self._ui.trainingComboBox
        combo.blockSignals(True)
        combo.clear()
        combo.addItems([""] * len(folders) or [_("(none yet)")])
        combo.currentIndex = folders.index(current.folder) if current and current.folder in folders else 0
        combo.blockSignals(False)
        self._name()
        self._show()
        self._timer.start()

    def poll(self) -> None:
        """Follows the trainings."""
        before = [training.state for training in self._trainings]
        try:
            for training in self._trainings:
                training.poll()
                updateLossPlot(training)
        except (InputError, JobError, OSError) as error:
            self._timer.stop()  # told once, not each second
            slicer.util.errorDisplay(str(error))
        if [training.state for training in self._trainings] != before:
            self._name()
            self._onChange()
        self._show()
        if not self.isAtWork:
            self._timer.stop()

    def close(self) -> None:
        """Follows them no more; they go on."""
        self._timer.stop()

    # --- showing it ---

    def _name(self) -> None:
        for index, training in enumerate(self._trainings):
            text = _("{name} ({state})").format(name=training.name, state=training.state.label())
            self._ui.trainingComboBox.setItemText(index, text)

    def _show(self) -> None:
        """Shows how far the selected training is."""
        training, ui = self.selected, self._ui
        for widget in (ui.goesOnCheckBox, ui.progressBar, ui.pauseButton, ui.stopButton, ui.curvesButton):
            widget.visible = training is not None
        ui.discardButton.visible = training is not None
        ui.statusLabel.visible = training is not None or bool(self._problem)
        ui.statusLabel.text = _status(training) if training else self._problem
        self._showPreview(training.preview if training else None)
        if training is None:
            return
        isRunning = training.state is State.RUNNING
        canGoOn = training.state in (State.PAUSED, State.FAILED) and training.checkpoint.is_file()
        ui.goesOnCheckBox.checked = training.outlives
        ui.goesOnCheckBox.enabled = training.state in _AT_WORK and training.startedHere
        ui.progressBar.maximum = training.total or (0 if isRunning else 1)  # 0: the bar says that it is at work
        ui.progressBar.value = training.done
        ui.statusLabel.toolTip = training.log() if training.state is State.FAILED else ""
        ui.pauseButton.text = _("Resume") if canGoOn else _("Pause")
        ui.pauseButton.enabled = ui.stopButton.enabled = isRunning or canGoOn
        ui.curvesButton.enabled = bool(training.curve.steps)

    def _showPreview(self, preview: Path | None) -> None:
        label = self._ui.previewLabel
        width = max(240, self._ui.progressSection.width - 20)
        try:
            shown = (preview, preview.stat().st_mtime, width) if preview else None
        except OSError:  # another Slicer has just discarded it
            shown = preview = None
        if shown == self._shownPreview:
            return
        self._shownPreview = shown
        label.visible = self._ui.previewCaptionLabel.visible = preview is not None
        if preview:
            label.setPixmap(qt.QPixmap(str(preview)).scaledToWidth(width, qt.Qt.SmoothTransformation))

    # --- steering it ---

    def _ofSelected(self, action: Callable[[Training], Any]) -> Callable[[], None]:
        """The action as a button's slot: for the selected training, if there is one."""

        def slot() -> None:
            training = self.selected
            if training is None:
                return
            with slicer.util.tryWithErrorDisplay(_("That can't be done."), waitCursor=True):
                action(training)
            self.refresh()
            self._onChange()

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
        if training := self.selected:
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
