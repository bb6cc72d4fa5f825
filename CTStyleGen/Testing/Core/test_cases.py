"""Segmentations and cases: Slicer's files against slicerio's reading, label maps, folders, nnU-Net, and bad input."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import slicerio
from conftest import LEFT_HANDED, OBLIQUE, Refused, image, noise
from CTStyleGenCore.anatomy import Anatomy, load_anatomy
from CTStyleGenCore.cases import (
    Case,
    SourceLabel,
    find_cases,
    read_case,
    read_cases,
    read_ct,
    read_labels,
    write_volume,
)

CHEST, PLAIN, OVERLAPPING = map(
    slicerio.get_testdata_file, ("CTChest4.nrrd", "Segmentation.seg.nrrd", "SegmentationOverlapping.seg.nrrd")
)
CODES = {"body": "22943007", "lungs": "39607008", "mediastinum": "72410000", "bone": "272673000"}


def described(name: str, code: str | None = None, scheme: str = "SCT") -> dict:
    """A segment's fields for slicerio, with terminology if there is a code."""
    fields: dict = {"id": name, "name": name, "color": [1.0, 0.0, 0.0]}
    if code:
        fields["terminology"] = {
            "contextName": "Segmentation category and type - 3D Slicer General Anatomy list",
            "category": ["SCT", "123037004", "Anatomical Structure"],
            "type": [scheme, code, "Something"],
        }
    return fields


def write_segmentation(
    path: Path, segments: list[tuple[dict, np.ndarray]], ijk_to_lps: np.ndarray | None = None
) -> Path:
    """A .seg.nrrd by slicerio; masks are (i, j, k)."""
    matrix = np.diag([0.7, 0.9, 2.5, 1.0]) if ijk_to_lps is None else ijk_to_lps
    segmentation = slicerio.create_segmentation(segments[0][1].shape, matrix)
    for fields, mask in segments:
        slicerio.add_segment(segmentation, mask, fields)
    slicerio.write_segmentation(str(path), segmentation)
    return path


def box(*corner: slice, shape: tuple[int, ...] = (8, 9, 5)) -> np.ndarray:
    """A mask, (i, j, k), of that box."""
    mask = np.zeros(shape, bool)
    mask[corner] = True
    return mask


@pytest.mark.parametrize("path", [PLAIN, OVERLAPPING])
def test_slicers_own_files_read_as_slicerio_reads_them(thorax: Anatomy, path: str) -> None:
    labels, reports = read_labels(path, thorax, read_ct(CHEST))
    truth = slicerio.read_segmentation(path)
    expected = np.zeros(truth["voxels"].shape[-3:], np.uint8)
    for organ, names in (
        ("body", ["tissue"]),
        ("lungs", ["right lung", "left lung"]),
        ("bone", ["ribs", "cervical vertebral column", "thoracic vertebral column", "lumbar vertebral column"]),
    ):
        for name in names:
            expected[slicerio.segment_mask(truth, name)] = thorax.organ(organ).label
    assert np.array_equal(sitk.GetArrayFromImage(labels).T, expected)
    assert [report.segment for report in reports] == [segment["name"] for segment in truth["segments"]]
    for report in reports:
        assert report.voxels == slicerio.segment_mask(truth, report.segment).sum()
    unknown = [report.segment for report in reports if report.organ is None]
    assert unknown == (["overlapping sphere"] if path == OVERLAPPING else [])


def test_labels_lie_exactly_on_the_reference(thorax: Anatomy) -> None:
    ct = read_ct(CHEST)
    labels, _ = read_labels(PLAIN, thorax, ct)
    assert (labels.GetSize(), labels.GetOrigin(), labels.GetSpacing(), labels.GetDirection()) == (
        ct.GetSize(),
        ct.GetOrigin(),
        ct.GetSpacing(),
        ct.GetDirection(),
    )
    assert labels.GetPixelID() == sitk.sitkUInt8 and labels.GetMetaDataKeys() == ()


