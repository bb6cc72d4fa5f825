"""Whether organ labels fit their CT: a heart that is labelled lungs teaches a network lungs full of blood."""

from dataclasses import dataclass

import numpy as np

from .anatomy import Anatomy, Organ
from .cases import Case
from .volumes import axial

_FAR_HU = 400.0  # beyond what an organ's mean can be: vessels and marrow, metal and air bubbles aside, not its tissue
_SHARE = 0.1


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
    """The slices to learn from: those without misfits."""
    pairs = zip(axial(case.ct), axial(case.labels), strict=True)
    found = [misfits(values, labels, anatomy) for values, labels in pairs]
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
