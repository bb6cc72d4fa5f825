"""Segments of a segmentation node -> organ labels in the voxel grid of a reference volume.

Every segment is resampled (nearest voxel) by itself, from its own labelmap, because a merged labelmap holds only one of
overlapping segments, and because Slicer's exporters take an empty list of segments for "all of them".
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import slicer
import vtk
from CTStyleGenCore.anatomy import Anatomy, Organ, SegmentReport
from CTStyleGenCore.errors import InputError
from vtk.util.numpy_support import vtk_to_numpy

from .geometry import arrayFromMatrix, gridSize, ijkToRAS, requireGrid

Box = tuple[slice, slice, slice]  # of an array [k, j, i]
_BINARY = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()


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
    organ: Organ | None  # None: the table doesn't know it
    box: Box  # where in the reference's grid the mask lies
    mask: np.ndarray  # bool, the size of the box
    empty: bool  # in its own grid
    outside: int  # voxels of its own grid that lie outside the reference


def conditioningFromSegmentation(
    segmentationNode: "slicer.vtkMRMLSegmentationNode",
    referenceVolumeNode: "slicer.vtkMRMLScalarVolumeNode",
    anatomy: Anatomy,
) -> Conditioning:
    """Organ labels in the reference's grid. Hidden segments count, too; where segments overlap the later organ wins.

    Both nodes may be under any linear transforms, or both under the same transform. Raises InputError when a node is
    missing or empty, a transform isn't linear, the organ table knows no segment, or nothing lies inside the reference.
    """
    segmentation = _binarySegmentation(segmentationNode, referenceVolumeNode)
    toVoxels = _segmentationToVoxels(segmentationNode, referenceVolumeNode)
    segments = list(_segments(segmentation, toVoxels, gridSize(referenceVolumeNode), anatomy))
    if not any(segment.organ for segment in segments):
        names = ", ".join(f"'{segment.name}'" for segment in segments)
        raise InputError(
            f"The organ table '{anatomy.name}' knows none of the segments of '{segmentationNode.GetName()}' ({names}): "
            f"rename a segment or set its terminology; the table knows {anatomy.known()}."
        )
    labels, reports = _paint(segments, gridSize(referenceVolumeNode), anatomy)
    if not labels.any():
        raise InputError(
            f"No segment of '{segmentationNode.GetName()}' that the organ table knows has a voxel inside the volume "
            f"'{referenceVolumeNode.GetName()}': choose a volume that overlaps the segmentation."
        )
    problems = tuple(_problems(segments, reports, anatomy))
    return Conditioning(labels, reports, problems)


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
        raise InputError("There is no segmentation: choose the segmentation to make a CT from.")
    requireGrid(referenceVolumeNode)
    segmentation = segmentationNode.GetSegmentation()
    if not segmentation.GetNumberOfSegments():
        raise InputError(f"The segmentation '{segmentationNode.GetName()}' has no segments: add one or choose another.")
    if segmentation.ContainsRepresentation(_BINARY):
        return segmentation
    copy = slicer.vtkSegmentation()
    copy.DeepCopy(segmentation)
    copy.SetConversionParameter(
        slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName(),
        _serializedGrid(segmentationNode, referenceVolumeNode),
    )
    if not copy.CreateRepresentation(_BINARY):
        raise InputError(
            f"The segmentation '{segmentationNode.GetName()}' can't be turned into binary labelmaps: "
            "create that representation in the Segmentations module."
        )
    return copy


def _serializedGrid(
    segmentationNode: "slicer.vtkMRMLSegmentationNode", referenceVolumeNode: "slicer.vtkMRMLScalarVolumeNode"
) -> str:
    """The reference's grid in the segmentation's coordinates, as a conversion parameter."""
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(np.linalg.inv(_segmentationToVoxels(segmentationNode, referenceVolumeNode)).ravel())
    return slicer.vtkSegmentationConverter.SerializeImageGeometry(matrix, referenceVolumeNode.GetImageData())


def _segmentationToVoxels(
    segmentationNode: "slicer.vtkMRMLSegmentationNode", referenceVolumeNode: "slicer.vtkMRMLScalarVolumeNode"
) -> np.ndarray:
    """4x4: points of the segmentation node to voxel indices of the volume, through the parent transforms of both."""
    between, linear = vtk.vtkGeneralTransform(), vtk.vtkTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(
        segmentationNode.GetParentTransformNode(), referenceVolumeNode.GetParentTransformNode(), between
    )
    if not slicer.vtkMRMLTransformNode.IsGeneralTransformLinear(between, linear):
        raise InputError(
            f"A non-linear transform lies between '{segmentationNode.GetName()}' and "
            f"'{referenceVolumeNode.GetName()}': harden it, or put both under the same transform."
        )
    matrix = np.linalg.inv(ijkToRAS(referenceVolumeNode)) @ arrayFromMatrix(linear.GetMatrix())
    if not np.all(np.isfinite(matrix)) or np.linalg.matrix_rank(matrix) < 4:
        raise InputError(
            f"The transform of '{segmentationNode.GetName()}' or '{referenceVolumeNode.GetName()}' can't be inverted: "
            "correct or remove it."
        )
    return matrix


def _segments(
    segmentation: "slicer.vtkSegmentation", toVoxels: np.ndarray, size: tuple[int, int, int], anatomy: Anatomy
) -> Iterator[_Segment]:
    """All segments, placed in the organ table and resampled to a grid of that size (i, j, k)."""
    for segmentId in segmentation.GetSegmentIDs():
        segment = segmentation.GetSegment(segmentId)
        organ = anatomy.place(segment.GetName(), _snomedCode(segment))
        yield _resampled(segment, organ, toVoxels, size)


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
    segment: "slicer.vtkSegment", organ: Organ | None, toVoxels: np.ndarray, size: tuple[int, int, int]
) -> _Segment:
    """The segment with its mask in a grid of that size (i, j, k); toVoxels: segmentation points to voxel indices."""
    labelmap = segment.GetRepresentation(_BINARY)
    own, first = _ownMask(labelmap, segment.GetLabelValue())
    if own is None:
        return _Segment(segment.GetName(), organ, *_nothing(), empty=True, outside=0)
    imageToWorld = vtk.vtkMatrix4x4()
    labelmap.GetImageToWorldMatrix(imageToWorld)
    ownToVoxels = toVoxels @ arrayFromMatrix(imageToWorld)
    low, high = _bounds(own, first, ownToVoxels)
    outside = 0
    if np.any(low < -0.5) or np.any(high > np.array(size) - 0.5):
        outside = _countOutside(own, first, ownToVoxels, size)
    start, stop = np.maximum(np.floor(low), 0).astype(int), np.minimum(np.ceil(high) + 1, size).astype(int)
    if np.any(start >= stop):
        return _Segment(segment.GetName(), organ, *_nothing(), empty=False, outside=outside)
    mask = _reslice(labelmap, ownToVoxels, start, stop) == segment.GetLabelValue()
    i, j, k = (slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
    return _Segment(segment.GetName(), organ, (k, j, i), mask, empty=False, outside=outside)


def _nothing() -> tuple[Box, np.ndarray]:
    none = slice(0, 0)
    return (none, none, none), np.zeros((0, 0, 0), bool)


def _ownMask(labelmap: "slicer.vtkOrientedImageData | None", value: int) -> tuple[np.ndarray | None, np.ndarray]:
    """The segment in its own grid, cut to its bounding box: bool [k, j, i], and the index (i, j, k) of its first voxel.

    None for an empty segment. Segments that don't overlap share a labelmap, and each has its own value there.
    """
    first = np.zeros(3)
    if labelmap is None or labelmap.IsEmpty() or labelmap.GetPointData().GetScalars() is None:
        return None, first
    values = vtk_to_numpy(labelmap.GetPointData().GetScalars()).reshape(labelmap.GetDimensions()[::-1])
    mask = values == value
    box = []
    for axis in range(3):
        found = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        if not found.size:
            return None, first
        box.append(slice(found[0], found[-1] + 1))
    first = np.array(labelmap.GetExtent()[::2]) + [edge.start for edge in reversed(box)]
    return mask[tuple(box)], first


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


def _reslice(
    labelmap: "slicer.vtkOrientedImageData", ownToVoxels: np.ndarray, start: np.ndarray, stop: np.ndarray
) -> np.ndarray:
    """The labelmap's nearest values at the reference's voxels, start up to stop (i, j, k), as an array [k, j, i]."""
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
    reslice.SetOutputExtent(np.stack([start, stop - 1], axis=-1).ravel().tolist())
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
                part = labels[segment.box]
                overlapped[number] = int(np.count_nonzero(segment.mask & (part != 0) & (part != organ.label)))
                part[segment.mask & (part == 0)] = organ.label
    reports = tuple(
        SegmentReport(s.name, s.organ.name if s.organ else None, int(np.count_nonzero(s.mask)), overlapped[number])
        for number, s in enumerate(segments)
    )
    return labels, reports


def _problems(segments: list[_Segment], reports: Iterable[SegmentReport], anatomy: Anatomy) -> Iterator[str]:
    """A sentence for each segment that the result won't show as drawn."""
    for segment, report in zip(segments, reports, strict=True):
        name = f"The segment '{segment.name}'"
        if segment.organ is None:
            yield f"{name} is left out: the organ table '{anatomy.name}' knows neither its terminology nor its name."
        elif segment.empty:
            yield f"{name} is empty."
        elif not report.voxels:
            yield f"{name} has no voxel in the reference volume: it lies outside, or is thinner than a voxel."
        elif report.overlapped == report.voxels:
            yield f"{name} is covered completely by other organs."
        elif segment.outside:
            yield f"{name} is cut off: {segment.outside} of its voxels lie outside the reference volume."
