"""Set-up by real child processes, whose libraries are made to be missing, too old, half installed or crashing."""

import os
import sys
import tempfile
import time
import unittest
import zipfile
from pathlib import Path
from unittest import mock

import CTStyleGenTesting  # noqa: F401 - prepares slicer
import slicer
from CTStyleGenCore.errors import InputError
from CTStyleGenLib import jobs, setup
from CTStyleGenLib.setup import State


class SetUpTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.onPath = self.folder / "on path"
        self.onPath.mkdir()
        before = os.environ.get("PYTHONPATH", "")
        path = os.pathsep.join(filter(None, [str(self.onPath), before]))
        environment = mock.patch.dict(os.environ, PYTHONPATH=path)
        environment.start()
        self.addCleanup(environment.stop)

    def library(self, name: str, code: str) -> None:
        """A library that comes before the one that is installed."""
        (self.onPath / name).mkdir()
        (self.onPath / name / "__init__.py").write_text(code, encoding="utf-8")

    def bare(self) -> None:
        """From now on the child has nothing but what is in the folder."""
        command = mock.patch.object(jobs, "coreCommand", lambda: [jobs.corePython(), "-S", "-m", "CTStyleGenCore"])
        command.start()
        self.addCleanup(command.stop)

    def states(self) -> dict[str, State]:
        return {library.package: library.state for library in setup.check()}

    def message(self, package: str) -> str:
        return next(library.message for library in setup.check() if library.package == package)

    def test_all_works(self) -> None:
        for name, version in (("safetensors", "0.5.0"), ("torchvision", "0.21")):
            self.library(name, f"__version__ = {version!r}")
        self.library(
            "torch", "__version__ = '2.6'\nclass cuda: device_count = lambda: 0\ndef get_num_threads(): return 1"
        )
        self.assertEqual(set(self.states().values()), {State.READY})

    def test_nothing_is_there(self) -> None:
        self.bare()
        self.assertEqual(set(self.states().values()), {State.MISSING})
        self.assertEqual(self.message("torch"), "PyTorch is not installed.")

    def test_half_installed(self) -> None:
        self.bare()
        (self.onPath / "torch" / "lib").mkdir(parents=True)
        self.assertEqual(self.states()["torch"], State.BROKEN)
        self.assertIn(f"half installed: remove {self.onPath / 'torch'} and", self.message("torch"))

    def test_too_old(self) -> None:
        self.library("torch", "__version__ = '2.1.0'")
        self.assertEqual(self.states()["torch"], State.OUTDATED)

    def test_crash(self) -> None:
        self.library("safetensors", "__version__ = '0.5.0'")
        self.library("torch", "import os; os.abort()")
        states = self.states()
        self.assertEqual(states["safetensors"], State.READY)
        self.assertEqual(states["torch"], State.BROKEN)
        self.assertEqual(states["torchvision"], State.UNCHECKED)
        self.assertEqual(self.message("torch"), "PyTorch crashes Python when it is imported: install it again.")

    def test_nothing_is_known_before_the_check(self) -> None:
        self.assertEqual({library.state for library in setup.libraries([])}, {State.UNCHECKED})

    def test_slicers_process_stays_without_torch(self) -> None:
        before = set(sys.modules)
        setup.check()
        self.assertFalse({"torch", "torchvision", "safetensors"} & (set(sys.modules) - before))

    def test_install_from_wheels_into_a_folder(self) -> None:
        """Without a network: a real pip, a real wheel, and a folder that stands for Slicer's own."""
        self.bare()
        missing = [library for library in setup.check() if library.package == "safetensors"]
        wheel(self.folder / "wheels", "safetensors", "0.4.5")
        environment = {"PIP_TARGET": str(self.onPath), "PIP_CONFIG_FILE": os.devnull}
        full = [jobs.corePython(), "-m", "CTStyleGenCore"]  # with pip
        with mock.patch.dict(os.environ, environment), mock.patch.object(jobs, "coreCommand", lambda: full):
            told: list[jobs.Event] = []
            setup.startInstall(missing, told.append, self.folder / "wheels").wait()
        self.assertTrue(any("safetensors-0.4.5" in event.get("message", "") for event in told))
        self.assertEqual(self.states()["safetensors"], State.READY)

    def test_a_folder_without_wheels(self) -> None:
        wanted = setup.libraries([])[:1]
        with self.assertRaisesRegex(InputError, r"^There are no wheels \(.whl\) in "):
            setup.startInstall(wanted, lambda event: None, self.folder).wait()

    def test_broken_libraries_are_installed_again(self) -> None:
        self.library("light_the_torch", "")
        (self.onPath / "light_the_torch" / "__main__.py").write_text("import sys; print('asked', *sys.argv[1:])")
        (self.onPath / "light_the_torch-0.8.dist-info").mkdir()
        metadata = "Name: light-the-torch\nVersion: 0.8\n"
        (self.onPath / "light_the_torch-0.8.dist-info" / "METADATA").write_text(metadata)
        events = [{"event": "requirement", "package": "torch", "state": "broken", "message": ""}]
        wanted = [library for library in setup.libraries(events) if library.package.startswith("torch")]
        told: list[jobs.Event] = []
        setup.startInstall(wanted, told.append).wait()
        asked = [event["message"] for event in told if event.get("message", "").startswith("asked")]
        self.assertEqual([("--force-reinstall --no-deps" in line) for line in asked], [True, False])
        self.assertTrue(all("torch>=2.6 torchvision>=0.21" in line for line in asked))

    def test_canceling_an_installation_ends_pip_as_well(self) -> None:
        self.library("light_the_torch", "")
        pidFile = self.folder / "pid"
        program = f"import os, time; open({str(pidFile)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
        (self.onPath / "light_the_torch" / "__main__.py").write_text(program)
        (self.onPath / "light_the_torch-0.8.dist-info").mkdir()
        metadata = "Name: light-the-torch\nVersion: 0.8\n"
        (self.onPath / "light_the_torch-0.8.dist-info" / "METADATA").write_text(metadata)
        job = setup.startInstall(setup.libraries([])[1:], lambda event: None)
        end = time.monotonic() + 60
        while not (pidFile.exists() and pidFile.read_text()) and time.monotonic() < end:
            job.poll()
            time.sleep(0.05)
        pid = int(pidFile.read_text())
        job.cancel()
        with self.assertRaises(jobs.JobCanceled):
            job.wait()
        end = time.monotonic() + 5
        while isRunning(pid) and time.monotonic() < end:
            time.sleep(0.05)
        self.assertFalse(isRunning(pid))

    def test_the_pytorch_extension(self) -> None:
        self.assertEqual(setup.hasTorchExtension(), hasattr(slicer.modules, "pytorchutils"))


def wheel(folder: Path, name: str, version: str) -> None:
    """A real wheel with one line of code."""
    folder.mkdir()
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}/__init__.py", f"__version__ = {version!r}\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n")
        archive.writestr(f"{info}/RECORD", "")


def isRunning(pid: int) -> bool:
    """Whether the process lives; a zombie doesn't."""
    status = Path(f"/proc/{pid}/stat")
    if sys.platform.startswith("linux"):
        return status.exists() and status.read_text().rpartition(")")[2].split()[0] not in "ZX"
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    unittest.main()
