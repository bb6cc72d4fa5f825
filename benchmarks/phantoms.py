"""Drawn slices for timing: nested ellipses, one an organ, with noise. What is in them does not change a step's time."""

import numpy as np
import torch
from CTStyleGenCore.anatomy import Anatomy, Organ, load_anatomy
from CTStyleGenCore.slices import gray_map
from CTStyleGenCore.training_data import TrainingData, TrainingSlice


def anatomy_of(organs: int) -> Anatomy:
    """The paper's six organs, or a table of another number of them."""
    if organs == 6:
        return load_anatomy("thorax")
    grays = np.linspace(0, 250, organs).astype(int).tolist()
    table = (Organ(f"organ {label}", label, gray, (), (), (-1000, 1000)) for label, gray in enumerate(grays))
    return Anatomy(f"{organs} organs", tuple(table))


def labels_of(size: int, organs: int, seed: int) -> torch.Tensor:
    """Nested ellipses, the outermost filling most of the slice: int64 [size, size]."""
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    labels = np.zeros((size, size), np.int64)
    for organ in range(1, organs):
        side = 0.95 * (1 - (organ - 1) / organs) * rng.uniform(0.95, 1.05)
        labels[(column / side) ** 2 + (row / (0.8 * side)) ** 2 < 1] = organ
    return torch.from_numpy(labels)


def slice_of(case_id: str, size: int, organs: int, seed: int) -> TrainingSlice:
    labels = labels_of(size, organs, seed)
    levels = torch.linspace(-1, 1, organs)[labels]
    noise = torch.randn(size, size, generator=torch.Generator().manual_seed(seed))
    x = (levels + 0.05 * noise).clamp(-1, 1)
    return TrainingSlice(case_id, x[None, None], gray_map(labels, anatomy_of(organs))[None, None], labels, 400.0)


def data_of(size: int, organs: int = 6, contents: int = 4) -> TrainingData:
    return TrainingData(
        tuple(slice_of(f"content {n}", size, organs, n) for n in range(contents)),
        (slice_of("style", size, organs, 99),),
    )
