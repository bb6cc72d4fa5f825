"""Segments of a segmentation node -> organ labels in the voxel grid of a reference volume.

Every segment is resampled (nearest voxel) by itself, from its own labelmap, because a merged labelmap holds only one of
overlapping segments, and because Slicer's exporters take an empty list of segments for "all of them".
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
import slicer
import vtk
from CTStyleGenCore.anatomy import Anatomy, Organ, SegmentReport
from CTStyleGenCore.errors import InputError
from CTStyleGenCore.labelling import fill_left_out, lacks_body
from slicer.i18n import tr as _
from vtk.util.numpy_support import vtk_to_numpy

from .geometry import Extent, arrayFromMatrix, axialAxis, extentOfSlices, gridSize, ijkToRAS, part, requireGrid

Box = tuple[slice, slice, slice]  # of an array [k, j, i]
_BoxesOf = Callable[["slicer.vtkOrientedImageData"], Mapping[int, Box]]  # a labelmap's values, and where each lies
Organs = Mapping[str, "str | None"]  # by segment ID or name: the organ that it is taken for; None: it is left out
ORGAN_TAG = "CTStyleGen.Organ"  # of a segment: the organ that the user chose for it
LEFT_OUT = "-"  # the tag's value for a segment that the user left out
BINARY = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()


@dataclass(frozen=True)
class Conditioning:
    """What the generator is given, and what there is to say about it."""

    labels: np.ndarray  # uint8 [k, j, i]: organ labels in the reference volume's voxels
    segments: tuple[SegmentReport, ...]  # in the segmentation's order; voxels are counted in the reference's grid
    problems: tuple[str, ...]  # a sentence for each segment that is unknown, empty, cut off, outside, or covered


@dataclass(frozen=True)
class _Segment:
    """One segment, its organ, and its voxels in two grids."""

    name: str
    organ: Organ | None  # None: it is left out
    known: bool  # whether the user or the organ table says so
    box: Box  # where in the reference's grid the mask lies
    mask: np.ndarray  # bool, the size of the box
    empty: bool  # in its own grid
    outside: int  # voxels of its own grid that lie outside the reference


def conditioningFromSegmentation(
    segmentationNode: "slicer.vtkMRMLSegmentationNode",
    referenceVolumeNode: "slicer.vtkMRMLScalarVolumeNode",
    anatomy: Anatomy,
    organs: Organs | None = None,
) -> Conditioning:
    """Organ labels in the reference's grid. Hidden segments count, too; where segments overlap the later organ wins.

    A segment is the organ that ``organs`` says, else the one of its tag CTStyleGen.Organ, else the one that the organ
    table finds. Both nodes may be under any linear transforms, or both under the same transform. Raises InputError when
    a node is missing or empty, a transform isn't linear, the organ table knows no segment, or nothing lies inside the
    reference.
    """
    segmentation = _binarySegmentation(segmentationNode, referenceVolumeNode)
    toVoxels = segmentationToVoxels(segmentationNode, referenceVolumeNode)
    size, boxesOf = gridSize(referenceVolumeNode), cache(_boxes)
    segments = [
        _resampled(segment, organ, known, toVoxels, size, boxesOf)
        for segment, organ, known in _recognized(segmentation, anatomy, organs or {})
    ]
    if not any(segment.organ for segment in segments):
        names = ", ".join(f"'{segment.name}'" for segment in segments)
        raise InputError(
            _(
                "The organ table '{table}' knows none of the segments of '{segmentation}' ({names}): "
                "choose their organs, rename a segment or set its terminology; the table knows {known}."
            ).format(table=anatomy.name, segmentation=segmentationNode.GetName(), names=names, known=anatomy.known())
        )
    labels, reports = _paint(segments, size, anatomy)
    _fillLeftOut(labels, segments, referenceVolumeNode, anatomy)
    if not labels.any():
        raise InputError(
            _(
                "No segment of '{segmentation}' that the organ table knows has a voxel inside the volume '{volume}': "
                "choose a volume that overlaps the segmentation."
            ).format(segmentation=segmentationNode.GetName(), volume=referenceVolumeNode.GetName())
        )
    problems = tuple(_problems(segments, reports, anatomy))
    return Conditioning(labels, reports, problems)


def labelsOfSlice(
    segmentationNode: "slicer.vtkMRMLSegmentationNode",
    referenceVolumeNode: "slicer.vtkMRMLScalarVolumeNode",
    anatomy: Anatomy,
    number: int,
    organs: Organs | None = None,
) -> np.ndarray:
    """The organ labels of one axial slice alone, uint8 [k, j, i] with one slice: as in `conditioningFromSegmentation`.

    Quick enough to follow a brush. Raises InputError when a node is missing or empty, or a transform isn't linear.
    """
    segmentation = _binarySegmentation(segmentationNode, referenceVolumeNode)
    toVoxels = segmentationToVoxels(segmentationNode, referenceVolumeNode)
    extent = extentOfSlices(referenceVolumeNode, range(number, number + 1))
    segments = []
    for segment, organ, known in _recognized(segmentation, anatomy, organs or {}):
        labelmap = segment.GetRepresentation(BINARY)
        if _hasVoxels(labelmap):
            mask = _reslice(labelmap, toVoxels @ _imageToWorld(labelmap), extent) == segment.GetLabelValue()
            whole = (slice(None), slice(None), slice(None))
            segments.append(_Segment(segment.GetName(), organ, known, whole, mask, empty=False, outside=0))
    size = np.subtract(extent[1], extent[0])
    labels, _reports = _paint(segments, (int(size[0]), int(size[1]), int(size[2])), anatomy)
    _fillLeftOut(labels, segments, referenceVolumeNode, anatomy)
    return labels


def segmentsInGrid(
    segmentationNode: "slicer.vtkMRMLSegmentationNode", referenceVolumeNode: "slicer.vtkMRMLScalarVolumeNode"
) -> Iterator[tuple[str, "slicer.vtkSegment", Box, np.ndarray]]:
    """Every segment, by its ID, in the reference's grid: where it lies there, and its mask, bool, of that size.

    Raises InputError when a node is missing or empty, or a transform isn't linear.
    """
    segmentation = _binarySegmentation(segmentationNode, referenceVolumeNode)
    toVoxels = segmentationToVoxels(segmentationNode, referenceVolumeNode)
    size, boxesOf = gridSize(referenceVolumeNode), cache(_boxes)
    for segmentId in segmentation.GetSegmentIDs():
        segment = segmentation.GetSegment(segmentId)
        found = _resampled(segment, None, True, toVoxels, size, boxesOf)
        yield segmentId, segment, found.box, found.mask


def segmentTimes(segmentation: "slicer.vtkSegmentation") -> tuple[int, ...]:
    """When each segment and its labelmap were modified last: of painting, nothing else may tell."""
    segments = [segmentation.GetSegment(segmentId) for segmentId in segmentation.GetSegmentIDs()]
    labelmaps = [segment.GetRepresentation(BINARY) for segment in segments]
    return tuple(0 if each is None else each.GetMTime() for each in (*segments, *labelmaps))


def lacksBody(labels: np.ndarray, referenceVolumeNode: "slicer.vtkMRMLScalarVolumeNode", anatomy: Anatomy) -> bool:
    """Whether the body that the reference CT shows is missing in the organ labels [k, j, i] in its grid."""
    hu = slicer.util.arrayFromVolume(referenceVolumeNode)
    if hu.shape != labels.shape:  # in color
        hu = np.zeros(labels.shape, np.int8)
    axis = axialAxis(ijkToRAS(referenceVolumeNode))
    across = [mm for place, mm in enumerate(referenceVolumeNode.GetSpacing()) if place != axis]
    return lacks_body(hu, labels, 2 - axis, (across[0], across[1]), anatomy)


def referenceOf(segmentationNode: "slicer.vtkMRMLSegmentationNode | None") -> "slicer.vtkMRMLScalarVolumeNode | None":
    """The volume that the segmentation was drawn on, None if there is none."""
    if segmentationNode is None or not segmentationNode.IsA("vtkMRMLSegmentationNode"):
        return None
    return segmentationNode.GetNodeReference(segmentationNode.GetReferenceImageGeometryReferenceRole())


def _binarySegmentation(
    segmentationNode: "slicer.vtkMRMLSegmentationNode | None",
    referenceVolumeNode: "slicer.vtkMRMLScalarVolumeNode | None",
) -> "slicer.vtkSegmentation":
    """The node's segmentation or, if it has no binary labelmaps (surfaces from STL), a converted copy of it."""
    if segmentationNode is None or not segmentationNode.IsA("vtkMRMLSegmentationNode"):
        raise InputError(_("There is no segmentation: choose the segmentation to make a CT from."))
    requireGrid(referenceVolumeNode)
    segmentation = segmentationNode.GetSegmentation()
    if not segmentation.GetNumberOfSegments():
        raise InputError(
            _("The segmentation '{name}' has no segments: add one or choose another.").format(
                name=segmentationNode.GetName()
            )
        )
    if segmentation.ContainsRepresentation(BINARY):
        return segmentation
    copy = slicer.vtkSegmentation()
    copy.DeepCopy(segmentation)
    copy.SetConversionParameter(
        slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName(),
        _serializedGrid(segmentationNode, referenceVolumeNode),
    )
    if not copy.CreateRepresentation(BINARY):
        raise InputError(
            _(
                "The segmentation '{name}' can't be turned into binary labelmaps: "
                "create that representation in the Segmentations module."
            ).format(name=segmentationNode.GetName())
        )
    return copy


