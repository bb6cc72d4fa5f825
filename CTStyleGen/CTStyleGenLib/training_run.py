"""A training: a child process with a folder of its own, which tells all there is to know about it.

The process may outlive the scene, the panel, and Slicer itself. Whoever opens the folder again finds the training as it
is: at work, paused, done or failed. Nothing that matters is kept in memory.

    NAME/training.json   what was asked
         events.jsonl    what the process told, of all its runs; before each run a line of ours
         log.txt         what it wrote besides
         preview.png     a map, the CT that is drawn from it by now, and its real CT
         cases/          the cases, if they came from the scene; for the user alone, and gone with the last step
         finish          while it is there, a pause is turned into an end: the model is written with what it knows
         and what CTStyleGenCore.background describes
"""

import contextlib
import enum
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from CTStyleGenCore import background
from CTStyleGenCore.errors import InputError, one_line
from CTStyleGenCore.files import read_json, written_beside
from CTStyleGenCore.model_file import SUFFIX
from slicer.i18n import tr as _

from .jobs import Event, JobCanceled, JobError, childEnvironment, corePython, eventIn, killTree, ownGroup

_ASKED, _EVENTS, _LOG, _PREVIEW, _FINISH = "training.json", "events.jsonl", "log.txt", "preview.png", "finish"
_POLL_SECONDS = 0.1
_START_SECONDS = 60.0  # for Python to start, on a slow disk
_END_SECONDS = 10.0  # for a killed process to be gone
_CURVE_POINTS = 400
_BLOCK_BYTES = 1 << 20  # of the events, read at a time; a line takes some hundred
_LOG_BYTES = 20_000
_MOST_LOSSES = 32


class State(enum.Enum):
    """What a training is at."""

    RUNNING = "running"
    STOPPING = "stopping"  # it ends after the step that it is at, with a checkpoint
    PAUSED = "paused"
    DONE = "done"  # the model is there
    FAILED = "failed"  # the message says why, and what to do

    def label(self) -> str:
        """The state in a word."""
        return {
            "running": _("at work"),
            "stopping": _("ending"),
            "paused": _("paused"),
            "done": _("done"),
            "failed": _("failed"),
        }[self.value]


# --- what its events say --------------------------------------------------------------------------------------------


def _isText(value: object) -> bool:
    return isinstance(value, str)


