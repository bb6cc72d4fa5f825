"""What a model card tells of how near a model comes to its styles: numbers of its last step, on its training maps.

A quick look, not the scoreboard: that measures on patients whom the model has not seen (`evaluation`).
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from .anatomy import Anatomy
from .memorisation import Sample
from .organ_report import hu_distances
from .slices import HuRange
from .training_data import TrainingSlice


def style_distances(samples: Sequence[Sample], anatomy: Anatomy, hu: HuRange) -> dict[str, dict[str, float]]:
    """Wasserstein-1 distances in HU of organs to the style that was asked for, by organ: means over the samples.

    ``hu_to_style`` of the images drawn, ``hu_of_content_to_style`` of the real CT that their maps are of. Samples in a
    slice's own look are left out: a model with one look draws them in that.
    """
    rows: dict[str, dict[str, list[float]]] = {
        "hu_to_style": defaultdict(list),
        "hu_of_content_to_style": defaultdict(list),
    }
    for sample in samples:
        if sample.style is not sample.content:
            for name, one in zip(rows, (sample.made, sample.content), strict=True):
                for organ, distance in hu_distances(*_volume(one, hu), *_volume(sample.style, hu), anatomy).items():
                    rows[name][organ].append(distance)
    return {name: {organ: round(float(np.mean(of)), 2) for organ, of in row.items()} for name, row in rows.items()}


def _volume(one: TrainingSlice, hu: HuRange) -> tuple[np.ndarray, np.ndarray]:
    """A slice's HU and labels, [1, S, S]."""

    def array(values: Tensor) -> np.ndarray:
        return values[None].cpu().numpy()

    return array(hu.to_hu(one.x[0, 0])), array(one.labels)