def _serializedGrid(
    segmentationNode: "slicer.vtkMRMLSegmentationNode", referenceVolumeNode: "slicer.vtkMRMLScalarVolumeNode"
) -> str:
    """The reference's grid in the segmentation's coordinates, as a conversion parameter."""
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(np.linalg.inv(segmentationToVoxels(segmentationNode, referenceVolumeNode)).ravel())
    return slicer.vtkSegmentationConverter.SerializeImageGeometry(matrix, referenceVolumeNode.GetImageData())


def segmentationToVoxels(
    segmentationNode: "slicer.vtkMRMLSegmentationNode", referenceVolumeNode: "slicer.vtkMRMLScalarVolumeNode"
) -> np.ndarray:
    """4x4: points of the segmentation node to voxel indices of the volume, through the parent transforms of both."""
    between, linear = vtk.vtkGeneralTransform(), vtk.vtkTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(
        segmentationNode.GetParentTransformNode(), referenceVolumeNode.GetParentTransformNode(), between
    )
    if not slicer.vtkMRMLTransformNode.IsGeneralTransformLinear(between, linear):
        raise InputError(
            _(
                "A non-linear transform lies between '{segmentation}' and '{volume}': "
                "harden it, or put both under the same transform."
            ).format(segmentation=segmentationNode.GetName(), volume=referenceVolumeNode.GetName())
        )
    matrix = np.linalg.inv(ijkToRAS(referenceVolumeNode)) @ arrayFromMatrix(linear.GetMatrix())
    if not np.all(np.isfinite(matrix)) or np.linalg.matrix_rank(matrix) < 4:
        raise InputError(
            _("The transform of '{segmentation}' or '{volume}' can't be inverted: correct or remove it.").format(
                segmentation=segmentationNode.GetName(), volume=referenceVolumeNode.GetName()
            )
        )
    return matrix


