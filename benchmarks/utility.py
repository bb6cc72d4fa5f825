"""What expansion is good for: a segmentation network trained on few real slices, alone and with synthetic ones.

    python -m benchmarks.utility --data ../shared/data --features vgg16 \
        --weights ../shared/weights/vgg16_imagenet_caffe.safetensors --output utility

For each seed the patients are split anew into eight to train with and four to test with (three seeds test each patient
once). A generator learns from ten slices of the eight, as one whose model is shared; the U-Net has N of them and what
`expand` makes of these N with that model. ``--generator-slices 0``: the generator has the U-Net's slices alone. MONAI's
U-Net is trained for equally many steps, with the same classic augmentation,

    real       on the N slices
    warped     on them and the same slices moved as `expand` moves their labels: new anatomy, without a generator
    painter    on them and as many images as `expand` makes, whose organs are flat: mean and noise of a slice's that the
               generator has learned from
    expansion  on them and the images of `expand`
    mixed      on them and the images of `expand --mix`

all but the first with the very same new labels, and measured by Dice per organ over slices of the four; `warped` and
`mixed` on request. Slices whose reference fits their CT badly (`label_check`) are left out. A process of one thread
learns a generator, or works on a seed and an N. A run goes on where it was stopped; results.jsonl has a line a
measurement, table.md the means and their confidence intervals: of Dice by a bootstrap over patients, of gains over
splits (Student's t, and Wilcoxon's signed-rank test, as a few splits gain much and most a little), as all patients of a
split share generator and U-Nets.
"""

import argparse
import csv
import json
import os
import threading
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from CTStyleGenCore.anatomy import Anatomy, load_anatomy
from CTStyleGenCore.cases import Case, read_case, write_volume
from CTStyleGenCore.devices import Computing, choose_precision
from CTStyleGenCore.expansion import ExpansionOptions, expand
from CTStyleGenCore.label_check import misfits
from CTStyleGenCore.perceptual import load_weights
from CTStyleGenCore.presets import load_preset
from CTStyleGenCore.scores import dice
from CTStyleGenCore.segmenter import segment, train_network
from CTStyleGenCore.slices import HuRange, Square, axial
from CTStyleGenCore.synthesis import Model
from CTStyleGenCore.training import TrainingOptions, train
from CTStyleGenCore.variation import Variations
from scipy import stats

ARMS = ("real", "warped", "painter", "expansion", "mixed")
ORGANS = ("lungs", "mediastinum", "bone", "spinal canal")
_BUT_CANAL = ORGANS[:-1]
_PATIENTS = {  # of the cases whose patient has several
    "A048383-1": "A048383",
    "A048383-2": "A048383",
    "A056642-1": "A056642",
    "A056642-2": "A056642",
    "Lung_Dx-A0001-B": "Lung_Dx-A0001",
    "Lung_Dx-A0001-L": "Lung_Dx-A0001",
}
_FOLDS = 3
_TEST_SLICES = 4  # of each case
_SURE = 6  # splits; of fewer p can't be below 0.05
_HU = HuRange()
_ANATOMY = load_anatomy("thorax")
_CASES, _MODEL = "cases", "model.ctstyle"  # in the folder of a seed and a number of slices
_PRECISION = choose_precision("auto", "cpu")  # as `train`'s, unless it is told otherwise


@dataclass(frozen=True)
class Slice:
    """An axial slice at the benchmark's size."""

    patient: str
    hu: np.ndarray  # int16 [S, S]
    labels: np.ndarray  # uint8 [S, S], organ labels
    spacing: float  # mm between pixels


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    counts_of = defaultdict(list)  # seed and slices of a generator -> N of the U-Nets that it makes images for
    for count in sorted(options.slices, reverse=True):
        for seed in options.seeds:
            if missing(options, seed, count):
                counts_of[seed, options.generator_slices or count].append(count)
    with ProcessPoolExecutor(options.processes, get_context("spawn"), _begin_process) as processes:
        learning = {processes.submit(learn, options, *known): known for known in counts_of}
        running = []
        for learned in as_completed(learning):
            learned.result()
            seed, known = learning[learned]
            running += [processes.submit(run, options, seed, count, known) for count in counts_of[seed, known]]
        for done in as_completed(running):
            done.result()
            (options.output / "table.md").write_text(table(read_results(options.output)) + "\n")
    print(table(read_results(options.output)))


def _begin_process() -> None:
    """One thread to compute with; and an end with the process that began this one, however that ends."""
    torch.set_num_threads(1)

    def end_too() -> None:
        if begun_by := parent_process():
            begun_by.join()
            os._exit(1)

    threading.Thread(target=end_too, daemon=True).start()


