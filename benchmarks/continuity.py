"""Do slices of a synthetic volume go on in each other as those of a real one do?

    python -m benchmarks.continuity --model M.ctstyle --cases DIR

Correlation of an organ's HU between slices by their distance, of the real CT and of a synthetic one with the same
segmentation, in the case's own style; for each case of several slices.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from CTStyleGenCore import scores
from CTStyleGenCore.cases import Case, read_cases
from CTStyleGenCore.synthesis import Look, Model
from CTStyleGenCore.training_data import slices_at
from CTStyleGenCore.volumes import axial_places

_STEPS = (1, 2, 4, 8)  # slices apart


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--cases", type=Path, required=True)
    options = parser.parse_args()
    model = Model(options.model, "cpu")
    print("| volume | mm apart | organ | real | synthetic |\n| --- | --- | --- | --- | --- |")
    for case in read_cases(options.cases, model.anatomy):
        for row in rows(model, case):
            print(row, flush=True)


def rows(model: Model, case: Case) -> list[str]:
    """Lines of the table, one for each organ; none for a case with one slice."""
    places = axial_places(case.labels)
    if len(places) == 1:
        return []
    slices = slices_at(case, range(len(places)), model.anatomy, model.G.size, model.hu)
    labels = torch.stack([one.labels for one in slices])
    real = model.hu.to_hu(torch.cat([one.x[0] for one in slices])).numpy()
    look, z = Look(case.case_id, model.codes_of(case)[None]), model.noise_code(0, 0, places)
    made = np.concatenate([model.synthesize(labels[[k]], z[[k]], look).numpy() for k in range(len(places))])
    steps = [step for step in _STEPS if step < len(places)]
    apart = ", ".join(f"{abs(places[step] - places[0]):g}" for step in steps)
    return [
        f"| {case.case_id} | {apart} | {organ.name} | {told(real, inside, steps)} | {told(made, inside, steps)} |"
        for organ in model.anatomy.organs[1:]
        if (inside := labels.numpy() == organ.label).any()
    ]


def told(volume: np.ndarray, inside: np.ndarray, steps: list[int]) -> str:
    """The correlations at these steps: volume float, inside bool, both [K, S, S]."""
    found = []
    for step in steps:
        pairs = [[k, k + step] for k in range(len(volume) - step)]
        values = [value for pair in pairs if (value := scores.continuity(volume[pair], inside[pair])) is not None]
        found.append(f"{np.mean(values):.2f}" if values else "-")
    return ", ".join(found)


if __name__ == "__main__":
    main()
