"""Where a volume node's voxels are, and the same place as a SimpleITK image.

Slicer's matrices map voxel indices (i, j, k) to RAS millimeters, ITK's to LPS. Arrays are (k, j, i) in both.
"""

import numpy as np
import SimpleITK as sitk
import slicer
import vtk
from CTStyleGenCore.errors import InputError

_LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_PERPENDICULAR = 1e-3  # the largest cosine between two axes; DICOM's direction cosines are rounded to about 1e-6


def requireGrid(volumeNode: "slicer.vtkMRMLScalarVolumeNode | None") -> None:
    """Raises InputError unless the node is a volume with voxels on perpendicular axes."""
    if volumeNode is None:
        raise InputError(
            "There is no reference volume: choose the CT whose voxel grid the result gets, "
            "or set the segmentation's source geometry in the Segment Editor."
        )
    if not volumeNode.IsA("vtkMRMLScalarVolumeNode") or min(gridSize(volumeNode)) < 1:
        raise InputError(f"The reference volume '{volumeNode.GetName()}' has no voxels: load or choose another one.")
    axes = ijkToRAS(volumeNode)[:3, :3]
    lengths = np.linalg.norm(axes, axis=0)
    if not np.all(lengths > 0) or np.abs(_cosines(axes / lengths)).max() > _PERPENDICULAR:
        raise InputError(
            f"The axes of the volume '{volumeNode.GetName()}' aren't perpendicular: "
            "resample it, for example in the module Resample Scalar/Vector/DWI Volume."
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
    matrix = _LPS_FROM_RAS @ ijkToRAS(volumeNode)
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    image = sitk.GetImageFromArray(voxels)
    image.SetOrigin(matrix[:3, 3].tolist())
    image.SetSpacing(spacing.tolist())
    image.SetDirection((matrix[:3, :3] / spacing).ravel().tolist())
    return image
