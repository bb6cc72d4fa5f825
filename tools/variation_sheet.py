"""A sheet of variations to look at: could these be people? ``python -m tools.variation_sheet CASES OUTPUT.png``.

A slice of a case as it is, then variations of it: the CT moved alike, the outlines of the organs over it, the way that
it was made and by how much it moved. The sheet shows patients' anatomy: keep it as you keep their CT.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import SimpleITK as sitk
from CTStyleGenCore.anatomy import load_anatomy
from CTStyleGenCore.cases import Case, read_cases
from CTStyleGenCore.errors import InputError
from CTStyleGenCore.plausibility import measure_ranges
from CTStyleGenCore.variation import WAYS, Variations, Way
from CTStyleGenCore.volumes import axial
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

_SLICES, _COLUMNS = 5, 5  # slices at most; variations in a row
_COLORS = {2: "deepskyblue", 3: "limegreen", 4: "yellow", 5: "red"}  # of outlines, by label
_WINDOW = (-1000, 400)  # HU that are black and white


@dataclass(frozen=True)
class _Tile:
    title: str
    hu: np.ndarray  # [row, column]
    labels: np.ndarray
    aspect: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--count", type=int, default=20, help="variations in all (default: %(default)s)")
    parser.add_argument("--amount", type=float, default=6.0, metavar="MM")
    parser.add_argument("--way", choices=WAYS, default="mixed")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    matplotlib.use("Agg")
    draw(options.cases, options.output, options.count, options.amount, options.way, options.seed)


def draw(folder: Path, output: Path, count: int, amount_mm: float, way: Way, seed: int) -> None:
    """Writes the sheet: of each of four or five slices as many variations."""
    anatomy = load_anatomy("thorax")
    cases = list(read_cases(folder, anatomy))
    ranges = measure_ranges([case.labels for case in cases], anatomy)
    chosen = [cases[n] for n in np.unique(np.linspace(0, len(cases) - 1, _SLICES).round().astype(int))]
    shown = [(case, one) for case in chosen for one in _slices(case, max(1, _SLICES // len(chosen)))]
    each = -(-count // len(shown))
    lines = -(-each // _COLUMNS)  # of the sheet, for a slice
    columns, height = 1 + min(each, _COLUMNS), len(shown) * lines
    figure, rows = plt.subplots(height, columns, figsize=(2.2 * columns, 1.75 * height), squeeze=False)
    for axes in rows.flat:
        axes.axis("off")
    for place, (case, (ct, labels)) in enumerate(shown):
        variations = Variations(labels, anatomy, [one.labels for one in cases if one is not case], ranges)
        mine = rows[place * lines : (place + 1) * lines]
        _show(mine[0, 0], _tile("as it is", ct, labels))
        numbers = range(place * each, (place + 1) * each)
        for axes, tile in zip(mine[:, 1:].flat, _tiles(variations, ct, amount_mm, seed, numbers, way), strict=False):
            _show(axes, tile)
    figure.tight_layout(pad=0.3)
    figure.savefig(output, dpi=75)


def _slices(case: Case, count: int) -> list[tuple[sitk.Image, sitk.Image]]:
    """CT and labels of slices, evenly spaced, each a volume of one slice."""
    ct, labels = (sitk.DICOMOrient(image, "LPS") for image in (case.ct, case.labels))
    places = [(n + 1) * labels.GetSize()[2] // (count + 1) for n in range(count)]
    return [(ct[:, :, k : k + 1], labels[:, :, k : k + 1]) for k in places]


def _tiles(
    variations: Variations, ct: sitk.Image, amount_mm: float, seed: int, numbers: range, way: Way
) -> Iterator[_Tile | str]:
    """Variations of these numbers, or why there is none."""
    for number in numbers:
        try:
            varied = variations.draw(amount_mm, seed, number, way)
        except InputError as error:
            yield str(error)
            continue
        yield _tile(f"{varied.way}, {varied.amount_mm:.1f} mm", varied.warp(ct), varied.labels)


def _tile(title: str, ct: sitk.Image, labels: sitk.Image) -> _Tile:
    """A slice, cut out around the body."""
    hu, organs = axial(ct)[0], axial(labels)[0]
    body = np.argwhere(organs)
    cut = tuple(slice(low, high + 1) for low, high in zip(body.min(0), body.max(0), strict=True))
    columns, rows, _ = labels.GetSpacing()
    return _Tile(title, hu[cut], organs[cut], rows / columns)


def _show(axes: Axes, tile: _Tile | str) -> None:
    if isinstance(tile, str):
        axes.set_title("none plausible", fontsize=8)
        return
    axes.imshow(tile.hu, cmap="gray", vmin=_WINDOW[0], vmax=_WINDOW[1], aspect=tile.aspect)
    for label, color in _COLORS.items():
        if np.any(tile.labels == label):
            axes.contour(tile.labels == label, [0.5], colors=color, linewidths=0.6)
    axes.set_title(tile.title, fontsize=8)


if __name__ == "__main__":
    main()
