"""Cases: a CT and the organ labels of its segmentation, read from a folder each or from an nnU-Net raw data set."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .anatomy import Anatomy, SegmentReport
from .errors import InputError
from .files import read_json
from .labelling import fill_left_out, with_body
from .nifti_labels import label_names
from .volumes import axial_axis, metadata, read_ct, read_image, same_grid, suffix_of, write_volume

__all__ = [
    "Case",
    "CaseFiles",
    "SourceLabel",
    "find_cases",
    "read_case",
    "read_cases",
    "read_ct",
    "read_labels",
    "write_volume",
]

_IGNORED = "ignore"  # nnU-Net's name for what nobody has labelled
_MAX_LAYERS = 1000  # each with a table of its values
_MASK_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")
MASKS = "segmentations"  # the folder of TotalSegmentator's data set with one mask a class
_CT_NAME = re.compile(r"ct\.(nrrd|nhdr|nii|nii\.gz|mha|mhd|dcm)", re.IGNORECASE)
_LABELS_NAME = re.compile(r"(segmentation\.seg|labels)\.(nrrd|nii|nii\.gz|mha)", re.IGNORECASE)


@dataclass(frozen=True)
class Case:
    """One patient's CT, labelled."""

    case_id: str  # the folder's name, or the case's in an nnU-Net data set
    ct: sitk.Image  # int16 HU, 3-D
    labels: sitk.Image  # uint8 organ labels in the CT's geometry
    segments: tuple[SegmentReport, ...]
    body_found: bool = False  # in the CT, as no segment is the body


@dataclass(frozen=True)
class _Segment:
    """A segment of a file: the voxels that have this value in this layer."""

    name: str
    value: int
    layer: int = 0
    code: str | None = None  # SNOMED CT


@dataclass(frozen=True)
class SourceLabel:
    """A segment as the user's own file has it: its value there, its name, its SNOMED CT code, and its organ's name."""

    value: int
    name: str
    code: str | None
    organ: str


@dataclass(frozen=True)
class CaseFiles:
    """Where a case is on disk."""

    case_id: str
    ct: Path  # a file, or a folder with one DICOM series
    labels: Path  # a file, or a folder with one mask a segment
    named: tuple[_Segment, ...] | None = None  # the labels that an nnU-Net dataset.json names, or those of masks

    def read(self, anatomy: Anatomy, find_body: bool = True) -> Case:
        """The case; where the body isn't labelled, it is found in the CT, unless that is not to be.

        InputError: what `read_ct` and `read_labels` raise, and values that a dataset.json doesn't name.
        """
        ct = read_ct(self.ct)
        image, segments = self._segmentation(anatomy)
        labels, reports = _paint(self.labels, image, segments, anatomy, ct)
        labels, body_found = with_body(labels, anatomy, ct if find_body else None)
        return Case(self.case_id, ct, labels, reports, body_found)

    def read_source(self, anatomy: Anatomy, reference: sitk.Image) -> tuple[sitk.Image, tuple[SourceLabel, ...]]:
        """The segmentation in its own values, uint16 in the reference's geometry, and the segments that these are.

        Of the segments that the table knows; where they overlap, the one of the organ later in the table wins.
        InputError: as `read`, and a segmentation that has the same value for several segments, in different layers.
        """
        image, segments = self._segmentation(anatomy)
        placed = [(organ, segment) for segment in segments if (organ := anatomy.place(segment.name, segment.code))]
        if len({segment.value for _, segment in placed}) < len(placed):
            raise InputError(
                f"{self.labels} gives one value to several segments, in different layers: save it with values of their "
                "own, or take organ labels."
            )
        placed.sort(key=lambda pair: pair[0].label)
        table = tuple(SourceLabel(segment.value, segment.name, segment.code, organ.name) for organ, segment in placed)
        known = [segment for _, segment in placed]
        painted, _ = _painted(_layers(self.labels, image), known, range(1, len(known) + 1))
        values = np.array([0, *(label.value for label in table)], np.uint16)[painted]
        source = sitk.GetImageFromArray(values)
        source.CopyInformation(image)
        return _onto(self.labels, source, reference), table

    def _segmentation(self, anatomy: Anatomy) -> tuple[sitk.Image, Sequence[_Segment]]:
        if self.labels.is_dir():
            return _read_masks(self.labels, self.named or (), anatomy)
        image = read_image(self.labels)
        if self.named is not None:
            _check_values(self.labels, _one_layer(self.labels, image), self.named)
            return image, self.named
        return image, _segments(self.labels, image, anatomy)


