"""Whether a new segmentation could be a person's: measured against the one that it was made from, and against others.

Arrays are organ labels [slice, row, column] of axial slices (`volumes.axial`), spacings in mm in that order.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from .anatomy import Anatomy, Organ
from .deformation import in_mm
from .volumes import axial

Spacing = tuple[float, float, float]

_LEAST_MM2 = 30.0  # smaller pieces, holes and cuts of organs, added over slices, count for nothing
_MORE_OUTSIDE = 0.02  # of an organ's surface that may come to lie on the outside, beyond what does in the source
_MORE_AT_BONE = 0.1  # of the lungs' surface that may come to lie on bone
_LESS_IN_BONE = 0.1  # of the canal's surface that may come off bone
_MORE_BEYOND_RIBS = 0.01  # of the lungs' area that may come to lie beyond the ribs
_JOINED = 0.25  # of an organ's pieces that may join or part: ribs a voxel apart, not one of two lungs
_WHOLE = "body"  # what ranges call all that isn't outside
_SECTORS = 72  # around the body's center, to see the ribs as a ring


@dataclass(frozen=True)
class Ranges:
    """The lowest and highest of each measure of each organ over all slices of some cases.

    ``spans``: organ name -> measure -> (low, high). Measures: "area" in mm2; "left" and "back", the place of the
    organ's center in the body, as shares of the body's width and depth from its center; of "body", all that isn't
    outside, "area", and "width" and "depth" in mm.
    """

    spans: Mapping[str, Mapping[str, tuple[float, float]]]

    def including(self, other: "Ranges") -> "Ranges":
        """The ranges of both sets of cases together."""
        spans: dict[str, dict[str, tuple[float, float]]] = {name: dict(span) for name, span in self.spans.items()}
        for name, measures in other.spans.items():
            mine = spans.setdefault(name, {})
            for measure, (low, high) in measures.items():
                least, most = mine.get(measure, (low, high))
                mine[measure] = min(low, least), max(high, most)
        return Ranges(spans)

    def allows(self, name: str, measure: str, value: float, widen: float) -> bool:
        """Whether a value lies in the range widened by a share: areas by it, lengths and places by half of it."""
        low, high = self.spans[name][measure]
        if measure == "area":
            return low / (1 + widen) <= value <= high * (1 + widen)
        if measure in ("width", "depth"):
            return low / (1 + widen / 2) <= value <= high * (1 + widen / 2)
        return low - widen / 2 <= value <= high + widen / 2


def measure_ranges(labels: Iterable[sitk.Image], anatomy: Anatomy) -> Ranges:
    """The ranges of organs' areas and places over label images (uint8 organ labels) of several cases."""
    ranges = Ranges({})
    for image in labels:
        spacing = sitk.DICOMOrient(image, "LPS").GetSpacing()[::-1]
        for one in axial(image):
            found = {name: {m: (v, v) for m, v in of.items()} for name, of in _measures(one, spacing, anatomy).items()}
            ranges = ranges.including(Ranges(found))
    return ranges


