"""What is told of organ labels: segments that the table doesn't know, and a body that isn't there."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import image
from CTStyleGenCore.__main__ import main
from CTStyleGenCore.anatomy import Anatomy, SegmentReport, load_anatomy
from CTStyleGenCore.cases import read_case, read_labels
from CTStyleGenCore.label_check import lacking
from CTStyleGenCore.labelling import fill_left_out, find_body, lacks_body, with_body
from CTStyleGenCore.slices import HuRange
from CTStyleGenCore.training_data import load_training_data
from phantoms import write_case, write_cases


def of(**voxels: int) -> list[SegmentReport]:
    """Reports of segments of so many voxels; those that begin with an x are unknown."""
    return [SegmentReport(name, None if name[0] == "x" else name, count, 0) for name, count in voxels.items()]


def test_unknown_segments_and_a_missing_body_are_told(thorax: Anatomy) -> None:
    assert list(lacking(of(body=9, lungs=9), thorax, False)) == []
    (unknown,) = lacking(of(body=9, xray=9, xenon=9, xempty=0), thorax, False)
    assert "'xray', 'xenon', which are left out" in unknown
    for reports in (of(lungs=9), of(lungs=9, body=0)):
        (bodiless,), (found,) = (lacking(reports, thorax, body_found) for body_found in (False, True))
        assert "nothing is labelled body" in bodiless and "counts as air" in bodiless
        assert "the body isn't labelled, so that it was found in the CT" in found
    lungs_alone = Anatomy("lungs", tuple(organ for organ in thorax.organs if organ.name in ("outside", "lungs")))
    assert list(lacking(of(lungs=9), lungs_alone, False)) == []


def like(labels: sitk.Image, values: np.ndarray) -> sitk.Image:
    """Labels of these values in the same grid."""
    made = sitk.GetImageFromArray(values.astype(np.uint8))
    made.CopyInformation(labels)
    return made


def without_body(folder: Path) -> np.ndarray:
    """Takes the body out of a case's labels, and returns them as they were."""
    path = folder / "labels.nrrd"
    labels = sitk.ReadImage(str(path))
    whole = sitk.GetArrayFromImage(labels)
    sitk.WriteImage(like(labels, np.where(whole == 1, 0, whole)), str(path))
    return whole


def test_a_body_that_is_lacking_is_found_in_the_ct(tmp_path: Path, thorax: Anatomy) -> None:
    whole = without_body(write_case(tmp_path / "A", slices=2))
    case = read_case(tmp_path / "A", thorax)
    found = sitk.GetArrayFromImage(case.labels)
    assert case.body_found and np.array_equal(found > 1, whole > 1)
    assert np.count_nonzero((found > 0) != (whole > 0)) < 0.02 * np.count_nonzero(whole)


def test_a_body_is_not_found_in_another_ct_and_not_where_there_is_one(tmp_path: Path, thorax: Anatomy) -> None:
    write_case(tmp_path / "A", slices=2)
    case = read_case(tmp_path / "A", thorax)
    assert not case.body_found and with_body(case.labels, thorax, case.ct)[0] is case.labels
    values = sitk.GetArrayFromImage(case.labels)
    lungs = like(case.labels, 2 * (values == 2))
    assert with_body(lungs, thorax, case.ct)[1]
    assert not with_body(lungs, thorax, case.ct * 0 - 1000)[1] and not with_body(lungs, thorax, None)[1]
    assert not with_body(like(lungs, 2 * np.roll(values == 2, 40, 2)), thorax, case.ct)[1]


def test_parts_of_a_body_are_no_body(tmp_path: Path, thorax: Anatomy) -> None:
    """A liver is taken for body, and so is a lesion that was cut out of the lung: the rest is found all the same."""
    whole = without_body(write_case(tmp_path / "A", slices=2))
    part = like(read_case(tmp_path / "A", thorax).labels, np.where(whole == 1, 0, whole))
    values = sitk.GetArrayFromImage(part)
    values[:, 20:30, 36:42][whole[:, 20:30, 36:42] == 1] = 1
    values[:, 40, 25] = 1
    assert 0 < np.count_nonzero(values == 1) < 0.1 * np.count_nonzero(whole == 1)
    sitk.WriteImage(like(part, values), str(tmp_path / "A" / "labels.nrrd"))
    case = read_case(tmp_path / "A", thorax)
    assert case.body_found
    assert np.count_nonzero((sitk.GetArrayFromImage(case.labels) > 0) != (whole > 0)) < 0.02 * np.count_nonzero(whole)


def trunk(wall_mm: float, arms: bool) -> tuple[sitk.Image, sitk.Image]:
    """A trunk of 310 x 210 mm, all lung but for its wall, on a table, with or without arms beside it; lung labels."""
    y, x = np.mgrid[-140:140:2.0, -240:240:2.0]

    def ellipse(at: float, a: float, b: float) -> np.ndarray:
        return ((x - at) / a) ** 2 + (y / b) ** 2 < 1

    lung = ellipse(0, 155 - wall_mm, 105 - wall_mm)
    dense = ellipse(0, 155, 105) | (abs(y - 125) < 4) | (arms & (ellipse(-205, 30, 45) | ellipse(205, 30, 45)))
    hu = np.repeat(np.select([lung, dense], [-850, 40], -1000)[None], 2, 0).astype(np.int16)
    images = sitk.GetImageFromArray(hu), sitk.GetImageFromArray(2 * np.repeat(lung[None], 2, 0).astype(np.uint8))
    for one in images:
        one.SetSpacing((2, 2, 5))
    return images


