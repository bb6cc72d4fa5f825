"""A figure of what a model of the preset ``styles`` is for, on cases of patients that it has not seen.

    python -m benchmarks.styles --model M.ctstyle --cases DIR --figure PNG

One anatomy in the styles of several cases, and with lungs, bone and mediastinum from three. For numbers: ``evaluate``.
"""

import argparse
from pathlib import Path

import numpy as np
from CTStyleGenCore.cases import read_cases
from CTStyleGenCore.evaluation_report import WINDOWS
from CTStyleGenCore.synthesis import Model
from CTStyleGenCore.training_data import TrainingSlice, training_slices

MIXED = ("lungs", "bone", "mediastinum")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--cases", type=Path, required=True, help="cases that the model has not seen")
    parser.add_argument("--figure", type=Path, required=True, metavar="PNG")
    options = parser.parse_args()
    model = Model(options.model, "cpu")
    draw(model, unseen_slices(model, options.cases), options.cases, options.figure)


def unseen_slices(model: Model, folder: Path) -> dict[str, TrainingSlice]:
    """A slice of each case in the folder, by the case's id."""
    cases = read_cases(folder, model.anatomy)
    return {case.case_id: training_slices(case, model.anatomy, model.G.size, 1, model.hu)[0] for case in cases}


def image(model: Model, one: TrainingSlice, styles: list[str], sample: int = 0) -> np.ndarray:
    """The CT of a slice's map, HU [S, S]."""
    return model.synthesize(one.labels[None], model.noise_code(0, sample), model.look(styles))[0].numpy()


def draw(model: Model, slices: dict[str, TrainingSlice], folder: Path, path: Path) -> None:
    """Per window: a real slice, its map in the styles of up to six cases, then with three organs from three of them."""
    import matplotlib.pyplot as plt

    own = model.card["styles"]
    cases = [*(str(folder / case) for case in slices), *own][:6]
    three = [f"{organ}={case}" for organ, case in zip(MIXED, cases[1:], strict=False)]
    shown = list(slices)[:3]
    columns = len(cases) + 3
    figure, axes = plt.subplots(2 * len(shown), columns, figsize=(2.2 * columns, 4.4 * len(shown)), squeeze=False)
    for row, case in enumerate(shown):
        one = slices[case]
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
