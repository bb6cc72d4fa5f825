"""What is said of libraries that are there, missing, too old, half installed or crashing; and installing offline."""

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from CTStyleGenCore import environment
from CTStyleGenCore.errors import InputError

MODULE_FOLDER = Path(environment.__file__).parents[1]
BARE = "-S"  # without site-packages: nothing is installed but what a test puts on the path


def core(*arguments: object, path: Path | None = None, python: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
    """Runs a command of the Core in a new process, with ``path`` before what is installed."""
    paths = os.pathsep.join(map(str, filter(None, [MODULE_FOLDER, path])))
    command = [sys.executable, *python, "-m", "CTStyleGenCore", *map(str, arguments), "--json"]
    variables = os.environ | {"PYTHONPATH": paths}
    return subprocess.run(command, env=variables, capture_output=True, text=True, stdin=subprocess.DEVNULL)


def events(ran: subprocess.CompletedProcess) -> list[dict]:
    return [json.loads(line) for line in ran.stdout.splitlines()]


def states(ran: subprocess.CompletedProcess) -> dict[str, str]:
    return {event["package"]: event["state"] for event in events(ran) if event["event"] == "requirement"}


def message(ran: subprocess.CompletedProcess, package: str) -> str:
    return next(event["message"] for event in events(ran) if event.get("package") == package)


def library(folder: Path, name: str, code: str) -> Path:
    """A folder for the path with a library that consists of ``code``."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(code)
    return folder


def test_all_that_tests_need_is_here() -> None:
    ran = core("check")
    assert ran.returncode == 0, ran.stderr
    assert set(states(ran).values()) == {"ready"}
    devices = events(ran)[-2]
    assert devices["event"] == "devices" and devices["devices"][0]["name"] == "cpu"
    assert events(ran)[-1] == {"event": "done"}


def test_events_are_those_of_the_page() -> None:
    text = (MODULE_FOLDER.parent / "docs" / "worker.md").read_text(encoding="utf-8")
    section = re.search(r"^## preview, check, install and weights\n(.*?)^## ", text, re.DOTALL | re.MULTILINE)[1]
    examples = [json.loads(line) for line in section.splitlines() if line.startswith("{")]
    documented = {(event["event"], tuple(sorted(event))) for event in examples}
    told = {(event["event"], tuple(sorted(event))) for event in events(core("check"))}
    assert told < documented and documented - told == {("progress", ("done", "event", "total", "unit"))}


def test_floors_are_those_of_the_package() -> None:
    text = (MODULE_FOLDER.parent / "pyproject.toml").read_text()
    declared = set(re.findall(r'"([^"]+)"', re.search(r"\ndependencies = \[(.*?)\]", text, re.DOTALL)[1]))
    assert {requirement.specifier for requirement in environment.REQUIREMENTS} <= declared


def test_nothing_installed() -> None:
    ran = core("check", python=(BARE,))
    assert ran.returncode == 0, ran.stderr
    assert states(ran) == {"safetensors": "missing", "torch": "missing", "torchvision": "missing"}
    assert message(ran, "torch") == "PyTorch is not installed."
    assert events(ran)[-1] == {"event": "done"}


def test_half_installed_torch_imports_and_is_found_out(tmp_path: Path) -> None:
    (tmp_path / "torch" / "lib").mkdir(parents=True)
    ran = core("check", path=tmp_path, python=(BARE,))
    assert states(ran)["torch"] == "broken"
    assert message(ran, "torch") == f"PyTorch is half installed: remove {tmp_path / 'torch'} and install it again."


def test_torch_without_a_version_is_half_installed(tmp_path: Path) -> None:
    assert states(core("check", path=library(tmp_path, "torch", "")))["torch"] == "broken"


@pytest.mark.parametrize(
    ("version", "state"), [("1.13.1", "outdated"), ("2.5.1+cu124", "outdated"), ("2.6.0+cu126", "ready")]
)
def test_the_floor(tmp_path: Path, version: str, state: str) -> None:
    ran = core("check", path=library(tmp_path, "torch", f"__version__ = {version!r}"), python=(BARE,))
    assert states(ran)["torch"] == state
    if state == "outdated":
        assert message(ran, "torch") == f"PyTorch {version} is too old: CTStyleGen needs 2.6 or newer; update it."


def test_torch_that_does_not_import(tmp_path: Path) -> None:
    code = "raise OSError('[WinError 126] fbgemm.dll is missing.\\nand more')"
    ran = core("check", path=library(tmp_path, "torch", code))
    assert message(ran, "torch") == (
        "PyTorch can't be imported ([WinError 126] fbgemm.dll is missing): install it again."
    )


def test_torch_that_lacks_a_package_is_not_taken_for_missing(tmp_path: Path) -> None:
    ran = core("check", path=library(tmp_path, "torch", "import typing_extensions_that_nobody_has"))
    assert message(ran, "torch") == "PyTorch lacks the package typing_extensions_that_nobody_has: install it again."


def test_a_crash_tells_which_library(tmp_path: Path) -> None:
    """`import torchvision` ends the process on some machines: what was found before is told."""
    ran = core("check", path=library(tmp_path, "torchvision", "import os; os.abort()"))
    assert ran.returncode not in (0, 1, 2)
    assert states(ran) == {"safetensors": "ready", "torch": "ready"}


@pytest.mark.parametrize("half_installed", [False, True])
def test_commands_say_what_is_missing(tmp_path: Path, half_installed: bool) -> None:
    path = library(tmp_path, "torch", "raise ModuleNotFoundError('No torch', name='torch')")
    if half_installed:
        (tmp_path / "torch" / "__init__.py").write_text("")
    ran = core("preview", tmp_path / "m.ctstyle", "--output", tmp_path / "m.png", path=path)
    assert ran.returncode == 2, ran.stderr
    sentence = "PyTorch is missing or damaged: install it by the set-up in Slicer's Models tab, or with pip."
    assert ran.stderr.strip() == sentence
    assert events(ran) == [{"event": "error", "kind": "input", "message": sentence}]


def wheel(folder: Path, name: str, version: str) -> Path:
    """A real wheel with one line of code."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/__init__.py", f"__version__ = {version!r}\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def install(target: Path, *arguments: object) -> subprocess.CompletedProcess:
    """Installs into a folder of the test's, which stands for Slicer's."""
    command = [sys.executable, "-m", "CTStyleGenCore", "install", *map(str, arguments), "--json"]
    # pip's own settings on this computer, such as constraints, are not what these wheels are about.
    pip = {"PIP_CONFIG_FILE": os.devnull, "PIP_CONSTRAINT": "", "PIP_TARGET": str(target), "PIP_UPGRADE": "1"}
    variables = os.environ | pip | {"PYTHONPATH": str(MODULE_FOLDER)}
    return subprocess.run(command, env=variables, capture_output=True, text=True)


def test_install_from_wheels_without_a_network(tmp_path: Path) -> None:
    wheel(tmp_path / "wheels", "safetensors", "0.4.5")
    wheel(tmp_path / "wheels", "torchvision", "0.99.0")
    ran = install(tmp_path / "target", "safetensors", "torchvision", "--wheels", tmp_path / "wheels")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert any("Successfully installed" in event.get("message", "") for event in events(ran))
    assert events(ran)[-1] == {"event": "done", "message": "Installed safetensors, torchvision."}
    found = core("check", path=tmp_path / "target", python=(BARE,))
    assert states(found) == {"safetensors": "ready", "torch": "missing", "torchvision": "ready"}


def test_install_again_replaces_what_is_damaged(tmp_path: Path) -> None:
    wheel(tmp_path / "wheels", "safetensors", "0.4.5")
    install(tmp_path / "target", "safetensors", "--wheels", tmp_path / "wheels")
    (tmp_path / "target" / "safetensors" / "__init__.py").unlink()
    assert states(core("check", path=tmp_path / "target", python=(BARE,)))["safetensors"] == "broken"
    ran = install(tmp_path / "target", "safetensors", "--again", "--wheels", tmp_path / "wheels")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert states(core("check", path=tmp_path / "target", python=(BARE,)))["safetensors"] == "ready"


def test_wheels_that_do_not_do(tmp_path: Path) -> None:
    wheel(tmp_path / "wheels", "safetensors", "0.1.0")
    ran = install(tmp_path / "target", "safetensors", "--wheels", tmp_path / "wheels")
    assert ran.returncode == 2
    assert re.fullmatch(
        r"safetensors can't be installed \(ERROR: No matching distribution .*\): check the connection, or install from "
        r"a folder of wheels\.",
        ran.stderr.strip(),
    )
    assert not (tmp_path / "target").exists()


def test_torch_is_installed_by_the_installer_that_fits_the_graphics_card(tmp_path: Path) -> None:
    """The installer, which needs a network, is here a program that tells what it was asked."""
    folder = library(tmp_path, "light_the_torch", "")
    (folder / "light_the_torch" / "__main__.py").write_text("import sys; print(*sys.argv[1:])")
    (folder / "light_the_torch-0.8.dist-info").mkdir()
    (folder / "light_the_torch-0.8.dist-info" / "METADATA").write_text("Name: light-the-torch\nVersion: 0.8\n")
    ran = core("install", "torch", "torchvision", path=folder)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    asked = next(event["message"] for event in events(ran) if event["message"].startswith("install"))
    assert asked.startswith("install --only-binary :all:") and "torch>=2.6 torchvision>=0.21" in asked


def test_the_automatic_device_is_the_first_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU of an architecture that PyTorch's build lacks is counted by PyTorch all the same."""
    found = [{"name": "cpu"}, {"name": "cuda:0", "works": False}]
    monkeypatch.setattr(environment, "_devices", lambda: found)
    assert environment.automatic_device() == "cpu"
    found.append({"name": "cuda:1", "works": True})
    assert environment.automatic_device() == "cuda:1"


def test_there_is_no_torch_for_intel_macs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment.sys, "platform", "darwin")
    monkeypatch.setattr(environment.platform, "machine", lambda: "x86_64")
    with pytest.raises(InputError, match=r"^PyTorch has no builds for Intel Macs any more: use Linux"):
        environment.install(["torch", "torchvision"], None, False, lambda event: None)


@pytest.mark.parametrize(
    ("packages", "wheels", "sentence"),
    [
        (["numpy"], None, "CTStyleGen doesn't need 'numpy': choose from safetensors, torch, torchvision."),
        (["torch"], "nowhere", "does not exist: choose another one."),
        (["torch"], ".", r"There are no wheels \(.whl\) in "),
    ],
)
def test_what_can_not_be_installed(tmp_path: Path, packages: list[str], wheels: str | None, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        environment.install(packages, tmp_path / wheels if wheels else None, False, lambda event: None)
