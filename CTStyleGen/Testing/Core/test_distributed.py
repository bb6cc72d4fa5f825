"""Several processes at one job, as torchrun starts them: the same result as one process alone."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from CTStyleGenCore.__main__ import main
from CTStyleGenCore.anatomy import load_anatomy
from CTStyleGenCore.devices import Computing
from CTStyleGenCore.model_file import read_card
from CTStyleGenCore.perceptual import random_weights
from CTStyleGenCore.presets import load_preset
from CTStyleGenCore.ranks import Ranks, launched
from CTStyleGenCore.slices import HuRange
from CTStyleGenCore.trainer import Trainer
from CTStyleGenCore.training_data import load_training_data
from phantoms import chest
from safetensors.torch import load_file

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="PyTorch without torch.distributed")


def launched_by_torchrun(*arguments: object) -> dict[str, Any]:
    """What subprocess needs to run a script, or a module after "-m", as two processes on this machine."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return {"args": [*launch, *map(str, arguments)], "env": environment, **pipes}


def torchrun(*arguments: object) -> subprocess.CompletedProcess:
    """Runs it to its end."""
    return subprocess.run(**launched_by_torchrun(*arguments), timeout=300)


def train_arguments(cases: Path, output: Path, *more: object) -> list[str]:
    common = ("--style", "A", "--features", "random", "--size", 64, "--device", "cpu", "--precision", "float32")
    return [*map(str, ("train", "--cases", cases, *common, "--output", output, "--json", *more))]


# A step of training in every process; the first one keeps what it has learned.
STEP = """
import sys
from pathlib import Path
from CTStyleGenCore.ranks import joined
from safetensors.torch import save_file
from test_distributed import learned
with joined("cpu") as ranks:
    result = learned(Path(sys.argv[1]), 1, ranks)
    if ranks.first:
        save_file(result, sys.argv[2])
"""


def learned(cases: Path, batch: int, ranks: Ranks) -> dict[str, torch.Tensor]:
    """Losses and gradients of a first step."""
    thorax = load_anatomy("thorax")
    data = load_training_data(cases, ("A",), thorax, 64, 2, 1, HuRange())
    trainer = Trainer(load_preset("paper"), thorax, random_weights(), data, 64, 0, Computing(), batch, ranks)
    losses = trainer.train_step()
    players = {"G": trainer.G, "D": trainer.D}
    named = [(f"{player}/{name}", p.grad) for player, net in players.items() for name, p in net.named_parameters()]
    return losses | {name: grad for name, grad in named if grad is not None}


def test_two_processes_learn_what_one_does_from_the_doubled_batch(cases: Path, tmp_path: Path) -> None:
    (tmp_path / "step.py").write_text(STEP)
    ran = torchrun(str(tmp_path / "step.py"), cases, tmp_path / "two.safetensors")
    assert ran.returncode == 0, ran.stderr
    together, alone = load_file(tmp_path / "two.safetensors"), learned(cases, 2, Ranks())
    assert together.keys() == alone.keys() and any(name.startswith("D/") for name in alone)
    for name, expected in alone.items():
        tolerance = 1e-4 * expected.abs().max().item()  # sums in another order
        torch.testing.assert_close(together[name], expected, rtol=0, atol=tolerance)


def test_a_run_of_two_processes_writes_one_model(cases: Path, tmp_path: Path) -> None:
    two_epochs = ("--slices-per-case", 2, "--steps", 4)
    ran = torchrun("-m", "CTStyleGenCore", *train_arguments(cases, tmp_path / "m.ctstyle", *two_epochs))
    assert ran.returncode == 0, ran.stderr
    events = [json.loads(line) for line in ran.stdout.splitlines()]
    told = [event["event"] for event in events if event["event"] != "progress"]
    assert told == ["calibrated", "checkpoint", "memorisation", "done"]  # the first one's alone
    assert [p.name for p in tmp_path.iterdir()] == ["m.ctstyle"]
    assert read_card(tmp_path / "m.ctstyle")["batch"] == 2


def test_slices_are_shared_out(cases: Path, tmp_path: Path) -> None:
    model, labels = tmp_path / "m.ctstyle", tmp_path / "labels.nrrd"
    assert main(train_arguments(cases, model, "--steps", 1)) == 0
    sitk.WriteImage(chest(slices=2, seed=5)[1], str(labels))
    synthesize = ["synthesize", "--model", str(model), "--segmentation", str(labels), "--samples", "3", "--json"]
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    assert main([*synthesize, "--output", str(tmp_path / "one" / "ct.nrrd")]) == 0
    ran = torchrun("-m", "CTStyleGenCore", *synthesize, "--output", tmp_path / "two" / "ct.nrrd")
    assert ran.returncode == 0, ran.stderr
    names = [f"ct-{number}.nrrd" for number in (1, 2, 3)]
    assert sorted(p.name for p in (tmp_path / "two").iterdir()) == names
    assert json.loads(ran.stdout.splitlines()[-1])["outputs"] == [str(tmp_path / "two" / name) for name in names]
    for name in names:
        alone, shared = (sitk.ReadImage(str(tmp_path / folder / name)) for folder in ("one", "two"))
        np.testing.assert_allclose(sitk.GetArrayFromImage(alone), sitk.GetArrayFromImage(shared), atol=1)
        assert alone.GetMetaData("CTStyleGen.Seed") == shared.GetMetaData("CTStyleGen.Seed")


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_stopped_run_of_two_goes_on_as_one(cases: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.ctstyle"
    endless = ["-m", "CTStyleGenCore", *train_arguments(cases, out, "--steps", 100000)]
    with subprocess.Popen(**launched_by_torchrun(*endless)) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if '"progress"' in line)
        process.terminate()
        output, errors = process.communicate(timeout=120)
    *_, step = (json.loads(line)["step"] for line in output.splitlines() if '"checkpoint"' in line)
    assert f"Process 1: Stopped at step {step}" in errors
    assert [p.name for p in tmp_path.iterdir()] == ["m.ctstyle.checkpoint"]
    assert main(train_arguments(cases, out, "--steps", step + 1, "--batch", 2, "--resume")) == 0
    assert read_card(out)["steps"] == step + 1


def test_every_item_is_one_processs() -> None:
    shares = [Ranks(rank, 3).share(range(8)) for rank in range(3)]
    assert [list(share) for share in shares] == [[0, 3, 6], [1, 4, 7], [2, 5]]


def test_alone_without_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert launched() == Ranks(0, 1) and launched().first
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "2")
    assert launched() == Ranks(2, 4) and not launched().first