def test_the_organ_later_in_the_table_wins_whatever_the_order_of_segments(thorax: Anatomy, tmp_path: Path) -> None:
    body, heart, bone = box(slice(0, 8)), box(slice(2, 6)), box(slice(5, 7))
    named = [(described("Koerper", CODES["body"]), body), (described("heart"), heart), (described("Bone"), bone)]
    for number, segments in enumerate((named, named[::-1])):
        path = write_segmentation(tmp_path / f"{number}.seg.nrrd", segments)
        path.write_bytes(path.read_bytes().replace(b"Koerper", "Körper".encode()))  # as Slicer writes names: in UTF-8
        labels, reports = read_labels(path, thorax)
        assert sitk.GetArrayFromImage(labels)[0, 0].tolist() == [1, 1, 3, 3, 3, 4, 4, 1]
        counts = {report.segment: (report.organ, report.voxels, report.overlapped) for report in reports}
        assert counts == {
            "Körper": ("body", 360, 225),
            "heart": ("mediastinum", 180, 45),
            "Bone": ("bone", 90, 0),
        }


def test_a_code_of_another_scheme_and_a_generic_one_leave_it_to_the_name(thorax: Anatomy, tmp_path: Path) -> None:
    path = write_segmentation(
        tmp_path / "s.seg.nrrd",
        [
            (described("left lung", CODES["bone"], scheme="SRT"), box(slice(0, 2))),
            (described("Segment_1", "85756007"), box(slice(2, 4))),
            (described("my drawing", CODES["mediastinum"]), box(slice(4, 6))),
            (described("empty bone", CODES["bone"]), box(slice(0, 0))),
        ],
    )
    labels, reports = read_labels(path, thorax)
    assert [report.organ for report in reports] == ["lungs", None, "mediastinum", "bone"]
    assert reports[3].voxels == 0
    assert sitk.GetArrayFromImage(labels)[0, 0].tolist() == [2, 2, 0, 0, 3, 3, 0, 0]


def test_files_from_before_slicer_4_11_have_a_layer_a_segment(thorax: Anatomy, tmp_path: Path) -> None:
    layers = np.stack([box(slice(0, 4)).T, box(slice(2, 6)).T], axis=-1).astype(np.uint8)
    old = sitk.GetImageFromArray(layers, isVector=True)
    for number, name in enumerate(("body", "lungs")):
        old.SetMetaData(f"Segment{number}_ID", name)
        old.SetMetaData(f"Segment{number}_Name", name)
    sitk.WriteImage(old, str(tmp_path / "old.seg.nrrd"))
    labels, _ = read_labels(tmp_path / "old.seg.nrrd", thorax)
    assert sitk.GetArrayFromImage(labels)[0, 0].tolist() == [1, 1, 2, 2, 2, 2, 0, 0]


def test_a_cropped_segmentation_lands_where_it_was_cropped_from(thorax: Anatomy, tmp_path: Path) -> None:
    matrix = np.diag([0.7, 0.9, 2.5, 1.0])
    matrix[:3, 3] = (2 * 0.7, 3 * 0.9, 1 * 2.5)
    path = write_segmentation(tmp_path / "s.seg.nrrd", [(described("lungs"), np.ones((3, 2, 2), bool))], matrix)
    labels, _ = read_labels(path, thorax, image(noise(), origin=(0, 0, 0)))
    expected = np.zeros((5, 9, 8), np.uint8)
    expected[1:3, 3:5, 2:5] = 2
    assert np.array_equal(sitk.GetArrayFromImage(labels), expected)


@pytest.mark.parametrize(
    "direction", [OBLIQUE, LEFT_HANDED, (0, 1, 0, 1, 0, 0, 0, 0, 1), (-1, 0, 0, 0, -1, 0, 0, 0, 1)]
)
def test_another_grid_is_resampled_to_the_nearest_voxel(
    thorax: Anatomy, tmp_path: Path, direction: tuple[float, ...]
) -> None:
    values = np.random.default_rng(3).integers(1, 6, (7, 12, 11)).astype(np.uint8)
    ct, labels = image(noise()), image(values, (1.1, 1.3, 3.1), direction=direction)
    middles = [
        part.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in part.GetSize()]) for part in (ct, labels)
    ]
    labels.SetOrigin(np.add(labels.GetOrigin(), np.subtract(*middles) + 0.3).tolist())
    write_volume(labels, tmp_path / "labels.nrrd")
    got, _ = read_labels(tmp_path / "labels.nrrd", thorax, ct)
    for index in np.ndindex(*ct.GetSize()):
        at = labels.TransformPhysicalPointToContinuousIndex(ct.TransformIndexToPhysicalPoint(index))
        nearest = np.floor(np.add(at, 0.5)).astype(int)
        if np.min(np.abs(np.subtract(at, np.floor(at)) - 0.5)) < 1e-6:
            continue  # halfway between two
        inside = np.all(nearest >= 0) and np.all(nearest < labels.GetSize())
        assert got[index] == (values[tuple(nearest[::-1])] if inside else 0)