def _isCount(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 31


def _isNumber(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) < 1e30


def _areLosses(value: object) -> bool:
    if not isinstance(value, dict) or len(value) > _MOST_LOSSES:
        return False
    return all(name.isprintable() and _isNumber(loss) for name, loss in value.items())


_FIELDS: dict[object, dict[str, Callable[[object], bool]]] = {
    "run": {"time": _isNumber},
    "done": {},
    "error": {"kind": _isText, "message": _isText},
    "notice": {"message": _isText},
    "checkpoint": {"step": _isCount},
    "progress": {"done": _isCount, "total": _isCount, "seconds_left": _isNumber, "losses": _areLosses},
}


def _isKnown(event: Event) -> bool:
    """Whether an event is one of those that are read here, with all that is read of it.

    Others are of no matter: those of a download, those of a later version, and what damage makes of a file.
    """
    kind = event.get("event")
    fields = _FIELDS.get(kind) if isinstance(kind, str) else None
    return fields is not None and all(holds(event.get(name)) for name, holds in fields.items())


# --- its losses -----------------------------------------------------------------------------------------------------


@dataclass
class LossCurve:
    """Losses by step. Of a long training the means over several reports, so that there are at most 400 points."""

    steps: list[float] = field(default_factory=list)
    losses: list[dict[str, float]] = field(default_factory=list)
    _each: int = 1  # reports that make a point
    _waiting: list[tuple[float, dict[str, float]]] = field(default_factory=list)

    def add(self, step: int, losses: Mapping[str, float]) -> None:
        """A report. One that isn't after those before (a run goes on from an older checkpoint) takes their place."""
        while self.steps and self.steps[-1] >= step:
            self.steps.pop()
            self.losses.pop()
        self._waiting = [report for report in self._waiting if report[0] < step]
        self._waiting.append((step, dict(losses)))
        if len(self._waiting) >= self._each:
            self._append(self._waiting)
            self._waiting = []
        if len(self.steps) >= _CURVE_POINTS:
            points, self.steps, self.losses = list(zip(self.steps, self.losses, strict=True)), [], []
            self._each *= 2
            for pair in zip(points[::2], points[1::2], strict=True):
                self._append(pair)

    def _append(self, reports: Sequence[tuple[float, dict[str, float]]]) -> None:
        names = dict.fromkeys(name for _step, losses in reports for name in losses)
        self.steps.append(_mean([step for step, _losses in reports]))
        self.losses.append(
            {name: _mean([losses[name] for _step, losses in reports if name in losses]) for name in names}
        )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


# --- the training ---------------------------------------------------------------------------------------------------


class Training:
    """A training, as its folder tells.

    >>> training = Training(folder)
    >>> training.poll(); training.state, training.done, training.total
    (<State.RUNNING: 'running'>, 120, 2000)
    >>> training.pause(); training.resume(); training.stop()
    """

    @classmethod
    def begin(cls, folder: Path, model: Path, options: Mapping[str, Any], outlives: bool) -> "Training":
        """Starts the command train with these options and that output.

        The folder holds nothing yet but what the options name.

        Raises JobError when the process can't be started.
        """
        asked = {"model": str(model), "started": datetime.now().isoformat(timespec="seconds"), "options": dict(options)}
        with written_beside(folder / _ASKED) as beside:
            beside.write_text(json.dumps(asked, indent=2), encoding="utf-8")
        training = cls(folder)
        training.outlives = outlives
        training._run(options)
        return training

    @classmethod
    def allIn(cls, folder: Path) -> "list[Training]":
        """The trainings whose folders lie in a folder, the one that was started last first, whether at work or not."""
        found = []
        for asked in folder.glob(f"*/{_ASKED}"):
            with contextlib.suppress(InputError):  # a folder of somebody else's
                found.append(cls(asked.parent))
        return sorted(found, key=lambda training: training.started, reverse=True)

    def __init__(self, folder: str | Path) -> None:
        """Takes up the training in the folder, whoever started it. Raises InputError when there is none."""
        self.folder = Path(folder)
        try:
            asked = read_json(self.folder / _ASKED)
            self.model, self._options = Path(asked["model"]), dict(asked["options"])
            self.started = datetime.fromisoformat(asked["started"]).replace(tzinfo=None)  # so that all can be compared
            if self.model.suffix != SUFFIX or "\0" in asked["model"]:
                raise ValueError(f"{asked['model']!r} is no model's path")
            self.checkpoint.is_file()  # OSError for a path that no file can have
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                _("{folder} holds no training that can be taken up: remove the folder.").format(folder=self.folder)
            ) from error
        self.state, self.message = State.FAILED, ""
        self.notice = ""  # what the process had to say about what it was asked for
        self.done, self.total = 0, 0  # steps
        self.secondsLeft: float | None = None  # by the speed so far; None while nothing was measured
        self.curve = LossCurve()
        self.checkpointStep: int | None = None
        self._last: Event = {}  # of the current run: how it ended
        self._read = 0  # bytes of the events that are known
        self._process: subprocess.Popen[bytes] | None = None  # of the last run that this object started
        self.poll()

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def options(self) -> dict[str, Any]:
        """The options of the command train that it was started with, such as preset and size."""
        return dict(self._options)

    @property
    def preview(self) -> Path | None:
        """The PNG of a map, the CT drawn from it by now, and its real CT, side by side; None before it is there."""
        path = self.folder / _PREVIEW
        return path if path.is_file() else None

    @property
    def checkpoint(self) -> Path:
        """What the training goes on from."""
        return self.model.with_name(f"{self.model.name}.checkpoint")

    @property
    def startedHere(self) -> bool:
        """Whether this object started the process, so that its Slicer is the one whose end matters to it."""
        return self._process is not None

    @property
    def outlives(self) -> bool:
        """Whether it goes on when the Slicer that started it ends; else it is paused then."""
        return (self.folder / background.OUTLIVE).exists()

    @outlives.setter
    def outlives(self, wanted: bool) -> None:
        _setFlag(self.folder / background.OUTLIVE, wanted)

    # --- following it ---

    def poll(self) -> bool:
        """Takes notice of what has happened since; returns whether no process is at work."""
        if self._isAlive():
            stopping = (self.folder / background.STOP).exists()
            self.state, self.message = State.STOPPING if stopping else State.RUNNING, ""
            return False
        self._judgeEnd()
        if (self.folder / _FINISH).exists() and self.state in (State.PAUSED, State.FAILED):
            return not self._finish()
        return True

    def wait(self) -> Path:
        """Waits until no process is at work, and returns the model's path.

        Raises JobCanceled when it was paused, InputError when its input was at fault, JobError when it failed.
        """
        while not self.poll():
            time.sleep(_POLL_SECONDS)
        if self.state is State.DONE:
            return self.model
        if self.state is State.PAUSED:
            raise JobCanceled(self.message)
        raise (InputError if self._last.get("kind") == "input" else JobError)(self.message)

    def log(self) -> str:
        """The end of what the process wrote that are no events, for a report of what went wrong."""
        try:
            with (self.folder / _LOG).open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_BYTES))
                return file.read(_LOG_BYTES).decode("utf-8", errors="replace").strip()
        except OSError:
            return ""

    # --- steering it ---

    def pause(self) -> None:
        """Asks the process to end after the step that it is at, with a checkpoint. Returns at once."""
        if self._isAlive():
            (self.folder / background.STOP).touch()
        self.poll()

    def resume(self) -> None:
        """Goes on from the checkpoint. Raises InputError when there is none, JobError when the process can't start."""
        if not self.poll():
            return
        if not self.checkpoint.is_file():
            raise InputError(
                _("'{name}' has no checkpoint to go on from: discard it and train again.").format(name=self.name)
            )
        if self.state is not State.DONE:
            self._run(self._options, "--resume")

    def stop(self) -> None:
        """Ends the training for good and keeps what it has learned: the model comes soon. Returns at once.

        Raises InputError when it has learned nothing yet and isn't at work.
        """
        if not self._isAlive() and not self.checkpoint.is_file():
            raise InputError(_("'{name}' has learned nothing yet: discard it.").format(name=self.name))
        (self.folder / _FINISH).touch()
        self.pause()

    def discard(self) -> None:
        """Kills the process and removes the folder with the cases, and the checkpoint. A finished model stays."""
        end = time.monotonic() + _END_SECONDS
        while self._isAlive() and time.monotonic() < end:
            if process := background.process_group(self.folder) or (self._process and self._process.pid):
                killTree(process)
            time.sleep(_POLL_SECONDS)
        self.checkpoint.unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):  # another Slicer has
            shutil.rmtree(self.folder)

    # --- inside ---

    def _run(self, options: Mapping[str, Any], *more: str) -> None:
        """Starts the process, which finds its stdin ended when this one ends."""
        for left in (background.STOP, background.PROCESS, _FINISH):  # of the run before
            _setFlag(self.folder / left, False)
        command = [corePython(), "-m", "CTStyleGenCore.background", str(self.folder), "train", *_arguments(options)]
        command += ["--output", str(self.model), "--preview", str(self.folder / _PREVIEW), "--json", *more]
        read, write = os.pipe()  # the end that we write to is never closed: it lives as long as Slicer does
        try:
            with (self.folder / _EVENTS).open("ab") as events, (self.folder / _LOG).open("wb") as log:
                _tell(events, {"event": "run", "time": time.time()})
                self._process = subprocess.Popen(
                    command,
                    cwd=self.folder,
                    env=childEnvironment(),
                    stdin=read,
                    stdout=events,
                    stderr=log,
                    **ownGroup(),
                )
        except OSError as error:
            os.close(write)
            with (self.folder / _EVENTS).open("ab") as events:
                _tell(events, {"event": "error", "kind": "failed", "message": str(error)})
            raise JobError(_("The training can't be started: {reason}.").format(reason=error)) from error
        finally:
            os.close(read)
        self.poll()

    def _finish(self) -> bool:
        """Has the model written with what the checkpoint knows; False when that can't be done."""
        try:
            (self.folder / _FINISH).unlink()
        except FileNotFoundError:  # another Slicer does it
            return False
        if not self.checkpoint.is_file():
            return False
        options = {key: value for key, value in self._options.items() if key not in ("epochs", "steps")}
        self._run({**options, "steps": self.checkpointStep or 1}, "--resume")
        return True

    def _isAlive(self) -> bool:
        """Whether the process lives; takes in what it has told by now, which is everything if it doesn't."""
        lives = (self._process is not None and self._process.poll() is None) or background.is_alive(self.folder)
        self._readEvents()
        return lives or self._isStarting()

    def _isStarting(self) -> bool:
        """Whether another Slicer, or another object of this one, has just started a process that has yet to say so."""
        if self._process is not None or self._last.get("event") != "run":
            return False
        said = (self.folder / background.PROCESS).exists()
        if said:
            return background.is_alive(self.folder)
        return abs(time.time() - self._last["time"]) < _START_SECONDS  # in the future, if the clock was put back

    def _readEvents(self) -> None:
        """Takes in the lines that were written since the last time, whole ones only."""
        if not (self.folder / _EVENTS).is_file():
            return
        with contextlib.suppress(OSError), (self.folder / _EVENTS).open("rb") as file:
            file.seek(self._read)
            while text := file.read(_BLOCK_BYTES):
                whole = text[: text.rfind(b"\n") + 1]
                if not whole and len(text) == _BLOCK_BYTES:
                    whole = text  # of a line that is no event
                if not whole:
                    return
                self._read += len(whole)
                file.seek(self._read)
                for line in whole.decode("utf-8", errors="replace").split("\n"):
                    if (event := eventIn(line)) and _isKnown(event):
                        self._note(event)

    def _note(self, event: Event) -> None:
        kind = event.get("event")
        if kind == "run":
            self._last, self.secondsLeft = event, None
        elif kind in ("done", "error"):
            self._last = event
        elif kind == "notice":
            self.notice = one_line(event["message"])
        elif kind == "checkpoint":
            self.checkpointStep = event["step"]
        elif kind == "progress":
            self.done, self.total, self.secondsLeft = event["done"], event["total"], event["seconds_left"]
            self.curve.add(event["done"], event["losses"])

    def _judgeEnd(self) -> None:
        """The state and its sentence, when no process is at work."""
        last, kind = self._last.get("event"), self._last.get("kind")
        if last == "done":
            self.state, self.message = State.DONE, _("The model {name} is ready.").format(name=self.model.name)
        elif kind == "stopped":
            self.state = State.PAUSED
            self.message = _("Paused at step {done} of {total}.").format(done=self.done, total=self.total)
        else:
            self.state = State.FAILED
            self.message = one_line(self._last.get("message", "")) or self._lastWords()

    def _lastWords(self) -> str:
        """A sentence for a process that ended without one."""
        words = self.log().splitlines()
        reason = _("it wrote: {line}").format(line=one_line(words[-1]).rstrip(".")) if words else _("it wrote nothing")
        if self._last.get("event") != "run":
            return _("The training was never begun: discard it.")
        if self.checkpoint.is_file():
            what = _("resume it from step {step}").format(step=self.checkpointStep)
        else:
            what = _("discard it and train again")
        return _("The training ended unexpectedly ({reason}): {what}.").format(reason=reason, what=what)


def _arguments(options: Mapping[str, Any]) -> list[str]:
    """Options as a command line: {"size": 64, "download": True} is --size 64 --download; None is left out."""
    arguments = []
    for name, value in options.items():
        if value is not None and value is not False:
            arguments += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return arguments


def _tell(events: IO[bytes], event: Event) -> None:
    """Writes an event of our own; a killed process may have left half a line before it."""
    events.write(b"\n" + json.dumps(event).encode() + b"\n")
    events.flush()


def _setFlag(path: Path, there: bool) -> None:
    if there:
        path.touch()
    else:
        path.unlink(missing_ok=True)