def _recognized(
    segmentation: "slicer.vtkSegmentation", anatomy: Anatomy, organs: Organs
) -> Iterator[tuple["slicer.vtkSegment", Organ | None, bool]]:
    """All segments, with their organ (None: left out) and whether it is known what they are."""
    segmentIds = segmentation.GetSegmentIDs()
    names = [segmentation.GetSegment(segmentId).GetName() for segmentId in segmentIds]
    if unknown := [name for name in organs if name not in segmentIds and name not in names]:
        raise InputError(
            _("There is no segment '{name}' to choose an organ for: the segments are {names}.").format(
                name=unknown[0], names=", ".join(names)
            )
        )
    for segmentId in segmentIds:
        segment = segmentation.GetSegment(segmentId)
        key = segmentId if segmentId in organs else segment.GetName()
        tag = chosenOrgan(segment)
        if key in organs:
            name = organs[key]
            yield segment, anatomy.organ(name) if name else None, True
        elif tag == LEFT_OUT:
            yield segment, None, True
        else:
            chosen = next((organ for organ in anatomy.organs if organ.name == tag), None)
            organ = chosen or recognizedOrgan(segment, anatomy)
            yield segment, organ, organ is not None


def chosenOrgan(segment: "slicer.vtkSegment") -> str:
    """What the user chose for the segment: the name of an organ, LEFT_OUT, or nothing."""
    value = vtk.reference("")
    return str(value) if segment.GetTag(ORGAN_TAG, value) else ""


