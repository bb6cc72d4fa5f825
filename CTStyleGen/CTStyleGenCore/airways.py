"""Trachea and main bronchi in the organ labels of a real CT, where no segment of theirs says where they are.

Many segmentations count bronchi as mediastinum, and the trachea with its wall as lungs, like a bay of these. A
generator that learns from such maps can't know where the mediastinum has air, and draws lung in the bay. The CT knows.
"""

import math

import numpy as np
import SimpleITK as sitk

from .anatomy import Anatomy
from .morphology import Mask, Plane, dilated, pieces
from .volumes import axial, from_axial

_TISSUE_HU, _LUMEN_HU = -350, -600  # what has less air than half; what has more than a thin wall that is half a pixel
_LUMEN_MM2 = (20.0, 1000.0)  # of a segment's bronchus; of the trachea where it parts
_WALL_MM = 3.0
_DARK = 0.25  # of the lungs' air, as dark as a lumen is, or darker


def with_airways(labels: np.ndarray, hu: np.ndarray, anatomy: Anatomy, plane: Plane) -> np.ndarray:
    """Labels in which trachea and main bronchi are what the table says of a trachea, in mediastinum.

    labels and hu: axial slices [slice, row, column] of a case, organ labels and HU; plane: mm between columns and
    between rows. As they are where the table has no mediastinum or no place for a trachea. What has a row *trachea* of
    its own stays, too.
    """
    body, lungs, mediastinum, trachea = map(anatomy.place, ("body", "lungs", "mediastinum", "trachea"))
    if mediastinum in (None, body) or trachea in (None, body) or trachea.label == 0:
        return labels
    labelled = labels.copy()
    for slice_, values in zip(labelled, hu, strict=True):
        own = slice_ == mediastinum.label
        if own.any():
            slice_[_bronchi(own, values, plane)] = trachea.label
        if own.any() and trachea is lungs:
            slice_[_walls(slice_ == lungs.label, own, values, plane)] = mediastinum.label
    return labelled


def volume_with_airways(labels: sitk.Image, ct: sitk.Image, anatomy: Anatomy) -> sitk.Image:
    """As `with_airways`, of whole volumes: uint8 labels and int16 HU in one grid, of any orientation."""
    plane = sitk.DICOMOrient(labels, "LPS").GetSpacing()[:2]
    return from_axial(with_airways(axial(labels), axial(ct), anatomy, plane), labels)


def _bronchi(mediastinum: Mask, hu: np.ndarray, plane: Plane) -> Mask:
    """Air in the mediastinum, but for pieces that are too large: lungs that somebody has labelled so."""
    found = pieces(mediastinum & (hu < _TISSUE_HU))
    return (found > 0) & (_areas(found, plane) <= _LUMEN_MM2[1])[found]


def _walls(lungs: Mask, mediastinum: Mask, hu: np.ndarray, plane: Plane) -> Mask:
    """What is no air in the lungs, around airways that lie beside the mediastinum."""
    found = pieces(lungs & (hu < _LUMEN_HU))
    if not found.any():
        return np.zeros_like(lungs)
    box = _around(mediastinum, plane)
    lumens = _lumens(found, hu, np.unique(found[box][dilated(mediastinum[box], _WALL_MM, plane)]), plane)
    walls = np.zeros_like(lungs)
    walls[box] = dilated(lumens[box], _WALL_MM, plane) & lungs[box] & (hu[box] >= _LUMEN_HU)
    return walls


def _lumens(found: np.ndarray, hu: np.ndarray, candidates: np.ndarray, plane: Plane) -> Mask:
    """Of pieces of air those that have an airway's size and are, in the median, as dark as little of the lungs is."""
    areas, darkest = _areas(found, plane), np.quantile(hu[found > 0], _DARK)
    of_size = [piece for piece in candidates if piece and _LUMEN_MM2[0] <= areas[piece] <= _LUMEN_MM2[1]]
    return np.isin(found, [piece for piece in of_size if np.median(hu[found == piece]) <= darkest])


def _areas(found: np.ndarray, plane: Plane) -> np.ndarray:
    """The pieces' areas in mm², by their number."""
    return np.bincount(found.ravel()) * plane[0] * plane[1]


def _around(mask: Mask, plane: Plane) -> tuple[slice, slice]:
    """The rows and the columns of a mask, of the largest airway beside it and of its wall."""
    margin_mm = 2 * math.sqrt(_LUMEN_MM2[1] / math.pi) + 3 * _WALL_MM

    def reach(across: int, mm: float) -> slice:
        places, margin = np.flatnonzero(mask.any(across)), round(margin_mm / mm)
        return slice(max(places[0] - margin, 0), places[-1] + margin + 1)

    return reach(1, plane[1]), reach(0, plane[0])
