"""A dialog for what keeps the scene busy for seconds: how far it is, and a way out.

Slicer's windows are drawn, and its timers run, while it is open; nothing but the dialog can be clicked, so nodes stay
as they are.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from .jobs import JobCanceled

_AFTER_MS = 1000  # what takes less needs no dialog
_POLL_SECONDS = 0.02


class ProgressDialog:
    """A dialog that comes after a second, if there are several steps and a main window; used in a with statement."""

    def __init__(self, title: str, total: int) -> None:
        self._done = 0
        self._dialog: Any = None
        if total > 1 and slicer.util.mainWindow() is not None:
            self._dialog = slicer.util.createProgressDialog(
                maximum=total, windowTitle=title, minimumDuration=_AFTER_MS, windowModality=qt.Qt.ApplicationModal
            )

    def __enter__(self) -> "ProgressDialog":
        return self

    def __exit__(self, *error: object) -> None:
        if self._dialog:
            self._dialog.close()
            self._dialog.deleteLater()

    def next(self, text: str) -> None:
        """Tells what comes next, when all before is done. Raises JobCanceled after the user has canceled."""
        if self._dialog:
            self._dialog.labelText = text
            self._dialog.value = self._done
            self._breathe()
        self._done += 1

    def aside(self, work: Callable[[], None]) -> None:
        """Does work that touches no node, in a thread where there is a dialog to keep alive.

        Raises what it raises, and JobCanceled, when it is done, after the user has canceled.
        """
        if not self._dialog:
            work()
            return
        with ThreadPoolExecutor(1) as executor:
            future = executor.submit(work)
            while not future.done():
                slicer.app.processEvents()
                time.sleep(_POLL_SECONDS)
        future.result()
        self._breathe()

    def _breathe(self) -> None:
        """Has Slicer draw its windows, and hear of clicks."""
        slicer.app.processEvents()
        if self._dialog.wasCanceled:
            raise JobCanceled(_("The job was canceled."))
