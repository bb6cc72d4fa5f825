"""What goes wrong around a run: kills, files that vanish, clocks that jump, folders that can't be written, a GPU that
stops. Every finished output is whole, every unfinished one absent, and the next run works.

`make soak` kills as these tests do, many more times. A training's kills and a full disk: `test_never_lost`.
"""

import itertools
import json
import os
import random
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from CTStyleGenCore import files
from CTStyleGenCore.__main__ import main
from CTStyleGenCore.checkpoint import checkpoint_path
from CTStyleGenCore.errors import InputError, gpu_failure
from CTStyleGenCore.expansion import ExpansionOptions, expand
from CTStyleGenCore.model_file import write_model
from CTStyleGenCore.networks import Generator
from CTStyleGenCore.synthesis import Model, mark_synthetic, synthesize_volume
from CTStyleGenCore.trainer import Trainer
from CTStyleGenCore.worker import Worker
from phantoms import chest
from test_never_lost import posix, started, step_of, train_arguments, wait_until
from test_worker import Child, card, synthesis

STILL = ("--amount", 0, "--per-case", 3)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("models") / "m.ctstyle")


@pytest.fixture
def segmentation(tmp_path: Path) -> Path:
    return chest_labels(tmp_path / "labels.nrrd")


def small_model(path: Path) -> Path:
    torch.manual_seed(0)
    write_model(path, Generator(64).state_dict(), card())
    return path


def chest_labels(path: Path) -> Path:
    sitk.WriteImage(chest(slices=5)[1], str(path))
    return path


def synthesize_arguments(model: Path, segmentation: Path, output: Path, *more: object) -> list[str]:
    made = ("synthesize", "--model", model, "--segmentation", segmentation, "--output", output, "--device", "cpu")
    return [*map(str, (*made, "--json", *more))]


def expand_arguments(model: Path, cases: Path, output: Path, *more: object) -> list[str]:
    made = ("expand", "--model", model, "--cases", cases, "--output", output, "--device", "cpu", "--json")
    return [*map(str, (*made, *STILL, *more))]


def voxels(folder: Path) -> dict[str, np.ndarray]:
    """The volumes in a folder and below, each of which can be read, by path; without what is only being written."""
    found = [path for path in sorted(folder.rglob("*.n*")) if not files.is_left_over(path)]
    return {str(p.relative_to(folder)): sitk.GetArrayFromImage(sitk.ReadImage(str(p))) for p in found}


def are_among(some: dict[str, np.ndarray], whole: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(values, whole[name]) for name, values in some.items())


# --- kills ----------------------------------------------------------------------------------------------------------


def killed(arguments: list[str], wait: Callable[[], bool], seconds: float) -> None:
    """Starts the command and kills it, so long after ``wait`` came true; it may have ended by then."""
    process = started(arguments)
    wait_until(lambda: wait() or not process.is_alive(), process)
    time.sleep(seconds)
    process.kill()
    process.join()
    assert process.exitcode in (0, -9)


def kill_synthesis(model: Path, segmentation: Path, folder: Path, kills: int, seed: int = 0) -> int:
    """Kills syntheses of four volumes at random moments; AssertionError unless each volume is whole or absent, and the
    last run, left alone, makes all. Returns how many kills left some of the four.
    """
    (folder / "whole").mkdir(parents=True)
    asked = ("--samples", 4)
    assert main(synthesize_arguments(model, segmentation, folder / "whole" / "ct.nrrd", *asked)) == 0
    whole, rng, partial = voxels(folder / "whole"), random.Random(seed), 0
    for kill in range(kills):
        output = folder / f"{kill}" / "ct.nrrd"
        output.parent.mkdir()
        # Half of the kills come at any moment, the others once it writes.
        writes = output.with_name("ct-1.nrrd").exists if kill % 2 else lambda: True
        killed(
            synthesize_arguments(model, segmentation, output, *asked), writes, rng.uniform(0, 0.05 if kill % 2 else 1)
        )
        left = voxels(output.parent)
        assert are_among(left, whole)
        partial += 0 < len(left) < len(whole)
        assert main(synthesize_arguments(model, segmentation, output, *asked)) == 0
        assert voxels(output.parent).keys() == whole.keys() and are_among(voxels(output.parent), whole)
        shutil.rmtree(output.parent)
    return partial


