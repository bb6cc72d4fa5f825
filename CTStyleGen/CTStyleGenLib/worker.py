"""The warm worker: a process that keeps models loaded, so that the CT of one slice takes no longer than the slice.

docs/worker.md describes what is said to it and what it answers.
"""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from .jobs import Child, Event, coreCommand

Answer = Callable[[Event], None]
_STOP_SECONDS = 1.0  # to end by itself; a batch of slices may take longer


class Worker:
    """A worker and the requests that it hasn't answered yet.

    >>> worker = Worker(folder)
    >>> worker.ask("synthesize", print, model=..., segmentation=..., output=...)
    >>> worker.poll()  # now and then, on the main thread
    """

    def __init__(self, folder: str | Path, device: str = "auto") -> None:
        """Starts the process. Raises JobError when it can't be started."""
        self._child = Child([*coreCommand(), "serve", "--device", device], folder, self._hear, listens=True)
        self._ids = itertools.count(1)
        self._waiting: dict[int, Answer] = {}

    @property
    def isBusy(self) -> bool:
        """Whether an answer is still to come."""
        return bool(self._waiting)

    def ask(self, request: str, onAnswer: Answer, **values: Any) -> None:
        """Sends a request; ``onAnswer`` is told all events of its answer, the last of which is "done" or "error".

        When the process ends before, that is an "error", too.
        """
        number = next(self._ids)
        self._waiting[number] = onAnswer
        self._child.tell({"id": number, "request": request, **values})

    def poll(self) -> bool:
        """Passes on the answers that have come; whether the process has ended."""
        if not self._child.poll():
            return False
        lines = self._child.log().splitlines()
        message = _("The CTStyleGen worker has ended: {reason}").format(reason=lines[-1] if lines else "")
        for number in list(self._waiting):
            self._hear({"event": "error", "id": number, "kind": "failed", "message": message})
        return True

    def close(self) -> None:
        """Ends the process: asks it to, and kills it if it doesn't."""
        self._waiting.clear()
        self._child.tell({"id": next(self._ids), "request": "stop"})
        if not self._child.waitFor(_STOP_SECONDS):
            self._child.kill()
        self._child.poll()

    def _hear(self, event: Event) -> None:
        number = event.get("id")
        answer = self._waiting.get(number) if isinstance(number, int) else None
        if event.get("event") in ("done", "error", "hello", "loaded"):
            self._waiting.pop(number, None)  # type: ignore[arg-type] # what isn't there isn't removed
        if answer:
            answer(event)
