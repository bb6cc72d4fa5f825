"""What is planted in the headers of the cases is in nothing that any command writes; everything made says synthetic."""

import csv
import gzip
import json
import stat
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from CTStyleGenCore.__main__ import main
from CTStyleGenCore.files import PrivateFolder
from phantoms import chest, write_case

PLANTED = {
    "PatientName": "Rumpelstilz^Planted",
    "PatientID": "PLANTED-4711",
    "PatientBirthDate": "19010203",
    "AccessionNumber": "ACC-PLANTED-9",
    "InstitutionName": "Planted Hospital",
    "ReferringPhysicianName": "Physician^Planted",
    "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.777.1",
    "SeriesInstanceUID": "1.2.826.0.1.3680043.8.498.777.2",
    "FrameOfReferenceUID": "1.2.826.0.1.3680043.8.498.777.3",
}
FOLDER = "planted folder"  # part of the path of the cases
SECRETS = [*PLANTED.values(), "Rumpelstilz", FOLDER, ".498.777."]


def plant_dicom(folder: Path, ct: sitk.Image) -> None:
    """Puts a DICOM series of the CT, slice by slice, into a case, in the place of its ct.nrrd."""
    (folder / "ct.nrrd").unlink()
    for k, hu in enumerate(sitk.GetArrayFromImage(ct)):
        one = pydicom.Dataset()
        one.file_meta = pydicom.dataset.FileMetaDataset()
        one.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
        uid = f"1.2.826.0.1.3680043.8.498.777.4.{k + 1}"
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = uid
        for keyword, value in PLANTED.items():
            setattr(one, keyword, value)
        one.Modality, one.PatientSex, one.PatientAge = "CT", "F", "123Y"
        one.ImagePositionPatient = list(ct.TransformIndexToPhysicalPoint((0, 0, k)))
        one.ImageOrientationPatient, one.PixelSpacing = [1, 0, 0, 0, 1, 0], [ct.GetSpacing()[1], ct.GetSpacing()[0]]
        one.SliceThickness, one.InstanceNumber = ct.GetSpacing()[2], k + 1
        one.Rows, one.Columns = hu.shape
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 1
        one.RescaleIntercept, one.RescaleSlope = 0, 1
        one.PixelData = hu.astype("<i2").tobytes()
        one.save_as(folder / f"{k}.dcm", enforce_file_format=True)


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A has DICOM, B a NRRD with the same in its header."""
    folder = tmp_path_factory.mktemp("cases") / FOLDER
    for seed, name in enumerate("AB"):
        write_case(folder / name, seed=seed)
    plant_dicom(folder / "A", chest(seed=0)[0])
    for name in ("ct.nrrd", "labels.nrrd"):
        image = sitk.ReadImage(str(folder / "B" / name))
        for keyword, value in PLANTED.items():
            image.SetMetaData(keyword, value)
        sitk.WriteImage(image, str(folder / "B" / name))
    return folder


@pytest.fixture(scope="module")
def written(cases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that the commands write and print."""
    out = tmp_path_factory.mktemp("written")
    labels = cases / "B" / "labels.nrrd"
    model, cpu = ("--model", out / "m.ctstyle"), ("--device", "cpu", "--json")
    moved = ("--segmentation", labels, "--reference", cases / "B" / "ct.nrrd", "--warp-reference", "--cases", cases)
    train = ("--cases", cases, "--style", "A", "--preset", "quick", "--features", "random", "--size", 64, "--steps", 2)
    for command in (
        ("train", *train, *cpu, "--output", out / "m.ctstyle"),
        ("synthesize", *model, "--segmentation", labels, *cpu, "--output", out / "a.nrrd"),
        ("synthesize", *model, "--segmentation", labels, *cpu, "--output", out / "b.nii.gz"),
        ("vary", *moved, "--count", 1, "--amount", 0, "--way", "deform", "--json", "--output", out / "varied"),
        ("expand", *model, "--cases", cases, "--per-case", 1, "--amount", 0, "--dicom", *cpu, "--output", out / "set"),
        ("preview", out / "m.ctstyle", *cpu, "--output", out / "preview.png"),
    ):
        assert main([*map(str, command)]) == 0, command
    return out


def contents(file: Path) -> Iterator[bytes]:
    """The bytes of a file, and what they hold when they are unpacked: gzip, a NRRD's voxels, a PNG's text."""
    data = file.read_bytes()
    yield data
    if data[:2] == b"\x1f\x8b":
        yield gzip.decompress(data)
    if file.suffix == ".nrrd" and b"\n\n\x1f\x8b" in data:
        yield zlib.decompress(data.partition(b"\n\n")[2], 31)


def test_nothing_written_names_the_patient_or_the_place(written: Path, cases: Path) -> None:
    files = [file for file in written.rglob("*") if file.is_file()]
    assert {".ctstyle", ".png", ".nrrd", ".gz", ".dcm", ".json", ".csv"} <= {file.suffix for file in files}
    for file in files:
        for data in contents(file):
            for secret in (*SECRETS, str(cases), str(cases.parent)):
                for encoding in ("utf-8", "utf-16-le"):
                    assert secret.encode(encoding) not in data, (file, secret)


def test_the_search_finds_what_is_planted(cases: Path) -> None:
    """That the test above can fail."""
    data = b"".join(part for file in cases.rglob("*") if file.is_file() for part in contents(file))
    assert all(value.encode() in data for value in PLANTED.values())


def test_everything_made_says_that_it_is_synthetic(written: Path) -> None:
    assert sitk.ReadImage(str(written / "a.nrrd")).GetMetaData("CTStyleGen.Synthetic") == "YES"
    for path in (written / "b.nii.gz", *(written / "set").rglob("*.nii.gz")):
        assert gzip.decompress(path.read_bytes())[148:228].startswith(b"SYNTHETIC CTStyleGen"), path
    dicom = [pydicom.dcmread(path) for path in (written / "set" / "dicom").rglob("*.dcm")]
    assert dicom and all(one.SyntheticData == "YES" and "SYNTHETIC" in str(one.PatientName) for one in dicom)
    assert "SYNTHETIC" in json.loads((written / "set" / "dataset.json").read_text(encoding="utf-8"))["description"]
    varied = [path for path in (written / "varied").rglob("*") if path.suffix == ".nrrd"]
    assert varied and all("ynthetic" in str(header(path)) for path in varied)
    for path in (written / "preview.png", written / "set" / "contact_sheet.png"):
        assert b"ynthetic" in path.read_bytes(), path


def header(path: Path) -> dict[str, str]:
    image = sitk.ReadImage(str(path))
    return {key: image.GetMetaData(key) for key in image.GetMetaDataKeys()}


def test_the_manifest_names_cases_by_their_ids_alone(written: Path) -> None:
    with (written / "set" / "manifest.csv").open(encoding="utf-8", newline="") as file:
        assert {row["source_case"] for row in csv.DictReader(file)} == {"A", "B"}


def test_temporary_folders_are_the_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = PrivateFolder()
    assert stat.S_IMODE(Path(folder.name).stat().st_mode) == 0o700
    np.save(Path(folder.name) / "patient.npy", np.zeros(3))
    folder.cleanup()
    assert not list(tmp_path.iterdir())
