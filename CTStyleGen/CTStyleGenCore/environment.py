"""What this Python has of the libraries that networks need, and installing them. Itself it needs nothing but Python.

Each library is imported for the check, since an installation can look whole and not work: run it in a process that may
crash. Nothing is installed unless the user asks.
"""

import importlib
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import InputError
from .reporting import Report


@dataclass(frozen=True)
class Requirement:
    """A library that isn't in Slicer."""

    package: str  # as Python and pip call it
    title: str
    minimum: str  # version

    @property
    def specifier(self) -> str:
        return f"{self.package}>={self.minimum}"


REQUIREMENTS = (
    Requirement("safetensors", "safetensors", "0.4"),
    Requirement("torch", "PyTorch", "2.6"),
    Requirement("torchvision", "torchvision", "0.21"),
)
# Chooses the build of PyTorch that fits the graphics card; the installer that Slicer's PyTorch extension uses.
_TORCH_INSTALLER = "light-the-torch>=0.5"
_BY_TORCH_INSTALLER = ("torch", "torchvision")
# What the scoreboard alone needs: package -> title.
_FOR_EVALUATION = {"scipy": "SciPy", "skimage": "scikit-image", "monai": "MONAI", "torchmetrics": "TorchMetrics"}


def check(report: Report) -> bool:
    """Reports a "requirement" event for each library, and a "devices" event when all work; returns whether they do.

    When the process dies, the library after the last one reported has crashed it.
    """
    ready = True
    for requirement in REQUIREMENTS:
        found = _probe(requirement)
        ready &= found["state"] == "ready"
        report({"event": "requirement", "package": requirement.package, "minimum": requirement.minimum} | found)
    if ready:
        devices = _devices()
        report({"event": "devices", "devices": devices, "message": "\n".join(device["title"] for device in devices)})
    return ready


def _probe(requirement: Requirement) -> dict[str, Any]:
    """The state of a library (ready, missing, outdated, broken), its version if it has one, and a sentence."""
    package, title = requirement.package, requirement.title
    try:
        module = importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name == package:
            return _found("missing", f"{title} is not installed.")
        return _found("broken", f"{title} lacks the package {error.name}: install it again.")
    except Exception as error:  # whatever a damaged library does
        reason = str(error).strip().splitlines() or [type(error).__name__]
        return _found("broken", f"{title} can't be imported ({reason[0].rstrip('.')}): install it again.")
    return _judge(requirement, module)


def _judge(requirement: Requirement, module: ModuleType) -> dict[str, Any]:
    title, version = requirement.title, getattr(module, "__version__", None)
    if getattr(module, "__file__", None) is None or version is None:  # files without an __init__.py are a package, too
        folder = next(iter(getattr(module, "__path__", [])), "its folder")
        return _found("broken", f"{title} is half installed: remove {folder} and install it again.")
    if _numbers(str(version)) < _numbers(requirement.minimum):
        needed = f"CTStyleGen needs {requirement.minimum} or newer"
        return _found("outdated", f"{title} {version} is too old: {needed}; update it.", str(version))
    return _found("ready", f"{title} {version}", str(version))


def _found(state: str, message: str, version: str | None = None) -> dict[str, Any]:
    return {"state": state, "version": version, "message": message}


