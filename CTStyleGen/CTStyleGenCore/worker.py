"""The warm worker: requests as JSON lines on stdin, answers as JSON lines on stdout, models kept loaded in between.

docs/worker.md describes the protocol. One thread reads, so that a cancel is seen while a synthesis runs; the main
thread does all else, and is the only one that writes and that calls the model (cuDNN's plans belong to a thread).
"""

import contextlib
import json
import os
import platform
import queue
import reprlib
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO

import SimpleITK as sitk
import torch

from . import __version__
from .cases import read_labels, write_volume
from .errors import InputError, Stopped, gpu_failure
from .reporting import Report
from .synthesis import Model, mark_synthetic, synthesize_volume
from .volumes import axial_axis, require_writable

PROTOCOL = 1
LINE_BYTES = 1 << 20  # a request takes some hundred
_MODELS = 2  # kept loaded: the one in use and the one before

Id = int | str


# --- requests -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """A request whose fields are checked."""

    id: Id
    name: str
    values: dict[str, Any]


class BadRequest(InputError):
    """A line that is no request, and the id to answer it with, where it had one."""

    def __init__(self, message: str, id: Id | None = None) -> None:
        super().__init__(message)
        self.id = id


@dataclass(frozen=True)
class _Field:
    holds: Callable[[Any], bool]
    rule: str  # what the value must be, for the message
    required: bool = False
    default: Any = None


def _is_id(value: Any) -> bool:
    return (type(value) is int and abs(value) < 1 << 53) or (isinstance(value, str) and 0 < len(value) <= 64)


def _is_path(value: Any) -> bool:
    try:
        return isinstance(value, str) and Path(value).is_absolute() and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:  # half of a surrogate pair
        return False


def _are_slices(value: Any) -> bool:
    if value is None:
        return True
    if not isinstance(value, list) or not value or any(type(one) is not int for one in value):
        return False
    return value[0] >= 0 and value == list(range(value[0], value[0] + len(value)))


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _is_number_from(least: int, value: Any) -> bool:
    return type(value) is int and least <= value < 1 << 53


_PATH = _Field(_is_path, "an absolute path", required=True)
_REQUESTS: dict[str, dict[str, _Field]] = {
    "hello": {},
    "load": {"model": _PATH},
    "synthesize": {
        "model": _PATH,
        "segmentation": _PATH,
        "output": _PATH,
        "slices": _Field(_are_slices, "null, or consecutive slice numbers as in [3, 4, 5]"),
        "seed": _Field(partial(_is_number_from, 0), "a whole number from 0", default=0),
        "sample": _Field(partial(_is_number_from, 1), "a whole number from 1", default=1),
        "style": _Field(_are_texts, "a list of texts, as --style takes them", default=()),
    },
    "cancel": {},
    "stop": {},
}


def lines(read: Callable[[int], bytes]) -> Iterator[bytes | None]:
    """The lines that ``read``, told how many bytes at most, gives piece by piece; None for one over LINE_BYTES.

    What follows the last line's end when ``read`` gives no more is the start of a request that was never finished.
    """
    start, too_long = b"", False
    while piece := read(1 << 16):
        *whole, start = (start + piece).split(b"\n")
        for line in whole:
            yield None if too_long or len(line) > LINE_BYTES else line
            too_long = False
        if too_long or len(start) > LINE_BYTES:
            start, too_long = b"", True


def parse_request(line: bytes | None) -> Request:
    """The request on a line as ``lines`` gives it. Raises BadRequest for everything else that can be on one."""
    if line is None:
        raise BadRequest(f"The line is longer than {LINE_BYTES} bytes: send one request a line.")
    try:
        told = json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        raise BadRequest("The line is no JSON: send one JSON object a line.") from error
    if not isinstance(told, dict):
        raise BadRequest(f"The line is no JSON object but {reprlib.repr(told)}: send one JSON object a line.")
    id, name = told.pop("id", None), told.pop("request", None)
    if not _is_id(id):
        raise BadRequest(f"A request needs an 'id', a whole number or up to 64 characters, not {reprlib.repr(id)}.")
    if not isinstance(name, str) or name not in _REQUESTS:
        raise BadRequest(f"There is no request {reprlib.repr(name)}: choose from {', '.join(_REQUESTS)}.", id)
    return Request(id, name, _checked(id, name, told))


