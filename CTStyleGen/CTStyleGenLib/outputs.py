"""Synthesized voxels -> a new volume node that lies where the reference lies and says that it is synthetic."""

from collections.abc import Mapping

import numpy as np
import slicer
from CTStyleGenCore.errors import InputError

from .geometry import gridSize

ATTRIBUTE_PREFIX = "CTStyleGen."
SOURCE_SEGMENTATION_ROLE = "CTStyleGen.sourceSegmentation"
SOURCE_VOLUME_ROLE = "CTStyleGen.sourceVolume"
_CT_ABDOMEN = (350.0, 40.0)  # window and level in HU of Slicer's volume display preset of that name


def addSyntheticVolume(
    voxels: np.ndarray,
    segmentationNode: "slicer.vtkMRMLSegmentationNode",
    referenceVolumeNode: "slicer.vtkMRMLScalarVolumeNode",
    provenance: Mapping[str, str],
) -> "slicer.vtkMRMLScalarVolumeNode":
    """Adds a new volume of the voxels, int16 HU [k, j, i], to the reference's scene and returns it.

    It has exactly the reference's grid and parent transform, lies in the same study or folder of the subject hierarchy,
    and is displayed with the reference's window and level if those were set by hand or by the scanner, else with
    CT_ABDOMEN's. Its name says "synthetic", and so does its attribute CTStyleGen.Synthetic; the provenance becomes
    further attributes, CTStyleGen.Model and so on. Raises ValueError when the voxels don't fit the reference's grid.
    """
    if voxels.dtype != np.int16 or voxels.shape != gridSize(referenceVolumeNode)[::-1]:
        raise ValueError(f"{voxels.dtype} voxels {voxels.shape} for a grid of {gridSize(referenceVolumeNode)[::-1]}")
    scene = referenceVolumeNode.GetScene()
    if scene is None:
        raise InputError(f"The reference volume '{referenceVolumeNode.GetName()}' is in no scene: add it to one.")
    node = slicer.vtkMRMLScalarVolumeNode()
    node.SetName(scene.GenerateUniqueName(f"{segmentationNode.GetName()} synthetic CT"))
    slicer.util.updateVolumeFromArray(node, voxels)
    node.CopyOrientation(referenceVolumeNode)
    for key, value in {"Synthetic": "1", **provenance}.items():
        node.SetAttribute(ATTRIBUTE_PREFIX + key, value)
    node.SetNodeReferenceID(SOURCE_SEGMENTATION_ROLE, segmentationNode.GetID())
    node.SetNodeReferenceID(SOURCE_VOLUME_ROLE, referenceVolumeNode.GetID())
    scene.AddNode(node)
    node.SetAndObserveTransformNodeID(referenceVolumeNode.GetTransformNodeID())
    _display(node, referenceVolumeNode)
    node.AddDefaultStorageNode()
    _placeBeside(node, referenceVolumeNode)
    return node


def _display(node: "slicer.vtkMRMLScalarVolumeNode", referenceVolumeNode: "slicer.vtkMRMLScalarVolumeNode") -> None:
    """Gives the node a gray display with a fixed window and level."""
    node.CreateDefaultDisplayNodes()
    shown = referenceVolumeNode.GetDisplayNode()
    isFixed = shown is not None and shown.IsA("vtkMRMLScalarVolumeDisplayNode") and not shown.GetAutoWindowLevel()
    window, level = (shown.GetWindow(), shown.GetLevel()) if isFixed else _CT_ABDOMEN
    display = node.GetDisplayNode()
    display.AutoWindowLevelOff()
    display.SetWindowLevel(window, level)


def _placeBeside(node: "slicer.vtkMRMLScalarVolumeNode", referenceVolumeNode: "slicer.vtkMRMLScalarVolumeNode") -> None:
    """Puts the node into the reference's study or folder. Slicer makes the item itself, its libraries alone don't."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(node.GetScene())
    reference = hierarchy.GetItemByDataNode(referenceVolumeNode)
    parent = hierarchy.GetItemParent(reference) if reference else hierarchy.GetSceneItemID()
    item = hierarchy.GetItemByDataNode(node)
    if item:
        hierarchy.SetItemParent(item, parent)
    else:
        hierarchy.CreateItem(parent, node)
