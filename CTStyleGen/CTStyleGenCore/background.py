"""A command in the background: it may outlive the program that started it, and any program can find and stop it.

    python -m CTStyleGenCore.background FOLDER train --cases ... --json

FOLDER is the run's own. What is in it speaks for the process, so that nobody has to remember anything:

    process   what to kill: the id of the process's group, on Windows its own; locked as long as the process lives, so
              that no other is ever taken for it
    stop      once it is there, the command ends in good order, as on SIGTERM (which Windows doesn't have)
    outlive   while it is there, the command goes on after the end of stdin, which is the end of who started it
    cases     a copy of patients' data made for this run; removed when the command has done its work
"""

import _thread
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

PROCESS, STOP, OUTLIVE, CASES = "process", "stop", "outlive", "cases"
_WATCH_SECONDS = 0.2
_LOCK_SECONDS = 5.0  # who asks whether the process lives holds its lock for a moment
_LOCKED_BYTE = 1 << 20  # on Windows a locked byte can't be read: not one of the process id's


def main(arguments: list[str]) -> int:
    """Runs the command of CTStyleGenCore that follows the folder; returns its exit code."""
    from .__main__ import main as command

    folder = Path(arguments[0])
    with _alive(folder):
        for watch in (_watch_starter, _watch_stop):
            threading.Thread(target=watch, args=(folder,), daemon=True).start()
        code = command(arguments[1:])
        if code == 0:
            shutil.rmtree(folder / CASES, ignore_errors=True)
        return code


def is_alive(folder: str | Path) -> bool:
    """Whether a process works in the folder."""
    try:
        with (Path(folder) / PROCESS).open("r+b") as file:
            return not _lock(file)  # closing unlocks
    except OSError:  # none has begun, or its folder is gone, or somebody else's
        return False


def process_group(folder: str | Path) -> int | None:
    """What to kill of the process in the folder, see above; None without one, or when it has only just begun."""
    if not is_alive(folder):
        return None
    text = (Path(folder) / PROCESS).read_bytes()[:20]
    return int(text) if text.isdigit() else None


@contextmanager
def _alive(folder: Path) -> Iterator[None]:
    """Says in the folder that this process works there. RuntimeError: another one does."""
    with (folder / PROCESS).open("a+b") as file:
        end = time.monotonic() + _LOCK_SECONDS
        while not _lock(file):
            if time.monotonic() > end:
                raise RuntimeError(f"Another process works in {folder}.")
            time.sleep(0.05)
        file.truncate(0)
        file.write(str(_group()).encode("ascii"))
        file.flush()
        yield


def _watch_starter(folder: Path) -> None:
    """Asks for the end when stdin ends and nobody wants the command to go on."""
    while os.read(0, 1):
        pass
    if not (folder / OUTLIVE).exists():
        (folder / STOP).touch()


def _watch_stop(folder: Path) -> None:
    """Passes the request to end on to the main thread; again and again, as it may not listen yet."""
    while True:
        if (folder / STOP).exists():
            _thread.interrupt_main(signal.SIGTERM)
        time.sleep(_WATCH_SECONDS)


if sys.platform == "win32":
    import msvcrt

    _group = os.getpid

    def _lock(file: IO[bytes]) -> bool:
        """Locks the file until it is closed; False when another process has."""
        file.seek(_LOCKED_BYTE)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    _group = os.getpgrp

    def _lock(file: IO[bytes]) -> bool:
        """Locks the file until it is closed; False when another process has."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a disk without locks: only who started the process knows whether it lives
            return True
        return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
