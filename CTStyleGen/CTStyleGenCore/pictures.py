"""Slices as the scoreboard takes them: real ones and those that a model made, and what is measured of their organs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from . import scores
from .anatomy import Organ
from .cases import CaseFiles
from .training_data import TrainingSlice

_AIR_HU = -1000.0


@dataclass(frozen=True)
class OrganLook:
    """What is measured of an organ in a slice, or in several together."""

    values: np.ndarray  # HU
    texture: np.ndarray  # as `scores.texture`
    noise: np.ndarray  # as `scores.noise_spectrum`
    radiomics: np.ndarray  # as `scores.radiomics`


class Picture:
    """A slice and its map, both [S, S]; each organ is measured once."""

    def __init__(self, hu: np.ndarray, labels: np.ndarray) -> None:
        self.hu, self.labels = hu, labels
        self._looks: dict[int, OrganLook | None] = {}

    def inside(self, organ: Organ) -> np.ndarray:
        """The organ's pixels, bool [S, S]."""
        return self.labels == organ.label

    def look(self, organ: Organ) -> OrganLook | None:
        """None where the organ has too few pixels."""
        if organ.label not in self._looks:
            self._looks[organ.label] = self._measured(self.inside(organ))
        return self._looks[organ.label]

    def _measured(self, inside: np.ndarray) -> OrganLook | None:
        if np.count_nonzero(inside) < scores.MIN_PIXELS:
            return None
        measures = (scores.texture, scores.noise_spectrum, scores.radiomics)
        return OrganLook(self.hu[inside], *(measure(self.hu, inside) for measure in measures))

    @property
    def body(self) -> np.ndarray:
        """The HU, with air around the body: tables and clothes are no part of a map."""
        return np.where(self.labels > 0, self.hu, _AIR_HU)


@dataclass(frozen=True)
class RealCase:
    """A case and the slices of it that are looked at."""

    files: CaseFiles  # read again where more of the case is looked at
    patient: str
    slices: tuple[TrainingSlice, ...]
    pictures: tuple[Picture, ...]  # of the slices

    @property
    def name(self) -> str:
        return self.files.case_id


@dataclass(frozen=True)
class Style:
    """What results are to look like: one case, or the several that a model with one look was trained for."""

    cases: tuple[RealCase, ...]

    @property
    def name(self) -> str:
        return ", ".join(case.name for case in self.cases)

    @property
    def pictures(self) -> list[Picture]:
        return [picture for case in self.cases for picture in case.pictures]

    def look(self, organ: Organ) -> OrganLook | None:
        """The organ in all slices together; None where it is in none."""
        found = looks(self.pictures, organ)
        if not found:
            return None
        means = (np.mean([getattr(look, name) for look in found], axis=0) for name in ("texture", "noise", "radiomics"))
        return OrganLook(np.concatenate([look.values for look in found]), *means)


def looks(pictures: Iterable[Picture], organ: Organ) -> list[OrganLook]:
    """The organ's looks in the pictures that have it."""
    return [look for picture in pictures if (look := picture.look(organ)) is not None]


def deviation(pictures: Sequence[Picture], organ: Organ, what: str) -> np.ndarray:
    """The standard deviation of an organ's texture or radiomics over pictures; 1 where fewer than two have it."""
    found = [getattr(look, what) for look in looks(pictures, organ)]
    return np.std(found, axis=0, ddof=1) if len(found) > 1 else np.ones(1)