@pytest.mark.parametrize("name", ["labels.nrrd", "labels.nii.gz", "labels.mha"])
@pytest.mark.parametrize("as_gray", [False, True])
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32])
def test_label_maps_hold_labels_or_grays(thorax: Anatomy, tmp_path: Path, name: str, as_gray: bool, kind: type) -> None:
    truth = np.random.default_rng(0).integers(0, 6, (5, 9, 8))
    values = np.array([organ.gray for organ in thorax.organs])[truth] if as_gray else truth
    write_volume(image(values.astype(kind)), tmp_path / name)
    labels, reports = read_labels(tmp_path / name, thorax)
    assert np.array_equal(sitk.GetArrayFromImage(labels), truth)
    assert {report.organ: report.voxels for report in reports} == {
        organ.name: int((truth == organ.label).sum()) for organ in thorax.organs[1:]
    }


def write_labels(path: Path, values: np.ndarray) -> Path:
    sitk.WriteImage(image(values), str(path))
    return path


def test_values_that_the_table_does_not_know_are_listed(thorax: Anatomy, tmp_path: Path, refused: Refused) -> None:
    values = np.arange(40, dtype=np.int16).reshape(2, 4, 5)
    message = refused(read_labels, write_labels(tmp_path / "l.nrrd", values), thorax)
    assert "0, 1, 2" in message and "..." in message and "230" in message
    for wrong in (values - 5, values + 0.5, np.full((2, 4, 5), np.nan), values * 10_000.0):
        refused(read_labels, write_labels(tmp_path / "l.nrrd", wrong.astype(np.float32)), thorax)


def test_an_empty_label_map_is_refused(thorax: Anatomy, tmp_path: Path, refused: Refused) -> None:
    refused(read_labels, write_labels(tmp_path / "l.nrrd", np.zeros((2, 4, 5), np.uint8)), thorax)


def test_a_segmentation_without_known_segments_names_them(thorax: Anatomy, tmp_path: Path, refused: Refused) -> None:
    path = write_segmentation(tmp_path / "s.seg.nrrd", [(described("tumor"), box(slice(2, 4)))])
    message = refused(read_labels, path, thorax)
    assert "'tumor'" in message and "spinal canal" in message
    path = write_segmentation(tmp_path / "s.seg.nrrd", [(described("lungs"), box(slice(0, 0)))])
    assert "empty" in refused(read_labels, path, thorax)


def test_a_fractional_segmentation_is_refused(thorax: Anatomy, tmp_path: Path, refused: Refused) -> None:
    segmentation = slicerio.read_segmentation(PLAIN)
    segmentation["masterRepresentation"] = "Fractional labelmap"
    slicerio.write_segmentation(str(tmp_path / "s.seg.nrrd"), segmentation)
    assert "Fractional" in refused(read_labels, tmp_path / "s.seg.nrrd", thorax)


def test_a_segmentation_elsewhere_in_space_is_refused_and_a_partial_one_is_not(
    thorax: Anatomy, tmp_path: Path, refused: Refused
) -> None:
    path = write_segmentation(tmp_path / "s.seg.nrrd", [(described("lungs"), np.ones((8, 9, 5), bool))])
    assert "overlap" in refused(read_labels, path, thorax, image(noise(), origin=(500, 0, 0)))
    labels, _ = read_labels(path, thorax, image(noise(), origin=(6 * 0.7, 0, 0)))
    assert sitk.GetArrayFromImage(labels)[0, 0].tolist() == [2, 2, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("told", [b"Segment0_LabelValue:=0", b"Segment0_LabelValue:=x", b"Segment0_Layer:=-1"])
def test_a_value_or_layer_that_cannot_be_is_refused(
    thorax: Anatomy, tmp_path: Path, refused: Refused, told: bytes
) -> None:
    key = told.split(b":=")[0]
    data = Path(PLAIN).read_bytes()
    start = data.index(key)
    (tmp_path / "s.seg.nrrd").write_bytes(data[:start] + told + data[data.index(b"\n", start) :])
    assert "'ribs'" in refused(read_labels, tmp_path / "s.seg.nrrd", thorax)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.99])
