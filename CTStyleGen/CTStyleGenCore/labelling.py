"""Organ labels by thresholds and morphology: of a chest CT, for those who have no segmentation tool, and of what
segmentations lack, the body and what it is made of where nothing else is known.

Plain and quick, not a radiologist: enough to train on and to try things out. It works slice by slice, so that a single
slice or slices 10 mm apart can be labelled, and in mm, so that the size of voxels doesn't matter. What is known to go
wrong: arms that touch the trunk become body, a consolidated lung becomes body or mediastinum, and so may the liver's
dome; contrast in the veins of the arms becomes bone.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from .anatomy import Anatomy
from .errors import InputError
from .morphology import Mask, Plane, closed, depth, dilated, each_slice, filled, large_pieces, opened, pieces
from .volumes import axial, from_axial

_SKIN_HU, _LUNG_HU, _BONE_HU = -300, -350, 160  # skin from air, lung from soft tissue, bone from soft tissue
_BARE = 0.25  # of the body, without a label: more is a body that nobody labelled; less, arms that touch it
_SOME_SLICES, _COARSE_MM = 40, 3.0  # so many slices at most, by pixels of that size at most, tell
_ALL = 0.98
_ITS_OWN = 0.9  # of a segmentation's voxels lie in the body of the CT that it was drawn on, or more
_LIMB = 0.3  # of the largest part: legs are body, too
_NOISE_MM = 1.0  # sigma of the smoothing that a sharp kernel needs
_CORD_HU = (-30, 110)  # mean of what a canal holds; marrow is denser
_LESION_MM2 = 1000.0  # the largest thing inside a lung that is still lung
_CANAL_RADIUS_MM = (4.0, 12.0)  # of the largest disc inside a thoracic canal
_DISC_MM = 7.5  # radius of the canal where it is drawn, not found
_NEAR_MM = 40.0  # as far along the spine as a canal tells where its neighbor is
_VERTEBRA_MM = (19.0, 17.0, 22.0)  # its body's half width and half depth, and how far its middle is before the canal's
_SPECK_MM2 = 15.0  # smaller bright spots are no bone
_RIB_MM = 25.0  # below the lungs, how deep under the skin ribs lie at most
_HEART_MM = (90.0, 65.0)  # how far the mediastinum reaches to the left and to the right of the canal


def label_chest(ct: sitk.Image, anatomy: Anatomy) -> sitk.Image:
    """Labels of body, lungs, mediastinum, bone and spinal canal, the rest 0: uint8 in the CT's geometry.

    ct: int16 HU, 3-D, of any orientation. InputError: a table without these organs, or no lungs in the CT.
    """
    organs = [anatomy.organ(name) for name in ("body", "lungs", "mediastinum", "bone", "spinal canal")]
    masks = _masks(*_smooth(ct))
    painted = np.max([mask * np.uint8(organ.label) for organ, mask in zip(organs, masks, strict=True)], axis=0)
    return from_axial(painted, ct)


def find_body(ct: sitk.Image, progress: Callable[[int, int], None] = lambda done, total: None) -> sitk.Image | None:
    """The body in a CT (int16 HU, 3-D, of any orientation) with all within it: uint8 in the CT's geometry, 1 or 0.

    None where there is nothing denser than air, or nothing else. ``progress`` is told how many slices are done.
    """
    found = _body(*_smooth(ct), progress)
    return from_axial(found.astype(np.uint8), ct) if _can_be_body(found) else None


def lacks_body(hu: np.ndarray, labels: np.ndarray, axis: int, plane: Plane, anatomy: Anatomy) -> bool:
    """Whether the body that a CT shows is missing in its organ labels, though a liver may have been taken for body.

    hu, labels: of one shape, with axial slices along ``axis``; plane: mm between pixels along the last axis of a slice,
    and along the first. Missing is what isn't labelled body at all, or of which more than a quarter has no label, in
    some slices that have labels; seen coarsely, which takes some tenths of a second.
    """
    body = anatomy.place("body")
    if body is None:
        return False
    if not np.any(labels == body.label):
        return True
    slices = np.flatnonzero(labels.any(tuple({0, 1, 2} - {axis})))
    some, steps = slices[:: 1 + len(slices) // _SOME_SLICES], [max(1, int(_COARSE_MM / mm)) for mm in plane]
    coarse = np.s_[some, :: steps[1], :: steps[0]]
    hu, seen = (np.moveaxis(values, axis, 0)[coarse] for values in (hu, labels))
    found = _body(hu, (plane[0] * steps[0], plane[1] * steps[1], 0.0))
    return _can_be_body(found) and bool(np.count_nonzero(found & (seen == 0)) > _BARE * np.count_nonzero(found))


def with_body(labels: sitk.Image, anatomy: Anatomy, ct: sitk.Image | None) -> tuple[sitk.Image, bool]:
    """Organ labels with the body of the CT (int16 HU in their grid) beneath them, and whether it was found there.

    Only slices with labels get one. The labels as they are, where they lack no body, the CT shows none, or can't be
    theirs: where no more than nine tenths of what is labelled lie in its body.
    """
    body, labelled = anatomy.place("body"), axial(labels)
    plane = sitk.DICOMOrient(labels, "LPS").GetSpacing()[:2]
    if body is None or ct is None or not lacks_body(axial(ct), labelled, 0, plane, anatomy):
        return labels, False
    slices = labelled.any((1, 2))
    hu, spacing = _smooth(ct)
    found, own = _body(hu[slices], spacing), labelled[slices]
    if not _can_be_body(found) or np.count_nonzero(found & (own > 0)) <= _ITS_OWN * np.count_nonzero(own):
        return labels, False
    labelled[slices] = np.where(found & (own == 0), np.uint8(body.label), own)
    return from_axial(labelled, labels), True


def fill_left_out(labels: np.ndarray, left_out: np.ndarray, axis: int, anatomy: Anatomy) -> None:
    """Makes body of what segments without an organ cover, where organs lie all around it in an axial slice.

    A lesion that was cut out of the lung is no hole with air in it. labels: uint8, changed in place; left_out: bool, of
    the same shape; axis: the one across axial slices.
    """
    if (body := anatomy.place("body")) is None:
        return
    for slice_, hidden in zip(np.moveaxis(labels, axis, 0), np.moveaxis(left_out, axis, 0), strict=True):
        gap = hidden & (slice_ == 0)
        if gap.any():
            slice_[filled(slice_ > 0) & gap] = body.label


def _can_be_body(found: Mask) -> bool:
    """All of an image is none: its HU may be too high, or padded by tissue, or the body ends outside of it."""
    return bool(found.any() and found.mean() < _ALL)


def _smooth(ct: sitk.Image) -> tuple[np.ndarray, tuple[float, float, float]]:
    """The CT's HU as axial slices [slice, row, column], without a sharp kernel's noise; and its spacing."""
    upright = sitk.DICOMOrient(ct, "LPS")
    smooth = sitk.DiscreteGaussian(sitk.Cast(upright, sitk.sitkFloat32), [_NOISE_MM**2, _NOISE_MM**2, 0.0])
    return sitk.GetArrayFromImage(smooth), upright.GetSpacing()


def _masks(hu: np.ndarray, spacing: tuple[float, float, float]) -> tuple[Mask, Mask, Mask, Mask, Mask]:
    """Body, lungs, mediastinum, bone and spinal canal of a chest; they overlap. hu: (k, j, i), smoothed."""
    plane = spacing[:2]
    body = _body(hu, spacing)
    lungs = _lungs(hu, body, plane)
    if not lungs.any():
        raise InputError("No lungs found in the CT: labelling needs a chest CT in Hounsfield units.")
    bright = body & (hu > _BONE_HU)
    spines = _spines(hu, bright, lungs, body, spacing)
    between = body & _between(lungs)
    inner = each_slice(lambda part: opened(part, 8.0, plane), between)
    lowest = int(np.argmax(lungs.sum(axis=(1, 2))))  # below, the liver's dome lies between the lungs
    inner[:lowest] |= each_slice(lambda part: depth(part, plane) > _RIB_MM, body)[:lowest]
    bone = _bone(bright, between, inner, lungs, spines, plane)
    mediastinum = _mediastinum(between & ~bone, lungs, spines, lowest, spacing)
    airways = mediastinum & each_slice(lambda air: opened(air, 3.0, plane), hu < _LUNG_HU)
    return body, lungs | airways, mediastinum & ~airways, bone, np.stack([spine.canal for spine in spines])


def _body(
    hu: np.ndarray,
    spacing: tuple[float, float, float],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Mask:
    """What is denser than air, filled, once what is thin (blankets, tubes, the table) and small is away."""
    plane, slices = spacing[:2], []
    for number, dense in enumerate(hu > _SKIN_HU, 1):
        slices.append(opened(filled(opened(dense, 1.4, plane)), 6.0, plane))
        progress(number, len(hu))
    return large_pieces(np.stack(slices), _LIMB)


def _lungs(hu: np.ndarray, body: Mask, plane: Plane) -> Mask:
    """The air in the body but for small bubbles (bowel, trachea on its own), with the vessels inside."""
    air = each_slice(lambda air: opened(air, 1.5, plane), body & (hu < _LUNG_HU))
    largest_hole = round(_LESION_MM2 / (plane[0] * plane[1]))

    def complete(lung: Mask) -> Mask:
        whole = closed(lung, 5.0, plane)
        holes = pieces(filled(whole) & ~whole)
        small = np.bincount(holes.ravel()) <= largest_hole  # a larger one is the mediastinum, with lung all around it
        return whole | (small[holes] & (holes > 0))

    return body & each_slice(complete, large_pieces(air, 0.1))


@dataclass(frozen=True)
class _Spine:
    """Where the spine is in a slice: the canal, empty where it wasn't found, and its middle in pixels."""

    canal: Mask
    row: float
    column: float


