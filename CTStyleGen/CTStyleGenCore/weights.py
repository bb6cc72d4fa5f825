"""Files of VGG weights: fetched from their publisher, or taken from the user. Only when the user asks."""

import shutil
import urllib.request
from pathlib import Path

from .errors import InputError
from .files import sha256, written_beside
from .perceptual import PUBLISHED, read_weights
from .reporting import Report

_PUBLISHER = "https://download.pytorch.org/models"
_TIMEOUT_SECONDS = 30  # without a byte


def download_weights(kind: str, folder: Path, report: Report) -> Path:
    """Fetches torchvision's published weights ("vgg19", "vgg16") into ``folder``; their hash is checked.

    Raises InputError when they can't be had; then nothing is left behind.
    """
    path = folder / PUBLISHED[kind]
    url = f"{_PUBLISHER}/{path.name}"
    folder.mkdir(parents=True, exist_ok=True)
    with written_beside(path) as beside:
        try:
            _download(url, beside, report)
        except (OSError, ValueError) as error:  # ValueError: a proxy's address that is none
            reason = str(error).strip().rstrip(".") or type(error).__name__
            raise InputError(f"{url} can't be downloaded ({reason}): fetch it elsewhere and give the file.") from error
        if not sha256(beside).startswith(path.stem.split("-")[1]):
            raise InputError(f"What came from {url} is not the published file: fetch it elsewhere and give the file.")
    return path


def _download(url: str, path: Path, report: Report) -> None:
    """Raises OSError when the file doesn't come, or not as a whole."""
    with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response, path.open("wb") as file:
        total, done = int(response.headers.get("Content-Length", 0)), 0
        while block := response.read(1 << 20):
            file.write(block)
            done += len(block)
            report({"event": "progress", "done": done, "total": total, "unit": "B"})
    if done < total:
        raise OSError(f"the connection ended after {done} of {total} bytes")


def copy_weights(kind: str, source: Path, folder: Path) -> Path:
    """A copy of a user's file in ``folder``, once it is found to hold this network. Raises InputError otherwise."""
    read_weights(kind, source)
    path = folder / source.name
    folder.mkdir(parents=True, exist_ok=True)
    if not (path.exists() and path.samefile(source)):
        with written_beside(path) as beside:
            shutil.copyfile(source, beside)
    return path
