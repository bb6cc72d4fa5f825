"""What is planted in the headers of the cases is in nothing that any command writes or says; all it makes is marked."""

import base64
import contextlib
import csv
import gzip
import io
import json
import os
import re
import stat
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from CTStyleGenCore.__main__ import main
from CTStyleGenCore.devices import Computing
from CTStyleGenCore.errors import Stopped
from CTStyleGenCore.files import PrivateFolder
from CTStyleGenCore.model_file import read_card
from CTStyleGenCore.perceptual import random_weights
from CTStyleGenCore.png import png
from CTStyleGenCore.presets import load_preset
from CTStyleGenCore.training import TrainingOptions, train
from phantoms import chest, write_case
from PIL import Image

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


def plant_headers(case: Path) -> None:
    """Puts what is planted into the headers of a case's NRRD files."""
    for name in ("ct.nrrd", "labels.nrrd"):
        image = sitk.ReadImage(str(case / name))
        for keyword, value in PLANTED.items():
            image.SetMetaData(keyword, value)
        sitk.WriteImage(image, str(case / name))


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A has DICOM, B a NRRD with the same in its header; beside them X and Y, as B, who are not for training."""
    folder = tmp_path_factory.mktemp("cases") / FOLDER
    for seed, name in enumerate("AB"):
        write_case(folder / name, seed=seed)
        write_case(folder.with_name(f"unseen {FOLDER}") / "XY"[seed], seed=seed + 2)
    plant_dicom(folder / "A", chest(seed=0)[0])
    for case in (folder / "B", *folder.with_name(f"unseen {FOLDER}").iterdir()):
        plant_headers(case)
    return folder


@contextlib.contextmanager
def printed(path: Path) -> Iterator[None]:
    """What is printed, also by libraries in C++, goes to the end of a file."""
    with path.open("ab") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        kept = [os.dup(number) for number in (1, 2)]
        for number in (1, 2):
            os.dup2(file.fileno(), number)
        try:
            with (
                path.open("a", encoding="utf-8") as text,
                contextlib.redirect_stdout(text),
                contextlib.redirect_stderr(text),
            ):
                yield
        finally:
            for number, old in zip((1, 2), kept, strict=True):
                os.dup2(old, number)
                os.close(old)


@pytest.fixture(scope="module")
def written(cases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that the commands write and print."""
    out = tmp_path_factory.mktemp("written")
    labels, unseen = cases / "B" / "labels.nrrd", cases.with_name(f"unseen {FOLDER}")
    model, cpu = ("--model", out / "m.ctstyle"), ("--device", "cpu", "--json")
    learned = ("--style", "A", "--preset", "quick", "--features", "random", "--size", 64, "--steps", 2)
    shown = ("--checkpoint-seconds", 0, "--preview", out / "training.png")
    moved = ("--segmentation", labels, "--reference", cases / "B" / "ct.nrrd", "--warp-reference", "--cases", cases)
    board = ("--json", out / "board.json", "--html", out / "board.html", "--segmenter-steps", 1, "--slices", 1)
    for command in (
        ("train", "--cases", cases, *learned, *cpu, *shown, "--output", out / "m.ctstyle"),
        ("info", out / "m.ctstyle"),
        ("synthesize", *model, "--segmentation", labels, *cpu, "--output", out / "a.nrrd"),
        ("synthesize", *model, "--segmentation", labels, *cpu, "--output", out / "b.nii.gz"),
        ("synthesize", *model, "--segmentation", labels, *cpu, "--output", out / "c.mha"),
        ("vary", *moved, "--count", 1, "--amount", 0, "--way", "deform", "--json", "--output", out / "varied"),
        ("expand", *model, "--cases", cases, "--per-case", 1, "--amount", 0, "--dicom", *cpu, "--output", out / "set"),
        ("evaluate", *model, "--cases", unseen, "--train-cases", cases, *board, "--device", "cpu"),
        ("preview", out / "m.ctstyle", *cpu, "--output", out / "preview.png"),
    ):
        with printed(out / "printed.txt"):
            assert main([*map(str, command)]) == 0, command
    stopped = TrainingOptions(cases, ("A",), out / "stopped.ctstyle", 64, slices_per_case=1, computing=Computing())
    with pytest.raises(Stopped):
        train(stopped, load_preset("quick"), random_weights(), lambda event: None, lambda: True)
    return out