def _spines(hu: np.ndarray, bright: Mask, lungs: Mask, body: Mask, spacing: tuple[float, float, float]) -> list[_Spine]:
    """One for each slice. A canal that is found only in some slices is drawn, as a disc, in those nearby."""
    plane = spacing[:2]
    guesses = [_guess_spine(*slices, plane) for slices in zip(lungs, body, strict=True)]
    each = [_find_canal(*slices, plane) for slices in zip(hu, bright, guesses, strict=True)]
    near = round(_NEAR_MM / spacing[2])
    found = {
        k: spine
        for k, spine in enumerate(each)
        if spine and _in_line(spine, each[max(0, k - near) : k + near + 1], plane)
    }
    rows, columns = [spine.row for spine in found.values()], [spine.column for spine in found.values()]
    spines = []
    for k, guess in enumerate(guesses):
        if k not in found and any(abs(k - other) <= near for other in found):
            row, column = float(np.interp(k, list(found), rows)), float(np.interp(k, list(found), columns))
            disc = np.hypot(*_offsets_mm(guess.canal.shape, row, column, plane)) < _DISC_MM
            guess = _Spine(disc & body[k] & ~bright[k], row, column)
        spines.append(found.get(k, guess))
    return spines


def _in_line(spine: _Spine, neighbors: list[_Spine | None], plane: Plane) -> bool:
    """Whether the canal is less than 10 mm off the middle of those found nearby."""
    row, column = np.median([(other.row, other.column) for other in neighbors if other], axis=0)
    return float(np.hypot((row - spine.row) * plane[1], (column - spine.column) * plane[0])) < 10