def test_a_segmentation_cut_short_is_refused(thorax: Anatomy, tmp_path: Path, refused: Refused, share: float) -> None:
    whole = Path(PLAIN).read_bytes()
    (tmp_path / "s.seg.nrrd").write_bytes(whole[: int(share * len(whole))])
    refused(read_labels, tmp_path / "s.seg.nrrd", thorax)


def make_case(folder: Path, ct: str = "ct.nrrd", labels: str = "labels.nrrd") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_volume(image(noise()), folder / ct)
    write_volume(image(np.random.default_rng(0).integers(0, 6, (5, 9, 8)).astype(np.uint8)), folder / labels)
    return folder


def test_a_folder_of_cases_is_read_in_order(thorax: Anatomy, tmp_path: Path) -> None:
    make_case(tmp_path / "b", "ct.nii.gz", "labels.nii.gz")
    make_case(tmp_path / "a", "CT.mha")
    make_case(tmp_path / ".hidden").joinpath("ct.nrrd").unlink()
    (tmp_path / "c").mkdir()
    shutil.copy(CHEST, tmp_path / "c" / "ct.nrrd")
    shutil.copy(PLAIN, tmp_path / "c" / "Segmentation.seg.nrrd")
    cases = read_cases(tmp_path, thorax)
    assert [case.case_id for case in cases] == ["a", "b", "c"]
    assert all(case.labels.GetSize() == case.ct.GetSize() for case in cases)
    assert len(cases[2].segments) == 7


def test_the_users_own_values_are_kept(thorax: Anatomy, tmp_path: Path) -> None:
    folder = make_case(tmp_path / "a")
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "labels.nrrd")))
    grays = np.array([organ.gray for organ in thorax.organs], np.uint8)[labels]
    write_volume(image(grays), folder / "labels.nrrd")
    (files,) = find_cases(tmp_path)
    source, table = files.read_source(thorax, read_ct(files.ct))
    assert np.array_equal(sitk.GetArrayFromImage(source), grays)
    assert table[:2] == (SourceLabel(50, "body", None, "body"), SourceLabel(100, "lungs", None, "lungs"))


def test_a_slicer_segmentation_keeps_its_values_where_segments_of_an_organ_are_several(
    thorax: Anatomy, tmp_path: Path
) -> None:
    folder = make_case(tmp_path / "a")
    (folder / "labels.nrrd").unlink()
    shutil.copy(CHEST, folder / "ct.nrrd")
    shutil.copy(PLAIN, folder / "segmentation.seg.nrrd")
    (files,) = find_cases(tmp_path)
    case = files.read(thorax)
    source, table = files.read_source(thorax, case.ct)
    values, labels, told = (sitk.GetArrayFromImage(i) for i in (source, case.labels, sitk.ReadImage(PLAIN)))
    organ_of = {row.value: thorax.organ(row.organ).label for row in table}
    assert len(organ_of) > len(set(organ_of.values()))  # several segments of one organ
    assert np.array_equal(np.vectorize(lambda value: organ_of.get(value, 0))(values), labels)
    assert np.array_equal(values, np.where(np.isin(told, list(organ_of)), told, 0))


def test_a_case_may_hold_dicom_beside_its_segmentation(shared: Path, thorax: Anatomy, tmp_path: Path) -> None:
    folder = tmp_path / "LIDC"
    shutil.copytree(shared / "dicom" / "LIDC-IDRI-0001", folder)
    shutil.copy(shared / "cases" / "LIDC-IDRI-0001" / "segmentation.seg.nrrd", folder)
    from_dicom, from_nrrd = read_case(folder, thorax), read_case(shared / "cases" / "LIDC-IDRI-0001", thorax)
    for part in ("ct", "labels"):
        one, other = (sitk.GetArrayFromImage(getattr(case, part)) for case in (from_dicom, from_nrrd))
        assert np.array_equal(one, other)


