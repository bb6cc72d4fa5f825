"""What networks can be computed on, as a child process finds out: PyTorch is never imported in Slicer's."""

from collections.abc import Callable
from typing import Any, ClassVar

import qt
import slicer
from slicer.i18n import tr as _

from . import setup
from .jobs import Event, Job

Device = dict[str, Any]  # of docs/worker.md's event "devices"
_POLL_MS = 200


class Devices:
    """The devices of this computer: found once, known to all panels."""

    known: ClassVar[list[Device]] = []

    def __init__(self, parent: Any, onFound: Callable[[], None]) -> None:
        self._onFound = onFound
        self._job: Job | None = None
        self._timer = qt.QTimer(parent)
        self._timer.interval = _POLL_MS
        self._timer.connect("timeout()", self._poll)

    @property
    def isSearching(self) -> bool:
        """Whether a child process is at it."""
        return self._job is not None

    def find(self) -> None:
        """Begins to find out, unless it is known; ``onFound`` is called later. Without PyTorch none is found."""
        if self.known or self._job:
            return
        with slicer.util.tryWithErrorDisplay(_("The devices can't be found.")):
            self._job = setup.startCheck(self._onEvent)
            self._timer.start()

    def best(self, name: str) -> Device | None:
        """What is known of a device: "auto" is the first GPU that works, else the CPU, as in the Core; "cuda" a GPU."""
        cards = [device for device in self.known if device["name"] != "cpu" and device["works"]]
        if name == "auto":
            return next(iter(cards + self.known), None)
        if name == "cuda":
            return next(iter(cards), None)
        return next((device for device in self.known if device["name"] == name), None)

    def close(self) -> None:
        """Ends the search, and hears no more of it."""
        self._timer.stop()
        if self._job:
            self._job.cancel()

    def _onEvent(self, event: Event) -> None:
        if event["event"] == "devices":
            Devices.known = event["devices"]
            self._onFound()

    def _poll(self) -> None:
        if self._job and self._job.poll():
            self._job = None
            self._timer.stop()