def find_cases(folder: str | Path) -> list[CaseFiles]:
    """The cases in a folder, sorted by id: one folder a case, or an nnU-Net raw data set. None of them is read.

    Of an nnU-Net data set channel 0000 of imagesTr and labelsTr are taken, and its labels are placed by their names.
    InputError: no cases; a case without CT or segmentation, or with more than one.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"The folder of cases {folder} doesn't exist: check the path.")
    if (folder / "dataset.json").is_file():
        return list(_find_nnunet(folder))
    if any(_CT_NAME.fullmatch(file.name) for file in folder.iterdir()):
        raise InputError(f"{folder} is a case itself: give the folder that it is in.")
    cases = [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    if not cases:
        raise InputError(f"{folder} holds no cases: it needs one folder a case, or an nnU-Net dataset.json.")
    return _alike([_find_case(case) for case in cases])


def read_cases(folder: str | Path, anatomy: Anatomy) -> list[Case]:
    """All cases in a folder, as `find_cases` finds them. InputError as there, and as `CaseFiles.read`."""
    return [files.read(anatomy) for files in find_cases(folder)]


def read_case(folder: str | Path, anatomy: Anatomy) -> Case:
    """The case in a folder: a CT, ct.nrrd (or .nii.gz, .mha, ...) or DICOM files, and its segmentation.

    That is segmentation.seg.nrrd, labels.nrrd, or a folder "segmentations" with one mask a segment.

    InputError: no CT or no segmentation, or more than one; and what `read_ct` and `read_labels` raise.
    """
    return _find_case(Path(folder)).read(anatomy)


def _find_case(folder: Path) -> CaseFiles:
    if not folder.is_dir():
        raise InputError(f"The case {folder} doesn't exist or is no folder: check the path.")
    files = sorted(path for path in folder.iterdir() if path.is_file())
    cts = [path for path in files if _CT_NAME.fullmatch(path.name)]
    labels = [path for path in files if _LABELS_NAME.fullmatch(path.name)]
    labels += [folder / MASKS] if (folder / MASKS).is_dir() else []
    if len(labels) != 1:
        raise InputError(
            f"{folder} needs one segmentation.seg.nrrd or labels.nrrd (or .nii.gz), or a folder '{MASKS}' with one "
            f"mask a segment, but has {len(labels)} of these."
        )
    if len(cts) > 1:
        raise InputError(f"{folder} has more than one CT ({', '.join(ct.name for ct in cts)}): keep one.")
    if not cts and files in ([], labels):
        raise InputError(f"{folder} has no CT: put ct.nrrd (or .nii.gz) or a DICOM series beside {labels[0].name}.")
    files_of = CaseFiles(folder.name, cts[0] if cts else folder, labels[0])
    return _alike([files_of])[0] if labels[0].is_dir() else files_of


def _alike(cases: Sequence[CaseFiles]) -> list[CaseFiles]:
    """The cases, with masks that are named alike of the same value in all of them."""
    masks = {case.case_id: _masks(case.labels) for case in cases if case.labels.is_dir()}
    names = sorted({name for named in masks.values() for name in named})
    values = {name: value for value, name in enumerate(names, 1)}
    return [
        replace(case, named=tuple(_Segment(name, values[name]) for name in masks[case.case_id]))
        if case.case_id in masks
        else case
        for case in cases
    ]


def _masks(folder: Path) -> dict[str, Path]:
    """The files of masks, by their segment's name."""
    paths = [path for path in sorted(folder.iterdir()) if suffix_of(path) in _MASK_SUFFIXES]
    named = {_stem(path): path for path in paths}
    if twice := [path.name for path in paths if named[_stem(path)] != path]:
        raise InputError(
            f"{folder} has two masks of one name, {twice[0]} and {named[_stem(Path(twice[0]))].name}: keep one."
        )
    return named


