"""New segmentations from one, as of other people: made by a child process, added as nodes beside it.

All segments move together, whatever they are, and keep their names, colors and terminology; those that the organ table
knows say what is plausible (`CTStyleGenCore.variation`).
"""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import CTStyleGenCore
import numpy as np
import SimpleITK as sitk
import slicer
import vtk
from CTStyleGenCore.anatomy import Anatomy, load_anatomy
from CTStyleGenCore.errors import InputError
from CTStyleGenCore.files import PrivateFolder
from CTStyleGenCore.model_file import SUFFIX, read_card
from CTStyleGenCore.volumes import read_image, same_grid, write_volume
from slicer.i18n import tr as _

from .conditioning import BINARY, Organs, conditioningFromSegmentation, lacksBody, referenceOf, segmentsInGrid
from .geometry import gridSize, labelmapInGrid
from .job_queue import QueuedJob
from .jobs import Event, Job, JobError
from .outputs import SYNTHETIC, Place

_AIR_HU = -500


@dataclass(frozen=True)
class VariationOptions:
    """What variations are asked for; `CTStyleGenCore.variation` says what the words mean."""

    count: int = 1
    amount: float = 5.0  # mm
    seed: int = 0
    way: str = "mixed"
    cases: str | Path | None = None  # a folder of other patients' cases
    widen: float = 0.2
    organs: Organs | None = None  # of segments that aren't recognized, as in `Wish`
    anatomy: str | Path | Anatomy = "thorax"  # organ table, or its name or file, or a model that has it


@dataclass(frozen=True)
class _Member:
    """A segment in the label map of all segments."""

    segmentId: str
    segment: "slicer.vtkSegment"  # a copy without voxels
    layer: int
    value: int