def contents(file: Path) -> Iterator[bytes]:
    """The bytes of a file, and what they hold when they are unpacked: gzip, a NRRD's voxels, images in a page."""
    data = file.read_bytes()
    yield data
    if data[:2] == b"\x1f\x8b":
        yield gzip.decompress(data)
    if file.suffix == ".nrrd" and b"\n\n\x1f\x8b" in data:
        yield zlib.decompress(data.partition(b"\n\n")[2], 31)
    yield from map(base64.b64decode, re.findall(rb"data:image/png;base64,([^']+)'", data))


def test_nothing_written_names_the_patient_or_the_place(written: Path, cases: Path) -> None:
    files = [file for file in written.rglob("*") if file.is_file()]
    kinds = {".ctstyle", ".checkpoint", ".png", ".nrrd", ".gz", ".dcm", ".json", ".csv", ".html", ".mha", ".txt"}
    assert kinds <= {file.suffix for file in files}
    assert b'"event": "memorisation"' in (written / "printed.txt").read_bytes()
    for file in files:
        for data in contents(file):
            assert not named(data, str(cases), str(cases.parent)), file


def named(data: bytes, *more: str) -> list[str]:
    """What is planted, and ``more``, of what is in the bytes."""
    return [s for s in (*SECRETS, *more) if any(s.encode(encoding) in data for encoding in ("utf-8", "utf-16-le"))]


def test_the_search_finds_what_is_planted(cases: Path) -> None:
    """That the test above can fail."""
    data = b"".join(part for file in cases.rglob("*") if file.is_file() for part in contents(file))
    assert all(value.encode() in data for value in PLANTED.values())


# --- what goes wrong --------------------------------------------------------------------------------------------------


def replaced(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2000])


def other_series(case: Path) -> None:
    """A second series beside the first."""
    (case / "more").mkdir()
    for file in list(case.glob("*.dcm")):
        one = pydicom.dcmread(file)
        one.SeriesInstanceUID = PLANTED["SeriesInstanceUID"] + ".9"
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = f"{one.SOPInstanceUID}.9"
        one.save_as(case / f"more-{file.name}", enforce_file_format=True)


def magnetic(case: Path) -> None:
    for file in case.glob("*.dcm"):
        one = pydicom.dcmread(file)
        one.Modality = "MR"
        one.save_as(file, enforce_file_format=True)


def without_pixels(case: Path) -> None:
    one = pydicom.dcmread(case / "1.dcm")
    del one.PixelData
    one.save_as(case / "1.dcm", enforce_file_format=True)


def as_nifti(case: Path, spoil: Callable[[Path], None]) -> None:
    """The CT as a NIfTI with what is planted where it has room for words."""
    image = sitk.ReadImage(str(case / "ct.nrrd"))
    (case / "ct.nrrd").unlink()
    image.SetMetaData("ITK_FileNotes", PLANTED["PatientName"])
    image.SetMetaData("aux_file", PLANTED["PatientID"])
    sitk.WriteImage(image, str(case / "ct.nii"))
    assert PLANTED["PatientName"].encode() in (case / "ct.nii").read_bytes()
    spoil(case / "ct.nii")