def _numbers(version: str) -> tuple[int, ...]:
    """The first two numbers of a version: (2, 6) of "2.6.0+cu128"."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def lacking(error: ImportError) -> str | None:
    """What to do when an import failed for want of a library that we name; None when it failed otherwise."""
    package = (error.name or "").partition(".")[0]
    if title := _FOR_EVALUATION.get(package):
        without = ", or leave label consistency out by --segmenter-steps 0" if package == "monai" else ""
        return f"{title} is missing or damaged: install it by pip install 'ctstylegen[evaluate]'{without}."
    title = next((requirement.title for requirement in REQUIREMENTS if requirement.package == package), None)
    return title and f"{title} is missing or damaged: install it by the set-up in Slicer's Models tab, or with pip."


def automatic_device() -> str:
    """The device that "auto" is: the first GPU that this PyTorch can use, else the CPU."""
    gpus = (device["name"] for device in _devices() if device.get("works"))
    return next(gpus, "cpu")


def _devices() -> list[dict[str, Any]]:
    """What can be computed on: name for --device, title, memory in bytes, and of a GPU whether it works."""
    import torch

    threads = torch.get_num_threads()
    title = "CPU, 1 thread" if threads == 1 else f"CPU, {threads} threads"
    devices: list[dict[str, Any]] = [{"name": "cpu", "title": title}]
    if hasattr(os, "sysconf"):  # not on Windows
        devices[0]["memory_bytes"] = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        name = f"cuda:{index}"
        try:  # a build of PyTorch without this GPU's architecture counts the GPU, too
            works = bool((torch.ones(8, device=name) + 1).sum().item() == 16)
        except RuntimeError:
            works = False
        devices.append(
            {"name": name, "title": properties.name, "memory_bytes": properties.total_memory, "works": works}
        )
    return devices


def install(packages: Sequence[str], wheels: Path | None, again: bool, report: Report) -> None:
    """Installs libraries of REQUIREMENTS into this Python, pip's lines as "notice" events.

    ``wheels``: a folder of wheel files to install from, without any network. ``again``: also what pip finds installed.
    Raises InputError when it can't be done.
    """
    known = {requirement.package: requirement.specifier for requirement in REQUIREMENTS}
    if unknown := [package for package in packages if package not in known]:
        raise InputError(f"CTStyleGen doesn't need {unknown[0]!r}: choose from {', '.join(known)}.")
    if "torch" in packages and (sys.platform, platform.machine()) == ("darwin", "x86_64"):
        raise InputError(
            "PyTorch has no builds for Intel Macs any more: use Linux, Windows, or a Mac with Apple silicon and a "
            "Slicer built for it."
        )
    specifiers = [known[package] for package in packages]
    if wheels is not None:
        _check_wheels(wheels)
        source = ["-m", "pip", "install", "--no-index", "--find-links", str(wheels)]
    elif set(packages) & set(_BY_TORCH_INSTALLER):
        _run_pip(["-m", "pip", "install", _TORCH_INSTALLER], packages, report)
        source = ["-m", "light_the_torch", "install"]
    else:
        source = ["-m", "pip", "install"]
    source += ["--only-binary", ":all:", "--no-warn-script-location"]
    if again:  # without what they depend on: numpy and others belong to Slicer
        _run_pip([*source, "--force-reinstall", "--no-deps", *specifiers], packages, report)
    _run_pip([*source, *specifiers], packages, report)


def _check_wheels(folder: Path) -> None:
    if not folder.is_dir():
        raise InputError(f"The folder of wheels {folder} does not exist: choose another one.")
    if not any(folder.glob("*.whl")):
        raise InputError(f"There are no wheels (.whl) in {folder}: choose the folder that you downloaded them to.")


def _run_pip(arguments: Sequence[str], packages: Sequence[str], report: Report) -> None:
    """Runs pip, or what works like it, in a process of its own: it may replace what is loaded here."""
    reason = ""
    process = subprocess.Popen(
        [sys.executable, *arguments, *_progress_option()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    with process:
        for line in map(str.strip, process.stdout or ()):
            if progress := re.fullmatch(r"Progress (\d+) of (\d+)", line):
                report({"event": "progress", "done": int(progress[1]), "total": int(progress[2]), "unit": "B"})
            elif line:
                report({"event": "notice", "message": line})
                reason = line if line.startswith("ERROR") or not reason.startswith("ERROR") else reason
    if process.returncode:
        raise InputError(
            f"{', '.join(packages)} can't be installed ({reason.rstrip('.')}): check the connection, or install from a "
            "folder of wheels."
        )


def _progress_option() -> list[str]:
    """pip tells the bytes of a download in lines of their own since 24.1, and only when told to."""
    return ["--progress-bar", "raw"] if _numbers(importlib.metadata.version("pip")) >= (24, 1) else []
