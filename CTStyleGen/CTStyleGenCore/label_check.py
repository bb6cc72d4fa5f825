"""Whether organ labels fit their CT: a heart that is labelled lungs teaches a network lungs full of blood."""

import numpy as np

from .anatomy import Anatomy, Organ

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