class Plausibility:
    """What a segmentation made from ``source`` must keep to."""

    def __init__(self, source: np.ndarray, spacing: Spacing, anatomy: Anatomy, ranges: Ranges, widen: float) -> None:
        """``ranges`` should hold the source's own (`Ranges.including`), or it is itself out of range."""
        self._spacing, self._anatomy, self._ranges, self._widen = spacing, anatomy, ranges, widen
        self._body = anatomy.place("body")
        self._organs = [organ for organ in anatomy.organs[1:] if self._area(source == organ.label) >= _LEAST_MM2]
        self._canal, self._bone = anatomy.place("spinal canal"), anatomy.place("bone")
        self._lungs = [o for o in map(anatomy.place, ("lungs", "left lung", "right lung")) if o in self._organs]
        self._source = source
        self._pieces = {organ.label: self._counts(source, organ) for organ in self._organs}
        self._contacts = self._contact(source)
        self._beyond = self._beyond_ribs(source)

    def faults(self, result: np.ndarray) -> list[str]:
        """What is not as in a person, a few words each ("the area of lungs is out of range"); none: plausible."""
        if missing := [o.name for o in self._organs if self._area(result == o.label) < _LEAST_MM2]:
            return [f"{name} is gone" for name in missing]
        contacts = self._contact(result)
        return [
            *self._out_of_range(result),
            *self._wrong_contacts(contacts),
            *self._wrong_pieces(result),
            *(
                ["the lungs reach through the ribs"]
                if self._beyond_ribs(result) > self._beyond + _MORE_BEYOND_RIBS
                else []
            ),
        ]

    def _area(self, mask: np.ndarray) -> float:
        """In mm2, added over slices."""
        return float(np.count_nonzero(mask)) * self._spacing[1] * self._spacing[2]

    def _out_of_range(self, result: np.ndarray) -> list[str]:
        faults = set()
        for slice_ in result:
            for name, measures in _measures(slice_, self._spacing, self._anatomy).items():
                for measure, value in measures.items():
                    if name in self._ranges.spans and not self._ranges.allows(name, measure, value, self._widen):
                        what = "place" if measure in ("left", "back") else measure
                        faults.add(f"the {what} of {name} is out of range")
        return sorted(faults)

    def _wrong_pieces(self, result: np.ndarray) -> list[str]:
        """Organs in more or fewer pieces, or with more or fewer holes, than in the source."""
        faults = []
        for organ in self._organs:
            for what, was, now in zip(
                ("pieces", "holes"), self._pieces[organ.label], self._counts(result, organ), strict=True
            ):
                if not _counts_agree(was, now):
                    faults.append(f"{organ.name} has other {what}")
        return faults

    def _counts(self, labels: np.ndarray, organ: Organ) -> tuple[np.ndarray, np.ndarray]:
        """Areas in mm2 of an organ's pieces, and of the pieces of all that isn't it; body stands for all in it."""
        mask = labels > 0 if organ == self._body else labels == organ.label
        return self._piece_areas(mask), self._piece_areas(~mask)

    def _piece_areas(self, mask: np.ndarray) -> np.ndarray:
        pieces = sitk.ConnectedComponent(in_mm(mask.astype(np.uint8), self._spacing))
        return np.bincount(sitk.GetArrayViewFromImage(pieces).ravel())[1:] * self._spacing[1] * self._spacing[2]

    def _contact(self, labels: np.ndarray) -> np.ndarray:
        """[organs, organs] how much of an organ's outline in the slices lies on each other one, in mm.

        The diagonal is how much of it lies on the image's border.
        """
        count = len(self._anatomy.organs)
        contact = np.zeros((count, count))
        _, row_mm, column_mm = self._spacing
        for one in labels:
            for lines, length in ((one.astype(np.intp), column_mm), (one.T.astype(np.intp), row_mm)):
                pairs = np.bincount((lines[1:] * count + lines[:-1]).ravel(), minlength=count**2).reshape(count, count)
                np.fill_diagonal(pairs, 0)
                contact += (pairs + pairs.T) * length
                contact += np.diag(np.bincount(lines[[0, -1]].ravel(), minlength=count)) * length
        return contact

    def _wrong_contacts(self, contact: np.ndarray) -> list[str]:
        def grown(one: int, other: int) -> float:
            """By how much more of its outline ``one`` lies on ``other`` than in the source."""
            was = self._contacts[one, other] / self._contacts[one].sum()
            return float(contact[one, other] / contact[one].sum() - was)

        faults = [
            f"{organ.name} reaches the outside"
            for organ in self._organs
            if organ != self._body and grown(organ.label, 0) > _MORE_OUTSIDE
        ]
        faults += [
            f"{o.name} is cut off by the image's border"
            for o in self._organs
            if grown(o.label, o.label) > _MORE_OUTSIDE
        ]
        if self._bone in self._organs:
            bone = self._bone.label
            faults += [f"{o.name} lies on bone" for o in self._lungs if grown(o.label, bone) > _MORE_AT_BONE]
            if self._canal in self._organs and grown(self._canal.label, bone) < -_LESS_IN_BONE:
                faults.append(f"{self._canal.name} leaves the bone")
        return faults

    def _beyond_ribs(self, labels: np.ndarray) -> float:
        """The share of the lungs that lies farther from the body's center than the ring of bones."""
        if not self._lungs or self._bone not in self._organs:
            return 0.0
        lungs = np.isin(labels, [organ.label for organ in self._lungs])
        beyond = sum(
            _beyond_ring(lungs[k], labels[k] == self._bone.label, labels[k] > 0, self._spacing)
            for k in range(len(labels))
        )
        return beyond / max(1, int(np.count_nonzero(lungs)))


def _counts_agree(was: np.ndarray, now: np.ndarray) -> bool:
    """Whether there are as many pieces of some area now as there were; those near the least area may count or not."""
    fewest, most = np.count_nonzero(was >= 2 * _LEAST_MM2), np.count_nonzero(was >= _LEAST_MM2 / 2)
    return bool(fewest - int(_JOINED * fewest) <= np.count_nonzero(now >= _LEAST_MM2) <= most + int(_JOINED * most))


def _measures(labels: np.ndarray, spacing: Spacing, anatomy: Anatomy) -> dict[str, dict[str, float]]:
    """Organ name -> measure -> value in one slice [row, column], for organs that are to be seen (see `Ranges`)."""
    pixel = spacing[1] * spacing[2]
    rows, columns = np.nonzero(labels)
    if rows.size * pixel < _LEAST_MM2:
        return {}
    organs = labels[rows, columns]
    y, x = rows * spacing[1], columns * spacing[2]
    center = x.mean(), y.mean()
    width, depth = 4 * x.std(), 4 * y.std()  # an ellipse's axes
    if not width or not depth:
        return {}
    found = {_WHOLE: {"area": rows.size * pixel, "width": width, "depth": depth}}
    for organ in anatomy.organs[1:]:
        if organ == anatomy.place(_WHOLE):
            continue
        here = organs == organ.label
        if (area := np.count_nonzero(here) * pixel) >= _LEAST_MM2:
            left, back = (x[here].mean() - center[0]) / width, (y[here].mean() - center[1]) / depth
            found[organ.name] = {"area": area, "left": left, "back": back}
    return {name: {measure: float(value) for measure, value in of.items()} for name, of in found.items()}


def _beyond_ring(lungs: np.ndarray, bone: np.ndarray, body: np.ndarray, spacing: Spacing) -> int:
    """Pixels of the lungs in a slice that lie outside of the ring on which the outermost bones lie."""
    if not bone.any() or not lungs.any():
        return 0
    center = np.argwhere(body).mean(0)

    def polar(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        y, x = ((np.argwhere(mask) - center) * spacing[1:]).T
        return (np.arctan2(y, x) / (2 * np.pi) % 1 * _SECTORS).astype(int) % _SECTORS, np.hypot(x, y)

    sectors, radii = polar(bone)
    ring = np.zeros(_SECTORS)
    np.maximum.at(ring, sectors, radii)
    seen = np.flatnonzero(ring)
    ring = np.interp(np.arange(_SECTORS), seen, ring[seen], period=_SECTORS)  # between ribs
    sectors, radii = polar(lungs)
    return int(np.count_nonzero(radii > ring[sectors]))
