"""How well a model of the preset ``styles`` does what its name says, on cases of patients that it has not seen.

    python -m benchmarks.styles --model M.ctstyle --cases DIR [--figure PNG]

For every content slice and the style of every other case, organ by organ:
- gap closed: 1 - W1(result, style) / W1(content, style), Wasserstein-1 of HU; 1: the very distribution of the style.
- codes: mean |difference| in HU of the images of two noise codes; coarse: of their means over 4 x 4 pixels.
- apart: how much more an organ changes than the rest of the image when its style alone changes.
The figure shows one anatomy in the styles of several cases, and with lungs, bone and mediastinum from three.
"""

import argparse
from collections import defaultdict
from itertools import permutations
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from CTStyleGenCore.cases import read_cases
from CTStyleGenCore.synthesis import Model
from CTStyleGenCore.training_data import TrainingSlice, training_slices
from scipy.stats import wasserstein_distance

WINDOWS = {"lung": (-1350, 150), "soft tissue": (-160, 240)}  # HU
MIXED = ("lungs", "bone", "mediastinum")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--cases", type=Path, required=True, help="cases that the model has not seen")
    parser.add_argument("--slices", type=int, default=2, help="of each case (default: %(default)s)")
    parser.add_argument("--figure", type=Path, metavar="PNG")
    options = parser.parse_args()
    model = Model(options.model, "cpu")
    slices = unseen_slices(model, options.cases, options.slices)
    print(table(measured(model, slices, options.cases)))
    if options.figure:
        draw(model, slices, options.cases, options.figure)


def unseen_slices(model: Model, folder: Path, count: int) -> dict[str, list[TrainingSlice]]:
    """``count`` slices of each case in the folder, by the case's id."""
    cases = read_cases(folder, model.anatomy)
    return {case.case_id: training_slices(case, model.anatomy, model.G.size, count, model.hu) for case in cases}


def image(model: Model, one: TrainingSlice, styles: list[str], sample: int = 0) -> np.ndarray:
    """The CT of a slice's map, HU [S, S]."""
    return model.synthesize(one.labels[None], model.noise_code(0, sample), model.look(styles))[0].numpy()


def measured(model: Model, slices: dict[str, list[TrainingSlice]], folder: Path) -> dict[tuple[str, str], float]:
    """Each number by the organ's and its own name, over all pairs of a content and a style."""
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    for content, style in permutations(slices, 2):
        hu = model.hu.to_hu(torch.cat([one.x[0] for one in slices[style]])).numpy()
        style_labels = torch.stack([one.labels for one in slices[style]]).numpy()
        for one in slices[content]:
            real, labels, path = model.hu.to_hu(one.x[0, 0]).numpy(), one.labels.numpy(), str(folder / style)
            result, other = (image(model, one, [path], sample) for sample in range(2))
            for organ in model.anatomy.organs[1:]:
                inside, target = labels == organ.label, hu[style_labels == organ.label]
                if min(inside.sum(), len(target)) < 30:
                    continue
                values[organ.name, "W1 before"].append(wasserstein_distance(real[inside], target))
                values[organ.name, "W1 after"].append(wasserstein_distance(result[inside], target))
                values[organ.name, "codes"].append(np.abs(result - other)[inside].mean())
                values[organ.name, "coarse"].append(coarse_difference(result, other, inside))
                own = image(model, one, [str(folder / content)])
                changed = np.abs(image(model, one, [str(folder / content), f"{organ.name}={path}"]) - own)
                values[organ.name, "in"].append(changed[inside].mean())
                values[organ.name, "out"].append(changed[~inside & (labels > 0)].mean())
    means = {key: float(np.mean(numbers)) for key, numbers in values.items()}
    for organ in {organ for organ, _ in means}:
        means[organ, "gap closed"] = 1 - means[organ, "W1 after"] / means[organ, "W1 before"]
        means[organ, "apart"] = means[organ, "in"] / means[organ, "out"]
    return means


def coarse_difference(a: np.ndarray, b: np.ndarray, inside: np.ndarray) -> float:
    """Mean |difference| of a and b inside, after averaging over 4 x 4 pixels."""
    difference, share = (
        F.avg_pool2d(torch.from_numpy(v)[None].float(), 4)[0].numpy() for v in ((a - b) * inside, inside)
    )
    full = share > 0.9
    return float(np.abs(difference[full]).mean()) if full.any() else 0.0


def table(means: dict[tuple[str, str], float]) -> str:
    columns = ("W1 before", "W1 after", "gap closed", "codes", "coarse", "apart")
    lines = [" | ".join(["organ", *columns]), " | ".join(["---"] * (len(columns) + 1))]
    for organ in dict.fromkeys(organ for organ, _ in means):
        lines.append(" | ".join([organ, *(f"{means[organ, column]:.3g}" for column in columns)]))
    return "\n".join(f"| {line} |" for line in lines)


def draw(model: Model, slices: dict[str, list[TrainingSlice]], folder: Path, path: Path) -> None:
    """Per window: a real slice, its map in the styles of up to six cases, then with three organs from three of them."""
    import matplotlib.pyplot as plt

    own = model.card["styles"]
    cases = [*(str(folder / case) for case in slices), *own][:6]
    three = [f"{organ}={case}" for organ, case in zip(MIXED, cases[1:], strict=False)]
    shown = list(slices)[:3]
    columns = len(cases) + 3
    figure, axes = plt.subplots(2 * len(shown), columns, figsize=(2.2 * columns, 4.4 * len(shown)), squeeze=False)
    for row, case in enumerate(shown):
        one = slices[case][0]
        images = {"real": model.hu.to_hu(one.x[0, 0]).numpy()}
        images |= {Path(style).name: image(model, one, [style]) for style in cases}
        images["other code"] = image(model, one, cases[-1:], 1)
        images["three"] = image(model, one, [cases[0], *three])
        for window, (low, high) in enumerate(WINDOWS.values()):
            for axis, (name, hu) in zip(axes[2 * row + window], images.items(), strict=True):
                axis.imshow(hu, cmap="gray", vmin=low, vmax=high)
                axis.set_title(name, fontsize=7)
                axis.axis("off")
    figure.tight_layout(pad=0.2)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