@pytest.mark.parametrize(
    ("break_it", "told"),
    [
        (lambda folder: (folder / "ct.nrrd").unlink(), "no CT"),
        (lambda folder: (folder / "labels.nrrd").unlink(), "has 0"),
        (lambda folder: shutil.copy(folder / "labels.nrrd", folder / "labels.nii.gz"), "has 2"),
        (lambda folder: shutil.copy(folder / "ct.nrrd", folder / "ct.mha"), "more than one CT"),
        (lambda folder: (folder / "ct.nrrd").write_text("x"), "ct.nrrd"),
        (lambda folder: shutil.rmtree(folder), "no cases"),
    ],
)
def test_broken_cases_are_refused(
    thorax: Anatomy, tmp_path: Path, refused: Refused, break_it: Callable[[Path], object], told: str
) -> None:
    break_it(make_case(tmp_path / "cases" / "a"))
    assert told in refused(read_cases, tmp_path / "cases", thorax)


def test_a_missing_folder_and_a_case_for_its_folder_are_refused(
    thorax: Anatomy, tmp_path: Path, refused: Refused
) -> None:
    assert "doesn't exist" in refused(read_cases, tmp_path / "nowhere", thorax)
    assert "doesn't exist" in refused(read_case, tmp_path / "nowhere", thorax)
    assert "case itself" in refused(read_cases, make_case(tmp_path / "a"), thorax)


def make_nnunet(folder: Path, told: dict, ending: str = ".nii.gz") -> np.ndarray:
    """An nnU-Net raw data set of one case; label 1 of its map is placed by what `told` calls it."""
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(0).integers(0, 3, (5, 9, 8)).astype(np.uint8)
    write_volume(image(noise()), folder / "imagesTr" / f"chest_001_0000{ending}")
    write_volume(image(values), folder / "labelsTr" / f"chest_001{ending}")
    (folder / "dataset.json").write_text(json.dumps(told), encoding="utf-8")
    return values


def write_masks(folder: Path, masks: dict[str, np.ndarray]) -> Path:
    """A case as TotalSegmentator's data set has it: ct.nii.gz, and a file a class."""
    (folder / "segmentations").mkdir(parents=True)
    sitk.WriteImage(image(noise((5, 9, 8))), str(folder / "ct.nii.gz"))
    for name, mask in masks.items():
        sitk.WriteImage(image(mask.T.astype(np.uint8)), str(folder / "segmentations" / name))
    return folder


def test_one_mask_a_segment(thorax: Anatomy, tmp_path: Path) -> None:
    body, heart, rib = box(slice(0, 8)), box(slice(2, 6)), box(slice(5, 7))
    names = ("rib_left_4.nii.gz", "body.nii.gz", "heart.nii.gz", "Tumor.nrrd")
    masks = dict(zip(names, (rib, body, heart, box(slice(7, 8))), strict=True))
    write_masks(tmp_path / "s0001", masks)
    (case,) = read_cases(tmp_path, thorax)
    assert sitk.GetArrayFromImage(case.labels)[0, 0].tolist() == [1, 1, 3, 3, 3, 4, 4, 1]
    assert {report.segment: report.organ for report in case.segments} == {
        **{"Tumor": None, "body": "body", "heart": "mediastinum"},
        "rib_left_4": "bone",
    }
    (files,) = find_cases(tmp_path)
    _, table = files.read_source(thorax, case.ct)
    assert [row.name for row in table] == ["body", "heart", "rib_left_4"]


def test_masks_that_are_none(thorax: Anatomy, tmp_path: Path, refused: Refused) -> None:
    folder = write_masks(tmp_path / "A", {"body.nii.gz": 2 * box(slice(0, 8))})
    assert "is no mask: it has values up to 2" in refused(read_case, folder, thorax)
    folder = write_masks(tmp_path / "B", {"body.nii.gz": box(slice(0, 8)), "heart.nii.gz": box(slice(2, 6))})
    other = image(box(slice(2, 6)).T.astype(np.uint8), spacing=(1, 1, 1))
    sitk.WriteImage(other, str(folder / "segmentations" / "heart.nii.gz"))
    assert "heart.nii.gz lies in another voxel grid than other masks" in refused(read_case, folder, thorax)
    twice = {"body.nii.gz": box(slice(0, 8)), "body.nrrd": box(slice(2, 6))}
    assert "two masks of one name, body.nii.gz and body.nrrd" in refused(
        read_case, write_masks(tmp_path / "D", twice), thorax
    )
    folder = write_masks(tmp_path / "C", {})
    assert "has no masks" in refused(read_case, folder, thorax)
    sitk.WriteImage(image(np.ones((5, 9, 8), np.uint8)), str(folder / "labels.nrrd"))
    assert "has 2 of these" in refused(read_case, folder, thorax)
    (folder / "labels.nrrd").unlink()
    (folder / "ct.nii.gz").unlink()
    assert "has no CT" in refused(read_case, folder, thorax)