def recognizedOrgan(segment: "slicer.vtkSegment", anatomy: Anatomy) -> Organ | None:
    """The organ that a segment's terminology or name says, whatever the user chose; None for an unknown one."""
    return anatomy.place(segment.GetName(), _snomedCode(segment))


def _snomedCode(segment: "slicer.vtkSegment") -> str | None:
    """The SNOMED CT code of the segment's type in its terminology entry, None without one."""
    entry = slicer.vtkSlicerTerminologyEntry()
    read = slicer.vtkSlicerTerminologiesModuleLogic.DeserializeTerminologyEntry
    if not segment.HasTag(segment.GetTerminologyEntryTagName()):
        return None
    if not read(segment.GetTerminology(), entry) or entry.GetTypeObject() is None:
        return None
    kind = entry.GetTypeObject()
    return kind.GetCodeValue() if kind.GetCodingSchemeDesignator() == "SCT" else None


def _resampled(
    segment: "slicer.vtkSegment",
    organ: Organ | None,
    known: bool,
    toVoxels: np.ndarray,
    size: tuple[int, int, int],
    boxesOf: _BoxesOf,
) -> _Segment:
    """The segment with its mask in a grid of that size (i, j, k); toVoxels: segmentation points to voxel indices."""
    labelmap = segment.GetRepresentation(BINARY)
    own, first = _ownMask(labelmap, segment.GetLabelValue(), boxesOf)
    if own is None:
        return _Segment(segment.GetName(), organ, known, *_nothing(), empty=True, outside=0)
    ownToVoxels = toVoxels @ _imageToWorld(labelmap)
    low, high = _bounds(own, first, ownToVoxels)
    outside = 0
    if np.any(low < -0.5) or np.any(high > np.array(size) - 0.5):
        outside = _countOutside(own, first, ownToVoxels, size)
    start, stop = np.maximum(np.floor(low), 0).astype(int), np.minimum(np.ceil(high) + 1, size).astype(int)
    if np.any(start >= stop):
        return _Segment(segment.GetName(), organ, known, *_nothing(), empty=False, outside=outside)
    extent = (int(start[0]), int(start[1]), int(start[2])), (int(stop[0]), int(stop[1]), int(stop[2]))
    mask = _reslice(labelmap, ownToVoxels, extent) == segment.GetLabelValue()
    return _Segment(segment.GetName(), organ, known, part(extent), mask, empty=False, outside=outside)


def _hasVoxels(labelmap: "slicer.vtkOrientedImageData | None") -> bool:
    return labelmap is not None and not labelmap.IsEmpty() and labelmap.GetPointData().GetScalars() is not None