def _offsets_mm(shape: tuple[int, ...], row: float, column: float, plane: Plane) -> tuple[np.ndarray, np.ndarray]:
    """How far behind and to the left of a point each pixel is: a column and a row of numbers that broadcast."""
    return (np.arange(shape[0])[:, None] - row) * plane[1], (np.arange(shape[1])[None] - column) * plane[0]


def _guess_spine(lungs: Mask, body: Mask, plane: Plane) -> _Spine:
    """In the middle of the body, where the lungs end at the back."""
    rows, columns = np.flatnonzero(lungs.any(axis=1)), np.flatnonzero(body.any(axis=0))
    row = rows[-1] - 18.0 / plane[1] if len(rows) else 0.6 * body.shape[0]
    return _Spine(np.zeros_like(body), row, columns.mean() if len(columns) else body.shape[1] / 2)


def _find_canal(hu: np.ndarray, bright: Mask, guess: _Spine, plane: Plane) -> _Spine | None:
    """The hole in the vertebra that is round, soft, of a canal's size and nearest to the guess, or None."""
    best: tuple[float, _Spine] | None = None
    for gap_mm in (1.5, 3.0, 5.0):
        ring = closed(bright, gap_mm, plane)
        holes = pieces(filled(ring) & ~ring)
        areas_mm2 = np.bincount(holes.ravel()) * plane[0] * plane[1]
        for label in 1 + np.flatnonzero(areas_mm2[1:] > np.pi * _CANAL_RADIUS_MM[0] ** 2):
            candidate = _rate_hole(hu, holes == label, bright, guess, plane)
            if candidate and (best is None or candidate[0] < best[0]):
                best = candidate
    return best[1] if best else None