BROKEN: dict[str, tuple[str, Callable[[Path], None]]] = {  # a case, and how its files are broken
    "NRRD, cut short": ("B", lambda case: cut(case / "ct.nrrd")),
    "NRRD, a size that is a name": ("B", lambda case: replaced(case / "ct.nrrd", b"sizes: 80", b"sizes: Rumpelstilz")),
    "NRRD, a type that is an id": ("B", lambda case: replaced(case / "ct.nrrd", b"type: short", b"type: PLANTED-4711")),
    "NRRD, a space that is a name": ("B", lambda case: replaced(case / "ct.nrrd", b"left-pos", b"Rumpelstilz")),
    "labels, cut short": ("B", lambda case: cut(case / "labels.nrrd")),
    "NIfTI, cut short": ("B", lambda case: as_nifti(case, cut)),
    "NIfTI, no header": ("B", lambda case: as_nifti(case, lambda path: path.write_bytes(path.read_bytes()[8:]))),
    "DICOM, cut short": ("A", lambda case: cut(case / "1.dcm")),
    "DICOM, a slice missing": ("A", lambda case: (case / "1.dcm").unlink()),
    "DICOM, two series": ("A", other_series),
    "DICOM, no CT": ("A", magnetic),
    "DICOM, no voxels": ("A", without_pixels),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_what_is_said_of_a_broken_file_names_nobody(fault: str, tmp_path: Path) -> None:
    """Neither the message nor what libraries print: the file's path, as it was given, but nothing of its header."""
    name, spoil = BROKEN[fault]
    for seed, other in enumerate("AB"):
        write_case(tmp_path / "cases" / other, seed=seed, slices=4)
    if name == "A":
        plant_dicom(tmp_path / "cases" / "A", chest(seed=0, slices=4)[0])
    else:
        plant_headers(tmp_path / "cases" / "B")
    spoil(tmp_path / "cases" / name)
    arguments = ["--cases", tmp_path / "cases", "--style", "A", "--preset", "quick", "--features", "random", "--json"]
    with printed(tmp_path / "said.txt"):
        arguments += ["--size", 64, "--steps", 1, "--device", "cpu", "--output", tmp_path / "m.ctstyle"]
        code = main(["train", *map(str, arguments)])
    said = (tmp_path / "said.txt").read_bytes()
    assert code == 2 and b'"kind": "input"' in said and not named(said), said
    assert not (tmp_path / "m.ctstyle").exists()


# --- what is synthetic says so ----------------------------------------------------------------------------------------


def test_everything_made_says_that_it_is_synthetic(written: Path) -> None:
    for name in ("a.nrrd", "c.mha"):
        assert header(written / name)["CTStyleGen.Synthetic"] == "YES"
    for path in (written / "b.nii.gz", *(written / "set").rglob("*.nii.gz")):
        assert gzip.decompress(path.read_bytes())[148:228].startswith(b"SYNTHETIC CTStyleGen"), path
    dicom = [pydicom.dcmread(path) for path in (written / "set" / "dicom").rglob("*.dcm")]
    assert {one.Modality for one in dicom} == {"CT", "SEG"}
    assert all("SYNTHETIC" in str(one.PatientName) and "SYNTHETIC" in one.SeriesDescription for one in dicom)
    assert all(one.SyntheticData == "YES" for one in dicom)
    assert "SYNTHETIC" in json.loads((written / "set" / "dataset.json").read_text(encoding="utf-8"))["description"]
    varied = [path for path in (written / "varied").rglob("*") if path.suffix == ".nrrd"]
    assert {path.name for path in varied} == {"labels-001.nrrd", "ct-001.nrrd"}
    assert all(header(path)["CTStyleGen.Synthetic"] == "YES" for path in varied)


def test_every_picture_says_what_it_shows(written: Path) -> None:
    for path in (written / "preview.png", written / "training.png", written / "set" / "contact_sheet.png"):
        assert "synthetic" in Image.open(path).text["Description"].lower(), path
    page = (written / "board.html").read_bytes()
    images = [base64.b64decode(data) for data in re.findall(rb"data:image/png;base64,([^']+)'", page)]
    told = [Image.open(io.BytesIO(data)).text["Description"] for data in images]
    assert {one.partition(",")[0] for one in told} == {
        "CTStyleGen: real CT of the anatomy",
        "CTStyleGen: real CT of the style",
        "CTStyleGen: synthetic",
    }
    assert b"made by a model" in page and png(np.zeros((2, 2), np.uint8), "x").startswith(b"\x89PNG")


def header(path: Path) -> dict[str, str]:
    image = sitk.ReadImage(str(path))
    return {key: image.GetMetaData(key) for key in image.GetMetaDataKeys()}


# --- for research use only --------------------------------------------------------------------------------------------


def test_it_is_said_to_be_for_research_use_only(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By README, command, model, data set, its DICOM, and board; by the module: test_extension.py."""
    readme = Path(__file__).parents[3] / "README.md"
    with pytest.raises(SystemExit):
        main(["--help"])
    dicom = [pydicom.dcmread(path) for path in (written / "set" / "dicom").rglob("*.dcm")]
    texts = {
        "README": readme.read_text(encoding="utf-8").partition("\n## ")[0],  # before its first section
        "help": capsys.readouterr().out,
        "card": read_card(written / "m.ctstyle")["use"],
        "data set": json.loads((written / "set" / "dataset.json").read_text(encoding="utf-8"))["description"],
        "variations": (written / "varied" / "labels.json").read_text(encoding="utf-8"),
        "board": (written / "board.html").read_text(encoding="utf-8"),
        **{f"DICOM {one.SOPInstanceUID}": one.get("ImageComments", "") for one in dicom if one.Modality == "CT"},
    }
    for name, text in texts.items():
        said = " ".join(text.split()).lower()
        assert "for research use only, not for diagnosis" in said, name


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
