"""Volumes and segmentations made of arrays, placed anywhere, and the truth about them computed the slow way."""

from pathlib import Path

import numpy as np
import slicer
import vtk

CODES = {"Lung": "39607008", "Bone": "272673000", "Liver": "10200004"}  # SNOMED CT


def vtkMatrix(matrix: np.ndarray) -> vtk.vtkMatrix4x4:
    result = vtk.vtkMatrix4x4()
    result.DeepCopy(np.asarray(matrix, float).ravel().tolist())
    return result


def rotation(degrees: float, axis: tuple[float, float, float]) -> np.ndarray:
    """4x4 rotation about an axis."""
    transform = vtk.vtkTransform()
    transform.RotateWXYZ(degrees, *axis)
    return np.array([[transform.GetMatrix().GetElement(r, c) for c in range(4)] for r in range(4)])


def grid(
    spacing: tuple[float, float, float] = (1, 1, 1), origin: tuple[float, float, float] = (0, 0, 0), degrees: float = 0
) -> np.ndarray:
    """4x4 IJK to RAS, turned about an oblique axis; spacing, origin in mm. A negative spacing makes it left-handed."""
    matrix = rotation(degrees, (0.3, -0.5, 0.8)) @ np.diag([*spacing, 1])
    matrix[:3, 3] = origin
    return matrix


def addVolume(voxels: np.ndarray, ijkToRAS: np.ndarray, name: str = "CT") -> slicer.vtkMRMLScalarVolumeNode:
    """A volume node of the voxels [k, j, i], with display, and in the subject hierarchy as in the application."""
    node = slicer.util.addVolumeFromArray(voxels, ijkToRAS, name)
    node.CreateDefaultDisplayNodes()
    hierarchy = hierarchyNode()
    if not hierarchy.GetItemByDataNode(node):
        hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)
    return node


def hierarchyNode() -> slicer.vtkMRMLSubjectHierarchyNode:
    return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)


def addSegmentation(
    masks: dict[str, np.ndarray], ijkToRAS: np.ndarray, name: str = "Chest"
) -> slicer.vtkMRMLSegmentationNode:
    """A segmentation of bool masks [k, j, i] that all lie in one grid; they may overlap."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    for segmentName, mask in masks.items():
        node.AddSegmentFromBinaryLabelmapRepresentation(orientedImage(mask, ijkToRAS), segmentName)
    return node


def orientedImage(mask: np.ndarray, ijkToRAS: np.ndarray) -> slicer.vtkOrientedImageData:
    image = slicer.vtkOrientedImageData()
    image.SetDimensions(mask.shape[::-1])
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    vtk.util.numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())[:] = mask.ravel()
    image.SetGeometryFromImageToWorldMatrix(vtkMatrix(ijkToRAS))
    return image


def setTerminology(node: slicer.vtkMRMLSegmentationNode, segmentName: str, code: str, scheme: str = "SCT") -> None:
    segmentation = node.GetSegmentation()
    segment = segmentation.GetSegment(segmentation.GetSegmentIdBySegmentName(segmentName))
    segment.SetTag(
        segment.GetTerminologyEntryTagName(),
        f"Category and type~SCT^123037004^Anatomical Structure~{scheme}^{code}^Type~^^~Anatomic codes~^^~^^",
    )


def encodings(folder: Path) -> set[str]:
    """How the voxels of the NRRD files in a folder and its subfolders are written: raw, or gzip."""
    headers = [path.read_bytes().partition(b"\n\n")[0].decode() for path in folder.rglob("*.nrrd")]
    return {header.partition("encoding: ")[2].split("\n")[0] for header in headers}


def addTransform(matrix: np.ndarray, *nodes: slicer.vtkMRMLTransformableNode) -> slicer.vtkMRMLLinearTransformNode:
    """A linear transform, RAS to RAS, that becomes the parent of the nodes."""
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(vtkMatrix(matrix))
    for node in nodes:
        node.SetAndObserveTransformNodeID(transform.GetID())
    return transform


def addWarp(*nodes: slicer.vtkMRMLTransformableNode) -> slicer.vtkMRMLTransformNode:
    """A non-linear transform that becomes the parent of the nodes."""
    points, moved = vtk.vtkPoints(), vtk.vtkPoints()
    for point in [(0, 0, 0), (20, 0, 0), (0, 20, 0), (0, 0, 20), (20, 20, 20)]:
        points.InsertNextPoint(point)
        moved.InsertNextPoint([value + (value**2) / 50 for value in point])
    spline = vtk.vtkThinPlateSplineTransform()
    spline.SetBasisToR()
    spline.SetSourceLandmarks(points)
    spline.SetTargetLandmarks(moved)
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode")
    transform.SetAndObserveTransformToParent(spline)
    for node in nodes:
        node.SetAndObserveTransformNodeID(transform.GetID())
    return transform


def nearest(mask: np.ndarray, maskToWorld: np.ndarray, shape: tuple[int, ...], gridToWorld: np.ndarray) -> np.ndarray:
    """The mask [k, j, i] at the nearest of its voxels for every voxel of another grid, one by one; False outside it."""
    result = np.zeros(shape, bool)
    toMask = np.linalg.inv(maskToWorld) @ gridToWorld
    for k, j, i in np.ndindex(shape):
        at = np.floor((toMask @ (i, j, k, 1))[:3] + 0.5).astype(int)[::-1]
        result[k, j, i] = np.all(at >= 0) and np.all(at < mask.shape) and mask[tuple(at)]
    return result
