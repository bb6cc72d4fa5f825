"""Set-up: what PythonSlicer has of what the child process needs, and getting what is missing. Only at a click.

Everything is done by the child process, since importing PyTorch can crash a process, and installing takes minutes.
"""

import contextlib
import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import CTStyleGenCore
import slicer
from CTStyleGenCore.environment import REQUIREMENTS
from slicer.i18n import tr as _

from .jobs import Event, Job, JobError
from .models import weightsFolder

# Not a folder of the user's: Python takes packages from where it is started.
_FOLDER = Path(CTStyleGenCore.__file__).parents[1]


class State(enum.Enum):
    """What is known of a library."""

    UNCHECKED = "unchecked"
    READY = "ready"
    MISSING = "missing"
    OUTDATED = "outdated"
    BROKEN = "broken"


@dataclass(frozen=True)
class Library:
    """A library that the child process needs."""

    package: str  # as pip calls it
    title: str
    state: State
    message: str  # a sentence: what it is, or what is wrong


def check() -> list[Library]:
    """The state of each library; waits some seconds for the child process."""
    events: list[Event] = []
    job = startCheck(events.append)
    with contextlib.suppress(JobError):  # a library crashed it
        job.wait()
    return libraries(events, hasEnded=True)


def startCheck(onEvent: Callable[[Event], None]) -> Job:
    """The check, as a job of which `libraries` understands the events."""
    return Job(["check"], _FOLDER, onEvent)


def libraries(events: Sequence[Event], hasEnded: bool = False) -> list[Library]:
    """The state of each library, from the events of a check so far; when it ``hasEnded`` early, one has crashed it."""
    told = {event["package"]: event for event in events if event.get("event") == "requirement"}
    crashed = hasEnded
    found = []
    for requirement in REQUIREMENTS:
        package, title = requirement.package, requirement.title
        if event := told.get(package):
            found.append(Library(package, title, State(event["state"]), event["message"]))
        elif crashed:
            crashed = False  # by this one, so that those after it could not be checked
            message = _("{title} crashes Python when it is imported: install it again.").format(title=title)
            found.append(Library(package, title, State.BROKEN, message))
        else:
            message = _("{title} has not been checked.").format(title=title)
            found.append(Library(package, title, State.UNCHECKED, message))
    return found


def devices(events: Sequence[Event]) -> str:
    """What networks can be computed on, from the events of a check; "" as long as they don't tell."""
    told = next((event["devices"] for event in events if event.get("event") == "devices"), ())
    return "; ".join(map(deviceTitle, told))


def deviceTitle(device: Event) -> str:
    """A device with its memory, and whether it is of use."""
    title = device["title"]
    if "memory_bytes" in device:
        title = _("{title}, {memory:.0f} GB").format(title=title, memory=device["memory_bytes"] / 1e9)
    if not device.get("works", True):
        title = _("{title} (this PyTorch can't use it)").format(title=title)
    return title


def startInstall(wanted: Sequence[Library], onEvent: Callable[[Event], None], wheels: str | Path | None = None) -> Job:
    """Installs libraries into PythonSlicer, from the internet or from a folder of ``wheels`` without any network."""
    packages = [library.package for library in wanted]
    arguments = ["install", *packages]
    if wheels:
        arguments += ["--wheels", str(wheels)]
    if any(library.state is State.BROKEN for library in wanted):
        arguments.append("--again")
    return Job(arguments, _FOLDER, onEvent)


def hasTorchExtension() -> bool:
    """Whether Slicer's PyTorch extension is there, which PyTorch is to come with."""
    return hasattr(slicer.modules, "pytorchutils")


def startDownloadOfWeights(onEvent: Callable[[Event], None]) -> Job:
    """Fetches torchvision's VGG-19 weights (550 MB) from pytorch.org into the models folder, their hash checked."""
    return Job(["weights", "--download", "--folder", str(weightsFolder())], _FOLDER, onEvent)


def startCopyOfWeights(file: str | Path, onEvent: Callable[[Event], None]) -> Job:
    """Takes VGG-19 weights from a file of the user's, once it is found to hold them."""
    return Job(["weights", "--file", str(file), "--folder", str(weightsFolder())], _FOLDER, onEvent)


def startPreview(model: Path, picture: Path, onEvent: Callable[[Event], None]) -> Job:
    """Draws a model's picture."""
    return Job(["preview", str(model), "--output", str(picture)], _FOLDER, onEvent)
