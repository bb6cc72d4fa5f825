"""How patients' anatomies differ: the velocity field from one segmentation to another, and a model of such fields.

Another patient's slices of matching level are found, laid upon the source's by the body's center and size, and
registered: in the plane, by the signed distances of the organs (diffeomorphic demons on distance maps; Vercauteren et
al., 2008). Bones take no part: the number of ribs in a slice differs from person to person, so ribs ride along with
what is around them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import SimpleITK as sitk

from .anatomy import Anatomy
from .deformation import Grid, exponential, gradient, in_mm, pulled, smoothed
from .volumes import axial

_KEY_MM = 20.0  # between the slices of a volume that are registered; between them fields are interpolated
_LEAST_DICE, _SAME_DICE = 0.5, 0.98  # mean over organs before registration: less is another level, more the source
_NEAR_MM = 25.0  # distances beyond count as this
_MOST = 8  # patients in the model: those whose slices match best; a registration takes a second or two
_ITERATIONS = 25
_LARGEST_UPDATE_MM = 4.0
_PACE, _PACE_MM = 0.3, 60.0  # how unevenly anatomies go over into each other, and over what distances
_FLUID_MM, _ELASTIC_MM = 8.0, 6.0  # smoothing of each update, and of what they add up to


@dataclass(frozen=True)
class _Slice:
    """An axial slice of organ labels [row, column], and where its body is."""

    labels: np.ndarray
    spacing: tuple[float, float]  # row, column, mm

    @cached_property
    def center(self) -> np.ndarray:
        """The body's center: x, y in mm from the first pixel."""
        return self._body[0]

    @cached_property
    def size(self) -> np.ndarray:
        """The body's width and depth in mm, as those of an ellipse that is spread as much."""
        return self._body[1]

    @cached_property
    def _body(self) -> tuple[np.ndarray, np.ndarray]:
        places = np.argwhere(self.labels)[:, ::-1] * self.spacing[::-1]
        return places.mean(0), 4 * places.std(0) + 1e-6

    @property
    def extent(self) -> np.ndarray:
        """From the first pixel to the last one: x, y in mm."""
        return (np.array(self.labels.shape[::-1]) - 1) * self.spacing[::-1]

    def image(self, values: np.ndarray) -> sitk.Image:
        return in_mm(values[None], (1.0, *self.spacing))

    def distances(self, organs: Sequence[int], body: int) -> sitk.Image:
        """Signed distances to the organs' outlines, mm, one component an organ; ``body`` stands for all in the body."""
        maps = [
            sitk.SignedMaurerDistanceMap(
                self.image((self.labels > 0 if organ == body else self.labels == organ).astype(np.uint8)),
                squaredDistance=False,
                useImageSpacing=True,
            )
            for organ in organs
        ]
        return sitk.Compose([sitk.Cast(one, sitk.sitkFloat64) for one in maps])


