"""What a run can end by and still be taken up again: kills, full disks, numbers that are none, a lack of memory."""

import contextlib
import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from CTStyleGenCore import synthesis
from CTStyleGenCore.__main__ import main
from CTStyleGenCore.checkpoint import checkpoint_path, read_checkpoint
from CTStyleGenCore.errors import is_out_of_memory
from CTStyleGenCore.files import written_beside
from CTStyleGenCore.model_file import read_weights
from CTStyleGenCore.trainer import Trainer
from phantoms import chest

posix = pytest.mark.skipif(os.name == "nt", reason="POSIX signals and limits")


def train_arguments(cases: Path, output: Path, *more: object) -> list[str]:
    common = ("--style", "A", "--features", "random", "--preset", "quick", "--size", 64, "--device", "cpu")
    return [*map(str, ("train", "--cases", cases, *common, "--output", output, "--json", *more))]


def started(
    arguments: list[str], errors: Path = Path(os.devnull), prepare: Callable[[], None] | None = None
) -> multiprocessing.process.BaseProcess:
    """A process that runs the command; forked from one that has loaded PyTorch, so that it begins at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [f"CTStyleGenCore.{name}" for name in ("training", "tensorboard_logs", "synthesis", "expansion")]
    )
    process = context.Process(target=_run, args=(arguments, errors, prepare))
    process.start()
    return process


def _run(arguments: list[str], errors: Path, prepare: Callable[[], None] | None) -> None:
    torch.set_num_threads(1)
    if prepare is not None:
        prepare()
    with (
        Path(os.devnull).open("w") as nowhere,
        errors.open("a") as told,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(told),
    ):
        code = main(arguments)
    raise SystemExit(code)


def wait_until(true: Callable[[], bool], process: multiprocessing.process.BaseProcess) -> None:
    """Waits for something that the living process does."""
    end = time.monotonic() + 60
    while not true():
        assert process.is_alive() and time.monotonic() < end
        time.sleep(0.01)


def step_of(checkpoint: Path) -> int:
    """The step of a checkpoint, all of which can be read."""
    return int(read_checkpoint(checkpoint)[1]["step"])


# --- kills ----------------------------------------------------------------------------------------------------------


@posix
def test_killed_at_any_moment_the_run_goes_on_as_if_nothing_had_happened(cases: Path, tmp_path: Path) -> None:
    """24 kills: a quarter at any moment from the start, a quarter while it writes, half soon after it has written."""
    out, rng = tmp_path / "killed.ctstyle", random.Random(4)
    checkpoint, reached, left = checkpoint_path(out), 0, 0
    for kill in range(24):
        endless = ("--steps", 100000, "--checkpoint-seconds", 0, *(["--resume"] if kill else []))
        process = started(train_arguments(cases, out, *endless))
        before = set(tmp_path.glob(".ctstylegen-*"))
        if kill % 4 == 3:
            time.sleep(rng.uniform(0, 1.5))
        elif kill % 4 == 2:
            wait_until(lambda known=before: set(tmp_path.glob(".ctstylegen-*")) - known, process)
        else:
            wait_until(lambda last=reached: checkpoint.exists() and step_of(checkpoint) > last, process)
            time.sleep(rng.uniform(0, 0.3))
        assert process.is_alive() and process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        left += bool(set(tmp_path.glob(".ctstylegen-*")) - before)
        step = step_of(checkpoint)
        assert step >= reached
        reached = step
    assert reached >= 24 / 2 and left > 0  # it has made its way, and kills have met it while it was writing

    time.sleep(2.1)  # what is younger is taken for a living process's
    process = started(train_arguments(cases, out, "--steps", reached + 2, "--resume"))
    process.join()
    assert process.exitcode == 0
    assert [p.name for p in tmp_path.iterdir()] == ["killed.ctstyle"]

    whole = tmp_path / "whole.ctstyle"
    process = started(train_arguments(cases, whole, "--steps", reached + 2))
    process.join()
    killed, uninterrupted = read_weights(out), read_weights(whole)
    assert all(torch.equal(killed[name], uninterrupted[name]) for name in uninterrupted)


@posix
def test_what_a_killed_process_left_is_removed_and_what_a_living_one_holds_is_not(tmp_path: Path) -> None:
    abandoned = tmp_path / ".ctstylegen-abandoned"
    abandoned.mkdir()
    (abandoned / "half").write_text("half")
    with written_beside(tmp_path / "held.txt") as beside:
        for folder in (abandoned, beside.parent):
            os.utime(folder, (0, 0))
        beside.write_text("held")
        process = multiprocessing.get_context("forkserver").Process(target=_write, args=(tmp_path / "other.txt",))
        process.start()
        process.join()
        assert not abandoned.exists() and beside.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["held.txt", "other.txt"]


def _write(path: Path) -> None:
    with written_beside(path) as beside:
        beside.write_text("other")


# --- full disks -----------------------------------------------------------------------------------------------------


def _limit_files() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


@posix
def test_a_full_disk_ends_the_run_and_the_last_checkpoint_stands(
    cases: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    out, errors = tmp_path / "m.ctstyle", tmp_path_factory.mktemp("errors") / "stderr.txt"
    process = started(train_arguments(cases, out, "--steps", 100000, "--checkpoint-seconds", 0))
    wait_until(checkpoint_path(out).exists, process)
    process.terminate()
    process.join()
    assert process.exitcode == 130
    step = step_of(checkpoint_path(out))
    for more in (("--steps", 100000, "--checkpoint-seconds", 0), ("--steps", step + 1)):  # a checkpoint, the model
        process = started(train_arguments(cases, out, *more, "--resume"), errors, _limit_files)
        process.join()
        assert process.exitcode == 2
        assert errors.read_text().startswith("No room on the disk to write") and errors.read_text().count("\n") == 1
        errors.unlink()
        assert [p.name for p in tmp_path.iterdir()] == ["m.ctstyle.checkpoint"]
        assert step_of(checkpoint_path(out)) == step


# --- numbers that are none, and a lack of memory, in the fourth step ------------------------------------------------


@pytest.fixture
def fourth_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Trainer], None]], None]:
    """Has something happen after the fourth step's update, before it is told of."""

    def arrange(mishap: Callable[[Trainer], None]) -> None:
        step = Trainer.train_step

        def disturbed(self: Trainer) -> dict[str, torch.Tensor]:
            losses = step(self)
            if self.step == 4:
                mishap(self)
            return losses

        monkeypatch.setattr(Trainer, "train_step", disturbed)

    return arrange


