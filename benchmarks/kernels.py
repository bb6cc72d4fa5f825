"""The style kernel test: the same slices in a soft and a sharp kernel, and whether a style carries the kernel over.

    python -m benchmarks.kernels --model M.ctstyle --soft CASE --sharp CASE [--figure PNG]

A slice's style is taken from slices of the other case that are elsewhere in the patient. What should come out is known:
the same slice of the other case. Both ways; docs/ablation.md keeps the table.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from CTStyleGenCore.anatomy import Anatomy
from CTStyleGenCore.cases import Case, read_case
from CTStyleGenCore.evaluation_report import WINDOWS
from CTStyleGenCore.scores import noise_spectrum, spectrum_distance
from CTStyleGenCore.slices import axial
from CTStyleGenCore.synthesis import Look, Model
from CTStyleGenCore.training_data import TrainingSlice, fullest_slices, slice_codes, slices_at

_APART = 2  # places at least, between a slice and those that its style is taken from
_SLICES = 6  # evenly over those with the most organs
_MIN_AREA = 100  # pixels of an organ in a slice
_COLUMNS = ("mean HU", "sharpness, HU", "noise to the target, dB", "noise elsewhere to the target, dB")


@dataclass(frozen=True)
class Kernels:
    """One patient's slices [S, S] in two kernels, and the CT made of the first in the style of the second."""

    place: int
    labels: np.ndarray
    content: np.ndarray  # HU, as all
    result: np.ndarray
    target: np.ndarray
    elsewhere: tuple[tuple[np.ndarray, np.ndarray], ...]  # HU and labels of the slices that the style was taken from


def made(model: Model, content: Case, style: Case) -> Iterator[Kernels]:
    """For slices spread over the patient."""
    contents, styles = (_slices(model, case) for case in (content, style))
    for place in fullest_slices(axial(content.labels), _SLICES):
        others = [one for n, one in enumerate(styles) if abs(n - place) >= _APART]
        look = Look(style.case_id, slice_codes([one.without_table() for one in others], model.anatomy)[None])
        result = model.synthesize(contents[place].labels[None], model.noise_code(0, place), look)[0].numpy()
        elsewhere = tuple((_hu(model, one), one.labels.numpy()) for one in others)
        labels, real, target = contents[place].labels.numpy(), _hu(model, contents[place]), _hu(model, styles[place])
        yield Kernels(place, labels, real, result, target, elsewhere)


def _slices(model: Model, case: Case) -> list[TrainingSlice]:
    return slices_at(case, range(len(axial(case.labels))), model.anatomy, model.G.size, model.hu)


def _hu(model: Model, one: TrainingSlice) -> np.ndarray:
    return model.hu.to_hu(one.x[0, 0]).numpy()


def sharpness(hu: np.ndarray, inside: np.ndarray) -> float:
    """Mean |difference| of neighboring pixels of an organ, HU."""
    differences = []
    for axis in (0, 1):
        both = np.take(inside, range(1, inside.shape[axis]), axis) & np.take(
            inside, range(inside.shape[axis] - 1), axis
        )
        differences.append(np.abs(np.diff(hu, axis=axis))[both])
    return float(np.concatenate(differences).mean())


def table(several: list[Kernels], anatomy: Anatomy) -> list[str]:
    """A row for each organ: means over the slices, of content, result and target."""
    rows = []
    for organ in anatomy.organs[1:]:
        shown = [one for one in several if np.count_nonzero(one.labels == organ.label) >= _MIN_AREA]
        if not shown:
            continue
        found = np.array([_measured(one, organ.label) for one in shown]).mean(0)
        hu, sharp, noise = (
            " / ".join(f"{value:.3g}" for value in part) for part in (found[:3], found[3:6], found[6:8])
        )
        rows.append(f"{organ.name} | {hu} | {sharp} | {noise} | {found[8]:.2f}")
    return rows


def _measured(one: Kernels, label: int) -> list[float]:
    inside = one.labels == label
    images = (one.content, one.result, one.target)
    content, result, target = (noise_spectrum(hu, inside) for hu in images)
    elsewhere = [
        spectrum_distance(noise_spectrum(hu, labels == label), target)
        for hu, labels in one.elsewhere
        if np.count_nonzero(labels == label) >= _MIN_AREA
    ]
    return [
        *(float(hu[inside].mean()) for hu in images),
        *(sharpness(hu, inside) for hu in images),
        *(spectrum_distance(spectrum, target) for spectrum in (content, result)),
        float(np.median(elsewhere)),
    ]


def draw(several: list[Kernels], path: Path) -> None:
    """The middle slice: content, result and target, in the lung and the soft-tissue window."""
    import matplotlib.pyplot as plt

    one = several[len(several) // 2]
    figure, axes = plt.subplots(2, 3, figsize=(9, 6))
    for row, (low, high) in zip(axes, WINDOWS.values(), strict=True):
        images = {"content": one.content, "synthetic, in the style": one.result, "real, other kernel": one.target}
        for axis, (name, hu) in zip(row, images.items(), strict=True):
            axis.imshow(hu, cmap="gray", vmin=low, vmax=high)
            axis.set_title(name, fontsize=8)
            axis.axis("off")
    figure.tight_layout(pad=0.2)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--soft", type=Path, required=True, metavar="CASE")
    parser.add_argument("--sharp", type=Path, required=True, metavar="CASE", help="the same slices in a sharp kernel")
    parser.add_argument("--figure", type=Path, metavar="PNG")
    options = parser.parse_args()
    model = Model(options.model, "cpu")
    soft, sharp = (read_case(folder, model.anatomy) for folder in (options.soft, options.sharp))
    print("Content / result / target; noise: content / result.\n")
    print(f"| | organ | {' | '.join(_COLUMNS)} |\n{'| --- ' * (len(_COLUMNS) + 2)}|")
    for title, content, style in (("soft to sharp", soft, sharp), ("sharp to soft", sharp, soft)):
        several = list(made(model, content, style))
        print("\n".join(f"| {title} | {row} |" for row in table(several, model.anatomy)), flush=True)
        if options.figure and content is soft:
            draw(several, options.figure)


if __name__ == "__main__":
    main()
