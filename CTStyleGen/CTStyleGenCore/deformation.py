"""Smooth deformations of a volume: velocity fields, their exponentials, and images moved by them.

A velocity field's exponential can be undone, so it tears nothing and folds nothing: organs keep their neighbors, and
no gap or overlap can come to be. Fields live on a coarse grid of their own, as they are smooth, over the volume
turned to axial slices (`volumes.axial`): arrays are [slice, row, column, 3], the last axis x, y, z in mm (to the left,
to the back, up). A displacement u says where a voxel comes from: result(p) = source(p + u(p)). A volume of one slice
moves in its plane.
"""

import math
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from .volumes import axial, from_axial

_NODE_MM = 4.0  # between the nodes of a field
_LARGEST_STEP = 0.25  # in nodes, of the displacement that squaring begins with
_BORDER_MM = 25.0  # how near to a volume's borders what leads through them is slowed down


@dataclass(frozen=True)
class Grid:
    """The nodes of fields over a volume of ``spacing`` (slice, row, column) in mm: its corners are corner nodes."""

    volume: tuple[int, int, int]  # shape of the volume, slices first
    spacing: tuple[float, float, float]

    @property
    def extent(self) -> np.ndarray:
        """From the first voxel's center to the last one's, in mm, along slices, rows, columns."""
        return (np.array(self.volume) - 1) * np.array(self.spacing)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The number of nodes along slices, rows and columns."""
        intervals = np.ceil(self.extent / np.maximum(_NODE_MM, self.spacing)).astype(int)
        slices, rows, columns = (intervals + 1).tolist()
        return slices, rows, columns

    @property
    def step(self) -> np.ndarray:
        """From node to node, in mm, along slices, rows, columns."""
        return np.where(self.extent > 0, self.extent / np.maximum(np.array(self.shape) - 1, 1), _NODE_MM)

    @property
    def flat(self) -> bool:
        """Whether the volume is one slice."""
        return self.volume[0] == 1

    def positions(self) -> np.ndarray:
        """The nodes' places, [slices, rows, columns, 3]: x, y, z in mm from the first voxel."""
        z, y, x = np.meshgrid(*(np.arange(n) * d for n, d in zip(self.shape, self.step, strict=True)), indexing="ij")
        return np.stack([x, y, z], -1)

    def image(self, values: np.ndarray) -> sitk.Image:
        """Values at the nodes, scalars or vectors, as an image in mm from the first voxel."""
        return in_mm(values, self.step)

    def at_nodes(self, image: sitk.Image, interpolator: int = sitk.sitkLinear) -> np.ndarray:
        """An image in mm from the first voxel (`in_mm`), looked up at the nodes; beyond its border, the border's."""
        nodes = self.image(np.zeros(self.shape, np.uint8))
        found = sitk.Resample(image, nodes, sitk.Transform(), interpolator, 0.0, image.GetPixelID(), True)
        return sitk.GetArrayFromImage(found)


def in_mm(values: np.ndarray, step: np.ndarray | tuple[float, ...]) -> sitk.Image:
    """An array [slice, row, column], or with vectors, as an image whose first voxel is at 0 mm, axes straight."""
    image = sitk.GetImageFromArray(values, isVector=values.ndim == 4)
    image.SetSpacing([float(mm) for mm in reversed(list(step))])
    return image


def grid_of(image: sitk.Image) -> Grid:
    """The grid of fields over an image's axial slices."""
    turned = sitk.DICOMOrient(image, "LPS")
    return Grid(turned.GetSize()[::-1], turned.GetSpacing()[::-1])


def exponential(velocity: np.ndarray, grid: Grid) -> np.ndarray:
    """The displacement after following a velocity field for a time of 1, by scaling and squaring."""
    fastest = float(np.abs(velocity / grid.step[::-1]).max())
    squarings = max(0, math.ceil(math.log2(max(fastest, 1e-9) / _LARGEST_STEP)))
    u = velocity / 2**squarings
    for _ in range(squarings):
        u = u + pulled(u, u, grid)
    return u


def pulled(values: np.ndarray, u: np.ndarray, grid: Grid) -> np.ndarray:
    """Values at the nodes, scalars or vectors, from where the displacement u says; beyond the border, the border's."""
    image = grid.image(values)
    moved = sitk.Resample(image, image, _transform(u, grid), sitk.sitkLinear, 0.0, image.GetPixelID(), True)
    return sitk.GetArrayFromImage(moved)


def jacobian(u: np.ndarray, grid: Grid) -> np.ndarray:
    """At each node, how much of the source's volume comes into one of the result: above 0, nothing is folded."""
    return sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(grid.image(u)))


def moved(image: sitk.Image, u: np.ndarray, grid: Grid, interpolator: int) -> sitk.Image:
    """An image, in the geometry of the volume that the grid is over, pulled by the displacement u; same geometry.

    Beyond the border it goes on as it is at the border. int16 HU stay int16; labels ask for sitkNearestNeighbor.
    """
    values = in_mm(axial(image), grid.spacing)
    warped = sitk.Resample(values, values, _transform(u, grid), interpolator, 0.0, values.GetPixelID(), True)
    return from_axial(sitk.GetArrayFromImage(warped), image)


def smoothed(values: np.ndarray, grid: Grid, sigma_mm: float) -> np.ndarray:
    """Values at the nodes, scalars or vectors, under a Gaussian; what leaves on one side comes in on the other."""
    spectrum = np.fft.fftn(values, axes=(0, 1, 2))
    for axis, (count, step) in enumerate(zip(grid.shape, grid.step, strict=True)):
        gain = np.exp(-2 * (np.pi * np.fft.fftfreq(count, step) * sigma_mm) ** 2)
        spectrum *= gain.reshape([-1 if a == axis else 1 for a in range(values.ndim)])
    return np.fft.ifftn(spectrum, axes=(0, 1, 2)).real


def gradient(values: np.ndarray, grid: Grid) -> np.ndarray:
    """The gradient of values at the nodes, [slices, rows, columns, 3]: x, y, z, per mm; 0 through a lone slice."""
    slopes = [
        np.gradient(values, step, axis=axis) if values.shape[axis] > 1 else np.zeros_like(values)
        for axis, step in enumerate(grid.step)
    ]
    return np.stack(slopes[::-1], -1)


def within(velocity: np.ndarray, grid: Grid) -> np.ndarray:
    """The velocity without what leads through the volume's borders: beyond them nothing is known that could come in.

    In a single slice, that is all that leads out of its plane.
    """
    velocity = velocity.copy()
    for axis, (count, step, extent) in enumerate(zip(grid.shape, grid.step, grid.extent, strict=True)):
        place = np.arange(count) * step
        slowed = 1 - np.exp(-((np.minimum(place, extent - place) / _BORDER_MM) ** 2))
        velocity[..., 2 - axis] *= slowed.reshape([-1 if a == axis else 1 for a in range(3)])
    return velocity


def _transform(u: np.ndarray, grid: Grid) -> sitk.DisplacementFieldTransform:
    return sitk.DisplacementFieldTransform(grid.image(u.astype(np.float64)))
