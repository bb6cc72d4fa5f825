"""The utility benchmark: who is in which split, its arithmetic, and the whole of it at a tiny size on drawn chests."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from CTStyleGenCore.anatomy import Anatomy
from phantoms import HU, write_case

from benchmarks import utility
from benchmarks.utility import Slice


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for number, name in enumerate(("A048383-1", "A048383-2", "P", "Q", "Lung_Dx-A0001-B", "Lung_Dx-A0001-L")):
        write_case(tmp_path / "data" / "cases" / name, seed=number, slices=2, side=64)
    return tmp_path / "data"


def drawn(patient: str, seed: int = 0, size: int = 32) -> Slice:
    labels = np.random.default_rng(seed).integers(0, 6, (size, size)).astype(np.uint8)
    return Slice(patient, np.array(HU, np.int16)[labels], labels, 5.0)


def test_it_runs_and_goes_on(data: Path, tmp_path: Path, thorax: Anatomy, capsys: pytest.CaptureFixture) -> None:
    output = tmp_path / "out"
    sizes = ("--slices", "2", "--seeds", "0", "--per-slice", "2", "--size", "64", "--amount", "2")
    steps = ("--generator-steps", "1", "--network-steps", "2", "--features", "random", "--preset", "styles")
    arguments = ["--data", str(data), "--output", str(output), *sizes, *steps, "--generator-slices", "3"]
    utility.main([*arguments, "--arms", "real", "expansion"])
    rows = utility.read_results(output)
    assert {row["arm"] for row in rows} == {"real", "expansion"} and all(0 <= row["dice"] <= 1 for row in rows)
    before = (output / "results.jsonl").read_text()
    times = {path: path.stat().st_mtime_ns for path in output.glob("seed0-?/**/*") if path.is_file()}
    utility.main([*arguments, "--arms", *utility.ARMS])
    assert (output / "results.jsonl").read_text().startswith(before)
    assert {row["arm"] for row in utility.read_results(output)} == set(utility.ARMS)
    assert {path: path.stat().st_mtime_ns for path in times} == times  # neither trained nor expanded again
    assert capsys.readouterr().out.strip().endswith((output / "table.md").read_text().strip())
    data_set = output / "seed0-2" / "dataset"
    manifest = utility.read_manifest(data_set)
    moved = utility.warped(output / "seed0-2" / "cases", manifest, thorax)
    for row, (hu, labels) in zip(manifest, moved, strict=True):
        label, ct = (
            sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[0]
            for path in (data_set / row["label"], output / "seed0-2" / "cases" / row["source_case"] / "ct.nrrd")
        )
        assert np.array_equal(labels, label) and not np.array_equal(hu, ct)
        assert abs(hu[labels == 2].mean() - HU[2]) < 150  # the CT has moved with the labels; at borders it is mixed
    seen = {row["patient"] for row in rows}
    assert (output / "seed0-3" / "model.ctstyle").is_file() and not (output / "seed0-2" / "model.ctstyle").exists()
    generators, networks = ({path.name for path in (output / of / "cases").iterdir()} for of in ("seed0-3", "seed0-2"))
    assert len(generators) == 3 and len(networks) == 2 and networks < generators
    assert seen and not seen & {name.rpartition("-")[0] for name in generators}


def test_a_generator_of_the_same_slices(data: Path, tmp_path: Path) -> None:
    size = ("--slices", "2", "--seeds", "0", "--per-slice", "1", "--size", "64", "--generator-slices", "0")
    steps = ("--generator-steps", "1", "--network-steps", "1", "--features", "random", "--repeats", "1")
    utility.main(["--data", str(data), "--output", str(tmp_path), *size, *steps, "--arms", "expansion"])
    assert (tmp_path / "seed0-2" / "model.ctstyle").is_file()


def test_patients_are_split_whole(data: Path, thorax: Anatomy) -> None:
    slices = utility.read_slices(data / "cases", thorax, 32)
    counts = {patient: len(ones) for patient, ones in slices.items()}
    assert counts == {"A048383": 4, "P": 2, "Q": 2, "Lung_Dx-A0001": 2}
    assert all(one.hu.shape == (32, 32) and one.spacing == 8.0 for one in itertools.chain(*slices.values()))
    tested = []
    for seed in range(3):
        train, test = utility.split(sorted(slices), seed)
        assert sorted(train + test) == sorted(slices)
        tested += test
    assert sorted(tested) == sorted(slices)  # each once in three seeds


def test_few_slices_are_among_more_and_of_many_patients() -> None:
    slices = {"A": [drawn("A", n) for n in range(9)], "B": [drawn("B")], "C": [drawn("C", n) for n in range(3)]}
    chosen = utility.choose(slices, ["B", "C", "A"], 6)
    assert [one.patient for one in chosen] == ["B", "C", "A", "C", "A", "C"]
    assert len({id(one) for one in chosen}) == 6
    assert utility.choose(slices, ["B", "C", "A"], 4) == chosen[:4]
    assert len(utility.choose(slices, ["B", "C"], 50)) == 4


def test_the_painter_paints_means_and_noise(thorax: Anatomy) -> None:
    look = drawn("A", 1, 200)
    hu = look.hu + np.random.default_rng(0).normal(0, 30, look.hu.shape)
    noisy = Slice("A", hu.astype(np.int16), look.labels, 1.0)
    other = drawn("B", 2, 200).labels
    ((hu, labels),) = utility.painted([noisy], [other], thorax, 0)
    assert hu.dtype == np.int16 and np.array_equal(labels, other)
    for organ, mean in enumerate(HU):
        values = hu[labels == organ]
        assert abs(values.mean() - mean) < 3 and abs(values.std() - 30) < 2


class Oracle:
    """Gives the labels that it is told, one wrong: a network whose Dice is known."""

    def __init__(self, labels: np.ndarray) -> None:
        self.scores = torch.nn.functional.one_hot(torch.from_numpy(labels).long(), 6).permute(0, 3, 1, 2).float()

    def __call__(self, images: object) -> object:
        return self.scores


def test_dice_of_a_known_answer(thorax: Anatomy) -> None:
    truth = np.zeros((2, 8, 8), np.uint8)
    truth[0, :4] = 2
    truth[1, :2] = 3
    found = truth.copy()
    found[0, :2] = 0  # half of the lungs are missed
    ones = [Slice("A", np.zeros((8, 8), np.int16), labels, 1.0) for labels in truth]
    rows = utility.measure(Oracle(found), {"A": ones}, thorax)  # type: ignore[arg-type]
    assert [(row["organ"], row["dice"]) for row in rows] == [("lungs", round(2 / 3, 4)), ("mediastinum", 1.0)]


def test_intervals_and_the_table() -> None:
    assert utility.interval([0.5, 0.5]) == (0.5, 0.5, 0.5)
    _, low, high = utility.interval(np.random.default_rng(0).normal(0, 1, 400).tolist())
    assert 0.15 < high - low < 0.25  # 2 x 1.96 / 20
    rows = [
        {"seed": 0, "slices": 3, "arm": arm, "patient": patient, "organ": organ, "dice": dice}
        for arm, dices in (("real", (0.5, 0.7)), ("painter", (0.55, 0.75)), ("expansion", (0.6, 0.8)))
        for patient, dice in zip("AB", dices, strict=True)
        for organ in utility.ORGANS
    ]
    table = utility.table(rows)
    told = {line.split(" | ")[1]: [cell.strip("| ") for cell in line.split(" | ")[3:6]] for line in table.splitlines()}
    assert told["real"] == ["", "", ""] and told["painter"] == ["+0.050", "", "+0.050"]  # one split: no interval
    assert told["expansion"] == ["+0.100", "+0.050", "+0.100"]
    assert "| 3 | real | 0.600" in table and "together" not in table and "mixed" not in table
    of_two = utility.table([*rows, *({**row, "slices": 5, "dice": row["dice"] + 0.1} for row in rows)])
    assert "| 5 | real | 0.700" in of_two and "| together | expansion | 0.750" in of_two


def test_a_gain_is_as_sure_as_its_splits_agree() -> None:
    dices = {"real": (0.5, 0.5, 0.5), "expansion": (0.6, 0.5, 0.7)}
    rows = [
        {"seed": seed, "slices": 3, "arm": arm, "patient": patient, "organ": "bone", "dice": dice}
        for arm, of_seeds in dices.items()
        for seed, dice in enumerate(of_seeds)
        for patient in "AB"  # of one split: two patients tell no more than one
    ]
    assert utility.gain(rows, "expansion", ["bone"]) == "+0.100 (-0.148 to +0.348)"  # 4.303 * 0.1 / sqrt(3)
    six = [{**row, "seed": row["seed"] + 3 * again} for row in rows for again in (0, 1)]
    assert utility.gain(six, "expansion", ["bone"]).endswith("; p 0.12)")  # four gains, no loss: 2 / 2 ** 4
    more = [{**row, "slices": 5, "dice": 0.9} for row in rows if row["arm"] == "real"]  # with no expansion as yet
    assert utility.gain(rows + more, "expansion", ["bone"]) == utility.gain(rows, "expansion", ["bone"])


def test_learning_helps(thorax: Anatomy) -> None:
    """Some dozen steps on an easy slice are better than none."""
    row = np.repeat(np.arange(32)[:, None] * 6 // 32, 32, 1).astype(np.uint8)
    one = Slice("A", np.array(HU, np.int16)[row], row, 1.0)

    def dice(steps: int) -> float:
        network = utility.train_network([(one.hu, one.labels)], [], 0.0, 6, steps, 0)
        return float(np.mean([found["dice"] for found in utility.measure(network, {"A": [one]}, thorax)]))

    assert dice(40) > dice(1) + 0.2