def read_labels(
    path: str | Path, anatomy: Anatomy, reference: sitk.Image | None = None
) -> tuple[sitk.Image, tuple[SegmentReport, ...]]:
    """A segmentation as uint8 organ labels, and what became of each segment.

    A Slicer segmentation (.seg.nrrd, any number of layers) is placed by SNOMED CT code, name and alias; where segments
    overlap, the organ later in the table wins. NIfTI may have names for its values (`nifti_labels`). Any other file is
    a label map whose values are organ labels or, if not all of them are, organ grays. With a reference, labels come in
    its geometry, resampled to the nearest voxel where that differs. InputError: unreadable, no segment that the table
    knows, values that it doesn't know, no labelled voxel inside the reference.
    """
    path = Path(path)
    image = read_image(path)
    return _paint(path, image, _segments(path, image, anatomy), anatomy, reference)


def _segments(path: Path, image: sitk.Image, anatomy: Anatomy) -> list[_Segment]:
    return (
        _slicer_segments(path, image) or _nifti_segments(path, image, anatomy) or _value_segments(path, image, anatomy)
    )


def _paint(
    path: Path, image: sitk.Image, segments: Sequence[_Segment], anatomy: Anatomy, reference: sitk.Image | None
) -> tuple[sitk.Image, tuple[SegmentReport, ...]]:
    """Segments as one label image (see `read_labels`)."""
    organs = [anatomy.place(segment.name, segment.code) for segment in segments]
    if not any(organs):
        names = ", ".join(f"'{segment.name}'" for segment in segments) or "no segment at all"
        raise InputError(
            f"The table '{anatomy.name}' knows {anatomy.known()}, but {path} has {names}: rename a segment."
        )
    layers = _layers(path, image)
    # Organ labels rise in painting order: table and numbers are one.
    painted, tables = _painted(layers, segments, [organ.label if organ else 0 for organ in organs])
    painted = painted.astype(np.uint8)
    if left_out := [segment for segment, organ in zip(segments, organs, strict=True) if organ is None]:
        hidden, _ = _painted(layers, left_out, [1] * len(left_out))
        fill_left_out(painted, hidden > 0, 2 - axial_axis(image), anatomy)
    counts = [np.bincount(values.ravel()) for values in layers]
    losses = [np.bincount(values[painted > table[values]]) for table, values in zip(tables, layers, strict=True)]
    reports = tuple(
        SegmentReport(segment.name, organ.name, _count(counts, segment), _count(losses, segment))
        if organ
        else SegmentReport(segment.name, None, _count(counts, segment), 0)
        for segment, organ in zip(segments, organs, strict=True)
    )
    labels = sitk.GetImageFromArray(painted)
    labels.CopyInformation(image)
    return _onto(path, labels, reference), reports