def kill_expansion(model: Path, cases: Path, folder: Path, kills: int, seed: int = 0) -> int:
    """Kills an expansion at random moments and goes on with it; AssertionError unless what is there is whole at every
    time, and the last run, left alone, ends it. Returns how many kills left some of its images.
    """
    folder.mkdir(parents=True)
    assert main(expand_arguments(model, cases, folder / "whole")) == 0
    whole, rng, output, reached, partial = voxels(folder / "whole"), random.Random(seed), folder / "killed", 0, 0
    total = len([*(folder / "whole" / "imagesTr").glob("*.gz")])
    for kill in range(kills):
        resume = ["--resume"] if (output / "plan.json").exists() else []
        images = (output / "imagesTr").glob

        def goes_on(before: int = reached, images: Callable = images) -> bool:
            return len([*images("*.gz")]) > before

        # The first kill comes at any moment, the others soon after another image was written.
        wait, most = (goes_on, 0.03) if kill else (lambda: True, 0.2)
        killed(expand_arguments(model, cases, output, *resume), wait, rng.uniform(0, most))
        left = voxels(output)
        assert are_among(left, whole)
        reached = len([*images("*.gz")])
        partial += 0 < reached < total
    time.sleep(2.1)  # what is younger is taken for a living process's
    assert main(expand_arguments(model, cases, output, *(["--resume"] if (output / "plan.json").exists() else []))) == 0
    assert voxels(output).keys() == whole.keys() and are_among(voxels(output), whole)
    assert (output / "manifest.csv").read_bytes() == (folder / "whole" / "manifest.csv").read_bytes()
    return partial


@posix
def test_a_synthesis_killed_at_any_moment_leaves_whole_volumes_or_none(
    model: Path, segmentation: Path, tmp_path: Path
) -> None:
    kill_synthesis(model, segmentation, tmp_path / "made", kills=4)


@posix
def test_an_expansion_killed_again_and_again_comes_to_its_end(model: Path, cases: Path, tmp_path: Path) -> None:
    assert kill_expansion(model, cases, tmp_path / "sets", kills=5) > 0


def test_an_expansion_killed_before_it_wrote_its_plan_can_be_begun_again(
    model: Path, cases: Path, tmp_path: Path
) -> None:
    """What it left is a folder that can't be gone on with, and that holds nothing either."""
    output = tmp_path / "set"
    (output / "imagesTr").mkdir(parents=True)
    (output / ".ctstylegen-killed" / "whole").mkdir(parents=True)
    (output / ".ctstylegen-killed" / "whole" / "plan.json").write_text("{")
    assert main(expand_arguments(model, cases, output, "--resume")) == 2
    assert main(expand_arguments(model, cases, output)) == 0
    assert len([*output.glob("labelsTr/*.gz")]) == 9


# --- no room, no memory ---------------------------------------------------------------------------------------------


def limit(kind: str, most: int) -> None:
    """Limits files or, on top of what there is, memory: in the process that runs a command."""
    import resource

    if kind == "RLIMIT_AS":
        most += int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(getattr(resource, kind), (most, most))


def ended(arguments: list[str], errors: Path, kind: str, most: int) -> tuple[int | None, str]:
    """The exit code of a command within such a limit, and what it has told."""
    process = started(arguments, errors, partial(limit, kind, most))
    process.join()
    return process.exitcode, errors.read_text()


@posix
def test_a_full_disk_ends_a_data_set_without_half_an_image(model: Path, cases: Path, tmp_path: Path) -> None:
    code, told = ended(expand_arguments(model, cases, tmp_path / "set"), tmp_path / "told.txt", "RLIMIT_FSIZE", 4000)
    assert code == 2 and told.startswith(("No room on the disk", str(tmp_path))) and told.count("\n") == 1
    assert not voxels(tmp_path / "set") and not any(tmp_path.rglob(f"{files._PREFIX}*"))
    assert main(expand_arguments(model, cases, tmp_path / "set", "--resume")) == 0
    assert len(voxels(tmp_path / "set")) == 18


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's here")
def test_a_limit_of_memory_ends_a_training_with_a_sentence_and_nothing_half(cases: Path, tmp_path: Path) -> None:
    out, told = tmp_path / "m.ctstyle", tmp_path / "told.txt"
    code, sentence = ended(train_arguments(cases, out, "--steps", 1), told, "RLIMIT_AS", 24 << 20)
    assert code == 1 and sentence.startswith("The memory is not enough") and sentence.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["told.txt"]


