"""Files that are whole or absent, and folders that don't outlive their process."""

import errno
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from CTStyleGenCore.errors import InputError
from CTStyleGenCore.files import PrivateFolder, require_file_place, sha256, written_beside


def test_a_file_appears_whole_with_a_new_files_mode(tmp_path: Path) -> None:
    with written_beside(tmp_path / "out.txt") as beside:
        beside.write_text("new")
        beside.chmod(0o600)
        assert not (tmp_path / "out.txt").exists()
    (tmp_path / "other.txt").touch()
    assert (tmp_path / "out.txt").read_text() == "new"
    assert (tmp_path / "out.txt").stat().st_mode == (tmp_path / "other.txt").stat().st_mode


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "out.txt").write_text("old")
    with pytest.raises(ZeroDivisionError), written_beside(tmp_path / "out.txt") as beside:
        beside.write_text("half")
        raise ZeroDivisionError
    assert (tmp_path / "out.txt").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No room on the disk"), written_beside(tmp_path / "out.txt"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"), written_beside(tmp_path / "absent" / "out.txt"):
        pass


def test_a_folder_in_the_files_place_is_told(tmp_path: Path) -> None:
    for path in (tmp_path, Path(), Path("/")):
        with pytest.raises(InputError, match="is a folder"):
            require_file_place(path)
    require_file_place(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["held", "new", "whole"])
def test_a_file_may_have_any_name(tmp_path: Path, name: str) -> None:
    with written_beside(tmp_path / name) as beside:
        beside.mkdir()
        (beside / "file").write_text("new")
    assert (tmp_path / name / "file").read_text() == "new" and len(list(tmp_path.iterdir())) == 1


def test_a_private_folder_is_the_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = PrivateFolder()
    assert Path(folder.name).parent == tmp_path and Path(folder.name).stat().st_mode & 0o777 == 0o700
    folder.cleanup()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_the_next_private_folder_removes_what_a_killed_process_left_and_nothing_else(tmp_path: Path) -> None:
    program = """
        import os, signal, sys, time
        from pathlib import Path
        from CTStyleGenCore.files import PrivateFolder
        folder = PrivateFolder()
        (Path(folder.name) / "patient.nrrd").touch()
        os.utime(folder.name, (1, 1))  # not fresh
        print(folder.name, flush=True)
        sys.stdin.read(1)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    command = [sys.executable, "-c", program.replace("\n        ", "\n")]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}

    def start() -> subprocess.Popen:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
        )
        process.stdout.readline()
        return process

    def kill(process: subprocess.Popen) -> None:
        process.communicate("x")
        assert process.returncode == -signal.SIGKILL

    killed, alive = start(), start()
    kill(killed)
    assert len(list(tmp_path.iterdir())) == 2
    kill(start())
    assert len(list(tmp_path.glob("*/patient.nrrd"))) == 2  # of the one that lives, and of the last
    kill(alive)


def test_sha256_of_a_known_text(tmp_path: Path) -> None:
    (tmp_path / "abc").write_text("abc")  # FIPS 180-2, appendix B.1
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