def _checked(id: Id, name: str, told: dict[str, Any]) -> dict[str, Any]:
    """The request's fields, those left out with their defaults."""
    fields = _REQUESTS[name]
    if unknown := sorted(told.keys() - fields):
        raise BadRequest(f"{name} has no field {reprlib.repr(unknown[0])}: leave it out.", id)
    if missing := [key for key, field in fields.items() if field.required and key not in told]:
        raise BadRequest(f"{name} needs '{missing[0]}', {fields[missing[0]].rule}.", id)
    for key, value in told.items():
        if not fields[key].holds(value):
            raise BadRequest(f"'{key}' must be {fields[key].rule}, not {reprlib.repr(value)}.", id)
    return {key: field.default for key, field in fields.items()} | told


# --- answers --------------------------------------------------------------------------------------------------------


class Worker:
    """Answers requests, one after the other, until it is told to stop."""

    def __init__(self, device: str, emit: Report) -> None:
        self.device, self._emit = device, emit
        self._queue: queue.SimpleQueue[Request | BadRequest | None] = queue.SimpleQueue()  # None: the end
        self._canceled: set[Id] = set()
        self._ending = False
        self._models = lru_cache(_MODELS)(self._load_model)
        self._answers = {"hello": self._hello, "load": self._load, "synthesize": self._synthesize}

    def follow(self, read: Callable[[int], bytes]) -> None:
        """Takes in requests until "stop" or the end of the input; to be called in a thread of its own."""
        with contextlib.suppress(OSError):  # an input that can't be read has ended
            for line in lines(read):
                self._take(line)
                if self._ending:
                    return
        self.stop()

    def stop(self) -> None:
        """Ends ``run``, and a synthesis between two batches; safe in any thread and in a signal handler."""
        self._ending = True
        self._queue.put(None)

    def run(self) -> None:
        """Answers what ``follow`` takes in, until the end."""
        while item := self._queue.get():
            if isinstance(item, BadRequest):
                self._fail(item.id, "input", str(item))
            elif item.name == "stop":
                self._tell(item, "stopped")
                return
            else:
                self._answer(item)

    def _take(self, line: bytes | None) -> None:
        try:
            request = parse_request(line)
        except BadRequest as bad:
            self._queue.put(bad)
            return
        if request.name == "cancel":
            self._canceled.add(request.id)
            return
        if request.name == "stop":
            self._ending = True
        self._queue.put(request)

    def _answer(self, request: Request) -> None:
        """One answer or error; whatever goes wrong but the GPU, the next request has its turn."""
        try:
            self._go_on(request)
            self._answers[request.name](request)
        except Stopped as error:
            self._fail(request.id, "stopped", str(error))
        except InputError as error:
            self._fail(request.id, "input", str(error))
        except Exception as error:
            if isinstance(error, RuntimeError) and (failure := gpu_failure(error)):
                self._fail(request.id, "gpu", failure)
                raise  # no request would fare better: whoever asks next starts a new worker
            traceback.print_exc()
            what = " ".join(f"{type(error).__name__} {error}".split())
            self._fail(request.id, "failed", f"The request failed: {what}.")
        finally:
            self._canceled.discard(request.id)

    def _go_on(self, request: Request) -> None:
        if self._ending or request.id in self._canceled:
            raise Stopped("Stopped; nothing was written.")

    def _tell(self, request: Request, event: str, **more: Any) -> None:
        self._emit({"event": event, "id": request.id, **more})

    def _fail(self, id: Id | None, kind: str, message: str) -> None:
        self._emit({"event": "error", "id": id, "kind": kind, "message": message})

    def _hello(self, request: Request) -> None:
        versions = {"ctstylegen": __version__, "torch": torch.__version__, "python": platform.python_version()}
        threads = torch.get_num_threads()
        self._tell(request, "hello", protocol=PROTOCOL, versions=versions, device=self.device, threads=threads)

    def _load(self, request: Request) -> None:
        model = self._model(request)
        size = model.G.size
        # An empty slice, so that the first real one finds everything set up.
        model.synthesize(torch.zeros(1, size, size, dtype=torch.int64), model.noise_code(0, 0))
        self._tell(
            request,
            "loaded",
            model=str(model.path),
            preset=model.card["preset"].get("name"),
            styles=model.card["styles"],
            organs=[organ.name for organ in model.anatomy.organs],
            size=size,
        )

    def _synthesize(self, request: Request) -> None:
        start, values = time.monotonic(), request.values
        model = self._model(request)
        look = model.look(values["style"])
        require_writable(Path(values["output"]))
        labels, segments = read_labels(values["segmentation"], model.anatomy)
        labels = axial_slices(labels, values["slices"])
        self._tell(request, "started", segments=[vars(segment) for segment in segments])
        total, done = labels.GetSize()[axial_axis(labels)], 0

        def progress(slices: int) -> None:
            nonlocal done
            done += slices
            self._tell(request, "progress", done=done, total=total, unit="slice")
            self._go_on(request)

        volume = synthesize_volume(model, labels, values["seed"], values["sample"] - 1, progress, look)
        mark_synthetic(volume, model, values["seed"], values["sample"] - 1, look)
        write_volume(volume, values["output"])
        self._tell(request, "done", outputs=[values["output"]], seconds=round(time.monotonic() - start, 3))

    def _model(self, request: Request) -> Model:
        """The request's model; loaded unless it is, in this very version of the file, already."""
        path = Path(request.values["model"])
        try:
            found = path.stat()
        except OSError as error:
            raise InputError(f"The model {path} can't be read: {error.strerror}.") from error
        return self._models(path, found.st_mtime_ns, found.st_size)

    def _load_model(self, path: Path, mtime_ns: int, size_bytes: int) -> Model:
        return Model(path, self.device)


