"""Files that are whole or absent, folders that don't outlive their process, JSON from anywhere, and hashes."""

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows, which refuses to rename a folder with an open file in it
    fcntl = None  # type: ignore[assignment]

from .errors import InputError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PREFIX = ".ctstylegen-"
_HELD = "held"  # a file in a temporary folder, open and locked as long as its process lives
_FRESH_SECONDS = 2.0  # a folder may be younger than its lock


@contextmanager
def written_beside(path: str | Path) -> Iterator[Path]:
    """A path beside ``path`` to write to; moved onto ``path`` when the block ends well, removed when it doesn't.

    A file, or a folder where there is none yet.
    The temporary name keeps ``path``'s suffixes, by which writers choose the format. What a killed process has left in
    the folder is removed as well. Raises InputError when the folder is missing or read-only, or the disk is full.
    """
    path = Path(path)
    folder = _temporary_folder(path.parent)
    try:
        with _hold(folder):
            beside = folder / "whole" / path.name
            beside.parent.mkdir()
            yield beside
            (folder / "new").touch()  # some writers make files private: give the file a new file's mode
            for file in beside.rglob("*") if beside.is_dir() else (beside,):
                if file.is_file():
                    file.chmod((folder / "new").stat().st_mode)
                    _flush(file)
            os.replace(beside, path)  # noqa: PTH105 - named for what it does: atomic
    except Exception as error:
        if _error_number(error) in _NO_ROOM:
            raise InputError(f"No room on the disk to write {path}: free some space and try again.") from error
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def require_place(path: Path) -> None:
    """Raises InputError when a file or folder can't be made there, as its own folder is missing or read-only."""
    _temporary_folder(path.parent).rmdir()


def require_file_place(path: Path) -> None:
    """As `require_place`, for a file. Raises InputError when there is a folder of that name, too."""
    if path.is_dir() or not path.name:
        raise InputError(f"{path} is a folder: give the name of a file in it as the output.")
    require_place(path)


def _temporary_folder(parent: Path) -> Path:
    """A new folder in ``parent``, which is rid of those that killed processes left. Raises InputError."""
    if not parent.is_dir():
        raise InputError(f"The folder {parent} does not exist: create it or choose another output.")
    _sweep(parent.resolve())
    try:
        return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    except OSError as error:
        raise InputError(
            f"Can't write in the folder {parent} ({error.strerror}): allow it or choose another output."
        ) from error


def is_left_over(path: Path) -> bool:
    """Whether a file lies in a temporary folder of `written_beside`: a killed process's, or one of work in progress."""
    return any(folder.name.startswith(_PREFIX) for folder in path.parents)


class PrivateFolder(tempfile.TemporaryDirectory):
    """A temporary folder for patients' data: only the user may read it, and if its process is killed, the next one
    that makes such a folder removes it.

    >>> folder = PrivateFolder()
    >>> folder.name
    '/tmp/.ctstylegen-...'
    >>> folder.cleanup()
    """

    def __init__(self) -> None:
        _sweep(Path(tempfile.gettempdir()).resolve())
        super().__init__(prefix=_PREFIX, ignore_cleanup_errors=True)  # Windows: a killed child may still be in it
        self._held = _hold(Path(self.name))

    def cleanup(self) -> None:
        self._held.close()
        super().cleanup()


def _hold(folder: Path) -> IO[bytes]:
    """Holds a temporary folder until the file is closed, or the process ends."""
    held = (folder / _HELD).open("wb")
    if fcntl is not None:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(held, fcntl.LOCK_EX)
    return held


@cache  # once for a folder and process
def _sweep(folder: Path) -> None:
    remove_left_over(folder, _FRESH_SECONDS)


def remove_left_over(folder: Path, seconds: float = 0.0) -> None:
    """Removes the temporary folders in ``folder`` whose processes have ended, as a kill leaves them.

    Those older than ``seconds`` alone, where another process may be about to make one.
    """
    for left in folder.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if abs(time.time() - left.stat().st_mtime) >= seconds:  # in the future, if the clock was put back
                shutil.rmtree(_ended(left), ignore_errors=True)


def _ended(left: Path) -> Path:
    """A temporary folder that no process holds, maybe renamed. Raises OSError when one does."""
    if fcntl is None:
        return left.rename(left.with_name(f"{left.name}-ended"))
    with (left / _HELD).open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return left


def _flush(path: Path) -> None:
    """Waits until a file's bytes are on the disk: moved into place before, it could be empty after a power failure."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _error_number(error: Exception) -> int | None:
    if isinstance(error, OSError):
        return error.errno
    told = re.search(r"\(os error (\d+)\)", str(error))  # safetensors' words
    return int(told[1]) if told else None


def read_json(path: str | Path) -> Any:
    """The value in a JSON file. Raises OSError or ValueError, whatever else is in the file."""
    return parse_json(Path(path).read_bytes())


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ValueError for every other text, also for one that is nested too deep, has
    numbers that are none (NaN, Infinity, 1e999) or characters that are none (half of a surrogate pair).
    """
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    return value


def sha256(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
