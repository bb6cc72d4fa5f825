"""The progress bar and the Cancel button of what a panel lets the queue do."""

from collections.abc import Callable
from typing import Any

from slicer.i18n import tr as _

from .job_queue import QueuedJob, State
from .jobs import Event
from .speed import inWords


class JobBar:
    """Shows how far the first of a panel's jobs is, and what waits; cancels it on request.

    A job's nodes are those that it noted when it was made: the panel may show others by its end, or none.
    """

    def __init__(self, progressBar: Any, cancelButton: Any, ofTotal: str) -> None:
        """``ofTotal``: how the progress is told, "{done} of {total} slices", translated."""
        self.jobs: list[QueuedJob] = []  # of the panel, waiting or running
        self._bar, self._cancelButton, self._ofTotal = progressBar, cancelButton, ofTotal
        self._bar.hide()
        self._cancelButton.connect("clicked(bool)", self.cancel)

    def add(
        self,
        job: QueuedJob,
        onEnd: Callable[[QueuedJob], None],
        onNotice: Callable[[str], None] = lambda message: None,
    ) -> None:
        """Follows a job; tells its end, whatever it is, and what it notices on the way."""

        def note(event: Event) -> None:
            if event["event"] == "notice":
                onNotice(event["message"])
            self.show(event.get("seconds_left"))

        def end(job: QueuedJob) -> None:
            self.jobs.remove(job)
            self.show()
            onEnd(job)

        job.onEvent, job.onEnd = note, end
        self.jobs.append(job)
        self.show()

    def cancel(self) -> None:
        """Cancels the job at work; the next one in the queue begins."""
        if self.jobs:
            self.jobs[0].cancel()

    def close(self) -> None:
        """Hears no more of the jobs, which go on."""
        for job in self.jobs:
            job.onEvent = job.onEnd = _nothing
        self.jobs = []

    def show(self, secondsLeft: float | None = None) -> None:
        """Shows the bar as it should be now."""
        self._bar.visible = self._cancelButton.enabled = bool(self.jobs)
        if not self.jobs:
            return
        job = self.jobs[0]
        self._bar.maximum = job.total  # 0 at first: the bar says that it is at work
        self._bar.value = job.done
        if job.state is State.WAITING:
            text = _("Waits for its turn ...")
        elif not job.total:
            text = _("Starting ...")
        else:
            text = self._ofTotal.format(done=job.done, total=job.total)
        if secondsLeft:
            text = _("{text}, {time} left").format(text=text, time=inWords(secondsLeft))
        if len(self.jobs) > 1:
            text = _("{text}, {count} more waiting").format(text=text, count=len(self.jobs) - 1)
        self._bar.format = text


def _nothing(told: object) -> None:
    """Hears no more of a job."""
