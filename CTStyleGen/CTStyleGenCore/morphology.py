"""Masks in axial slices: filled, opened, closed, in mm, so that the size of pixels doesn't matter."""

from collections.abc import Callable

import numpy as np
import SimpleITK as sitk

Mask = np.ndarray  # bool, (k, j, i) of a volume or (j, i) of a slice; j runs to the back, i to the patient's left
Plane = tuple[float, float]  # mm between columns, mm between rows


def each_slice(function: Callable[..., Mask], *volumes: Mask) -> Mask:
    """Of volumes (k, j, i): what the function makes of each of their slices (j, i)."""
    return np.stack([function(*slices) for slices in zip(*volumes, strict=True)])


def pieces(mask: Mask) -> np.ndarray:
    """The connected pieces, numbered from 1; 0 outside of the mask."""
    return sitk.GetArrayFromImage(sitk.ConnectedComponent(_image(mask)))


def large_pieces(mask: Mask, share: float) -> Mask:
    """The connected pieces that are at least that share of the largest."""
    found = pieces(mask)
    sizes = np.bincount(found.ravel())
    sizes[0] = 0
    return (sizes >= max(1, share * sizes.max()))[found]


def filled(mask: Mask) -> Mask:
    """The mask with its holes."""
    return sitk.GetArrayFromImage(sitk.BinaryFillhole(_image(mask))).astype(bool)


def depth(mask: Mask, plane: Plane) -> np.ndarray:
    """How far, in mm, each pixel's middle in the mask is from the mask's edge; 0 outside. The image's edge is none."""
    if mask.all() or not mask.any():
        return np.where(mask, np.inf, 0.0)
    image = _image(~mask)
    image.SetSpacing(plane)
    to_outside = sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(image, False, False, True))
    return np.maximum(to_outside - 0.5 * min(plane), 0)


def eroded(mask: Mask, radius_mm: float, plane: Plane) -> Mask:
    """What is more than that deep in the mask."""
    return depth(mask, plane) > radius_mm


def dilated(mask: Mask, radius_mm: float, plane: Plane) -> Mask:
    """The mask, and what is as near to it."""
    return ~eroded(~mask, radius_mm, plane)


def opened(mask: Mask, radius_mm: float, plane: Plane) -> Mask:
    """The mask without what is thinner than twice the radius."""
    return mask & dilated(eroded(mask, radius_mm, plane), radius_mm, plane)


def closed(mask: Mask, radius_mm: float, plane: Plane) -> Mask:
    """The mask, and gaps in it that are thinner than twice the radius."""
    return mask | eroded(dilated(mask, radius_mm, plane), radius_mm, plane)


def _image(mask: Mask) -> sitk.Image:
    return sitk.GetImageFromArray(mask.astype(np.uint8))