def _painted(layers: np.ndarray, segments: Sequence[_Segment], numbers: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Each segment's number at its voxels, (k, j, i), uint16, the highest where they overlap; and the (layer, value)
    table of these numbers.
    """
    tables = np.zeros((len(layers), int(layers.max(initial=0)) + 1), np.uint16)
    for segment, number in zip(segments, numbers, strict=True):
        if segment.layer < len(layers) and segment.value < tables.shape[1]:
            tables[segment.layer, segment.value] = number
    return np.max([table[values] for table, values in zip(tables, layers, strict=True)], axis=0), tables


def _count(histograms: Sequence[np.ndarray], segment: _Segment) -> int:
    """How often the segment's value occurs in its layer; 0 where there is no such layer or value."""
    if segment.layer >= len(histograms) or segment.value >= len(histograms[segment.layer]):
        return 0
    return int(histograms[segment.layer][segment.value])


def _layers(path: Path, image: sitk.Image) -> np.ndarray:
    """The segment values of each layer: (layer, k, j, i), uint16; InputError for what can't be labels."""
    values = sitk.GetArrayViewFromImage(image)
    values = np.moveaxis(values, -1, 0) if image.GetNumberOfComponentsPerPixel() > 1 else values[np.newaxis]
    if len(values) > _MAX_LAYERS:
        raise InputError(f"{path} has {len(values)} values a voxel: a segmentation has at most {_MAX_LAYERS} layers.")
    low, high = values.min(), values.max()
    if not 0 <= low <= high <= np.iinfo(np.uint16).max or (values.dtype.kind == "f" and np.any(values % 1)):
        raise InputError(
            f"{path} is no segmentation: its values ({low:g} to {high:g}) aren't whole numbers 0 to 65535."
        )
    return values.astype(np.uint16)


def _onto(path: Path, labels: sitk.Image, reference: sitk.Image | None) -> sitk.Image:
    """The labels in the reference's geometry, exactly; InputError where no labelled voxel is left."""
    if not _any_labelled(labels):
        raise InputError(f"{path} has no labelled voxel: the segments that the organ table knows are empty.")
    if reference is None:
        return labels
    if same_grid(labels, reference):
        labels.CopyInformation(reference)
        return labels
    labels = sitk.Resample(labels, reference, sitk.Transform(), sitk.sitkNearestNeighbor, 0, labels.GetPixelID())
    if not _any_labelled(labels):
        raise InputError(
            f"{path} and the CT don't overlap in space: no labelled voxel lies inside the CT; check the pair."
        )
    return labels


def _any_labelled(labels: sitk.Image) -> bool:
    return bool(sitk.GetArrayViewFromImage(labels).any())


def _read_masks(folder: Path, segments: Sequence[_Segment], anatomy: Anatomy) -> tuple[sitk.Image, Sequence[_Segment]]:
    """Masks, a file each, as one label map of the segments' values: later organs are painted over earlier ones."""

    def place(segment: _Segment) -> int:
        organ = anatomy.place(segment.name)
        return organ.label if organ else 0

    if not segments:
        raise InputError(f"{folder} has no masks: it needs one .nii.gz (or .nrrd) a segment, named as the segment.")
    paths, first, painted = _masks(folder), None, np.zeros(0, np.uint16)
    for segment in sorted(segments, key=place):
        path = paths[segment.name]
        image = read_image(path)
        if first is None:
            first, painted = image, np.zeros(image.GetSize()[::-1], np.uint16)
        elif not same_grid(image, first):
            raise InputError(f"{path} lies in another voxel grid than other masks of its case: they must share one.")
        (mask,) = _one_layer(path, image)
        if mask.max() > 1:
            raise InputError(f"{path} is no mask: it has values up to {mask.max()}, not 0 and 1.")
        painted[mask > 0] = segment.value
    labels = sitk.GetImageFromArray(painted)
    labels.CopyInformation(first)
    return labels, segments


def _stem(path: Path) -> str:
    return path.name[: -len(suffix_of(path))]


def _slicer_segments(path: Path, image: sitk.Image) -> list[_Segment]:
    """The segments that a 3D Slicer segmentation file describes; none for a plain label map.

    Keys: https://slicer.readthedocs.io/en/latest/developer_guide/modules/segmentations.html. Extents and colors aren't
    needed. Files before Slicer 4.11 name neither layer nor value: each segment is 1 in a layer of its own.
    """
    told = {key: value for key, value in metadata(image).items() if key.startswith("Segment")}
    kind = told.get("Segmentation_SourceRepresentation") or told.get("Segmentation_MasterRepresentation", "")
    if kind not in ("", "Binary labelmap"):
        raise InputError(
            f"{path} holds a '{kind}', not a binary labelmap: export it from 3D Slicer as a binary labelmap."
        )
    numbers = sorted(int(match[1]) for key in told if (match := re.fullmatch(r"Segment(0|[1-9][0-9]{0,8})_ID", key)))
    return [_slicer_segment(path, told, number) for number in numbers]


def _slicer_segment(path: Path, told: dict[str, str], number: int) -> _Segment:
    """One segment from its keys; its code is the type in "TerminologyEntry:context~category~type~modifier~..."."""
    name = told.get(f"Segment{number}_Name") or told[f"Segment{number}_ID"]
    own_layer = number if f"Segment{number}_LabelValue" not in told else 0
    try:
        value, layer = (
            int(told.get(f"Segment{number}_LabelValue", 1)),
            int(told.get(f"Segment{number}_Layer", own_layer)),
        )
    except ValueError:
        value, layer = -1, -1
    if value < 1 or layer < 0:
        raise InputError(f"{path} gives '{name}' a label value or layer that can't be: save it again from 3D Slicer.")
    entry = re.search(r"TerminologyEntry:([^|]*)", told.get(f"Segment{number}_Tags", ""))
    parts = entry[1].split("~") if entry else []
    scheme, _, code = parts[2].partition("^") if len(parts) > 2 else ("", "", "")
    return _Segment(name, value, layer, code.partition("^")[0] if scheme == "SCT" else None)


def _nifti_segments(path: Path, image: sitk.Image, anatomy: Anatomy) -> list[_Segment]:
    """The segments with voxels of a label map in NIfTI that tells their names, if the table knows any."""
    names = label_names(path) if suffix_of(path) in (".nii", ".nii.gz") else {}
    if not names:
        return []
    (values,) = _one_layer(path, image)
    found = np.unique(values).tolist()
    if not any(anatomy.place(names[value]) for value in found if value in names):
        return []
    if unnamed := [str(value) for value in found if value and value not in names]:
        raise InputError(
            f"{path} has the values {', '.join(unnamed[:12])}, which its own label table doesn't name: name or clear "
            "them."
        )
    return [_Segment(names[value], value) for value in found if value]


def _value_segments(path: Path, image: sitk.Image, anatomy: Anatomy) -> list[_Segment]:
    """The organs in a label map without names, by its values: organ labels or, if not all are, organ grays."""
    (values,) = _one_layer(path, image)
    found = np.unique(values)
    by_label = {organ.label: organ for organ in anatomy.organs}
    by_gray = {organ.gray: organ for organ in anatomy.organs}
    for table in (by_label, by_gray):
        if table.keys() >= set(found.tolist()):
            return [_Segment(table[value].name, value) for value in found.tolist() if value]
    some = ", ".join(map(str, found[:12])) + (", ..." if len(found) > 12 else "")
    labels, grays = ", ".join(map(str, by_label)), ", ".join(map(str, by_gray))
    raise InputError(f"{path} has the values {some}; '{anatomy.name}' has the labels {labels} or the grays {grays}.")


def _one_layer(path: Path, image: sitk.Image) -> np.ndarray:
    layers = _layers(path, image)
    if len(layers) > 1:
        raise InputError(
            f"{path} has {len(layers)} values a voxel and names no segments: give a label map or a .seg.nrrd."
        )
    return layers


def _find_nnunet(folder: Path) -> Iterator[CaseFiles]:
    """The cases of an nnU-Net raw data set (dataset.json of version 1 or 2, imagesTr, labelsTr)."""
    segments, ending = _read_dataset_json(folder / "dataset.json")
    first_channel = f"_0000{ending}"
    images = sorted((folder / "imagesTr").glob(f"*{first_channel}"))
    if not images:
        raise InputError(f"{folder} has no training images: imagesTr/*{first_channel} is missing.")
    for path in images:
        case_id = path.name.removesuffix(first_channel)
        yield CaseFiles(case_id, path, folder / "labelsTr" / f"{case_id}{ending}", tuple(segments))


def _read_dataset_json(path: Path) -> tuple[list[_Segment], str]:
    """The named labels of a data set, background left out, and the ending of its files."""
    try:
        told = read_json(path)
        labels, ending = told["labels"], told.get("file_ending", ".nii.gz")
        # Version 1 says {"1": "lung"}, version 2 {"lung": 1}; regions, {"lung": [1, 2]}, overlap and are refused.
        pairs = [(name, value) if str(value).isdecimal() else (value, name) for name, value in labels.items()]
        segments = [_Segment(str(name), int(value)) for name, value in pairs if int(value) > 0]
    except (OSError, ValueError, OverflowError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is no nnU-Net dataset.json: it needs 'labels', one value a name.") from error
    if suffix_of(Path(f"x{ending}")) != str(ending).lower():
        raise InputError(f"{path} gives the file ending '{ending}': use .nii.gz, .nrrd or .mha.")
    return segments, ending


def _check_values(path: Path, values: np.ndarray, segments: Sequence[_Segment]) -> None:
    found = set(np.unique(values).tolist())
    if any(segment.name.lower() == _IGNORED and segment.value in found for segment in segments):
        raise InputError(f"{path} has voxels labelled 'ignore', which teach nothing: label them, or leave it out.")
    unknown = found - {0, *(segment.value for segment in segments)}
    if unknown:
        some = ", ".join(map(str, sorted(unknown)[:12]))
        raise InputError(f"{path} has the values {some}, which its dataset.json doesn't name.")
