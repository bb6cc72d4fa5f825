"""What the organs of one volume look like in HU: quick, without torch, for a look at a result in Slicer's own process.

Everything is read off the histograms of the organs, in steps of 1 HU.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .anatomy import Anatomy
from .styles import LEVELS, quantiles_of

_LOW, _HIGH = -2048, 4095  # HU; values beyond are counted there


@dataclass(frozen=True)
class OrganReport:
    """An organ of a volume."""

    organ: str
    voxels: int
    mean: float  # HU
    deviation: float  # HU
    to_content: float | None  # Wasserstein-1 distance to the organ in the content's CT, HU; None: not known
    to_style: float | None  # and to the style asked for


def organ_reports(
    hu: np.ndarray,
    labels: np.ndarray,
    anatomy: Anatomy,
    content: np.ndarray | None = None,
    style: Mapping[str, np.ndarray] | None = None,
) -> tuple[OrganReport, ...]:
    """The organs that are in the labels, without the outside; hu, labels and content of one shape.

    ``style``: the HU of an organ's style at LEVELS, by the organ's name.
    """
    counts = _histograms(hu, labels, len(anatomy.organs))
    contents = None if content is None else _histograms(content, labels, len(anatomy.organs))
    values = np.arange(_LOW, _HIGH + 1)
    reports = []
    for organ in anatomy.organs[1:]:
        count = counts[organ.label]
        if voxels := int(count.sum()):
            mean = float(count @ values) / voxels
            deviation = float(count @ np.square(values - mean) / voxels) ** 0.5
            to_content = None if contents is None else _distance(count, contents[organ.label])
            look = (style or {}).get(organ.name)
            to_style = None if look is None else _distance_to_quantiles(count, look)
            reports.append(OrganReport(organ.name, voxels, mean, deviation, to_content, to_style))
    return tuple(reports)


def hu_distances(
    hu: np.ndarray, labels: np.ndarray, other: np.ndarray, other_labels: np.ndarray, anatomy: Anatomy
) -> dict[str, float]:
    """Wasserstein-1 distances, in HU, of the organs that two CTs both have, by name; each with labels of its shape."""
    counts, others = (_histograms(*pair, len(anatomy.organs)) for pair in ((hu, labels), (other, other_labels)))
    pairs = {organ.name: (counts[organ.label], others[organ.label]) for organ in anatomy.organs[1:]}
    return {name: _distance(a, b) for name, (a, b) in pairs.items() if a.any() and b.any()}


def style_quantiles(card: Mapping[str, Any], mix: Mapping[str, Mapping[str, float]]) -> dict[str, np.ndarray]:
    """The HU at LEVELS of each organ's mixed style, as the card's style codes tell; without organs that no case has.

    ``mix``: as of `styles.style_mix`, of cases of the card alone.
    """
    codes, found = card.get("style_codes", {}), {}
    for organ, shares in mix.items():
        rows = [(quantiles_of(codes[case][organ]), share) for case, share in shares.items() if organ in codes[case]]
        if rows:
            found[organ] = np.average([row for row, _ in rows], axis=0, weights=[share for _, share in rows])
    return found


def _histograms(hu: np.ndarray, labels: np.ndarray, organs: int) -> np.ndarray:
    """How many voxels of each organ have each HU from _LOW on: [organs, values]."""
    size = _HIGH - _LOW + 1
    counts = np.zeros(organs * size, np.int64)
    for values, organ in zip(hu, labels, strict=True):  # slice by slice: bins take more memory than HU
        rounded = values if values.dtype.kind == "i" else np.rint(values)
        bins = np.clip(rounded, _LOW, _HIGH).astype(np.int32) - _LOW
        counts += np.bincount((organ.astype(np.int32) * size + bins).ravel(), minlength=organs * size)
    return counts.reshape(organs, size)


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    """Wasserstein-1 of two histograms: the area between their distribution functions."""
    return float(np.abs(np.cumsum(a) / a.sum() - np.cumsum(b) / b.sum()).sum())


def _distance_to_quantiles(count: np.ndarray, quantiles: Sequence[float] | np.ndarray) -> float:
    """Wasserstein-1 of a histogram and a distribution of which some quantiles are known: the area between them."""
    levels = np.array(LEVELS)
    own = np.searchsorted(np.cumsum(count) / count.sum(), levels) + _LOW
    return float(np.trapezoid(np.abs(own - quantiles), levels) / (levels[-1] - levels[0]))
