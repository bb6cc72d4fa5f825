"""The Core as a child process: started, followed by its JSON lines, waited for, and ended with everything it started.

`Job.poll` is all that has to be called now and then, on the main thread: from `Job.wait`, or by a timer.
"""

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import CTStyleGenCore
from CTStyleGenCore.errors import InputError
from CTStyleGenCore.files import parse_json
from slicer.i18n import tr as _

Event = dict[str, Any]
_LOG_LINES, _LINE_LENGTH = 200, 4096  # of stderr, kept for the message when the child fails
_POLL_SECONDS = 0.1
_END_SECONDS = 10.0  # for a killed process to be gone, and for what it wrote to arrive


class JobError(RuntimeError):
    """The child process failed, not because of its input; the message ends with the last line that it wrote."""


class JobCanceled(JobError):
    """The job was canceled before it was done."""


def corePython() -> str:
    """The Python that runs the Core: PythonSlicer in Slicer, elsewhere the one that runs this."""
    executable = sys.executable
    if not executable or not Path(executable).stem.lower().startswith("python"):  # the application itself
        executable = shutil.which("PythonSlicer") or ""
    if not executable:
        raise JobError(_("PythonSlicer isn't there: the Slicer installation is damaged; install it again."))
    return executable


def coreCommand() -> list[str]:
    """The command that runs the Core."""
    return [corePython(), "-m", "CTStyleGenCore"]


def eventIn(line: str) -> Event | None:
    """The event that a line of the child's output is, None for any other text."""
    try:
        event = parse_json(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None


class Child:
    """A process that writes JSON lines, in a session of its own, so that all that it starts can be ended with it."""

    def __init__(
        self,
        command: Sequence[str],
        folder: str | Path,
        onEvent: Callable[[Event], None],
        listens: bool = False,
    ) -> None:
        """Starts the command in ``folder``; ``onEvent`` is told every event, from `poll`.

        ``listens``: whether it is given requests on stdin (`tell`). Raises JobError when it can't be started.
        """
        self._onEvent = onEvent
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._log: deque[str] = deque(maxlen=_LOG_LINES)
        self._ended = False
        try:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env=childEnvironment(),
                stdin=subprocess.PIPE if listens else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                **ownGroup(),
            )
        except OSError as error:
            raise JobError(_("The CTStyleGen process can't be started: {reason}.").format(reason=error)) from error
        self._readers = [
            threading.Thread(target=self._readEvents, args=(self._process.stdout,), daemon=True),
            threading.Thread(target=self._readLog, args=(self._process.stderr,), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    @property
    def isAlive(self) -> bool:
        return self._process.poll() is None

    def poll(self) -> bool:
        """Hands the events that came to onEvent; True when the process has ended and all its events are handed over."""
        if not self._ended and not self.isAlive:
            self._ended = True
            self._endTree()  # workers that it left behind; they would hold its pipes open, too
        while not self._events.empty():
            self._onEvent(self._events.get())
        return self._ended

    def kill(self) -> None:
        """Kills the process and all that it started. Does nothing when it has ended."""
        if self.isAlive:
            self._endTree()
            self.waitFor(_END_SECONDS)

    def tell(self, request: Mapping[str, Any]) -> None:
        """Writes a request to a process that listens; one that has ended doesn't hear it."""
        assert self._process.stdin is not None, "started without listens=True"
        with contextlib.suppress(OSError):
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()

    def waitFor(self, seconds: float) -> bool:
        """Waits for the end of the process, so long at most; whether it has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return not self.isAlive

    def log(self) -> str:
        """The last lines that the child wrote and that are no events."""
        return "\n".join(self._log)

    def _endTree(self) -> None:
        """Kills all that is left, and waits until it is gone, as Windows removes no folder that a process works in."""
        killTree(self._process.pid)
        for reader in self._readers:  # a pipe ends with the last process that holds it
            reader.join(_END_SECONDS)

    def _readEvents(self, stream: IO[str]) -> None:
        """Reads stdout in a thread: every line that is a JSON object is an event, any other belongs to the log."""
        for line in stream:
            event = eventIn(line)
            if event is not None:
                self._events.put(event)
            else:
                self._log.append(line.rstrip()[:_LINE_LENGTH])

    def _readLog(self, stream: IO[str]) -> None:
        """Reads stderr in a thread; a line that never ends, such as a progress bar, comes in pieces."""
        while line := stream.readline(_LINE_LENGTH):
            if line.strip():
                self._log.append(line.strip())


class Job(Child):
    """One command of the Core in a process of its own.

    >>> job = Job(["synthesize", "--model", "m.ctstyle", "--segmentation", "s.nrrd", "--output", "o.nrrd"], folder)
    >>> job.wait()["outputs"]
    ['o.nrrd']
    """

    def __init__(
        self,
        arguments: Sequence[str],
        folder: str | Path,
        onEvent: Callable[[Event], None] = lambda event: None,
        command: Sequence[str] | None = None,
    ) -> None:
        """Starts ``command`` (the Core's, unless told) with ``arguments`` and --json, in ``folder``.

        ``onEvent`` is told every event of the child, from `poll`. Raises JobError when the process can't be started.
        """
        self._listener = onEvent
        self._last: Event = {}
        self._canceled = False
        super().__init__([*(command or coreCommand()), *arguments, "--json"], folder, self._note)

    def wait(self) -> Event:
        """Waits for the end; then as `result`. Whatever happens, no process is left."""
        try:
            while not self.poll():
                self.waitFor(_POLL_SECONDS)
        finally:
            self.cancel()
        return self.result()

    def cancel(self) -> None:
        """Kills the process and all that it started. Does nothing when it has ended."""
        self._canceled |= self.isAlive
        self.kill()

    def result(self) -> Event:
        """The "done" event of a process that has ended.

        Raises InputError with the child's sentence when its input was at fault, JobCanceled, and JobError otherwise.
        """
        code = self._process.returncode
        if self._canceled or code == 130:
            raise JobCanceled(_("The job was canceled."))
        if code == 0 and self._last.get("event") == "done":
            return self._last
        message = str(self._last.get("message") or (self._log[-1] if self._log else _("it wrote no message")))
        if code == 2:
            raise InputError(message)
        raise JobError(_("The CTStyleGen process ended with code {code}: {message}").format(code=code, message=message))

    def _note(self, event: Event) -> None:
        if event.get("event") in ("done", "error"):
            self._last = event
        self._listener(event)


def childEnvironment() -> dict[str, str]:
    """This process's environment (PythonSlicer needs it), with the Core on the path and UTF-8 without buffers."""
    paths = [str(Path(CTStyleGenCore.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PYTHONUTF8": "1",
        "PYTHONUNBUFFERED": "1",
    }


def ownGroup() -> dict[str, Any]:
    """Popen's arguments for a process that can be killed with all that it starts: PythonSlicer is only a launcher."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NO_WINDOW}
    return {"start_new_session": True}


def killTree(processId: int) -> None:
    """Kills a process that was started with `ownGroup`, and its descendants; what has ended already is no error."""
    if sys.platform == "win32":
        command = ["taskkill", "/T", "/F", "/PID", str(processId)]
        subprocess.run(command, capture_output=True, check=False, creationflags=subprocess.CREATE_NO_WINDOW)
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS refuses a group of zombies
        os.killpg(processId, signal.SIGKILL)