def missing(options: argparse.Namespace, seed: int, count: int) -> list[str]:
    """The arms that results.jsonl doesn't have yet."""
    there = {(row["seed"], row["slices"], row["arm"]) for row in read_results(options.output)}
    return [arm for arm in options.arms if (seed, count, arm) not in there]


def learn(options: argparse.Namespace, seed: int, known: int) -> None:
    """A generator from ``known`` slices of the seed's patients to train with, where one is needed and isn't there."""
    folder = _folder(options, seed, known)
    model = folder / _MODEL
    if model.is_file() or options.arms == ["real"]:
        return
    slices, (train_patients, _) = _patients(options, seed)
    _write_cases(folder / _CASES, choose(slices, train_patients, known))
    settings = TrainingOptions(
        folder / _CASES,
        tuple(sorted(path.name for path in (folder / _CASES).iterdir())),
        model,
        options.size,
        steps=options.generator_steps,
        seed=seed,
        computing=Computing(precision=_PRECISION),
    )
    weights = load_weights(options.features, options.weights)
    train(settings, load_preset(options.preset), weights, lambda event: None, lambda: False)


def run(options: argparse.Namespace, seed: int, count: int, known: int) -> None:
    """The missing arms of a seed and a number of slices; the generator has learned from ``known``."""
    slices, (train_patients, test_patients) = _patients(options, seed)
    chosen = choose(slices, train_patients, count)
    folder, model = _folder(options, seed, count), _folder(options, seed, known) / _MODEL
    _write_cases(folder / _CASES, chosen)
    real = [(one.hu, one.labels) for one in chosen]
    looks = choose(slices, train_patients, known)
    for arm in missing(options, seed, count):
        synthetic = [] if arm == "real" else images(arm, options, folder, model, looks, seed)
        share = options.share if synthetic else 0.0
        lines = []
        for repeat in range(options.repeats):
            own_seed = seed + 1000 * repeat
            network = train_network(
                real, synthetic, share, len(_ANATOMY.organs), options.network_steps, own_seed, precision=_PRECISION
            )
            rows = measure(network, {p: spread(slices[p], _TEST_SLICES) for p in test_patients}, _ANATOMY)
            told = {"seed": seed, "slices": count, "arm": arm, "repeat": repeat}
            lines += [json.dumps(told | row) + "\n" for row in rows]
        with (options.output / "results.jsonl").open("a", encoding="utf-8") as file:
            file.write("".join(lines))


def _folder(options: argparse.Namespace, seed: int, count: int) -> Path:
    return options.output / f"seed{seed}-{count}"


def _patients(options: argparse.Namespace, seed: int) -> tuple[dict[str, list[Slice]], tuple[list[str], list[str]]]:
    """All slices, by patient; and the patients to train with and to test with."""
    slices = read_slices(options.data / "cases", _ANATOMY, options.size)
    return slices, split(sorted(slices), seed)


# --- data -------------------------------------------------------------------------------------------------------------


def read_slices(folder: Path, anatomy: Anatomy, size: int) -> dict[str, list[Slice]]:
    """Patient -> axial slices with at least three of the organs to find, at ``size`` pixels a side."""
    found: dict[str, list[Slice]] = defaultdict(list)
    for path in sorted(folder.iterdir()):
        if path.name == "Lung_Dx-A0001-L":  # the slices of -B again, by another kernel
            continue
        patient = _PATIENTS.get(path.name, path.name)
        found[patient] += _slices(read_case(path, anatomy), patient, anatomy, size)
    return dict(found)


def _slices(case: Case, patient: str, anatomy: Anatomy, size: int) -> list[Slice]:
    hu, labels = axial(case.ct), axial(case.labels)
    _, height, width = hu.shape
    square = Square(height, width, size)
    small = square.of_values(torch.from_numpy(hu).float(), fill=_HU.low).round().numpy().astype(np.int16)
    small_labels = square.of_labels(torch.from_numpy(labels), len(anatomy.organs)).numpy().astype(np.uint8)
    spacing = sitk.DICOMOrient(case.ct, "LPS").GetSpacing()[0] * max(height, width) / size
    wanted = {anatomy.organ(name).label for name in ORGANS}
    return [
        Slice(patient, values, organs, spacing)
        for values, organs in zip(small, small_labels, strict=True)
        if len(wanted & set(np.unique(organs).tolist())) >= 3 and not misfits(values, organs, anatomy)
    ]