@pytest.mark.parametrize("wall_mm", [12, 40])
@pytest.mark.parametrize("arms", [False, True])
def test_once_found_a_body_is_no_longer_missing(thorax: Anatomy, wall_mm: float, arms: bool) -> None:
    ct, lungs = trunk(wall_mm, arms)
    labels, found = with_body(lungs, thorax, ct)
    assert found and with_body(labels, thorax, ct) == (labels, False)
    hu, values = map(sitk.GetArrayFromImage, (ct, labels))
    assert not lacks_body(hu, values, 0, (2, 2), thorax) and not values[:, 130:].any()  # nor is the table body


def test_a_body_is_added_in_slices_with_labels_alone(tmp_path: Path, thorax: Anatomy) -> None:
    whole = without_body(write_case(tmp_path / "A", slices=3))
    path = tmp_path / "A" / "labels.nrrd"
    labels = sitk.ReadImage(str(path))
    labels[:, :, 1] = 0
    sitk.WriteImage(labels, str(path))
    found = sitk.GetArrayFromImage(read_case(tmp_path / "A", thorax).labels)
    assert not found[1].any() and np.count_nonzero(found[0]) > 0.98 * np.count_nonzero(whole[0])


def test_hu_that_are_none_show_no_body(tmp_path: Path, thorax: Anatomy) -> None:
    without_body(write_case(tmp_path / "A", slices=2))
    case = read_case(tmp_path / "A", thorax)
    lungs = like(case.labels, 2 * (sitk.GetArrayFromImage(case.labels) == 2))
    assert with_body(lungs, thorax, case.ct)[1]
    padded = sitk.Clamp(case.ct, sitk.sitkInt16, -200)
    assert not with_body(lungs, thorax, case.ct + 1024)[1] and find_body(case.ct + 1024) is None
    assert not with_body(lungs, thorax, padded)[1]


def test_a_reference_gives_a_segmentation_its_body(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = without_body(write_case(tmp_path / "A", slices=2))
    given = ("--segmentation", str(tmp_path / "A" / "labels.nrrd"), "--count", "1", "--amount", "0")
    for name, reference in (("with", ("--reference", str(tmp_path / "A" / "ct.nrrd"))), ("without", ())):
        assert main(["vary", *given, *reference, "--output", str(tmp_path / name)]) == 0
    with_reference, without = (
        sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / name / "labels-001.nrrd"))) for name in ("with", "without")
    )
    assert np.count_nonzero((with_reference > 0) != (whole > 0)) < 0.02 * np.count_nonzero(whole)
    assert np.array_equal(without > 0, whole > 1)
    told = capfd.readouterr().err
    assert "found in the CT" in told and "what no organ covers counts as air" in told


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_what_is_left_out_inside_of_organs_is_body(thorax: Anatomy, axis: int) -> None:
    labels, left_out = np.zeros((3, 9, 9), np.uint8), np.zeros((3, 9, 9), bool)
    labels[1, 1:8, 1:8] = 2
    labels[1, 3:5, 3:5], left_out[1, 3:5, 3:5] = 0, True  # a lesion
    labels[1, 6, 6] = 0  # a hole that nothing covers
    labels[1, 4, 7], left_out[1, 4, 7:] = 0, True  # a drain, open to the outside
    expected = labels.copy()
    expected[1, 3:5, 3:5] = 1
    turned, left_out = np.moveaxis(labels, 0, axis), np.moveaxis(left_out, 0, axis)
    fill_left_out(turned, left_out, axis, thorax)
    assert np.array_equal(labels, expected)


def test_a_training_tells_it_once_for_all_cases(tmp_path: Path) -> None:
    folder = write_cases(tmp_path / "cases")
    for case in ("A", "B"):
        without_body(folder / case)
    data = load_training_data(folder, ("A",), load_anatomy("thorax"), 64, 2, 1, HuRange())
    (told,) = data.doubts
    assert told.startswith("A, B: the body isn't labelled, so that it was found in the CT by its HU: ")


def test_the_command_tells_of_segments_that_it_leaves_out(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    values = np.zeros((3, 40, 40), np.uint8)
    values[:, 5:35, 5:35], values[:, 10:20, 10:20] = 1, 2
    labels = image(values, spacing=(8, 8, 5))
    for number, name in enumerate(("body", "lesion")):
        labels.SetMetaData(f"Segment{number}_ID", f"Segment_{number}")
        labels.SetMetaData(f"Segment{number}_Name", name)
        labels.SetMetaData(f"Segment{number}_LabelValue", str(number + 1))
        labels.SetMetaData(f"Segment{number}_Layer", "0")
    path = tmp_path / "s.seg.nrrd"
    sitk.WriteImage(labels, str(path))
    assert np.array_equal(sitk.GetArrayFromImage(read_labels(path, load_anatomy("thorax"))[0]), values > 0)
    more = ("--count", "1", "--amount", "0", "--output", str(tmp_path / "new"))
    assert main(["vary", "--segmentation", str(path), *more]) == 0
    assert f"{path}: the organ table 'thorax' knows neither terminology nor name of 'lesion'" in capfd.readouterr().err
