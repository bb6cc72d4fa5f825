"""What each means of the preset ``styles`` does: the preset with one of them changed at a time, trained and measured.

    python -m benchmarks.ablation --cases TRAIN --unseen TEST --features vgg16 --weights FILE [--size 64] [--steps 500]

Numbers are those of the scoreboard (`evaluate`) for styles of unseen patients, means over the organs. docs/ablation.md
keeps the table.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from CTStyleGenCore.evaluation import EvaluationOptions, evaluate
from CTStyleGenCore.perceptual import FeatureWeights, load_weights
from CTStyleGenCore.presets import Preset, load_preset
from CTStyleGenCore.training import TrainingOptions, train

COLUMNS = ("gap", "hu", "texture", "noise", "diversity", "coarse", "separability")
_NONE = 1e-6  # of a term in the proportion: as good as without it


def variants(preset: Preset) -> dict[str, Preset]:
    """The preset, and it with one means changed, by what is changed."""
    adversarial, moments, code, coarse = preset.gradient_ratio

    def weighed(*ratio: float) -> Preset:
        return replace(preset, gradient_ratio=ratio)

    return {
        "as it is": preset,
        "no adversarial loss": weighed(_NONE, moments, code, coarse),
        "adversarial loss x 6": weighed(6 * adversarial, moments, code, coarse),
        "no moments": weighed(adversarial, _NONE, code, coarse),
        "no code loss": weighed(adversarial, moments, _NONE, coarse),
        "no coarse loss": weighed(adversarial, moments, code, _NONE),
        "no poses": replace(preset, poses=False),
        "no warping": replace(preset, warp_mm=0.0),
        "no average": replace(preset, average_steps=1),
        "no growing": replace(preset, growing_share=0.0),  # at sizes above 128 alone
    }


def row(preset: Preset, weights: FeatureWeights, options: argparse.Namespace) -> list[float]:
    """Trains the preset; COLUMNS as means over organs, and the minutes that training took."""
    with TemporaryDirectory() as folder:
        start, output = time.monotonic(), Path(folder) / "m.ctstyle"
        told = TrainingOptions(options.cases, (), output, options.size, steps=options.steps)
        train(told, preset, weights, lambda event: None, lambda: False)
        minutes = (time.monotonic() - start) / 60
        json = Path(folder) / "board.json"
        asked = EvaluationOptions((output,), options.unseen, options.cases, json, segmenter_steps=0)
        (found,) = evaluate(asked, lambda event: None, lambda: False).scores
    unseen = [score for score in found if score.styles == "unseen"]
    return [*(float(np.mean([one.value for one in unseen if one.metric == name])) for name in COLUMNS), minutes]


def main() -> None:
    """Trains and measures every variant, a line each as it is done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=Path, required=True, help="to train on")
    parser.add_argument("--unseen", type=Path, required=True, help="cases of other patients, to measure on")
    parser.add_argument("--features", default="random")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=500)
    options = parser.parse_args()
    weights = load_weights(options.features, options.weights)
    print(f"| | {' | '.join(COLUMNS)} | minutes |\n{'| --- ' * (len(COLUMNS) + 2)}|")
    for name, preset in variants(load_preset("styles")).items():
        print(f"| {name} | {' | '.join(f'{value:.3g}' for value in row(preset, weights, options))} |", flush=True)


if __name__ == "__main__":
    main()
