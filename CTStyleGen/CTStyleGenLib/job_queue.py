"""Work that makes something of the scene, followed by a timer while Slicer stays at hand.

Jobs of a lane run one after the other, lanes beside each other: a data set of hours holds up no CT of seconds.

All of it happens on the main thread, since nodes may be touched nowhere else.
"""

import enum
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

import qt
import slicer
from CTStyleGenCore.errors import InputError
from slicer.i18n import tr as _

from .jobs import Event, Job, JobCanceled, JobError

_POLL_SECONDS = 0.05


class State(enum.Enum):
    """What a job is at."""

    WAITING = "waiting"  # for its turn
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELED = "canceled"


class QueuedJob:
    """A job in the scene: a command of the Core, and what is made of its result. Those who derive say which and what.

    >>> job = logic.synthesize(segmentationNode, model="chest.ctstyle", wait=False)
    >>> job.state, job.done, job.total
    (<State.RUNNING: 'running'>, 12, 40)
    >>> job.wait()  # or job.cancel()
    """

    lane = "scene"  # jobs whose results go into the scene, and that end with it

    def __init__(self) -> None:
        self.state = State.WAITING
        self.result: Any = None  # of a job that is DONE
        self.error: Exception | None = None  # of one that FAILED or was CANCELED
        self.done, self.total = 0, 0  # of what its events count
        self.onEvent: Callable[[Event], None] = lambda event: None
        self.onEnd: Callable[[QueuedJob], None] = lambda job: None  # told once, whatever the end
        self._job: Job | None = None

    @property
    def hasEnded(self) -> bool:
        return self.state in (State.DONE, State.FAILED, State.CANCELED)

    def poll(self) -> bool:
        """Goes on with the work, which begins with the first call; whether it has ended."""
        if self.hasEnded:
            return True
        try:
            if self._job is None:
                self.state = State.RUNNING
                self._job = self._begin()
            if self._job.poll() and not self.hasEnded:
                self.result = self._finish(self._job.result())
                self._end(State.DONE)
        except JobCanceled as error:
            self._end(State.CANCELED, error)
        except (InputError, JobError, OSError) as error:
            self._end(State.FAILED, error)
        except BaseException as error:
            self._end(State.FAILED, JobError(str(error)))
            raise
        return self.hasEnded

    def cancel(self) -> None:
        """Ends the job at once, with all its processes; nothing is added to the scene."""
        self._end(State.CANCELED, JobCanceled(_("The job was canceled.")))

    def wait(self) -> Any:
        """Waits for the end and returns the result; raises what went wrong: InputError, JobError, JobCanceled, OSError.

        Jobs of its lane that were queued before it come first.
        """
        queue = jobQueue()
        try:
            while not (queue.poll(self) if self in queue and not queue.isPolling else self.poll()):
                time.sleep(_POLL_SECONDS)
        finally:
            self.cancel()
        if self.error:
            raise self.error
        return self.result

    def _begin(self) -> Job:
        """Starts the process, with ``self._note`` as its listener."""
        raise NotImplementedError

    def _finish(self, done: Event) -> Any:
        """The result, made of what the process left."""
        raise NotImplementedError

    def _close(self) -> None:
        """Cleans up, whatever the end; called once."""

    def _note(self, event: Event) -> None:
        if event.get("event") == "progress":
            self.done, self.total = event["done"], event["total"]
        self.onEvent(event)

    def _end(self, state: State, error: Exception | None = None) -> None:
        if self.hasEnded:
            return
        self.state, self.error = state, error
        try:
            if self._job:
                self._job.cancel()
            self._close()
        finally:
            self.onEnd(self)


class JobQueue:
    """Runs the first job of each lane. When the scene is closed, its jobs are canceled; when Slicer is, all are."""

    def __init__(self) -> None:
        self._jobs: list[QueuedJob] = []
        self.isPolling = False  # whether this was called by a job
        self._timer = qt.QTimer()
        self._timer.interval = int(1000 * _POLL_SECONDS)
        self._timer.connect("timeout()", self.poll)
        slicer.app.connect("aboutToQuit()", self.cancelAll)
        self._observer = slicer.mrmlScene.AddObserver(slicer.mrmlScene.StartCloseEvent, self._onSceneClose)

    def __contains__(self, job: QueuedJob) -> bool:
        return job in self._jobs

    def lanes(self) -> set[str]:
        """The lanes that have jobs."""
        return {job.lane for job in self._jobs}

    def add(self, job: QueuedJob) -> None:
        """Lets the job run when it is its turn."""
        self._jobs.append(job)
        self._timer.start()

    def poll(self, until: QueuedJob | None = None) -> bool:
        """Goes on with the first job of each lane; whether the job ``until`` has ended."""
        if self._jobs and not self.isPolling:
            self.isPolling = True
            first = {job.lane: job for job in reversed(self._jobs)}
            try:
                for job in first.values():
                    job.poll()
            finally:
                self.isPolling = False
                self._jobs = [job for job in self._jobs if not job.hasEnded]
        if not self._jobs:
            self._timer.stop()
        return until is None or until.hasEnded

    def cancelAll(self) -> None:
        """Cancels all jobs."""
        self._cancel(self._jobs)
        self._timer.stop()

    def close(self) -> None:
        """Cancels all jobs, and is of no use any more."""
        self.cancelAll()
        self._timer.disconnect("timeout()", self.poll)
        slicer.app.disconnect("aboutToQuit()", self.cancelAll)
        slicer.mrmlScene.RemoveObserver(self._observer)

    def _cancel(self, jobs: Iterable[QueuedJob]) -> None:
        """All of them, whatever one of them raises; the last first, so that none begins meanwhile."""
        try:
            with ExitStack() as canceled:
                for job in jobs:
                    canceled.callback(job.cancel)
        finally:
            self._jobs = [job for job in self._jobs if not job.hasEnded]

    def _onSceneClose(self, caller: Any, event: str) -> None:
        self._cancel(job for job in self._jobs if job.lane == QueuedJob.lane)


_queue: JobQueue | None = None


def jobQueue() -> JobQueue:
    """The queue of this Slicer; made when it is first needed."""
    global _queue
    if _queue is None:
        _queue = JobQueue()
    return _queue


def closeJobQueue() -> None:
    """Cancels all jobs, before the module is reloaded or Slicer ends."""
    global _queue
    if _queue is not None:
        _queue.close()
        _queue = None