class ShapeModel:
    """The anatomies of other patients as velocity fields over a source; from them, new ones like theirs."""

    def __init__(self, source: np.ndarray, grid: Grid, others: Sequence[sitk.Image], anatomy: Anatomy) -> None:
        """``source``: axial organ labels [slice, row, column]; ``grid``: over it; ``others``: label images."""
        self._source, self._grid, self._others, self._anatomy = source, grid, others, anatomy
        self._body = anatomy.place("body")
        bone = anatomy.place("bone")
        self._organs = [organ for organ in anatomy.organs[1:] if organ != bone]
        self._velocities: dict[int, np.ndarray] = {}

    @property
    def size(self) -> int:
        """The number of other patients in the model: those with slices of the source's level."""
        return len(self._matches)

    def toward_another(self, rng: np.random.Generator) -> np.ndarray:
        """The velocity field to another patient's anatomy, here farther on the way than there."""
        pace = smoothed(rng.standard_normal(self._grid.shape), self._grid, _PACE_MM)
        pace = np.clip(1 + _PACE * pace / pace.std(), 0, 2)
        return self._velocity(int(rng.integers(self.size))) * pace[..., None]

    def sample(self, rng: np.random.Generator) -> np.ndarray:
        """The velocity field to a person drawn from the normal distribution of all the patients, the source among them.

        A random mix of the patients' deviations from their mean has their covariance: it is the draw of all principal
        components, without computing them.
        """
        fields = np.stack([np.zeros((*self._grid.shape, 3)), *map(self._velocity, range(self.size))])
        mean = fields.mean(0)
        weights = rng.standard_normal(len(fields)) / np.sqrt(len(fields) - 1)
        return mean + np.tensordot(weights, fields - mean, 1)

    @cached_property
    def _keys(self) -> list[int]:
        """The source's slices that are registered: at regular distances over those with a body in them."""
        bodies = np.flatnonzero(self._source.any((1, 2)))
        count = round((len(bodies) - 1) * self._grid.spacing[0] / _KEY_MM) + 1
        return bodies[((np.arange(count) + 0.5) * len(bodies) / count).astype(int)].tolist()

    def _slice(self, k: int) -> _Slice:
        return _Slice(self._source[k], self._grid.spacing[1:])

    @cached_property
    def _matches(self) -> list[list[_Slice]]:
        """Others' slices for each of the source's key slices: of the others with slices of its level, the best."""
        matches = sorted(map(self._match, self._others), key=lambda match: -match[0])
        return [slices for dice, slices in matches if _LEAST_DICE <= dice < _SAME_DICE][:_MOST]

    def _match(self, other: sitk.Image) -> tuple[float, list[_Slice]]:
        """Another's slices, as far from each other as the source's key slices, that are most like these, and how much.

        Where the other lacks slices, or labels in them, the nearest labelled ones serve several times.
        """
        labels = axial(other)
        labelled = np.flatnonzero(labels.any((1, 2)))
        through, row, column = sitk.DICOMOrient(other, "LPS").GetSpacing()[::-1]
        slices = [_Slice(one, (row, column)) for one in labels]
        z = np.array(self._keys) * self._grid.spacing[0]
        best: tuple[float, list[_Slice]] = (0.0, [])
        for middle in labelled:
            wanted = middle + (z - z.mean()) / through
            chosen = [slices[labelled[np.abs(labelled - place).argmin()]] for place in wanted]
            dice = float(np.mean([self._dice(k, one) for k, one in zip(self._keys, chosen, strict=True)]))
            if dice > best[0]:
                best = dice, chosen
        return best

    def _dice(self, k: int, other: _Slice) -> float:
        """Mean Dice over organs of a source slice and another, the other laid upon it by the body's center and size."""
        source = self._slice(k)
        scale = other.size / source.size
        onto = sitk.AffineTransform(3)
        onto.SetMatrix(np.diag([*scale, 1.0]).ravel().tolist())
        onto.SetTranslation([*(other.center - scale * source.center).tolist(), 0.0])
        grid = self._plane
        there = sitk.Resample(
            other.image(other.labels), grid.image(np.zeros(grid.shape, np.uint8)), onto, sitk.sitkNearestNeighbor
        )
        one, two = grid.at_nodes(source.image(source.labels), sitk.sitkNearestNeighbor), sitk.GetArrayFromImage(there)
        return float(np.mean([_overlap(one == o.label, two == o.label) for o in self._organs]))

    @property
    def _plane(self) -> Grid:
        """The grid's nodes in a slice."""
        return Grid((1, *self._grid.volume[1:]), self._grid.spacing)

    def _velocity(self, index: int) -> np.ndarray:
        """The velocity field over the source to the anatomy of one of the matches, registered once."""
        if index not in self._velocities:
            pairs = zip(self._keys, self._matches[index], strict=True)
            fields = [self._registered(self._slice(k), other) for k, other in pairs]
            z = np.arange(self._grid.shape[0]) * self._grid.step[0]
            keys = np.array(self._keys) * self._grid.spacing[0]
            shares = np.stack([np.interp(z, keys, row) for row in np.eye(len(keys))], 1)  # [node's slice, key]
            between = np.tensordot(shares, np.concatenate(fields), 1)
            self._velocities[index] = smoothed(between, self._grid, _ELASTIC_MM)
        return self._velocities[index]

    def _registered(self, source: _Slice, other: _Slice) -> np.ndarray:
        """The velocity field [1, rows, columns, 3] that carries a slice of the source to another's."""
        grid = self._plane
        organs = [
            o
            for o in self._organs
            if o == self._body or (np.any(source.labels == o.label) and np.any(other.labels == o.label))
        ]
        labels = [organ.label for organ in organs]
        body = self._body.label if self._body else -1
        moving = np.clip(grid.at_nodes(source.distances(labels, body)), -_NEAR_MM, _NEAR_MM)
        target = other.distances(labels, body)
        target.SetOrigin([*(source.center - other.center).tolist(), 0.0])
        fixed = np.clip(grid.at_nodes(target), -_NEAR_MM, _NEAR_MM)
        there = grid.positions()[..., :2] - source.center + other.center
        seen = np.all((there >= 0) & (there <= other.extent), -1)  # what isn't in the other's image pulls at nothing
        by_size = np.zeros((*grid.shape, 3))
        by_size[..., :2] = np.log(source.size / other.size) * (grid.positions()[..., :2] - source.center)
        shape = np.zeros_like(by_size)
        for _ in range(_ITERATIONS):
            now = pulled(moving, exponential(by_size + shape, grid), grid)
            slopes = np.stack([gradient(now[..., c], grid) for c in range(len(labels))], -2)  # [..., organ, xyz]
            step = ((fixed - now)[..., None] * slopes).sum(-2) / ((slopes**2).sum((-2, -1)) + 0.5)[..., None]
            step *= seen[..., None]
            step *= np.minimum(1, _LARGEST_UPDATE_MM / (np.linalg.norm(step, axis=-1, keepdims=True) + 1e-9))
            shape = smoothed(shape + smoothed(step, grid, _FLUID_MM), grid, _ELASTIC_MM)
        return by_size + shape


def _overlap(one: np.ndarray, two: np.ndarray) -> float:
    """Dice; 1 where there is nothing in both."""
    total = np.count_nonzero(one) + np.count_nonzero(two)
    return 2 * float(np.count_nonzero(one & two)) / total if total else 1.0
