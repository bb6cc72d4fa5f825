"""Names of labels in NIfTI headers: written by hand as the format says, read, and broken."""

import gzip
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import Refused, image
from CTStyleGenCore.anatomy import Anatomy
from CTStyleGenCore.cases import read_labels
from CTStyleGenCore.nifti_labels import label_names

VALUES = np.repeat(np.array([0, 5, 10, 77], np.uint8), 6)[None, None] * np.ones((3, 8, 1), np.uint8)
NAMES = {5: "liver", 10: "lung_upper_lobe_left", 77: "M&M <1>", 90: "brain"}


def table(names: dict[int, str], cdata: bool = True) -> bytes:
    """As TotalSegmentator writes it."""
    quoted = {value: name.replace("&", "&amp;").replace("<", "&lt;") for value, name in names.items()}
    text = {value: f"<![CDATA[{name}]]>" for value, name in names.items()} if cdata else quoted
    rows = "\n".join(f'<Label Key="{value}" Red="0.0" Alpha="1">{name}</Label>' for value, name in text.items())
    return f"<CaretExtension><VolumeInformation><LabelTable>{rows}</LabelTable></VolumeInformation>".encode()


def write(path: Path, *extensions: bytes) -> Path:
    """The label map as NIfTI-1 with these extensions."""
    plain = path.with_name("plain.nii")
    sitk.WriteImage(image(VALUES), str(plain))
    told = plain.read_bytes()
    more = b""
    for data in extensions:
        size = -(-(len(data) + 8) // 16) * 16
        more += struct.pack("<ii", size, 0) + data.ljust(size - 8, b"\0")
    header = told[:108] + struct.pack("<f", 352 + len(more)) + told[112:348]
    whole = header + bytes([bool(more), 0, 0, 0]) + more + told[352:]
    path.write_bytes(gzip.compress(whole) if path.suffix == ".gz" else whole)
    return path


@pytest.mark.parametrize("name", ["s.nii", "s.nii.gz"])
@pytest.mark.parametrize("cdata", [True, False])
def test_names_place_the_values(thorax: Anatomy, tmp_path: Path, name: str, cdata: bool) -> None:
    path = write(tmp_path / name, b"something else", table(NAMES, cdata))
    assert label_names(path) == NAMES
    labels, reports = read_labels(path, thorax)
    assert {report.segment: report.organ for report in reports} == {
        "liver": "body",
        "lung_upper_lobe_left": "lungs",
        "M&M <1>": None,
    }
    assert sitk.GetArrayFromImage(labels)[0, 0, ::6].tolist() == [0, 1, 2, 0]


def test_values_that_it_does_not_name_are_refused(thorax: Anatomy, tmp_path: Path, refused: Refused) -> None:
    path = write(tmp_path / "s.nii.gz", table({5: "liver"}))
    assert "has the values 10, 77, which its own label table doesn't name" in refused(read_labels, path, thorax)


def test_names_that_say_nothing_leave_it_to_the_values(thorax: Anatomy, tmp_path: Path, refused: Refused) -> None:
    path = write(tmp_path / "s.nii.gz", table({5: "L5", 10: "L10", 77: "L77"}))
    assert "has the values 0, 5, 10, 77; 'thorax' has the labels" in refused(read_labels, path, thorax)


@pytest.mark.parametrize("part", ['<Label Key="1"', "<Label ", '<Label Key="1"><![CDATA[', '<Label Key="1">'])
def test_a_header_made_to_take_long_does_not(tmp_path: Path, part: str) -> None:
    path, start = write(tmp_path / "s.nii.gz", (part * (900_000 // len(part))).encode()), time.monotonic()
    assert label_names(path) == {} and time.monotonic() - start < 5


def test_files_without_a_table_and_damaged_ones_have_no_names(tmp_path: Path) -> None:
    assert label_names(write(tmp_path / "none.nii.gz")) == {}
    whole = write(tmp_path / "s.nii", table(NAMES)).read_bytes()
    for number, damaged in enumerate(
        (b"", whole[:3], whole[:340], whole[:351], whole[:354], whole[:352] + b"\xff" * 500, b"\0" * 900)
    ):
        path = tmp_path / f"{number}.nii"
        path.write_bytes(damaged)
        assert label_names(path) == {}
    for name in ("cut.nii.gz", "text.nii.gz"):
        path = tmp_path / name
        path.write_bytes(gzip.compress(whole)[:60] if name == "cut.nii.gz" else b"no gzip")
        assert label_names(path) == {}