def _imageToWorld(labelmap: "slicer.vtkOrientedImageData") -> np.ndarray:
    """4x4: the labelmap's indices to the segmentation's coordinates."""
    matrix = vtk.vtkMatrix4x4()
    labelmap.GetImageToWorldMatrix(matrix)
    return arrayFromMatrix(matrix)


def _nothing() -> tuple[Box, np.ndarray]:
    none = slice(0, 0)
    return (none, none, none), np.zeros((0, 0, 0), bool)


def _ownMask(
    labelmap: "slicer.vtkOrientedImageData | None", value: int, boxesOf: _BoxesOf
) -> tuple[np.ndarray | None, np.ndarray]:
    """The segment in its own grid, cut to its bounding box: bool [k, j, i], and the index (i, j, k) of its first voxel.

    None for an empty segment. Segments that don't overlap share a labelmap, and each has its own value there.
    """
    if labelmap is None or not _hasVoxels(labelmap) or value not in boxesOf(labelmap):
        return None, np.zeros(3)
    box = boxesOf(labelmap)[value]
    return _values(labelmap)[box] == value, np.array(labelmap.GetExtent()[::2]) + [edge.start for edge in reversed(box)]


def _values(labelmap: "slicer.vtkOrientedImageData") -> np.ndarray:
    """The labelmap's voxels [k, j, i], not copied."""
    return vtk_to_numpy(labelmap.GetPointData().GetScalars()).reshape(labelmap.GetDimensions()[::-1])


def _boxes(labelmap: "slicer.vtkOrientedImageData") -> dict[int, Box]:
    """By value, the bounding box of its voxels. One pass, as many segments may share a labelmap of many voxels."""
    boxes: dict[int, Box] = {}
    for k, plane in enumerate(_values(labelmap)):
        ends = np.ones(plane.shape, bool)  # of runs along i: the first and the last voxel of a value are such
        changes = plane[:, 1:] != plane[:, :-1]
        ends[:, 1:-1] = changes[:, 1:] | changes[:, :-1]
        places = np.flatnonzero(ends)
        values = plane.ravel()[places]
        for value in np.unique(values).tolist():
            j, i = np.divmod(places[values == value], plane.shape[1])
            box = slice(k, k + 1), slice(j[0], j[-1] + 1), slice(i.min(), i.max() + 1)
            boxes[value] = _around(boxes.get(value, box), box)
    return boxes


def _around(one: Box, other: Box) -> Box:
    """The box around two."""
    k, j, i = (slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(one, other, strict=True))
    return k, j, i


