"""A sheet of variations to look at: could these be people? ``python -m tools.variation_sheet CASES OUTPUT.png``.

Each row is the middle slice of a case as it is, then variations of it, each with the way that it was made and by how
much it moved. The sheet shows patients' anatomy: keep it as you keep their CT.
"""

import argparse
from pathlib import Path

import matplotlib
import numpy as np
import SimpleITK as sitk
from CTStyleGenCore.anatomy import load_anatomy
from CTStyleGenCore.cases import read_cases
from CTStyleGenCore.errors import InputError
from CTStyleGenCore.plausibility import measure_ranges
from CTStyleGenCore.variation import WAYS, Variations, Way
from CTStyleGenCore.volumes import axial
from matplotlib import pyplot as plt
from matplotlib.axes import Axes


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
    """Writes the sheet: of each of up to five cases as many variations."""
    anatomy = load_anatomy("thorax")
    labels = [sitk.Image(case.labels) for case in read_cases(folder, anatomy)]
    ranges = measure_ranges(labels, anatomy)
    shown = [labels[n] for n in np.unique(np.linspace(0, len(labels) - 1, 5).round().astype(int))]
    columns = 1 + -(-count // len(shown))
    figure, rows = plt.subplots(len(shown), columns, figsize=(2.4 * columns, 2.0 * len(shown)), squeeze=False)
    for source, row in zip(shown, rows, strict=True):
        variations = Variations(source, anatomy, [one for one in labels if one is not source], ranges)
        _show(row[0], source, "as it is")
        for number, axes in enumerate(row[1:]):
            try:
                varied = variations.draw(amount_mm, seed, number, way)
                _show(axes, varied.labels, f"{varied.way}, {varied.amount_mm:.1f} mm")
            except InputError:
                axes.set_title("none plausible", fontsize=8)
                axes.axis("off")
    figure.tight_layout()
    figure.savefig(output, dpi=110)


def _show(axes: Axes, labels: sitk.Image, title: str) -> None:
    slices = axial(labels)
    columns, rows, _ = labels.GetSpacing()
    axes.imshow(
        slices[len(slices) // 2], cmap="nipy_spectral", vmin=0, vmax=6, interpolation="nearest", aspect=rows / columns
    )
    axes.set_title(title, fontsize=8)
    axes.axis("off")


if __name__ == "__main__":
    main()
