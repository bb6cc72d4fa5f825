"""Elements of DICOM files are walked as GDCM walks them, and none is longer than its file."""

import struct
from pathlib import Path

import pydicom
import pytest
from CTStyleGenCore.dicom_elements import has_pixels, is_dicom
from pydicom.uid import UID, CTImageStorage, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

JPEG = UID("1.2.840.10008.1.2.4.90")
SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, JPEG)


def dataset(syntax: UID, undefined: bool) -> pydicom.Dataset:
    """An image with sequences in sequences, of defined or undefined length."""
    inner, outer, data = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
    inner.CodeMeaning = "meaning"
    outer.ConceptNameCodeSequence, outer.CodeValue = [inner, inner], "outer"
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CTImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = "1.2.3"
    data.Modality, data.ConceptCodeSequence = "CT", [outer]
    for sequence in (outer["ConceptNameCodeSequence"], data["ConceptCodeSequence"]):
        sequence.is_undefined_length = undefined
    return data


def with_pixels(data: pydicom.Dataset) -> pydicom.Dataset:
    packed = data.file_meta.TransferSyntaxUID == JPEG
    data.PixelData = pydicom.encaps.encapsulate([b"\x7f" * 50, b"\xff" * 20]) if packed else b"\x7f" * 50
    data["PixelData"].VR = "OB" if packed else "OW"
    data["PixelData"].is_undefined_length = packed
    return data


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("undefined", [True, False])
def test_every_way_to_write_an_image_is_understood(syntax: UID, undefined: bool, tmp_path: Path) -> None:
    dataset(syntax, undefined).save_as(tmp_path / "report.dcm", enforce_file_format=True)
    with_pixels(dataset(syntax, undefined)).save_as(tmp_path / "image.dcm", enforce_file_format=True)
    assert is_dicom(tmp_path / "report.dcm") and not has_pixels(tmp_path / "report.dcm")
    whole = (tmp_path / "image.dcm").read_bytes()
    for end in (b"", bytes(7), bytes(512)):  # some files are filled up with zeros
        (tmp_path / "image.dcm").write_bytes(whole + end)
        assert has_pixels(tmp_path / "image.dcm")


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("undefined", [True, False])
def test_an_element_longer_than_the_file_is_refused(syntax: UID, undefined: bool, tmp_path: Path) -> None:
    """At the end, cut short, and in a sequence, unless GDCM takes that for one value as well (implicit VR)."""
    path = tmp_path / "image.dcm"
    with_pixels(dataset(syntax, undefined)).save_as(path, enforce_file_format=True)
    whole, big, implicit = path.read_bytes(), syntax == ExplicitVRBigEndian, syntax == ImplicitVRLittleEndian
    tag = struct.pack(">HH" if big else "<HH", 0x7FE1, 0x0010) + (b"" if implicit else b"OB\0\0")
    length = whole.index(b"meaning") - 2  # the last two bytes of it
    broken = [whole + tag + b"\x7f" * 4, whole[: length + 4], whole[: length - 3]]
    if undefined or not implicit:
        broken.append(whole[:length] + b"\xf0\xf0" + whole[length + 2 :])
    for data in broken:
        path.write_bytes(data)
        with pytest.raises((ValueError, struct.error)):
            has_pixels(path)


def test_a_sequence_of_unknown_vr_is_implicit_within(tmp_path: Path) -> None:
    with_pixels(dataset(ExplicitVRLittleEndian, True)).save_as(tmp_path / "a.dcm", enforce_file_format=True)
    whole = (tmp_path / "a.dcm").read_bytes()
    value = struct.pack("<HHI", 0x0008, 0x0100, 4) + b"code"
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + value + struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
    unknown = struct.pack("<HH2sHI", 0x0009, 0x1010, b"UN", 0, 0xFFFFFFFF)
    end = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    at = whole.index(struct.pack("<HH", 0x7FE0, 0x0010))
    for sequence in (unknown + item + end, unknown + end):
        (tmp_path / "a.dcm").write_bytes(whole[:at] + sequence + whole[at:])
        assert has_pixels(tmp_path / "a.dcm")


def test_other_files_are_no_dicom(tmp_path: Path) -> None:
    for data in (b"", b"DICM", bytes(200)):
        (tmp_path / "a").write_bytes(data)
        assert not is_dicom(tmp_path / "a")
        with pytest.raises(ValueError, match=r"DICOM|empty"):
            has_pixels(tmp_path / "a")