# --- files that vanish ----------------------------------------------------------------------------------------------


def test_a_model_that_is_removed_while_it_is_used(model: Path, segmentation: Path, tmp_path: Path) -> None:
    """What is loaded goes on, and says what it was made by."""
    copy = Path(shutil.copy(model, tmp_path / "copy.ctstyle"))
    loaded = Model(copy, "cpu")
    copy.unlink()
    volume = synthesize_volume(loaded, sitk.ReadImage(str(segmentation)), 0)
    mark_synthetic(volume, loaded, 0, 0)
    assert volume.GetMetaData("CTStyleGen.Model") == f"copy.ctstyle sha256:{files.sha256(model)}"


def test_a_worker_whose_model_is_removed_says_so_and_goes_on(model: Path, segmentation: Path, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    shutil.copy(model, folder / "m.ctstyle")
    request = synthesis(tmp_path, 1, "labels.nrrd", slices=[2], model=str(folder / "m.ctstyle"))
    child = Child(tmp_path)
    try:
        assert child.ask(request)["event"] == "done"
        shutil.rmtree(folder)
        error = child.ask(request)
        assert error["kind"] == "input" and error["message"].startswith(f"The model {folder / 'm.ctstyle'} can't be re")
        shutil.copytree(model.parent, folder)
        assert child.ask(request)["event"] == "done"
    finally:
        assert child.end() == 0


def test_cases_that_are_removed_while_a_data_set_is_made(model: Path, cases: Path, tmp_path: Path) -> None:
    """A sentence; the images that were finished are whole, and with the cases back it goes on."""
    copy, output, asked = tmp_path / "cases", tmp_path / "set", itertools.count()
    shutil.copytree(cases, copy)

    def remove_some() -> bool:
        if next(asked) == 3:
            shutil.rmtree(copy / "B")
        return False

    options = ExpansionOptions(copy, 1, output, 0.0)
    with pytest.raises(InputError, match="B"):
        expand(options, Model(model, "cpu"), lambda event: None, remove_some)
    assert [*voxels(output)] == ["imagesTr/A_001_0000.nii.gz", "labelsTr/A_001.nii.gz"]
    shutil.copytree(cases / "B", copy / "B")
    expand(ExpansionOptions(copy, 1, output, 0.0, resume=True), Model(model, "cpu"), lambda event: None, lambda: False)
    assert len(voxels(output)) == 6


# --- clocks that jump -----------------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("days", [-300, 300])
def test_what_a_killed_process_left_is_removed_whatever_the_clock_says(days: int, tmp_path: Path) -> None:
    for name in ("abandoned", "held"):
        (tmp_path / f".ctstylegen-{name}").mkdir()
    held = files._hold(tmp_path / ".ctstylegen-held")
    for folder in tmp_path.iterdir():
        os.utime(folder, (time.time() + days * 86400,) * 2)
    files._sweep.cache_clear()
    with files.written_beside(tmp_path / "out.txt") as beside:
        beside.write_text("out")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".ctstylegen-held", "out.txt"]
    held.close()


