"""A chest drawn with ellipses: small cases whose truth is known, for tests without patient data."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk

HU = (-1000, 50, -850, 40, 600, 20)  # by organ of the table "thorax"


def chest(slices: int = 3, side: int = 80, seed: int = 0, shift_hu: float = 0.0) -> tuple[sitk.Image, sitk.Image]:
    """CT (int16 HU, noise of 20 HU) and labels (uint8), 4 x 4 x 5 mm; the seed moves and scales the organs."""
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    grow, move = rng.uniform(0.9, 1.1), rng.uniform(-0.05, 0.05)

    def ellipse(x: float, y: float, a: float, b: float) -> np.ndarray:
        return ((column - x - move) / (a * grow)) ** 2 + ((row - y) / (b * grow)) ** 2 < 1

    labels = np.zeros((side, side), np.uint8)
    for organ, shape in (
        (1, ellipse(0, 0, 0.8, 0.6)),
        (2, ellipse(-0.4, 0, 0.25, 0.4) | ellipse(0.4, 0, 0.25, 0.4)),
        (3, ellipse(0, -0.1, 0.18, 0.3)),
        (4, ellipse(0, 0.4, 0.18, 0.15)),
        (5, ellipse(0, 0.4, 0.07, 0.06)),
    ):
        labels[shape] = organ
    volume = np.repeat(labels[None], slices, 0)
    hu = np.array(HU, float)[volume] + (volume > 0) * shift_hu + rng.normal(0, 20, volume.shape)
    images = sitk.GetImageFromArray(hu.round().astype(np.int16)), sitk.GetImageFromArray(volume)
    for image in images:
        image.SetSpacing((4, 4, 5))
        image.SetOrigin((-160, -150, 30))
    return images


def write_case(folder: Path, **options: float) -> Path:
    """A case folder with ct.nrrd and labels.nrrd; options as of ``chest``."""
    folder.mkdir(parents=True)
    for image, name in zip(chest(**options), ("ct.nrrd", "labels.nrrd"), strict=True):
        sitk.WriteImage(image, str(folder / name))
    return folder


def write_cases(folder: Path, count: int = 3) -> Path:
    """A folder of cases A, B, C, ...: A is brighter than the others, a style of its own."""
    for number in range(count):
        write_case(folder / chr(ord("A") + number), seed=number, shift_hu=150.0 if number == 0 else 0.0)
    return folder