def _break_a_weight(trainer: Trainer) -> None:
    with torch.no_grad():
        next(trainer.G.parameters()).view(-1)[0] = float("nan")


def _gpu_full(trainer: Trainer) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def _cpu_full(trainer: Trainer) -> None:
    torch.empty(1 << 62, dtype=torch.uint8)


@pytest.mark.parametrize("steps", [4, 100])
@pytest.mark.parametrize(
    ("mishap", "kind", "sentence"),
    [
        (_break_a_weight, "training", "is no number any more at step 4"),
        (_gpu_full, "memory", "The memory is not enough: train with a --size below 64"),
        (_cpu_full, "memory", "The memory is not enough: train with a --size below 64"),
    ],
)
def test_a_mishap_ends_the_run_with_a_sentence_and_the_last_good_checkpoint_stands(
    cases: Path,
    tmp_path: Path,
    fourth_step: Callable,
    capsys: pytest.CaptureFixture,
    mishap: Callable,
    kind: str,
    sentence: str,
    steps: int,
) -> None:
    fourth_step(mishap)
    out = tmp_path / "m.ctstyle"
    assert main(train_arguments(cases, out, "--steps", steps, "--checkpoint-seconds", 0)) == 1
    told = capsys.readouterr()
    assert sentence in told.err and len(told.err.splitlines()) == 1
    assert json.loads(told.out.splitlines()[-1])["kind"] == kind
    assert [p.name for p in tmp_path.iterdir()] == ["m.ctstyle.checkpoint"]
    assert step_of(checkpoint_path(out)) == 3


def test_other_errors_are_no_lack_of_memory() -> None:
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("can't allocate memory"))


def test_synthesis_goes_on_with_less_memory(cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches too large are halved, and the result is the same; one slice too large is told."""
    assert main(train_arguments(cases, tmp_path / "m.ctstyle", "--steps", 1)) == 0
    model = synthesis.Model(tmp_path / "m.ctstyle", "cpu")
    _, labels = chest(slices=5)
    expected = synthesis.synthesize_volume(model, labels, 0)
    real, batches = synthesis.Model.synthesize, []

    def small(self: synthesis.Model, squares: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        batches.append(len(squares))
        if len(squares) > room:
            raise torch.OutOfMemoryError
        return real(self, squares, *others)

    room = 2
    monkeypatch.setattr(synthesis.Model, "synthesize", small)
    monkeypatch.setattr(synthesis, "_slices_together", lambda model: 8)
    result = synthesis.synthesize_volume(model, labels, 0)
    assert batches == [5, 4, 2, 2, 1]
    np.testing.assert_allclose(*(synthesis.sitk.GetArrayFromImage(v) for v in (result, expected)), atol=1)
    room = 0
    with pytest.raises(synthesis.OutOfMemory, match="one slice"):
        synthesis.synthesize_volume(model, labels, 0)
