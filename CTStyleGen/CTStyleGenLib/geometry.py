"""Where a volume node's voxels are, and the same place as a SimpleITK image.

Slicer's matrices map voxel indices (i, j, k) to RAS millimeters, ITK's to LPS. Arrays are (k, j, i) in both.
"""

import numpy as np
import SimpleITK as sitk
import slicer
import vtk
from CTStyleGenCore.errors import InputError
from CTStyleGenCore.volumes import axial_axis
from slicer.i18n import tr as _
from vtk.util.numpy_support import vtk_to_numpy

Extent = tuple[tuple[int, int, int], tuple[int, int, int]]  # first voxel (i, j, k), and the one after the last
_LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_PERPENDICULAR = 1e-3  # the largest cosine between two axes; DICOM's direction cosines are rounded to about 1e-6


def requireGrid(volumeNode: "slicer.vtkMRMLScalarVolumeNode | None") -> None:
    """Raises InputError unless the node is a volume with voxels on perpendicular axes."""
    if volumeNode is None:
        raise InputError(
            _(
                "There is no reference volume: choose the CT whose voxel grid the result gets, "
                "or set the segmentation's source geometry in the Segment Editor."
            )
        )
    if not volumeNode.IsA("vtkMRMLScalarVolumeNode") or min(gridSize(volumeNode)) < 1:
        raise InputError(
            _("The reference volume '{name}' has no voxels: load or choose another one.").format(
                name=volumeNode.GetName()
            )
        )
    axes = ijkToRAS(volumeNode)[:3, :3]
    lengths = np.linalg.norm(axes, axis=0)
    if not np.all(lengths > 0) or np.abs(_cosines(axes / lengths)).max() > _PERPENDICULAR:
        raise InputError(
            _(
                "The axes of the volume '{name}' aren't perpendicular: "
                "resample it, for example in the module Resample Scalar/Vector/DWI Volume."
            ).format(name=volumeNode.GetName())
        )


def _cosines(directions: np.ndarray) -> np.ndarray:
    """The cosines of the angles between three unit vectors, the columns."""
    return (directions.T @ directions)[np.triu_indices(3, 1)]


def gridSize(volumeNode: "slicer.vtkMRMLVolumeNode") -> tuple[int, int, int]:
    """The number of voxels along i, j and k; zeros for a node without voxels."""
    image = volumeNode.GetImageData()
    return tuple(image.GetDimensions()) if image else (0, 0, 0)


def ijkToRAS(volumeNode: "slicer.vtkMRMLVolumeNode") -> np.ndarray:
    """4x4: voxel indices to RAS in mm, in the node's own coordinates, without its parent transforms."""
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    return arrayFromMatrix(matrix)


def arrayFromMatrix(matrix: vtk.vtkMatrix4x4) -> np.ndarray:
    """The matrix as a float64 array [4, 4]."""
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def imageInGrid(voxels: np.ndarray, volumeNode: "slicer.vtkMRMLVolumeNode") -> sitk.Image:
    """An image of the voxels [k, j, i] where the volume's are: ITK's origin, spacing and direction (LPS)."""
    return imageOnGrid(voxels, ijkToRAS(volumeNode))


def imageOnGrid(voxels: np.ndarray, grid: np.ndarray) -> sitk.Image:
    """An image of the voxels [k, j, i] on the grid, a matrix 4x4 from indices to RAS."""
    matrix = _LPS_FROM_RAS @ grid
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    image = sitk.GetImageFromArray(voxels)
    image.SetOrigin(matrix[:3, 3].tolist())
    image.SetSpacing(spacing.tolist())
    image.SetDirection((matrix[:3, :3] / spacing).ravel().tolist())
    return image


def labelmapInGrid(values: np.ndarray, ijkToRAS: vtk.vtkMatrix4x4) -> "slicer.vtkOrientedImageData":
    """The values [k, j, i] of segments as these take them, uint16, where the matrix puts their indices."""
    image = slicer.vtkOrientedImageData()
    image.SetDimensions(values.shape[::-1])
    image.AllocateScalars(vtk.VTK_UNSIGNED_SHORT, 1)
    vtk_to_numpy(image.GetPointData().GetScalars())[:] = values.ravel()
    image.SetGeometryFromImageToWorldMatrix(ijkToRAS)
    return image


def axialAxis(grid: np.ndarray) -> int:
    """The axis (0: i, 1: j, 2: k) that is nearest to inferior-superior: the one that slices are numbered along."""
    return axial_axis(imageOnGrid(np.zeros((1, 1, 1), np.uint8), grid))


def sliceCount(volumeNode: "slicer.vtkMRMLVolumeNode | None") -> int:
    """How many axial slices the volume has; 0 without voxels."""
    if volumeNode is None or min(gridSize(volumeNode)) < 1:
        return 0
    return gridSize(volumeNode)[axialAxis(ijkToRAS(volumeNode))]


def extentOfSlices(volumeNode: "slicer.vtkMRMLVolumeNode", slices: range) -> Extent:
    """The voxels of consecutive axial slices, numbered from 0 as the voxels are stored."""
    axis = axialAxis(ijkToRAS(volumeNode))
    start, stop = [0, 0, 0], list(gridSize(volumeNode))
    start[axis], stop[axis] = slices.start, slices.stop
    return (start[0], start[1], start[2]), (stop[0], stop[1], stop[2])


def part(extent: Extent) -> tuple[slice, slice, slice]:
    """The index of the extent's voxels in an array [k, j, i]."""
    i, j, k = (slice(first, after) for first, after in zip(*extent, strict=True))
    return k, j, i


def sliceInView(
    volumeNode: "slicer.vtkMRMLVolumeNode | None", sliceNode: "slicer.vtkMRMLSliceNode | None"
) -> int | None:
    """The number of the volume's axial slice at the middle of the slice view; None where the view is beside it."""
    if volumeNode is None or sliceNode is None or not sliceCount(volumeNode):
        return None
    world = [sliceNode.GetSliceToRAS().GetElement(row, 3) for row in range(3)]
    point = [0.0, 0.0, 0.0]
    volumeNode.TransformPointFromWorld(world, point)
    grid = ijkToRAS(volumeNode)
    number = round(float((np.linalg.inv(grid) @ (*point, 1))[axialAxis(grid)]))
    return number if 0 <= number < sliceCount(volumeNode) else None
