"""Labels by thresholds: on a drawn chest in every orientation, on real cases, and in the demo's content."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import OBLIQUE, Refused
from CTStyleGenCore.__main__ import main
from CTStyleGenCore.anatomy import Anatomy, load_anatomy
from CTStyleGenCore.cases import read_case
from CTStyleGenCore.labelling import find_body, label_chest, with_body

ORGANS = ("body", "lungs", "mediastinum", "bone", "spinal canal")


def draw_chest(heart_hu: int = 40, slices: int = 3) -> tuple[sitk.Image, np.ndarray]:
    """A chest on a table, LPS, 2 x 2 x 5 mm, with noise of 20 HU, and the truth as labels (k, j, i)."""
    row, column = np.mgrid[0:150, 0:180] * 2.0

    def ellipse(x: float, y: float, a: float, b: float) -> np.ndarray:
        return ((column - x) / a) ** 2 + ((row - y) / b) ** 2 < 1

    truth = np.zeros(row.shape, np.uint8)
    hu = np.full(row.shape, -1000.0)
    hu[abs(row - 262) < 5] = 300  # the table
    for organ, value, shape in (
        (1, 40, ellipse(180, 140, 160, 110)),
        (2, -850, ellipse(105, 130, 58, 78)),
        (2, -850, ellipse(255, 130, 58, 78)),
        (3, heart_hu, ellipse(185, 115, 45, 50)),
        (3, heart_hu, ellipse(222, 172, 11, 11)),  # the aorta, left of the spine
        (4, 400, ellipse(180, 185, 20, 17) | ellipse(180, 209, 16, 15) | ellipse(180, 48, 20, 5)),
        (5, 30, ellipse(180, 207, 9, 8)),
    ):
        truth[shape], hu[shape] = organ, value
    volume = np.repeat(hu[None], slices, 0) + np.random.default_rng(0).normal(0, 20, (slices, *hu.shape))
    ct = sitk.GetImageFromArray(volume.round().astype(np.int16))
    ct.SetSpacing((2, 2, 5))
    ct.SetOrigin((-180, -150, 40))
    return ct, np.repeat(truth[None], slices, 0)


def dice(found: np.ndarray, truth: np.ndarray, label: int) -> float:
    """2 |A and B| / (|A| + |B|) of one label."""
    return 2 * np.sum((found == label) & (truth == label)) / (np.sum(found == label) + np.sum(truth == label))


@pytest.mark.parametrize("slices", [1, 3])
@pytest.mark.parametrize("heart_hu", [40, 450])
def test_a_drawn_chest_is_found_with_and_without_contrast(thorax: Anatomy, heart_hu: int, slices: int) -> None:
    ct, truth = draw_chest(heart_hu, slices)
    found = sitk.GetArrayFromImage(label_chest(ct, thorax))
    scores = {name: dice(found, truth, thorax.organ(name).label) for name in ORGANS}
    assert dice(found > 0, truth > 0, True) > 0.99 and scores["lungs"] > 0.99
    assert min(scores["bone"], scores["spinal canal"]) > 0.95, scores
    assert np.mean(found[truth == 3] == 3) > 0.95  # heart and aorta are mediastinum, contrast or not
    assert not found[:, 125:].any()  # neither table nor air


@pytest.mark.parametrize("orientation", ["RAS", "LPI", "PIL", "RAI", "SLP"])
def test_orientation_changes_nothing_but_the_order_of_voxels(thorax: Anatomy, orientation: str) -> None:
    ct, _ = draw_chest()
    turned = sitk.DICOMOrient(ct, orientation)
    labels = label_chest(turned, thorax)
    assert labels.GetPixelID() == sitk.sitkUInt8 and labels.GetSize() == turned.GetSize()
    assert (labels.GetOrigin(), labels.GetDirection()) == (turned.GetOrigin(), turned.GetDirection())
    back = sitk.GetArrayFromImage(sitk.DICOMOrient(labels, "LPS"))
    assert np.array_equal(back, sitk.GetArrayFromImage(label_chest(ct, thorax)))


def test_a_turned_grid_keeps_its_geometry(thorax: Anatomy) -> None:
    ct, truth = draw_chest()
    ct.SetDirection(OBLIQUE)
    labels = label_chest(ct, thorax)
    assert labels.GetDirection() == ct.GetDirection() and labels.GetOrigin() == ct.GetOrigin()
    assert dice(sitk.GetArrayFromImage(labels), truth, 2) > 0.97


def test_what_is_no_chest_is_refused(thorax: Anatomy, refused: Refused) -> None:
    ct, _ = draw_chest()
    assert "No lungs" in refused(label_chest, ct * 0, thorax)
    assert "No lungs" in refused(label_chest, ct * 0 - 1000, thorax)
    assert "lctsc" in refused(label_chest, ct, load_anatomy("lctsc"))


@pytest.mark.parametrize("case_id", ["A048383-2", "A056642-1", "TCGA-17-Z013", "TCGA-17-Z045", "TCGA-60-2695"])
def test_real_bodies_are_found(shared: Path, thorax: Anatomy, case_id: str) -> None:
    case = read_case(shared / "cases" / case_id, thorax)
    truth = sitk.GetArrayFromImage(case.labels)
    body = find_body(case.ct)
    assert body is not None and dice(sitk.GetArrayFromImage(body) > 0, truth > 0, True) > 0.998
    assert not case.body_found  # it is labelled
    for parts in ((2, 3, 4, 5), (2,)):  # as organs alone are
        organs = sitk.GetImageFromArray(truth * np.isin(truth, parts).astype(np.uint8))
        organs.CopyInformation(case.labels)
        assert with_body(organs, thorax, case.ct)[1]


def test_the_command_body(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ct, truth = draw_chest()
    paths = [str(tmp_path / name) for name in ("ct.nrrd", "body.nii.gz", "air.nrrd", "none.nrrd")]
    sitk.WriteImage(ct, paths[0])
    assert main(["body", "--ct", paths[0], "--output", paths[1], "--json"]) == 0
    events = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [event.get("done") for event in events] == [1, 2, 3, None] and events[-1]["outputs"] == [paths[1]]
    body = sitk.ReadImage(paths[1])
    assert body.GetPixelID() == sitk.sitkUInt8 and body.GetSize() == ct.GetSize()
    assert dice(sitk.GetArrayFromImage(body), (truth > 0).astype(np.uint8), 1) > 0.99
    sitk.WriteImage(ct * 0 - 1000, paths[2])
    assert main(["body", "--ct", paths[2], "--output", paths[3]]) == 2
    assert f"{paths[2]} shows no air around a body" in capfd.readouterr().err and not Path(paths[3]).exists()


# With contrast in the heart, and without. (The stacks take 10 s each.)
@pytest.mark.parametrize("case_id", ["TCGA-17-Z039", "A056642-1", "TCGA-17-Z013", "TCGA-17-Z034"])
def test_real_slices_are_labelled_as_by_those_who_looked(shared: Path, thorax: Anatomy, case_id: str) -> None:
    case = read_case(shared / "cases" / case_id, thorax)
    found, truth = map(sitk.GetArrayFromImage, (label_chest(case.ct, thorax), case.labels))
    scores = [dice(found, truth, thorax.organ(name).label) for name in ORGANS[:4]]
    assert np.all(np.array(scores) > (0.97, 0.95, 0.7, 0.8)), dict(zip(ORGANS, scores, strict=False))