def _bounds(own: np.ndarray, first: np.ndarray, ownToVoxels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and highest (i, j, k) in the reference's grid that the mask's bounding box reaches."""
    size = own.shape[::-1]
    corners = np.array(list(product(*((a - 0.5, a + n - 0.5) for a, n in zip(first, size, strict=True)))))
    points = corners @ ownToVoxels[:3, :3].T + ownToVoxels[:3, 3]
    # A grid that is the same but for rounding must not look cut off.
    return np.round(points.min(axis=0), 6), np.round(points.max(axis=0), 6)


def _countOutside(own: np.ndarray, first: np.ndarray, ownToVoxels: np.ndarray, size: tuple[int, int, int]) -> int:
    """How many of the segment's voxels have their center outside the reference's voxels."""
    count = 0
    for k, plane in enumerate(own):
        j, i = np.nonzero(plane)
        indices = np.stack([i, j, np.full_like(i, k)], axis=-1) + first
        points = np.round(indices @ ownToVoxels[:3, :3].T + ownToVoxels[:3, 3], 6)
        count += int(np.any((points < -0.5) | (points > np.array(size) - 0.5), axis=-1).sum())
    return count


def _reslice(labelmap: "slicer.vtkOrientedImageData", ownToVoxels: np.ndarray, extent: Extent) -> np.ndarray:
    """The labelmap's nearest values at the reference's voxels in the extent, as an array [k, j, i]."""
    indices = vtk.vtkImageData()  # the labelmap's voxels, placed at their own indices
    indices.SetExtent(labelmap.GetExtent())
    indices.GetPointData().SetScalars(labelmap.GetPointData().GetScalars())
    voxelsToOwn = vtk.vtkTransform()
    voxelsToOwn.SetMatrix(np.linalg.inv(ownToVoxels).ravel().tolist())
    reslice = vtk.vtkImageReslice()
    reslice.SetInputData(indices)
    reslice.SetResliceTransform(voxelsToOwn)
    reslice.SetInterpolationModeToNearestNeighbor()
    reslice.SetOutputOrigin(0, 0, 0)
    reslice.SetOutputSpacing(1, 1, 1)
    reslice.SetOutputExtent([edge for first, after in zip(*extent, strict=True) for edge in (first, after - 1)])
    reslice.Update()
    output = reslice.GetOutput()
    return vtk_to_numpy(output.GetPointData().GetScalars()).reshape(output.GetDimensions()[::-1])


def _paint(
    segments: list[_Segment], size: tuple[int, int, int], anatomy: Anatomy
) -> tuple[np.ndarray, tuple[SegmentReport, ...]]:
    """The labels of a grid of that size (i, j, k), and what became of each segment, in the order given."""
    labels = np.zeros(size[::-1], np.uint8)
    overlapped = dict.fromkeys(range(len(segments)), 0)
    # From the last organ to the first, so that a voxel that has a label already is one given up to a later organ.
    for organ in reversed(anatomy.organs):
        for number, segment in enumerate(segments):
            if segment.organ == organ:
                painted = labels[segment.box]
                overlapped[number] = int(np.count_nonzero(segment.mask & (painted != 0) & (painted != organ.label)))
                painted[segment.mask & (painted == 0)] = organ.label
    reports = tuple(
        SegmentReport(s.name, s.organ.name if s.organ else None, int(np.count_nonzero(s.mask)), overlapped[number])
        for number, s in enumerate(segments)
    )
    return labels, reports


def _fillLeftOut(
    labels: np.ndarray,
    segments: list[_Segment],
    referenceVolumeNode: "slicer.vtkMRMLScalarVolumeNode",
    anatomy: Anatomy,
) -> None:
    """Makes body, in labels [k, j, i], of what segments that are left out cover inside the organs."""
    masks = [segment for segment in segments if segment.organ is None and segment.mask.any()]
    if masks:
        leftOut = np.zeros(labels.shape, bool)
        for segment in masks:
            leftOut[segment.box] |= segment.mask
        fill_left_out(labels, leftOut, 2 - axialAxis(ijkToRAS(referenceVolumeNode)), anatomy)


def _problems(segments: list[_Segment], reports: Sequence[SegmentReport], anatomy: Anatomy) -> Iterator[str]:
    """A sentence for each segment that the result won't show as drawn, unless the user left it out."""
    for segment, report in zip(segments, reports, strict=True):
        sentence = _problem(segment, report)
        if sentence:
            yield sentence.format(segment=segment.name, table=anatomy.name, voxels=segment.outside)


def _problem(segment: _Segment, report: SegmentReport) -> str:
    if not segment.known:
        return _(
            "The segment '{segment}' is left out, and counts as body where organs surround it: the organ table "
            "'{table}' knows neither its terminology nor its name."
        )
    if segment.organ is None:
        return ""
    if segment.empty:
        return _("The segment '{segment}' is empty.")
    if not report.voxels:
        return _(
            "The segment '{segment}' has no voxel in the reference volume: it lies outside, or is thinner than a voxel."
        )
    if report.overlapped == report.voxels:
        return _("The segment '{segment}' is covered completely by other organs.")
    if segment.outside:
        return _("The segment '{segment}' is cut off: {voxels} of its voxels lie outside the reference volume.")
    return ""
