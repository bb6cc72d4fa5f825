"""Synthesized voxels -> volume nodes that lie where the reference lies and say that they are synthetic."""

import json
from collections.abc import Mapping, Sequence

import numpy as np
import SimpleITK as sitk
import slicer
from CTStyleGenCore.errors import InputError
from slicer.i18n import tr as _

from .geometry import extentOfSlices, gridSize, ijkToRAS, imageInGrid, part

ATTRIBUTE_PREFIX = "CTStyleGen."
SYNTHETIC = ATTRIBUTE_PREFIX + "Synthetic"
SOURCE_SEGMENTATION_ROLE = "CTStyleGen.sourceSegmentation"
SOURCE_VOLUME_ROLE = "CTStyleGen.sourceVolume"
_CT_ABDOMEN = (350.0, 40.0)  # window and level in HU of Slicer's volume display preset of that name


class Place:
    """Where results go: noted when a job starts, since nodes may be changed or deleted before it ends.

    The nodes themselves are kept, not their IDs, which a scene gives to others once it was closed.
    """

    def __init__(
        self,
        segmentationNode: "slicer.vtkMRMLSegmentationNode",
        referenceVolumeNode: "slicer.vtkMRMLScalarVolumeNode",
        slices: range | None = None,
    ) -> None:
        """The grid, parent transform, display and study of the reference, or of these axial slices of it (None: all).

        Raises InputError when the reference is in no scene.
        """
        self.scene = referenceVolumeNode.GetScene()
        if self.scene is None:
            raise InputError(
                _("The reference volume '{name}' is in no scene: add it to one.").format(
                    name=referenceVolumeNode.GetName()
                )
            )
        self._segmentation, self._reference = segmentationNode, referenceVolumeNode
        self._size, self._isPart = gridSize(referenceVolumeNode), slices is not None
        self._extent = extentOfSlices(referenceVolumeNode, slices) if slices else ((0, 0, 0), self._size)
        self._whole, self._grid = slicer.vtkMRMLScalarVolumeNode(), slicer.vtkMRMLScalarVolumeNode()
        self._whole.CopyOrientation(referenceVolumeNode)  # a matrix would be rounded when a node takes it apart
        self._grid.CopyOrientation(referenceVolumeNode)
        self._grid.SetOrigin((ijkToRAS(referenceVolumeNode) @ (*self._extent[0], 1))[:3])
        self._transform = referenceVolumeNode.GetParentTransformNode()
        self._windowLevel = windowLevelOf(referenceVolumeNode)
        self._folder = _folderOf(referenceVolumeNode)
        self.name = _("{segmentation} synthetic CT").format(segmentation=segmentationNode.GetName())

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the voxels, [k, j, i]."""
        return tuple(int(n) for n in np.subtract(self._extent[1], self._extent[0])[::-1])

    def cut(self, voxels: np.ndarray) -> np.ndarray:
        """The part, in this place, of voxels [k, j, i] in the whole grid of the reference."""
        return voxels[part(self._extent)]

    def image(self, voxels: np.ndarray) -> sitk.Image:
        """An image of the voxels [k, j, i] in this place."""
        return imageInGrid(voxels, self._grid)

    def add(self, voxels: np.ndarray, provenance: Mapping[str, str]) -> "slicer.vtkMRMLScalarVolumeNode":
        """Adds a new volume of the voxels, int16 HU [k, j, i]. Raises ValueError when they don't fit the place.

        Its name says "synthetic", and so does its attribute CTStyleGen.Synthetic; the provenance becomes further
        attributes, CTStyleGen.Model and so on. It is displayed with the reference's window and level, so that the two
        can be compared, or with CT_ABDOMEN's if the reference isn't displayed.
        """
        node = slicer.vtkMRMLScalarVolumeNode()
        node.SetName(self.scene.GenerateUniqueName(self.name))
        self._fill(node, voxels, provenance)
        self.scene.AddNode(node)
        node.SetAndObserveTransformNodeID(self._transform.GetID() if self._isThere(self._transform) else None)
        node.CreateDefaultDisplayNodes()
        node.GetDisplayNode().AutoWindowLevelOff()
        node.GetDisplayNode().SetWindowLevel(*self._windowLevel)
        self._saveWithMark(node)
        _putInto(node, self._currentFolder())
        return node

    def put(self, node: "slicer.vtkMRMLTransformableNode", provenance: Mapping[str, str]) -> None:
        """Adds a node of another kind that lies in the reference's coordinates, and says where it comes from."""
        self._tell(node, provenance)
        self.scene.AddNode(node)
        node.SetAndObserveTransformNodeID(self._transform.GetID() if self._isThere(self._transform) else None)
        _putInto(node, self._currentFolder())

    def renew(
        self, node: "slicer.vtkMRMLScalarVolumeNode", voxels: np.ndarray, provenance: Mapping[str, str]
    ) -> "slicer.vtkMRMLScalarVolumeNode":
        """Puts the voxels into a synthetic volume instead: all of it, or only the slices where it has the others.

        Then it goes on saying where the others came from, and CTStyleGen.LastPart says it of these. A volume that is in
        the scene no more, or isn't synthetic, is left as it is, and a new one is added.
        """
        if not self._isThere(node) or not node.GetAttribute(SYNTHETIC):
            return self.add(voxels, provenance)
        if self._isPart and self.fits(node):
            slicer.util.arrayFromVolume(node)[part(self._extent)] = voxels
            slicer.util.arrayFromVolumeModified(node)
            node.SetAttribute(ATTRIBUTE_PREFIX + "LastPart", json.dumps(dict(provenance)))
        else:
            self._fill(node, voxels, provenance)
        node.SetAndObserveTransformNodeID(self._transform.GetID() if self._isThere(self._transform) else None)
        return node

    def addSamples(
        self, samples: Sequence[np.ndarray], provenance: Sequence[Mapping[str, str]]
    ) -> "list[slicer.vtkMRMLScalarVolumeNode]":
        """Adds a volume for each sample, in a folder of their own in the subject hierarchy."""
        hierarchy = _hierarchyOf(self.scene)
        name = _("{volume}, {count} samples").format(volume=self.name, count=len(samples))
        folder = hierarchy.CreateFolderItem(self._currentFolder(), name)
        nodes = [self.add(voxels, told) for voxels, told in zip(samples, provenance, strict=True)]
        for number, node in enumerate(nodes, 1):
            node.SetName(self.scene.GenerateUniqueName(f"{self.name} {number}"))
            _putInto(node, folder)
        return nodes

    def addSequence(
        self, samples: Sequence[np.ndarray], provenance: Sequence[Mapping[str, str]]
    ) -> "slicer.vtkMRMLScalarVolumeNode":
        """Adds the samples as a sequence, with a browser to scroll through them; returns the volume that it shows."""
        shown = self.add(samples[0], provenance[0])
        sequence = self.scene.AddNewNodeByClass("vtkMRMLSequenceNode", f"{shown.GetName()} {_('samples')}")
        sequence.SetIndexName("sample")
        sequence.SetIndexUnit("")
        for number, (voxels, told) in enumerate(zip(samples, provenance, strict=True), 1):
            sample = slicer.vtkMRMLScalarVolumeNode()
            sample.SetName(f"{self.name} {number}")
            self._fill(sample, voxels, told)
            sequence.SetDataNodeAtValue(sample, str(number))
        browser = self.scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", f"{shown.GetName()} {_('browser')}")
        browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
        browser.AddProxyNode(shown, sequence, False)
        browser.SetSelectedItemNumber(0)
        return shown

    def fits(self, node: "slicer.vtkMRMLScalarVolumeNode") -> bool:
        """Whether the node is a synthetic volume in the whole grid of the reference."""
        isSame = gridSize(node) == self._size and np.array_equal(ijkToRAS(node), ijkToRAS(self._whole))
        return self._isThere(node) and bool(node.GetAttribute(SYNTHETIC)) and isSame

    def _fill(self, node: "slicer.vtkMRMLScalarVolumeNode", voxels: np.ndarray, provenance: Mapping[str, str]) -> None:
        """The voxels, where they lie, and what there is to say about them."""
        if voxels.dtype != np.int16 or voxels.shape != self.shape:
            raise ValueError(f"{voxels.dtype} voxels {voxels.shape} for a grid of {self.shape}")
        slicer.util.updateVolumeFromArray(node, voxels)
        node.CopyOrientation(self._grid)
        self._tell(node, provenance)

    def _tell(self, node: "slicer.vtkMRMLNode", provenance: Mapping[str, str]) -> None:
        for key in node.GetAttributeNames() or ():
            if key.startswith(ATTRIBUTE_PREFIX):
                node.RemoveAttribute(key)
        for key, value in {"Synthetic": "1", **provenance}.items():
            node.SetAttribute(ATTRIBUTE_PREFIX + key, value)
        for role, source in ((SOURCE_SEGMENTATION_ROLE, self._segmentation), (SOURCE_VOLUME_ROLE, self._reference)):
            node.SetNodeReferenceID(role, source.GetID() if self._isThere(source) else None)

    def _saveWithMark(self, node: "slicer.vtkMRMLScalarVolumeNode") -> None:
        """Has Slicer save the volume as NRRD, with its attributes in the header: other formats lose what it says."""
        storage = self.scene.AddNewNodeByClass("vtkMRMLNRRDStorageNode")
        storage.SetDefaultWriteFileExtension("nrrd")
        node.SetAndObserveStorageNodeID(storage.GetID())

    def _isThere(self, node: "slicer.vtkMRMLNode | None") -> bool:
        return node is not None and node.GetScene() is self.scene

    def _currentFolder(self) -> int:
        """The subject hierarchy's item that the reference lies in, or lay in when it was deleted meanwhile."""
        if self._isThere(self._reference):
            return _folderOf(self._reference)
        hierarchy = _hierarchyOf(self.scene)
        isThere = hierarchy.GetItemLevel(self._folder) or hierarchy.GetItemName(self._folder)
        return self._folder if isThere else hierarchy.GetSceneItemID()