def _rate_hole(hu: np.ndarray, hole: Mask, bright: Mask, guess: _Spine, plane: Plane) -> tuple[float, _Spine] | None:
    """The hole as a canal, with its mean HU (the lower the better), or None if it can't be one."""
    rows, columns = np.nonzero(hole)
    row, column = rows.mean(), columns.mean()
    if np.hypot((row - guess.row) * plane[1], (column - guess.column) * plane[0]) > 60:
        return None
    radius, mean = depth(hole, plane).max(), float(hu[hole].mean())
    if not (_CANAL_RADIUS_MM[0] <= radius <= _CANAL_RADIUS_MM[1] and _CORD_HU[0] <= mean <= _CORD_HU[1]):
        return None
    return mean, _Spine(dilated(hole, 1.5, plane) & ~bright, row, column)


def _between(lungs: Mask) -> Mask:
    """What has lung on its right and on its left in the same row."""
    on_right = np.logical_or.accumulate(lungs, axis=2)
    on_left = np.logical_or.accumulate(lungs[:, :, ::-1], axis=2)[:, :, ::-1]
    return on_right & on_left & ~lungs


def _bone(bright: Mask, between: Mask, inner: Mask, lungs: Mask, spines: list[_Spine], plane: Plane) -> Mask:
    """What is bright, but for contrast: in the lungs' vessels, and in lumps inside the chest that are no vertebra."""

    def pick(bright: Mask, between: Mask, inner: Mask, lungs: Mask, spine: _Spine) -> Mask:
        vertebra, around = (_vertebra(spine, size, plane) for size in (1.0, 1.35))
        blood = dilated(opened(bright & inner & ~vertebra, 4.0, plane), 3.0, plane) & ~vertebra
        bone = bright & (depth(lungs, plane) < 4.0) & (~inner | around) & ~blood
        marrow = filled(closed(bone & vertebra, 6.0, plane) | spine.canal) & vertebra
        bone = (filled(closed(bone, 2.0, plane) | spine.canal) | marrow) & ~spine.canal
        parts = pieces(bone)
        areas_mm2 = np.bincount(parts.ravel()) * plane[0] * plane[1]
        anchors = np.bincount(parts[vertebra | ~(lungs | between | inner)], minlength=len(areas_mm2))
        return bone & ((areas_mm2 > _SPECK_MM2) & (anchors > 0))[parts]

    return np.stack([pick(*slices) for slices in zip(bright, between, inner, lungs, spines, strict=True)])


def _vertebra(spine: _Spine, size: float, plane: Plane) -> Mask:
    """An ellipse around the vertebra's body, times size, and everything behind its middle as far as ribs are joined."""
    half_width, half_depth, before = _VERTEBRA_MM
    behind_mm, left_mm = _offsets_mm(spine.canal.shape, spine.row, spine.column, plane)
    x, y = left_mm / (half_width * size), (behind_mm + before) / (half_depth * size)
    return (x**2 + y**2 < 1) | ((np.abs(x) < 2) & (y > 1))


def _mediastinum(
    between: Mask, lungs: Mask, spines: list[_Spine], lowest: int, spacing: tuple[float, float, float]
) -> Mask:
    """What is between the lungs, in front of the canal, in slices where the lungs are large enough beside it.

    Below the slice `lowest` it hardly grows from slice to slice, which keeps most of the liver out.
    """
    plane = spacing[:2]

    def pick(between: Mask, lungs: Mask, spine: _Spine) -> Mask:
        behind_mm, left_mm = _offsets_mm(between.shape, spine.row, spine.column, plane)
        reach = between & (left_mm < _HEART_MM[0]) & (left_mm > -_HEART_MM[1]) & (behind_mm < 0)
        return opened(reach, 3.0, plane) & (reach.sum() < 1.6 * lungs.sum())

    reach = np.stack([pick(*slices) for slices in zip(between, lungs, spines, strict=True)])
    for k in range(lowest - 1, -1, -1):
        reach[k] &= dilated(reach[k + 1], 0.3 * spacing[2], plane)
    return each_slice(lambda part: large_pieces(part, 0.05), reach)