class VariationJob(QueuedJob):
    """Variations of a segmentation: its result is a list of segmentation nodes, shown as outlines.

    The temporary folder, which holds the patient's organ labels, is removed in any case.
    """

    def __init__(
        self,
        segmentationNode: "slicer.vtkMRMLSegmentationNode",
        referenceVolumeNode: "slicer.vtkMRMLScalarVolumeNode | None",
        options: VariationOptions,
    ) -> None:
        """Takes in the nodes as they are now. Raises InputError for what can't work."""
        super().__init__()
        reference = referenceVolumeNode or referenceOf(segmentationNode)
        self._anatomy = _table(options.anatomy)
        labels = conditioningFromSegmentation(segmentationNode, reference, self._anatomy, options.organs).labels
        self._options, self._name = options, segmentationNode.GetName()
        self._place = Place(segmentationNode, reference)
        self._labels = self._place.image(labels)
        voxels = slicer.util.arrayFromVolume(reference)
        showsBody = voxels.shape == labels.shape and voxels.min() < _AIR_HU  # else it is no CT
        needsBody = showsBody and lacksBody(labels, reference, self._anatomy)
        self._ct = self._place.image(voxels) if needsBody else None  # which the child finds the body in
        self._members, self._layers = _layered(segmentationNode, reference)
        self._reference, self._grid = reference, slicer.vtkMRMLScalarVolumeNode()  # it may be gone when the job ends
        self._grid.CopyOrientation(reference)
        self._folder: PrivateFolder | None = None

    def _begin(self) -> Job:
        self._folder = PrivateFolder()
        folder, options = Path(self._folder.name), self._options
        segments = sitk.Compose([self._place.image(values) for values in self._layers])
        write_volume(self._labels, folder / "labels.nrrd", compress=False)
        write_volume(segments, folder / "segments.nrrd", compress=False)
        arguments = ["vary", "--segmentation", str(folder / "labels.nrrd"), "--along", str(folder / "segments.nrrd")]
        if self._ct is not None:
            write_volume(self._ct, folder / "ct.nrrd", compress=False)
            arguments += ["--reference", str(folder / "ct.nrrd")]
        arguments += ["--output", str(folder / "new")]
        arguments += ["--count", str(options.count), "--amount", str(options.amount), "--seed", str(options.seed)]
        arguments += ["--way", options.way, "--widen", str(options.widen)]
        if options.cases:
            arguments += ["--cases", str(Path(options.cases).absolute())]
        (folder / "anatomy.json").write_text(json.dumps(self._anatomy.to_json()), encoding="utf-8")
        arguments += ["--anatomy", str(folder / "anatomy.json")]
        return Job(arguments, folder, self._note)

    def _finish(self, done: Event) -> "list[slicer.vtkMRMLSegmentationNode]":
        folder = Path(done["outputs"][0])
        with (folder / "manifest.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        results = [self._read(folder / f"along-{int(row['number']):03}.nrrd") for row in rows]
        return [self._add(row, layers) for row, layers in zip(rows, results, strict=True)]

    def _close(self) -> None:
        if self._folder:
            self._folder.cleanup()

    def _read(self, path: Path) -> np.ndarray:
        """The layers' values, moved, [k, j, i, layer].

        Read by SimpleITK, which keeps the order of the voxels; Slicer's reader turns the slices of left-handed volumes.
        """
        try:
            image = read_image(path)
        except InputError as error:
            raise JobError(_("The CTStyleGen process ended well but didn't write what it was asked for.")) from error
        if not same_grid(image, self._labels):
            raise JobError(_("The CTStyleGen process wrote labels in another grid than it was asked for."))
        return sitk.GetArrayFromImage(image).reshape((*self._layers[0].shape, -1))

    def _add(self, row: Mapping[str, Any], layers: np.ndarray) -> "slicer.vtkMRMLSegmentationNode":
        """A new segmentation node of the layers' values."""
        name = _("{segmentation} varied {number} (synthetic)").format(segmentation=self._name, number=row["number"])
        node = slicer.vtkMRMLSegmentationNode()
        node.SetName(self._place.scene.GenerateUniqueName(name))
        matrix = vtk.vtkMatrix4x4()
        self._grid.GetIJKToRASMatrix(matrix)
        images = [labelmapInGrid(values, matrix) for values in np.moveaxis(layers, -1, 0)]
        for member in self._members:
            segment = slicer.vtkSegment()
            segment.DeepCopyMetadata(member.segment)
            segment.SetLabelValue(member.value)
            segment.SetTag(SYNTHETIC, "1")  # goes with a segment into .seg.nrrd, as a node's attributes don't
            segment.AddRepresentation(BINARY, images[member.layer])
            node.GetSegmentation().AddSegment(segment, member.segmentId)
        provenance = {
            "Segmentation": self._name,
            "Way": row["way"],
            "Amount": row["moved_mm"],
            "Seed": row["seed"],
            "Variation": row["number"],
            "Version": CTStyleGenCore.__version__,
        }
        self._place.put(node, provenance)
        if self._reference is not None and self._reference.GetScene() is self._place.scene:
            node.SetReferenceImageGeometryParameterFromVolumeNode(self._reference)
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        display.SetVisibility2DFill(False)
        display.SetVisibility3D(False)
        return node


def _table(told: str | Path | Anatomy) -> Anatomy:
    """The organ table that was told."""
    if isinstance(told, Anatomy):
        return told
    if Path(told).suffix == SUFFIX:
        return Anatomy.from_json(read_card(Path(told))["anatomy"])
    return load_anatomy(told)


def _layered(
    segmentationNode: "slicer.vtkMRMLSegmentationNode", referenceVolumeNode: "slicer.vtkMRMLScalarVolumeNode"
) -> tuple[list[_Member], list[np.ndarray]]:
    """All segments in the reference's grid, in few layers, uint16 [k, j, i], in each of which none overlaps another."""
    members: list[_Member] = []
    layers: list[np.ndarray] = []
    for number, (segmentId, segment, box, mask) in enumerate(segmentsInGrid(segmentationNode, referenceVolumeNode), 1):
        layer = next((n for n, values in enumerate(layers) if not np.any(values[box][mask])), len(layers))
        if layer == len(layers):
            layers.append(np.zeros(gridSize(referenceVolumeNode)[::-1], np.uint16))
        layers[layer][box][mask] = number
        copy = slicer.vtkSegment()
        copy.DeepCopyMetadata(segment)
        members.append(_Member(segmentId, copy, layer, number))
    return members, layers