def axial_slices(volume: sitk.Image, numbers: list[int] | None) -> sitk.Image:
    """The part of a 3-D volume that is these consecutive slices (None: all), in its place and orientation.

    A slice's number is its voxels' index, as stored, along the axis nearest to inferior-superior. Raises InputError for
    a slice that the volume doesn't have.
    """
    if numbers is None:
        return volume
    axis = axial_axis(volume)
    count = volume.GetSize()[axis]
    if numbers[-1] >= count:
        raise InputError(f"There is no slice {numbers[-1]} in the segmentation: its slices are 0 to {count - 1}.")
    part = [slice(None)] * 3
    part[axis] = slice(numbers[0], numbers[-1] + 1)
    return volume[tuple(part)]


# --- the process ----------------------------------------------------------------------------------------------------


def serve(device: str) -> None:
    """Answers requests from stdin until "stop" or the input's end. Raises Stopped after Ctrl-C or SIGTERM."""
    interrupted = False

    def interrupt(signum: int, frame: object) -> None:
        nonlocal interrupted
        interrupted = True
        worker.stop()

    with protocol_stream() as out:

        def emit(event: dict[str, Any]) -> None:
            try:
                out.write(json.dumps(event).encode() + b"\n")
            except OSError:  # nobody listens any more
                worker.stop()

        worker = Worker(device, emit)
        signal.signal(signal.SIGINT, interrupt)
        signal.signal(signal.SIGTERM, interrupt)
        threading.Thread(target=worker.follow, args=(partial(os.read, 0),), daemon=True).start()
        worker.run()
    if interrupted:
        raise Stopped("Stopped.")


@contextlib.contextmanager
def protocol_stream() -> Iterator[BinaryIO]:
    """A stream to the real stdout; what anyone else prints meanwhile, in Python or below it, goes to stderr."""
    sys.stdout.flush()
    with os.fdopen(os.dup(1), "wb", buffering=0) as out, contextlib.redirect_stdout(sys.stderr):
        os.dup2(2, 1)
        try:
            yield out
        finally:
            os.dup2(out.fileno(), 1)
