"""What is told of organ labels: segments that the table doesn't know, and a body that isn't there."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import image
from CTStyleGenCore.__main__ import main
from CTStyleGenCore.anatomy import Anatomy, SegmentReport, load_anatomy
from CTStyleGenCore.label_check import lacking
from CTStyleGenCore.slices import HuRange
from CTStyleGenCore.training_data import load_training_data
from phantoms import write_cases


def of(**voxels: int) -> list[SegmentReport]:
    """Reports of segments of so many voxels; those that begin with an x are unknown."""
    return [SegmentReport(name, None if name[0] == "x" else name, count, 0) for name, count in voxels.items()]


def test_unknown_segments_and_a_missing_body_are_told(thorax: Anatomy) -> None:
    assert list(lacking(of(body=9, lungs=9), thorax)) == []
    (unknown,) = lacking(of(body=9, xray=9, xenon=9, xempty=0), thorax)
    assert "'xray', 'xenon', which are left out" in unknown
    for reports in (of(lungs=9), of(lungs=9, body=0)):
        (bodiless,) = lacking(reports, thorax)
        assert "nothing is labelled body" in bodiless
    lungs_alone = Anatomy("lungs", tuple(organ for organ in thorax.organs if organ.name in ("outside", "lungs")))
    assert list(lacking(of(lungs=9), lungs_alone)) == []


def without_body(folder: Path) -> None:
    path = folder / "labels.nrrd"
    labels = sitk.ReadImage(str(path))
    bodiless = sitk.GetImageFromArray(np.where(sitk.GetArrayFromImage(labels) == 1, 0, sitk.GetArrayFromImage(labels)))
    bodiless.CopyInformation(labels)
    sitk.WriteImage(bodiless, str(path))


def test_a_training_tells_it_once_for_all_cases(tmp_path: Path) -> None:
    folder = write_cases(tmp_path / "cases")
    for case in ("A", "B"):
        without_body(folder / case)
    data = load_training_data(folder, ("A",), load_anatomy("thorax"), 64, 2, 1, HuRange())
    assert [doubt[:36] for doubt in data.doubts] == ["A, B: nothing is labelled body, so t"]


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
    more = ("--count", "1", "--amount", "0", "--output", str(tmp_path / "new"))
    assert main(["vary", "--segmentation", str(path), *more]) == 0
    assert f"{path}: the organ table 'thorax' knows neither terminology nor name of 'lesion'" in capfd.readouterr().err