def split(patients: Sequence[str], seed: int) -> tuple[list[str], list[str]]:
    """Patients to train with, in an order to take them in, and to test with: a third of them, another one each seed."""
    order = np.random.default_rng(seed // _FOLDS).permutation(patients).tolist()
    test = order[seed % _FOLDS :: _FOLDS]
    return [patient for patient in order if patient not in test], test


def choose(slices: dict[str, list[Slice]], patients: Sequence[str], count: int) -> list[Slice]:
    """``count`` slices, taken from one patient after the other, round by round; fewer slices are among more."""
    turns = {patient: spread(slices[patient], 5)[::-1] for patient in patients}
    chosen: list[Slice] = []
    while len(chosen) < count and any(turns.values()):
        chosen += [left.pop() for left in turns.values() if left][: count - len(chosen)]
    return chosen


def spread(slices: Sequence[Slice], count: int) -> list[Slice]:
    """At most ``count`` of the slices, evenly over them."""
    count = min(count, len(slices))
    return [slices[int((n + 0.5) * len(slices) / count)] for n in range(count)]


# --- the arms ---------------------------------------------------------------------------------------------------------


def images(
    arm: str, options: argparse.Namespace, folder: Path, model: Path, looks: Sequence[Slice], seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """An arm's synthetic images and their labels. ``looks``: the slices that the generator has learned from."""
    data_set = expanded(options, folder, model, seed, arm == "mixed")
    rows = read_manifest(data_set)
    if arm == "warped":
        return warped(folder / _CASES, rows, _ANATOMY)
    made = [(_array(data_set / row["image"]), _array(data_set / row["label"])) for row in rows]
    return painted(looks, [labels for _, labels in made], _ANATOMY, seed) if arm == "painter" else made


def expanded(options: argparse.Namespace, folder: Path, model: Path, seed: int, mix: bool) -> Path:
    """The data set that `expand` makes of the folder's cases."""
    data_set = folder / ("mixed" if mix else "dataset")
    if not (data_set / "dataset.json").is_file():
        resume = (data_set / "plan.json").is_file()
        asked = ExpansionOptions(
            folder / _CASES, options.per_slice, data_set, options.amount, seed, mix=mix, resume=resume
        )
        expand(asked, Model(model, "cpu"), lambda event: None, lambda: False)
    return data_set


def read_manifest(data_set: Path) -> list[dict[str, str]]:
    with (data_set / "manifest.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def warped(folder: Path, rows: Sequence[dict[str, str]], anatomy: Anatomy) -> list[tuple[np.ndarray, np.ndarray]]:
    """The source cases' own CT, moved as `expand` has moved their labels for these rows of its manifest."""
    cases = {path.name: read_case(path, anatomy) for path in sorted(folder.iterdir())}
    others = [case.labels for case in cases.values()]
    variations = {name: Variations(case.labels, anatomy, others) for name, case in cases.items()}
    made = []
    for row in rows:
        source = row["source_case"]
        varied = variations[source].draw(float(row["amount_mm"]), int(row["seed"]), 1)
        made.append(tuple(sitk.GetArrayFromImage(i)[0] for i in (varied.warp(cases[source].ct), varied.labels)))
    return made


def _array(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[0]


def _write_cases(folder: Path, chosen: Sequence[Slice]) -> None:
    if folder.is_dir():
        return
    for number, one in enumerate(chosen):
        (folder / f"{one.patient}-{number}").mkdir(parents=True)
        for values, name in ((one.hu, "ct.nrrd"), (one.labels, "labels.nrrd")):
            image = sitk.GetImageFromArray(values[None])
            image.SetSpacing((one.spacing, one.spacing, 5.0))
            write_volume(image, folder / f"{one.patient}-{number}" / name)


def painted(
    chosen: Sequence[Slice], maps: Sequence[np.ndarray], anatomy: Anatomy, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The cheap rival: organs in the mean HU and the white noise that they have in one of the slices chosen."""
    rng = np.random.default_rng(seed)
    images = []
    for labels in maps:
        hu = np.full(labels.shape, _HU.low)
        look = chosen[int(rng.integers(len(chosen)))]
        for organ in anatomy.organs:
            inside = labels == organ.label
            looks = [one for one in (look, *chosen) if (one.labels == organ.label).any()]
            if looks and inside.any():
                values = looks[0].hu[looks[0].labels == organ.label]
                hu[inside] = rng.normal(values.mean(), values.std(), np.count_nonzero(inside))
        images.append((hu.round().astype(np.int16), labels))
    return images


# --- the segmentation network -----------------------------------------------------------------------------------------


def measure(network: torch.nn.Module, slices: dict[str, list[Slice]], anatomy: Anatomy) -> list[dict]:
    """Dice of each organ of each patient, over the patient's slices together."""
    rows = []
    for patient, ones in slices.items():
        found = segment(network, [one.hu for one in ones])
        truth = np.stack([one.labels for one in ones])
        for name in ORGANS:
            label = anatomy.organ(name).label
            there = truth == label
            if there.any():
                rows.append({"patient": patient, "organ": name, "dice": round(dice(found == label, there), 4)})
    return rows


# --- results ----------------------------------------------------------------------------------------------------------


def read_results(folder: Path) -> list[dict]:
    path = folder / "results.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def table(rows: Sequence[dict]) -> str:
    """Mean Dice over patients, and the gain over "real" and the painter, of all organs, of all but the spinal canal (a
    few pixels at this size, which make most of the noise), and of each; 95 % intervals.

    By the number of real slices, and of all numbers together.
    """
    titles = ("real slices", "arm", "Dice", "gain over real (95 %)", "over painter", "over real but for the canal")
    lines = [f"| {' | '.join((*titles, *ORGANS))} |", "|" + " --- |" * (len(titles) + len(ORGANS))]
    counts = sorted({row["slices"] for row in rows})
    groups = {str(count): [row for row in rows if row["slices"] == count] for count in counts}
    if len(counts) > 1:
        groups["together"] = list(rows)
    for told, group in groups.items():
        for arm in ARMS:
            if not (mine := by_patient(group, arm, ORGANS)):
                continue
            cells = ["{:.3f} ({:.3f} to {:.3f})".format(*interval(list(mine.values()))), gain(group, arm, ORGANS)]
            cells += [gain(group, arm, ORGANS, "painter"), gain(group, arm, _BUT_CANAL)]
            for organ in ORGANS:
                dice = np.mean(list(by_patient(group, arm, [organ]).values()))
                cells.append(f"{dice:.3f} {gain(group, arm, [organ])}".rstrip())
            lines.append(f"| {told} | {arm} | {' | '.join(cells)} |")
    return "\n".join(lines)


def gain(rows: Sequence[dict], arm: str, organs: Sequence[str], base: str = "real") -> str:
    """Of the arm's Dice over that of the base: the mean of the splits', its interval, and p; "" where there is none.

    Of splits and numbers of slices that both have. p: Wilcoxon's signed-rank test, two-sided, of _SURE splits at least.
    """
    mine, its = ({(row["seed"], row["slices"]) for row in rows if row["arm"] == one} for one in (arm, base))
    gains = []
    for seed in sorted({seed for seed, _ in mine & its}):
        own = [row for row in rows if row["seed"] == seed and (seed, row["slices"]) in mine & its]
        of_arm, of_base = by_patient(own, arm, organs), by_patient(own, base, organs)
        if of_arm:
            gains.append(np.mean([dice - of_base[patient] for patient, dice in of_arm.items()]))
    if arm in ("real", base) or not gains:
        return ""
    mean = float(np.mean(gains))
    if len(gains) == 1:
        return f"{mean:+.3f}"
    low, high = mean + stats.t.ppf([0.025, 0.975], len(gains) - 1) * stats.sem(gains)
    told = f"{low:+.3f} to {high:+.3f}"
    if len(gains) >= _SURE and any(gains):
        told += f"; p {stats.wilcoxon(gains).pvalue:.2g}"
    return f"{mean:+.3f} ({told})"


def by_patient(rows: Sequence[dict], arm: str, organs: Sequence[str]) -> dict[str, float]:
    """Patient -> mean Dice over the organs and the seeds."""
    found = defaultdict(list)
    for row in rows:
        if row["arm"] == arm and row["organ"] in organs:
            found[row["patient"]].append(row["dice"])
    return {patient: float(np.mean(values)) for patient, values in found.items()}


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean, and its 95 % confidence interval by a bootstrap over the values."""
    drawn = np.random.default_rng(0).choice(values, (10000, len(values))).mean(1)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return float(np.mean(values)), float(low), float(high)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with cases/")
    parser.add_argument("--output", type=Path, default=Path("utility"))
    parser.add_argument("--slices", type=int, nargs="+", default=[3, 5, 10], help="numbers of real slices")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="three in a row test each patient")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=["real", "painter", "expansion"])
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="splits that are worked on at once")
    parser.add_argument("--per-slice", type=int, default=12, help="synthetic images of each real slice")
    parser.add_argument("--share", type=float, default=0.25, help="of synthetic slices in a step of the U-Net")
    parser.add_argument("--amount", type=float, default=6.0, help="how far anatomy moves at most, in mm")
    parser.add_argument(
        "--generator-slices", type=int, default=10, help="that the generator learns from; 0: the U-Net's alone"
    )
    parser.add_argument("--preset", default="styles")
    parser.add_argument("--generator-steps", type=int, help="default: the preset's")
    parser.add_argument("--network-steps", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=2, help="U-Nets of each arm")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--features", default="vgg19", choices=("vgg19", "vgg16", "random"))
    parser.add_argument("--weights", type=Path, help="VGG weights, if not torchvision's published ones")
    return parser


if __name__ == "__main__":
    main()