def test_runs_do_not_care_what_the_clock_says(
    cases: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Years to and fro between any two looks at it: all ends well, with estimates that can be."""
    rng = random.Random(0)
    monkeypatch.setattr(time, "time", lambda: rng.uniform(0, 4e9))
    assert main(train_arguments(cases, tmp_path / "m.ctstyle", "--steps", 1)) == 0
    assert main(expand_arguments(model, cases, tmp_path / "set")) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    left = [event["seconds_left"] for event in told if "seconds_left" in event]
    assert len(left) >= 10 and all(0 <= seconds < 3600 for seconds in left)


# --- folders that can't be written ----------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["below a file", "read-only"])
@pytest.mark.parametrize("command", ["train", "synthesize", "vary", "expand", "preview"])
def test_a_folder_that_can_not_be_written_is_told_before_the_work_begins(
    command: str,
    where: str,
    model: Path,
    cases: Path,
    segmentation: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    if where == "read-only" and sys.platform != "linux":
        pytest.skip("a folder that nobody may write in, not even root: Linux's /proc")
    (tmp_path / "file").touch()
    folder = tmp_path / "file" if where == "below a file" else Path("/proc")
    arguments = {
        "train": train_arguments(cases, folder / "m.ctstyle", "--steps", 1),
        "synthesize": synthesize_arguments(model, segmentation, folder / "ct.nrrd"),
        "vary": [
            "vary",
            "--segmentation",
            segmentation,
            "--count",
            1,
            "--amount",
            1,
            "--output",
            folder / "v",
            "--json",
        ],
        "expand": expand_arguments(model, cases, folder / "set"),
        "preview": ["preview", model, "--output", folder / "p.png", "--device", "cpu", "--json"],
    }[command]
    before = sorted(tmp_path.rglob("*"))
    assert main([*map(str, arguments)]) == 2
    told = capsys.readouterr()
    assert str(folder) in told.err and len(told.err.splitlines()) == 1
    assert [json.loads(line)["event"] for line in told.out.splitlines()] == ["error"]
    assert sorted(tmp_path.rglob("*")) == before


# --- a GPU that stops -----------------------------------------------------------------------------------------------

STOPPED = (
    RuntimeError("CUDA error: unspecified launch failure\nCUDA kernel errors might be reported asynchronously at"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    *(
        [torch.AcceleratorError("CUDA error: device-side assert triggered")]
        if hasattr(torch, "AcceleratorError")
        else []
    ),
)


def at_call(number: int, function: Callable, error: Exception) -> Callable:
    """The function, raising the error in place of one of its calls."""
    calls = itertools.count(1)

    def disturbed(*arguments: object, **more: object) -> object:
        if next(calls) == number:
            raise error
        return function(*arguments, **more)

    return disturbed


def assert_gpu_is_told(capsys: pytest.CaptureFixture, error: Exception) -> None:
    told = capsys.readouterr()
    event = json.loads(told.out.splitlines()[-1])
    reason = str(error).splitlines()[0]
    assert event["event"] == "error" and event["kind"] == "gpu"
    assert event["message"].startswith(f"The GPU has stopped working ({reason}): try again with --device cpu")
    assert told.err.splitlines() == [event["message"]]


def test_a_gpu_that_stops_ends_a_training_and_its_checkpoint_stands(
    cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    error = STOPPED[-1]
    out = tmp_path / "m.ctstyle"
    endless = train_arguments(cases, out, "--steps", 100, "--checkpoint-seconds", 0)
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "train_step", at_call(3, Trainer.train_step, error))
        assert main(endless) == 1
    assert_gpu_is_told(capsys, error)
    assert [path.name for path in tmp_path.iterdir()] == ["m.ctstyle.checkpoint"] and step_of(checkpoint_path(out)) == 2
    assert main(train_arguments(cases, out, "--steps", 3, "--resume")) == 0


def test_a_gpu_that_stops_ends_a_synthesis_and_a_data_set(
    model: Path,
    cases: Path,
    segmentation: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    out, output = tmp_path / "out" / "ct.nrrd", tmp_path / "set"
    out.parent.mkdir()
    for arguments in (synthesize_arguments(model, segmentation, out), expand_arguments(model, cases, output)):
        with monkeypatch.context() as patched:
            patched.setattr(Model, "synthesize", at_call(5, Model.synthesize, STOPPED[0]))
            assert main(arguments) == 1
        assert_gpu_is_told(capsys, STOPPED[0])
    assert not any(out.parent.iterdir())
    assert [*voxels(output)] == ["imagesTr/A_001_0000.nii.gz", "labelsTr/A_001.nii.gz"]
    assert main(synthesize_arguments(model, segmentation, out)) == 0
    assert main(expand_arguments(model, cases, output, "--resume")) == 0


def test_a_gpu_that_stops_ends_a_worker_with_an_answer(
    model: Path, segmentation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No request after it would fare better in that process."""
    told: list[dict] = []
    worker = Worker("cpu", told.append)
    request = synthesis(segmentation.parent, 7, segmentation.name, model=str(model))
    monkeypatch.setattr(Model, "synthesize", at_call(2, Model.synthesize, STOPPED[0]))
    worker._take(json.dumps(request).encode())
    with pytest.raises(RuntimeError, match="CUDA error"):
        worker.run()
    assert (told[-1]["event"], told[-1]["id"], told[-1]["kind"]) == ("error", 7, "gpu")
    assert not (segmentation.parent / "out.nrrd").exists()


def test_other_errors_are_none_of_the_gpu(
    model: Path, segmentation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Model, "synthesize", at_call(1, Model.synthesize, RuntimeError("a mistake of ours")))
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        main(synthesize_arguments(model, segmentation, tmp_path / "ct.nrrd"))
    assert all(map(gpu_failure, STOPPED))
