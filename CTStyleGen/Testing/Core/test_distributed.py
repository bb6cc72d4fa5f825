"""Several processes at one job, as torchrun starts them: the same result as one process alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from CTStyleGenCore.__main__ import main
from CTStyleGenCore.model_file import read_card, read_weights
from CTStyleGenCore.ranks import Ranks, launched
from phantoms import chest, write_cases

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="PyTorch without torch.distributed")


def torchrun(*arguments: object) -> subprocess.CompletedProcess:
    """Runs ctstylegen as two processes on this machine."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "CTStyleGenCore"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *launch, *map(str, arguments)], capture_output=True, text=True, env=environment, timeout=300
    )


def train_arguments(cases: Path, output: Path, *more: object) -> list[str]:
    common = ("--style", "A", "--features", "random", "--size", 64, "--device", "cpu", "--precision", "float32")
    return [*map(str, ("train", "--cases", cases, *common, "--output", output, "--json", *more))]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cases(tmp_path_factory.mktemp("cases"))


def test_two_processes_are_one_with_the_doubled_batch(cases: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one.ctstyle", tmp_path / "two.ctstyle"
    assert main(train_arguments(cases, one, "--steps", 4, "--batch", 2)) == 0
    ran = torchrun(*train_arguments(cases, two, "--steps", 4))
    assert ran.returncode == 0, ran.stderr
    events = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [e["event"] for e in events if e["event"] != "progress"] == ["calibrated", "done"]  # the first one's alone
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.ctstyle", "two.ctstyle"]

    cards = read_card(one), read_card(two)
    assert cards[0]["batch"] == cards[1]["batch"] == 2
    for name, loss in cards[0]["losses"]["last"].items():
        assert cards[1]["losses"]["last"][name] == pytest.approx(loss, rel=1e-4)
    alone, together = read_weights(one), read_weights(two)
    started = tmp_path / "started.ctstyle"
    assert main(train_arguments(cases, started, "--steps", 1, "--batch", 2)) == 0
    before = read_weights(started)
    moved = max((alone[name] - before[name]).abs().max() for name in alone)
    for name in alone:  # sums in another order: far less than what three steps have moved
        torch.testing.assert_close(together[name], alone[name], rtol=0, atol=0.02 * moved.item())


def test_samples_are_shared_out(cases: Path, tmp_path: Path) -> None:
    model, labels = tmp_path / "m.ctstyle", tmp_path / "labels.nrrd"
    assert main(train_arguments(cases, model, "--steps", 1)) == 0
    sitk.WriteImage(chest(slices=2, seed=5)[1], str(labels))
    synthesize = ["synthesize", "--model", str(model), "--segmentation", str(labels), "--samples", "3", "--json"]
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    assert main([*synthesize, "--output", str(tmp_path / "one" / "ct.nrrd")]) == 0
    ran = torchrun(*synthesize, "--output", tmp_path / "two" / "ct.nrrd")
    assert ran.returncode == 0, ran.stderr
    names = [f"ct-{number}.nrrd" for number in (1, 2, 3)]
    assert sorted(p.name for p in (tmp_path / "two").iterdir()) == names
    assert json.loads(ran.stdout.splitlines()[-1])["outputs"] == [str(tmp_path / "two" / name) for name in names]
    for name in names:
        alone, shared = (sitk.ReadImage(str(tmp_path / folder / name)) for folder in ("one", "two"))
        np.testing.assert_allclose(sitk.GetArrayFromImage(alone), sitk.GetArrayFromImage(shared), atol=1)
        assert alone.GetMetaData("CTStyleGen.Seed") == shared.GetMetaData("CTStyleGen.Seed")


def test_bad_input_ends_all_processes_with_the_sentence(cases: Path, tmp_path: Path) -> None:
    ran = torchrun(*train_arguments(cases, tmp_path / "m.ctstyle", "--preset", "Z"))
    assert ran.returncode != 0 and "There is no preset 'Z'" in ran.stderr
    assert list(tmp_path.iterdir()) == []


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
