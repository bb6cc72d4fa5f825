"""Commands that may outlive who started them: what their folder says of them, and what becomes of it at the end."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from CTStyleGenCore import background
from CTStyleGenCore.anatomy import Anatomy
from CTStyleGenCore.model_file import write_model


def test_a_folder_says_whether_a_process_works_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "_LOCK_SECONDS", 0.2)
    assert not background.is_alive(tmp_path)
    with background._alive(tmp_path):
        assert background.is_alive(tmp_path)
        assert background.process_group(tmp_path) == background._group()
        with pytest.raises(RuntimeError, match="Another process"), background._alive(tmp_path):
            pass
    assert not background.is_alive(tmp_path)  # though the file is still there
    assert background.process_group(tmp_path) is None


def test_who_asks_does_not_hinder_the_start(tmp_path: Path) -> None:
    (tmp_path / background.PROCESS).touch()
    asking = True

    def ask() -> None:
        while asking:
            background.is_alive(tmp_path)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        for _ in range(20):
            with background._alive(tmp_path):
                pass
    finally:
        asking = False
        thread.join()


def run(folder: Path, *arguments: str) -> int:
    """Runs a command in the background of the folder, without any stdin."""
    (folder / background.CASES).mkdir(exist_ok=True)
    command = [sys.executable, "-m", "CTStyleGenCore.background", str(folder), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(background.__file__).parents[1])}
    return subprocess.run(command, stdin=subprocess.DEVNULL, env=environment, check=False).returncode


def test_what_is_left_at_the_end(tmp_path: Path, thorax: Anatomy) -> None:
    assert run(tmp_path, "info", str(tmp_path / "absent.ctstyle")) == 2
    assert (tmp_path / background.CASES).is_dir()  # the command can be given another try
    card: dict[str, Any] = {"anatomy": thorax.to_json(), "size": 64, "hu_range": [-1000, 1000]}
    card |= {key: ["A"] for key in ("styles", "cases")}
    write_model(tmp_path / "m.ctstyle", {}, card | {key: {} for key in ("preset", "features", "losses", "versions")})
    assert run(tmp_path, "info", str(tmp_path / "m.ctstyle")) == 0
    assert not (tmp_path / background.CASES).exists()
    assert not background.is_alive(tmp_path)


@pytest.mark.parametrize("outlives", [False, True])
def test_end_of_who_started_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outlives: bool) -> None:
    monkeypatch.setattr(background.os, "read", lambda file, count: b"")  # the end of stdin
    if outlives:
        (tmp_path / background.OUTLIVE).touch()
    background._watch_starter(tmp_path)
    assert (tmp_path / background.STOP).exists() is not outlives


def test_a_request_to_stop_reaches_the_main_thread(tmp_path: Path) -> None:
    heard = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.set())
    try:
        threading.Thread(target=background._watch_stop, args=(tmp_path,), daemon=True).start()
        time.sleep(0.3)
        assert not heard.is_set()
        (tmp_path / background.STOP).touch()
        end = time.monotonic() + 5
        while not heard.is_set() and time.monotonic() < end:
            time.sleep(0.01)
        assert heard.is_set()
    finally:
        (tmp_path / background.STOP).unlink()
        time.sleep(0.3)
        signal.signal(signal.SIGTERM, before)
