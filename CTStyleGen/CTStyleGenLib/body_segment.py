"""A segment of the body, found in the CT by a child process: few segmentations have one, and a map needs it.

Where no organ is, a body says that there is fat and muscle, and no body that there is air.
"""

from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import slicer
import vtk
from CTStyleGenCore.errors import InputError
from CTStyleGenCore.files import PrivateFolder
from CTStyleGenCore.volumes import in_hu, read_image, same_grid, write_volume
from slicer.i18n import tr as _

from .conditioning import BINARY, referenceOf, segmentationToVoxels
from .geometry import imageInGrid, labelmapInGrid, requireGrid
from .job_queue import QueuedJob
from .jobs import Event, Job, JobError
from .outputs import SYNTHETIC

NAME = "body"  # an organ's in every table that has one, so it isn't translated
_COLOR = (0.69, 0.48, 0.40)  # Slicer's of "Tissue" is green
_SURFACE = slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
_OPACITY = 0.2  # beneath all other segments


class BodyJob(QueuedJob):
    """Adds the segment to the segmentation: its result is the segment's ID.

    The temporary folder, which holds the patient's CT, is removed in any case.
    """

    def __init__(
        self,
        segmentationNode: "slicer.vtkMRMLSegmentationNode | None",
        referenceVolumeNode: "slicer.vtkMRMLScalarVolumeNode | None",
    ) -> None:
        """Takes in the CT as it is now. Raises InputError for what can't work."""
        super().__init__()
        if segmentationNode is None or not segmentationNode.IsA("vtkMRMLSegmentationNode"):
            raise InputError(_("There is no segmentation: choose the one that needs a body."))
        reference: Any = referenceVolumeNode or referenceOf(segmentationNode)
        requireGrid(reference)
        if reference.GetAttribute(SYNTHETIC):
            raise InputError(
                _("'{name}' is synthetic, and shows the body that it was given: choose the CT itself.").format(
                    name=reference.GetName()
                )
            )
        _requireLabelmaps(segmentationNode)
        self.segmentationNode, self._scene = segmentationNode, segmentationNode.GetScene()
        self._toSegmentation = _voxelsToSegmentation(segmentationNode, reference)
        voxels = slicer.util.arrayFromVolume(reference)
        self._ct = in_hu(imageInGrid(voxels, reference), _("The CT '{name}'").format(name=reference.GetName()))
        self._folder: PrivateFolder | None = None

    def _begin(self) -> Job:
        self._folder = PrivateFolder()
        folder = Path(self._folder.name)
        write_volume(self._ct, folder / "ct.nrrd", compress=False)
        return Job(["body", "--ct", str(folder / "ct.nrrd"), "--output", str(folder / "body.nrrd")], folder, self._note)

    def _finish(self, done: Event) -> str:
        body = read_image(done["outputs"][0])
        if not same_grid(body, self._ct):
            raise JobError(_("The CTStyleGen process wrote a body in another grid than it was asked for."))
        if self._scene is None or self.segmentationNode.GetScene() is not self._scene:
            raise JobError(_("The segmentation is gone: the body was added to none."))
        return self._add(sitk.GetArrayFromImage(body))

    def _close(self) -> None:
        if self._folder:
            self._folder.cleanup()

    def _add(self, mask: np.ndarray) -> str:
        """The mask [k, j, i], 1 in the body, as the first segment, which others are painted over."""
        segment = slicer.vtkSegment()
        segment.SetName(NAME)
        segment.SetColor(_COLOR)
        segment.AddRepresentation(BINARY, labelmapInGrid(mask, self._toSegmentation))
        segmentation = self.segmentationNode.GetSegmentation()
        if segmentation.ContainsRepresentation(_SURFACE):  # else a surface would be made now, for seconds, to be hidden
            segment.AddRepresentation(_SURFACE, vtk.vtkPolyData())
        first = next(iter(segmentation.GetSegmentIDs()), "")
        segmentId = segmentation.GenerateUniqueSegmentID(NAME)
        if not segmentation.AddSegment(segment, segmentId, first):
            raise JobError(_("Slicer didn't take the segment of the body."))
        if display := self.segmentationNode.GetDisplayNode():
            display.SetSegmentOpacity2DFill(segmentId, _OPACITY)
            display.SetSegmentVisibility3D(segmentId, False)  # all else would be hidden in it
        return segmentId


def _requireLabelmaps(segmentationNode: "slicer.vtkMRMLSegmentationNode") -> None:
    """Raises InputError for a segmentation of surfaces: a labelmap would have to become one."""
    segmentation = segmentationNode.GetSegmentation()
    if segmentation.GetNumberOfSegments() and segmentation.GetSourceRepresentationName() != BINARY:
        raise InputError(
            _(
                "The segments of '{name}' are no binary labelmaps: make that their source representation in the "
                "Segmentations module, then add the body."
            ).format(name=segmentationNode.GetName())
        )


def _voxelsToSegmentation(
    segmentationNode: "slicer.vtkMRMLSegmentationNode", referenceVolumeNode: "slicer.vtkMRMLScalarVolumeNode"
) -> vtk.vtkMatrix4x4:
    """Voxel indices of the volume to points of the segmentation. Raises InputError where no labelmap lies so."""
    matrix = np.linalg.inv(segmentationToVoxels(segmentationNode, referenceVolumeNode))
    axes = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    if np.abs(axes.T @ axes - np.eye(3)).max() > 1e-3:
        raise InputError(
            _(
                "A transform between '{segmentation}' and '{volume}' shears: harden it, or put both under the same one."
            ).format(segmentation=segmentationNode.GetName(), volume=referenceVolumeNode.GetName())
        )
    toSegmentation = vtk.vtkMatrix4x4()
    toSegmentation.DeepCopy(matrix.ravel())
    return toSegmentation
