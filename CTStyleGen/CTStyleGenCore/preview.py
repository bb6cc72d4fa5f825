"""A small picture of what a model draws: a CT slice of a chest made of ellipses, so that it shows no patient."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from PIL import Image, ImageDraw

from . import __version__
from .anatomy import Anatomy
from .files import require_file_place
from .png import write_png
from .synthesis import Model, synthesize_volume

_SIDE = 256  # pixels of the picture
_SLICE_MM = 400.0  # side of the slice that the chest lies in
_WINDOW = (-1000.0, 400.0)  # HU of black and white: lungs and soft tissue both show
_MARK = "SYNTHETIC"
# Names that `Anatomy.place` knows, and ellipses: center and half axes in half sides, to the image's right and down.
_CHEST = (
    ("body", (0.0, 0.0, 0.86, 0.62)),
    ("bone", (0.0, 0.0, 0.78, 0.54)),  # rib cage: the ring that the chest cavity leaves of it
    ("body", (0.0, 0.0, 0.75, 0.51)),
    ("right lung", (-0.42, -0.02, 0.29, 0.43)),
    ("left lung", (0.42, -0.02, 0.29, 0.43)),
    ("mediastinum", (0.02, -0.08, 0.16, 0.3)),
    ("heart", (0.1, -0.12, 0.2, 0.2)),
    ("esophagus", (-0.04, 0.17, 0.04, 0.04)),
    ("bone", (0.0, 0.34, 0.14, 0.12)),  # vertebra
    ("bone", (0.0, 0.5, 0.04, 0.09)),
    ("spinal canal", (0.0, 0.41, 0.045, 0.04)),
)


def toy_chest(anatomy: Anatomy, size: int) -> sitk.Image:
    """Organ labels, uint8, of one axial slice of size x size pixels and 400 mm: every organ of the table is in it.

    Organs that no chest has lie as discs on an arc around the middle.
    """
    down, right = np.mgrid[0:size, 0:size] * (2 / (size - 1)) - 1
    labels = np.zeros((1, size, size), np.uint8)
    for label, (x, y, half_width, half_height) in _ellipses(anatomy):
        labels[0, ((right - x) / half_width) ** 2 + ((down - y) / half_height) ** 2 <= 1] = label
    image = sitk.GetImageFromArray(labels)
    image.SetSpacing((_SLICE_MM / size, _SLICE_MM / size, 5.0))
    return image


def _ellipses(anatomy: Anatomy) -> Iterator[tuple[int, tuple[float, float, float, float]]]:
    """Label and ellipse in painting order."""
    drawn = {0}  # outside
    for name, ellipse in _CHEST:
        if organ := anatomy.place(name):
            drawn.add(organ.label)
            yield organ.label, ellipse
    others = [organ.label for organ in anatomy.organs if organ.label not in drawn]
    for place, label in enumerate(others, start=1):
        angle = math.pi * place / (len(others) + 1)
        yield label, (0.5 * math.cos(angle), 0.1 + 0.3 * math.sin(angle), 0.07, 0.07)


def write_preview(model: Model, path: Path) -> None:
    """Writes the picture as a gray PNG of 256 x 256 pixels that says in itself and in its header: synthetic."""
    require_file_place(path)
    labels = toy_chest(model.anatomy, model.G.size)
    volume = synthesize_volume(model, labels, seed=0)
    low, high = _WINDOW
    unit = np.clip((sitk.GetArrayFromImage(volume)[0] - low) / (high - low), 0, 1)
    picture = Image.fromarray((unit * 255).round().astype(np.uint8)).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    mark = _mark()
    picture.paste(mark, (6, _SIDE - mark.height - 6))
    told = f"Synthetic CT of a drawn segmentation, by CTStyleGen {__version__}; no patient."
    write_png(path, np.asarray(picture), told)


def _mark() -> Image.Image:
    """The word, white on black, twice as large as the font that every Pillow has."""
    right, bottom = ImageDraw.Draw(Image.new("L", (1, 1))).textbbox((2, 0), _MARK)[2:]
    mark = Image.new("L", (int(right) + 2, int(bottom) + 2))
    ImageDraw.Draw(mark).text((2, 0), _MARK, fill=255)
    return mark.resize((2 * mark.width, 2 * mark.height))