def test_masks_have_one_value_a_name_in_all_cases(thorax: Anatomy, tmp_path: Path) -> None:
    lung, brain = box(slice(0, 4)), box(slice(4, 6))
    write_masks(tmp_path / "a", {"lung_left.nii.gz": lung})
    write_masks(tmp_path / "b", {"lung_left.nii.gz": lung, "brain.nii.gz": brain, "body.nii.gz": box(slice(0, 8))})
    tables = [files.read_source(thorax, files.read(thorax).ct)[1] for files in find_cases(tmp_path)]
    values = [{row.name: row.value for row in table} for table in tables]
    assert values[0]["lung_left"] == values[1]["lung_left"]


@pytest.mark.parametrize(
    ("told", "ending"),
    [
        ({"labels": {"background": 0, "spinal_cord": 1, "lung_left": 2}, "file_ending": ".nrrd"}, ".nrrd"),
        ({"labels": {"background": 0, "spinal_cord": 1, "lung_left": 2}, "file_ending": ".nii.gz"}, ".nii.gz"),
        ({"labels": {"0": "background", "1": "spinal_cord", "2": "lung_left"}}, ".nii.gz"),
    ],
)
def test_nnunet_labels_are_placed_by_name(thorax: Anatomy, tmp_path: Path, told: dict, ending: str) -> None:
    values = make_nnunet(tmp_path, told, ending)
    (case,) = read_cases(tmp_path, thorax)
    assert case.case_id == "chest_001"
    assert np.array_equal(sitk.GetArrayFromImage(case.labels)[values > 0], np.array([0, 5, 2])[values[values > 0]])
    assert [(report.segment, report.organ) for report in case.segments] == [
        ("spinal_cord", "spinal canal"),
        ("lung_left", "lungs"),
    ]


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"labels": {"lung": [1, 2]}},
        {"labels": {"lung": 1}},
        {"labels": {"a": 1, "b": 2}},
        {"labels": []},
        {"labels": {"lung": 1, "ignore": 2}},
        {"labels": {"lung": 1, "heart": 2}, "file_ending": "png"},
        {"labels": {"lung": 1, "heart": 2}, "file_ending": ".nrrd"},
        [],
    ],
)
def test_broken_nnunet_data_sets_are_refused(thorax: Anatomy, tmp_path: Path, refused: Refused, told: dict) -> None:
    make_nnunet(tmp_path, told)
    refused(read_cases, tmp_path, thorax)


@pytest.fixture(scope="module")
def real_cases(shared: Path) -> list[Case]:
    return read_cases(shared / "cases", load_anatomy("thorax"))


def test_every_real_case_is_read_whole(real_cases: list[Case], shared: Path, thorax: Anatomy) -> None:
    assert [case.case_id for case in real_cases] == sorted(path.name for path in (shared / "cases").iterdir())
    for case in real_cases:
        ct, labels = map(sitk.GetArrayFromImage, (case.ct, case.labels))
        truth = slicerio.read_segmentation(str(shared / "cases" / case.case_id / "segmentation.seg.nrrd"))
        assert ct.shape[1:] == (512, 512) and ct.dtype == np.int16
        assert -1024 <= ct.min() < -900 and 500 < ct.max() <= 3071
        assert 0.4 < case.ct.GetSpacing()[0] < 1.1 and case.ct.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1)
        assert np.array_equal(labels, truth["voxels"].T)  # the shared cases use the labels of this table
        for report in case.segments:
            organ = thorax.organ(report.organ or "")
            if report.voxels:
                low, high = organ.plausible_hu
                assert low < ct[labels == organ.label].mean() < high, (case.case_id, report)
