"""New anatomy from old: segmentations that could be another person's, made by smooth deformations of one person's.

Every way to vary gives a velocity field over the source, scaled until its exponential (`deformation`) moves what it is
meant to move by the amount asked for; a result that fails the checks (`plausibility`) is drawn again.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import SimpleITK as sitk

from .anatomy import Anatomy
from .deformation import Grid, exponential, gradient, grid_of, in_mm, jacobian, moved, smoothed, within
from .errors import InputError
from .plausibility import Plausibility, Ranges, measure_ranges
from .shape_model import ShapeModel
from .volumes import axial

Way = Literal["mixed", "deform", "organs", "interpolate", "shape"]
WAYS: tuple[Way, ...] = ("mixed", "deform", "organs", "interpolate", "shape")
WIDEN = 0.2  # areas up to 20 % beyond the cases' range, lengths and places up to 10 %
TRIES = 20  # draws before a variation is refused
LARGEST_MM = 50.0

_SMOOTH_MM = (60.0, 25.0)  # the widths of random deformations: build, and shape
_SHARES = (1.0, 0.5)  # how much they move
_SYMMETRY = 0.6  # how much of the left side's deformation the right side takes part in, and the other way round
_LENGTHWISE = 0.5  # how much of it goes through the slices: levels stay what they are
_REACH_MM = 18.0  # how far from an organ's surface its neighbors give way
_ROUNDING_MM = 5.0  # takes the edges out of fields around organs
_STIFF = 0.15  # how much of its neighbors' motion bone takes part in
_RIGID = ("bone", "spinal canal")
_BONE_MM = 20.0  # over which a bone moves as one
_DISTANCE_MM = 2.0  # between the pixels that distances are measured on
_MOST_SCALED = 3.0  # by which factor tissue may grow or shrink: 1.7 across, as bronchi and vessels differ
_MOST_SCALED_TOWARD_PEOPLE = 10.0  # they are as they are; the rest is the registration's


@dataclass(frozen=True)
class Varied:
    """A variation of a segmentation, and the deformation that made it."""

    labels: sitk.Image  # uint8 organ labels in exactly the source's grid
    way: Way  # "mixed" has become the way that was drawn, unless nothing moved
    amount_mm: float  # how far things moved: root mean square (see `Variations.draw`)
    tries: int  # draws, the last of which passed
    rejected: tuple[str, ...]  # what was wrong with the others
    smallest_jacobian: float
    displacement: np.ndarray | None  # mm, at the nodes of `grid`; None: nothing moved
    grid: Grid

    def warp(self, image: sitk.Image, labels: bool = False) -> sitk.Image:
        """An image in the source's grid, such as its CT, moved as the labels were; its type and grid stay.

        Linear between voxels, as for HU, or, with ``labels``, from the nearest voxel.
        """
        if self.displacement is None:
            return sitk.Image(image)
        how = sitk.sitkNearestNeighbor if labels else sitk.sitkLinear
        return moved(image, self.displacement, self.grid, how)


@dataclass(frozen=True)
class _Velocity:
    """A velocity field, and how far to follow it."""

    velocity: np.ndarray  # mm, [slice, row, column, xyz] at the grid's nodes
    where: np.ndarray  # bool, at the nodes: where displacements count for the amount
    farthest: float = np.inf  # the time after which it has reached what it leads to
    most_scaled: float = _MOST_SCALED


class Variations:
    """What is known about a segmentation that variations are made of."""

    def __init__(
        self,
        labels: sitk.Image,
        anatomy: Anatomy,
        others: Sequence[sitk.Image] = (),
        ranges: Ranges | None = None,
        widen: float = WIDEN,
    ) -> None:
        """``labels``: uint8 organ labels, 3-D, any orientation. ``others``: those of other patients, in any grids.

        ``ranges``: of areas and places of organs over the training cases (`measure_ranges`); unless given, over
        ``others``. The source's own always count in. ``widen``: the share by which they may be left. Raises InputError
        for an impossible ``widen`` and for a segmentation without organs.
        """
        if not 0 <= widen <= 10:
            raise InputError(f"Ranges can't be widened by {widen:g}: give a share from 0 to 10, such as {WIDEN}.")
        self._labels, self._anatomy = labels, anatomy
        self._axial = axial(labels)
        if not self._axial.any():
            raise InputError("The segmentation has no labelled voxel: there is nothing to vary.")
        self.grid = grid_of(labels)
        ranges = ranges or measure_ranges(others, anatomy)
        ranges = ranges.including(measure_ranges([labels], anatomy))
        self._plausibility = Plausibility(self._axial, self.grid.spacing, anatomy, ranges, widen)
        self._body = self._share(self._axial > 0) > 0.5
        self._rigid = [organ.label for organ in map(anatomy.place, _RIGID) if organ]
        bones = smoothed(self._share(np.isin(self._axial, self._rigid)), self.grid, _ROUNDING_MM)
        self._stiff = np.clip(bones, 0, 1)  # at the nodes, 0 to 1
        self._model = ShapeModel(self._axial, self.grid, others, anatomy)

    def draw(self, amount_mm: float, seed: int, number: int, way: Way = "mixed") -> Varied:
        """Variation ``number`` of a series; the same arguments give the same one.

        ``amount_mm`` is the root mean square of the displacements, in mm: over the body, or for "organs" over the
        surfaces of the organs drawn; "interpolate" and "shape" go as far as the other anatomy at most. 0 gives the
        source back. Raises InputError for arguments that are not possible, and when none of `TRIES` draws could be a
        person's.
        """
        if way not in WAYS:
            raise InputError(f"There is no way {way!r} to vary: choose from {', '.join(WAYS)}.")
        check_amount(amount_mm)
        if min(seed, number) < 0:
            raise InputError("Seeds and numbers of variations are 0 or more.")
        if amount_mm == 0:
            return Varied(sitk.Image(self._labels), way, 0.0, 1, (), 1.0, None, self.grid)
        if not self._body.any():
            raise InputError("What is labelled in the segmentation is too thin to vary: give one of whole organs.")
        chosen = self._choose(way, np.random.default_rng([seed, number]))
        rejected: list[str] = []
        for attempt in range(TRIES):
            field = self._velocity(chosen, np.random.default_rng([seed, number, attempt]))
            u, amount = self._exponential_of_amount(field, amount_mm)
            scales = jacobian(u, self.grid)
            if fault := self._misscaled(scales, field.most_scaled):
                rejected.append(fault)
                continue
            labels = moved(self._labels, u, self.grid, sitk.sitkNearestNeighbor)
            faults = self._plausibility.faults(axial(labels))
            if not faults:
                return Varied(labels, chosen, amount, attempt + 1, tuple(rejected), float(scales.min()), u, self.grid)
            rejected += faults
        often = ", ".join(f"{fault} ({count} x)" for fault, count in Counter(rejected).most_common(3))
        raise InputError(
            f"No variation by {amount_mm:g} mm could be a person's in {TRIES} draws: {often}; "
            "ask for a smaller amount, or widen the ranges."
        )

    def _misscaled(self, scales: np.ndarray, most: float) -> str | None:
        """What is wrong with the Jacobian of a displacement, in a few words."""
        in_body = scales[self._body]
        if scales.min() <= 0:
            return "the deformation folds"
        if in_body.min(initial=1) < 1 / most:
            return f"tissue grows more than {most:g} times"
        return f"tissue shrinks more than {most:g} times" if in_body.max(initial=1) > most else None

    def _choose(self, way: Way, rng: np.random.Generator) -> Way:
        """The way itself; of "mixed", one of those that are possible with the others at hand."""
        if way != "mixed":
            return way
        possible: list[Way] = ["deform"]
        possible += ["organs"] if self._surfaces else []
        possible += ["interpolate"] if self._model.size > 0 else []
        possible += ["shape"] if self._model.size > 1 else []
        return possible[int(rng.integers(len(possible)))]

    def _velocity(self, way: Way, rng: np.random.Generator) -> _Velocity:
        if way == "deform":
            return self._deform(rng)
        if way == "organs":
            return self._vary_organs(rng)
        needed = 1 if way == "interpolate" else 2
        if self._model.size < needed:
            raise InputError(
                f"The way '{way}' needs slices of the same level of {needed} other patient{'s' * (needed > 1)}, "
                f"and there are {self._model.size}: give more cases, or vary in the way 'deform'."
            )
        target = self._model.toward_another(rng) if way == "interpolate" else self._model.sample(rng)
        return _Velocity(self._possible(target), self._body, 1.0, _MOST_SCALED_TOWARD_PEOPLE)

    def _exponential_of_amount(self, field: _Velocity, amount_mm: float) -> tuple[np.ndarray, float]:
        """The displacement along a velocity field, as long as the amount says, and its root mean square in mm."""
        factor = amount_mm / _rms(field.velocity[field.where])
        for _ in range(3):
            u = exponential(min(factor, field.farthest) * field.velocity, self.grid)
            factor *= amount_mm / _rms(u[field.where])
        u = exponential(min(factor, field.farthest) * field.velocity, self.grid)
        return u, _rms(u[field.where])

    def _deform(self, rng: np.random.Generator) -> _Velocity:
        """A random smooth field, much the same on both sides, that doesn't move the body as a whole."""
        velocity = np.zeros((*self.grid.shape, 3))
        for sigma_mm, share in zip(_SMOOTH_MM, _SHARES, strict=True):
            field = smoothed(rng.standard_normal(velocity.shape), self.grid, sigma_mm)
            field += _SYMMETRY * field[:, :, ::-1] * (-1, 1, 1)
            field[..., 2] *= _LENGTHWISE
            velocity += share * field / _rms(field[self._body])
        velocity -= velocity[self._body].mean(0)
        return _Velocity(self._possible(velocity), self._body)

    def _vary_organs(self, rng: np.random.Generator) -> _Velocity:
        """One to three organs, grown, shrunk or moved, and their surroundings; it counts at their surfaces.

        Bones don't change by themselves, but where they are all there is.
        """
        if not self._surfaces:
            raise InputError("No organ's surface lies in the volume: vary in the way 'deform'.")
        present = [label for label in self._surfaces if label not in self._rigid] or list(self._surfaces)
        sizes = np.array([np.count_nonzero(self._axial == label) for label in present]) ** 0.5
        count = int(rng.integers(1, min(3, len(present)) + 1))
        velocity, surfaces = np.zeros((*self.grid.shape, 3)), np.zeros(self.grid.shape, bool)
        for label in rng.choice(present, count, replace=False, p=sizes / sizes.sum()):
            field, surface = self._vary_organ(int(label), rng)
            velocity += field
            surfaces |= surface
        return _Velocity(self._possible(velocity), surfaces)

    def _vary_organ(self, label: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The velocity that grows, shrinks or moves an organ (the body: as a whole), and the nodes at its surface."""
        organ, (distance, surface) = self._anatomy.organs[label], self._surfaces[label]
        near = np.exp(-((distance / _REACH_MM) ** 2) / 2)
        if rng.random() < 2 / 3 or organ == self._anatomy.place("body"):
            outward = gradient(smoothed(distance, self.grid, _ROUNDING_MM), self.grid)
            field = rng.choice([-1.0, 1.0]) * near[..., None] * outward
        else:
            direction = rng.standard_normal(3) * (1, 1, 0.5)
            inside = np.where(distance < 0, 1.0, near)
            field = inside[..., None] * direction
        field = field * (1 - (1 - _STIFF) * self._stiff)[..., None]
        field = smoothed(field, self.grid, _ROUNDING_MM)
        return field / _rms(field[surface]) * rng.uniform(0.5, 1), surface

    @cached_property
    def _surfaces(self) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """Of each organ, by its label, the nodes' distances from its surface in mm, and the nodes that lie at it.

        Without organs that are too thin to be seen there, and those that fill the volume.
        """
        found = {}
        for organ in self._anatomy.organs[1:]:
            inside = self._axial == organ.label
            if inside.any():
                distance = self._distance(self._axial > 0 if organ == self._anatomy.place("body") else inside)
                surface = np.abs(distance) <= self.grid.step[1:].max()
                if surface.any():
                    found[organ.label] = distance, surface
        return found

    def _possible(self, velocity: np.ndarray) -> np.ndarray:
        """The velocity with bones that bend little, and within the volume."""
        bone = self._stiff[..., None]
        as_one = smoothed(bone * velocity, self.grid, _BONE_MM) / (smoothed(bone, self.grid, _BONE_MM) + 1e-3)
        return within(velocity + bone * (as_one - velocity), self.grid)

    def _share(self, mask: np.ndarray) -> np.ndarray:
        """How much of a mask of the source's voxels there is at each node, 0 to 1."""
        return self.grid.at_nodes(in_mm(mask.astype(np.float32), self.grid.spacing))

    def _distance(self, mask: np.ndarray) -> np.ndarray:
        """Each node's distance from the surface of a mask of the source's voxels, in mm; negative inside."""
        through, row, column = self.grid.spacing
        rows, columns = max(1, int(_DISTANCE_MM / row)), max(1, int(_DISTANCE_MM / column))
        coarse = in_mm(mask[:, ::rows, ::columns].astype(np.uint8), (through, row * rows, column * columns))
        return self.grid.at_nodes(sitk.SignedMaurerDistanceMap(coarse, False, False, True)).astype(float)


def check_amount(amount_mm: float) -> None:
    """Raises InputError for an amount that `Variations.draw` can't move anatomy by."""
    if not 0 <= amount_mm <= LARGEST_MM:
        raise InputError(f"Anatomy can't move by {amount_mm:g} mm: give an amount from 0 to {LARGEST_MM:g} mm.")


def _rms(vectors: np.ndarray) -> float:
    """Root mean square of the lengths of vectors [..., 3]."""
    return float(np.sqrt((vectors**2).sum(-1).mean()))
