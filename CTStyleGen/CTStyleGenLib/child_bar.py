"""A child process that works for a panel outside of any scene: its progress bar, Cancel button and output."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import qt
import slicer
from CTStyleGenCore.errors import InputError
from slicer.i18n import tr as _

from .jobs import Event, Job, JobCanceled, JobError

_POLL_MS = 100
_MB = 1_000_000


@contextmanager
def shown() -> Iterator[None]:
    """Shows what goes wrong in the block, in its one sentence."""
    try:
        yield
    except (InputError, JobError, OSError) as error:
        slicer.util.errorDisplay(str(error))


class ChildBar:
    """Runs one job at a time, which closing the scene doesn't end. Bar and button are hidden when there is none."""

    def __init__(self, progressBar: Any, cancelButton: Any, log: Any, onChange: Callable[[], None]) -> None:
        """``onChange`` is called when a job has begun or ended."""
        self._bar, self._cancelButton, self._log, self._onChange = progressBar, cancelButton, log, onChange
        self._job: Job | None = None
        self._onDone: Callable[[], None]
        self._onFailed: Callable[[Exception], None]
        self._timer = qt.QTimer(progressBar)
        self._timer.interval = _POLL_MS
        self._timer.connect("timeout()", self._onTimer)
        self._cancelButton.connect("clicked()", self.cancel)
        self._show()

    @property
    def isBusy(self) -> bool:
        """Whether a job is at work."""
        return self._job is not None

    def run(
        self,
        start: Callable[[Callable[[Event], None]], Job],
        onDone: Callable[[], None] = lambda: None,
        onFailed: Callable[[Exception], None] = lambda error: slicer.util.errorDisplay(str(error)),
    ) -> None:
        """Starts a job; calls ``onDone`` or, unless it is canceled, ``onFailed`` when it has ended."""
        self._log.clear()
        self._log.hide()
        self._bar.setRange(0, 0)  # busy
        with shown():
            self._job, self._onDone, self._onFailed = start(self._onEvent), onDone, onFailed
            self._timer.start()
        self._show()
        self._onChange()

    def cancel(self) -> None:
        """Ends the job; nothing half done is left of a download."""
        if self._job:
            self._job.cancel()

    def close(self) -> None:
        """Ends the job, and hears no more of it."""
        self._timer.stop()
        self.cancel()

    def _onEvent(self, event: Event) -> None:
        """Shows how far the job is, and what it says."""
        total = event.get("total")
        if event["event"] == "progress" and total:
            self._bar.setRange(0, 1000)
            self._bar.value = 1000 * event["done"] // total
            self._bar.format = _("{done} of {total} MB").format(done=event["done"] // _MB, total=-(-total // _MB))
        elif event["event"] == "notice":
            self._log.show()
            self._log.appendPlainText(event["message"])

    def _onTimer(self) -> None:
        """Follows the job, and ends it when the child process has ended."""
        if not self._job or not self._job.poll():
            return
        job, self._job = self._job, None
        self._timer.stop()
        self._show()
        try:
            job.result()
        except JobCanceled:
            pass
        except (InputError, JobError) as error:
            self._onFailed(error)
        else:
            with shown():
                self._onDone()
        self._onChange()

    def _show(self) -> None:
        self._bar.visible = self._cancelButton.visible = self.isBusy
