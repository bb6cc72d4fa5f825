"""Trachea and main bronchi in the organ labels of a real CT, where no segment of theirs says where they are.

Many segmentations count bronchi as mediastinum, and the trachea with its wall as lungs, like a bay of these. A
generator that learns from such maps can't know where the mediastinum has air, and draws lung in the bay. The CT knows.
"""

import numpy as np
import SimpleITK as sitk

from .anatomy import Anatomy
from .morphology import Mask, Plane, dilated, pieces
from .volumes import axial, from_axial

_TISSUE_HU, _LUMEN_HU = -350, -600  # what has less air than half; what has more than a thin wall that is half a pixel
_LUMEN_MM2 = (20.0, 1000.0)  # of a segment's bronchus; of the trachea where it parts
_WALL_MM = 3.0
_MARGIN_MM = 15.0
_DARK = 0.25  # of the lungs' air, as dark as a lumen is, or darker


def with_airways(labels: np.ndarray, hu: np.ndarray, anatomy: Anatomy, plane: Plane) -> np.ndarray:
    """Labels in which trachea and main bronchi are what the table says of a trachea, in mediastinum.

    labels and hu: axial slices [slice, row, column] of a case. As they are where the table has no mediastinum or no
    place for a trachea.
    """
    mediastinum, trachea = anatomy.place("mediastinum"), anatomy.place("trachea")
    if mediastinum is None or trachea is None or mediastinum is anatomy.place("body"):
        return labels
    labelled = labels.copy()
    for slice_, values in zip(labelled, hu, strict=True):
        if (slice_ == mediastinum.label).any():
            _label_airways(slice_, values, mediastinum.label, trachea.label, plane)
    return labelled


def volume_with_airways(labels: sitk.Image, ct: sitk.Image, anatomy: Anatomy) -> sitk.Image:
    """As `with_airways`, of whole volumes: uint8 labels and int16 HU in one grid, of any orientation."""
    plane = sitk.DICOMOrient(labels, "LPS").GetSpacing()[:2]
    return from_axial(with_airways(axial(labels), axial(ct), anatomy, plane), labels)


def _label_airways(labels: np.ndarray, hu: np.ndarray, mediastinum: int, airway: int, plane: Plane) -> None:
    """Changes the labels of a slice in place: air in the mediastinum, and tissue around lumens beside it."""
    own = labels == mediastinum
    labels[own & (hu < _TISSUE_HU)] = airway
    air = (labels == airway) & (hu < _LUMEN_HU)
    if not air.any():
        return
    darkest = np.quantile(hu[air], _DARK)
    near = _around(own, plane)
    labels, hu, own, air = (values[near] for values in (labels, hu, own, air))
    lumens = _lumens(air, hu, own, darkest, plane)
    if lumens.any():
        labels[dilated(lumens, _WALL_MM, plane) & (labels == airway) & (hu >= _LUMEN_HU)] = mediastinum


def _around(mask: Mask, plane: Plane) -> tuple[slice, slice]:
    """The rows and the columns of a mask and a margin."""

    def reach(across: int, mm: float) -> slice:
        places, margin = np.flatnonzero(mask.any(across)), round(_MARGIN_MM / mm)
        return slice(max(places[0] - margin, 0), places[-1] + margin + 1)

    return reach(1, plane[1]), reach(0, plane[0])


def _lumens(air: Mask, hu: np.ndarray, mediastinum: Mask, darkest: float, plane: Plane) -> Mask:
    """Pieces of air of an airway's size beside the mediastinum, in the median as dark as little of the lungs is."""
    found = pieces(air)
    areas = np.bincount(found.ravel()) * plane[0] * plane[1]
    beside = np.unique(found[dilated(mediastinum, _WALL_MM, plane)])
    least, most = _LUMEN_MM2
    of_size = [piece for piece in beside if piece and least <= areas[piece] <= most]
    return np.isin(found, [piece for piece in of_size if np.median(hu[found == piece]) <= darkest])
