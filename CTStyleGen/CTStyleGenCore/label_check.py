"""What is to be doubted of organ labels: what they lack, and whether they fit their CT.

A heart that is labelled lungs teaches a network lungs full of blood; where no body is labelled, it learns air.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from .airways import with_airways
from .anatomy import Anatomy, Organ, SegmentReport
from .cases import Case
from .volumes import axial

_FAR_HU = 400.0  # beyond what an organ's mean can be: vessels and marrow, metal and air bubbles aside, not its tissue
_SHARE = 0.1
_NAMED = 3  # cases that a sentence names; of more it gives the number


def lacking(segments: Iterable[SegmentReport], anatomy: Anatomy, body_found: bool) -> Iterator[str]:
    """What organ labels lack, each as the end of a sentence: segments that the table doesn't know, and a body.

    body_found: whether that was found in the CT instead.
    """
    there = [one for one in segments if one.voxels]
    if unknown := [f"'{one.segment}'" for one in there if one.organ is None]:
        yield (
            f"the organ table '{anatomy.name}' knows neither terminology nor name of {', '.join(unknown)}, which "
            f"{'is' if len(unknown) == 1 else 'are'} left out, and taken for body where organs lie around: rename what "
            "belongs to an organ."
        )
    body = anatomy.place("body")
    if body and body_found:
        yield f"the {body.name} isn't labelled, so that it was found in the CT by its HU: look at what is made of it."
    elif body and all(one.organ != body.name for one in there):
        yield f"nothing is labelled {body.name}, so that what no organ covers counts as air: add a segment of the body."


class Lacks:
    """What the labels of many cases lack, each thing said once."""

    def __init__(self, anatomy: Anatomy) -> None:
        self._anatomy = anatomy
        self._cases: dict[str, list[str]] = {}

    def add(self, case: Case) -> None:
        for what in lacking(case.segments, self._anatomy, case.body_found):
            self._cases.setdefault(what, []).append(case.case_id)

    def sentences(self) -> list[str]:
        """In the order in which they were found."""
        return [f"{_counted(cases)}: {what}" for what, cases in self._cases.items()]


def _counted(cases: list[str]) -> str:
    more = len(cases) - _NAMED
    return ", ".join(cases[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def misfits(hu: np.ndarray, labels: np.ndarray, anatomy: Anatomy) -> list[Organ]:
    """The organs of which, in a slice of HU and organ labels [H, W], over a tenth is far from what they can be."""
    found = []
    for organ in anatomy.organs[1:]:
        low, high = organ.plausible_hu
        values = hu[labels == organ.label]
        if values.size and ((values < low - _FAR_HU) | (values > high + _FAR_HU)).mean() > _SHARE:
            found.append(organ)
    return found


@dataclass(frozen=True)
class FittingSlices:
    """Which axial slices of a case have labels that fit their CT."""

    places: tuple[int, ...]  # from 0 at the lower end; all slices, if not one fits
    doubt: str | None  # what is wrong with the others, a sentence


def fitting_slices(case: Case, anatomy: Anatomy) -> FittingSlices:
    """The slices to learn from: those without misfits. A trachea that is labelled mediastinum is none."""
    ct, labelled = axial(case.ct), axial(case.labels)
    found = [misfits(values, labels, anatomy) for values, labels in zip(ct, labelled, strict=True)]
    if doubted := [place for place, organs in enumerate(found) if organs]:
        plane = sitk.DICOMOrient(case.labels, "LPS").GetSpacing()[:2]
        with_air = with_airways(labelled[doubted], ct[doubted], anatomy, plane)
        for place, labels in zip(doubted, with_air, strict=True):
            found[place] = misfits(ct[place], labels, anatomy)
    every = tuple(range(len(found)))
    wrong = [place for place in every if found[place]]
    if not wrong:
        return FittingSlices(every, None)
    names = " and ".join(organ.name for organ in anatomy.organs if any(organ in organs for organs in found))
    what = f"a tenth or more of {names} has HU that can't be"
    see = "see whether the segmentation fits the CT there"
    if len(wrong) == len(every):
        which = f"all {len(every)} slices" if len(every) > 1 else "the slice"
        return FittingSlices(every, f"In {which} of {case.case_id}, {what}: {see}, or leave the case out.")
    are = "is" if len(wrong) == 1 else "are"
    told = f"{len(wrong)} of {len(every)} slices of {case.case_id} {are} left out, as {what}: {see}."
    return FittingSlices(tuple(place for place in every if place not in wrong), told)