def windowLevelOf(volumeNode: "slicer.vtkMRMLScalarVolumeNode") -> tuple[float, float]:
    """Window and level to show a CT beside the volume: the volume's own, if it has any, whoever has chosen them."""
    display = volumeNode.GetDisplayNode()
    hasOwn = display is not None and display.IsA("vtkMRMLScalarVolumeDisplayNode") and display.GetWindow() > 0
    return (display.GetWindow(), display.GetLevel()) if hasOwn else _CT_ABDOMEN


def _hierarchyOf(scene: "slicer.vtkMRMLScene") -> "slicer.vtkMRMLSubjectHierarchyNode":
    return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)


def _folderOf(node: "slicer.vtkMRMLNode") -> int:
    """The subject hierarchy's item (study, folder, or the scene) that the node lies in."""
    hierarchy = _hierarchyOf(node.GetScene())
    item = hierarchy.GetItemByDataNode(node)
    return hierarchy.GetItemParent(item) if item else hierarchy.GetSceneItemID()


def _putInto(node: "slicer.vtkMRMLNode", folder: int) -> None:
    """Puts the node into a folder. Slicer makes the node's item itself, its libraries alone don't."""
    hierarchy = _hierarchyOf(node.GetScene())
    item = hierarchy.GetItemByDataNode(node)
    if item:
        hierarchy.SetItemParent(item, folder)
    else:
        hierarchy.CreateItem(folder, node)
