"""DICOM of synthetic volumes, read back by other programs' readers: pydicom, highdicom, and GDCM in SimpleITK."""

import sys
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from conftest import LEFT_HANDED, Refused, image
from CTStyleGenCore.anatomy import Anatomy
from CTStyleGenCore.cases import SourceLabel
from CTStyleGenCore.dicom_export import require_dicom, write_dicom
from CTStyleGenCore.volumes import read_ct, same_grid

TILTED = tuple(sitk.Euler3DTransform((0, 0, 0), 0.1, 0.2, 0.3).GetMatrix())
SAGITTAL = (0.0, 0.0, -1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0)  # slices of the file run from right to left
VALUED = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality"),
    *("ImageType", "PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient", "Rows", "Columns", "PixelData"),
    *("SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("RescaleIntercept", "RescaleSlope", "RescaleType"),
)
PRESENT = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"),
    *("ReferringPhysicianName", "AccessionNumber", "SeriesNumber", "InstanceNumber", "PositionReferenceIndicator"),
    *("Manufacturer", "SliceThickness", "KVP", "AcquisitionNumber"),
)
MADE_BY = "CTStyleGen, model sha256:0, seed 3"


def volumes(direction: tuple[float, ...], slices: int = 4) -> tuple[sitk.Image, sitk.Image]:
    """CT with values of all kinds, and labels 0 to 3."""
    rng = np.random.default_rng(0)
    hu, labels = rng.integers(-1024, 3071, (slices, 9, 8)), rng.integers(0, 4, (slices, 9, 8))
    return image(hu.astype(np.int16), direction=direction), image(labels.astype(np.uint8), direction=direction)


def table(anatomy: Anatomy) -> list[SourceLabel]:
    return [SourceLabel(o.label, o.name, o.codes[0] if o.codes else None, o.name) for o in anatomy.organs[1:]]


def written(folder: Path, anatomy: Anatomy, ct: sitk.Image, labels: sitk.Image) -> Path:
    folder.mkdir()
    write_dicom(folder, ct, labels, table(anatomy), 12, MADE_BY)
    return folder


def datasets(folder: Path) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(path) for path in sorted(folder.rglob("*.dcm"))]


@pytest.mark.parametrize("direction", [TILTED, LEFT_HANDED, SAGITTAL])
@pytest.mark.parametrize("slices", [4, 1])
def test_gdcm_reads_the_same_voxels_at_the_same_places(
    thorax: Anatomy, tmp_path: Path, direction: tuple[float, ...], slices: int
) -> None:
    ct, labels = volumes(direction, slices)
    upright = sitk.DICOMOrient(ct, "LPS")
    read = read_ct(written(tmp_path / "a", thorax, ct, labels) / "CT")
    assert np.array_equal(sitk.GetArrayFromImage(read), sitk.GetArrayFromImage(upright)) and same_grid(read, upright)


def test_every_file_says_that_it_is_synthetic(thorax: Anatomy, tmp_path: Path) -> None:
    for dataset in datasets(written(tmp_path / "a", thorax, *volumes(TILTED))):
        assert dataset[0x0008001C].value == "YES"
        assert (dataset.PatientName, dataset.PatientID) == ("SYNTHETIC^12", "SYNTHETIC-12")
        assert "SYNTHETIC" in dataset.SeriesDescription and dataset.Manufacturer == "CTStyleGen"
        if dataset.Modality == "CT":
            assert list(dataset.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
            assert dataset.DerivationDescription == MADE_BY and "not for diagnosis" in dataset.ImageComments


def test_uids_are_new_and_hang_together(thorax: Anatomy, tmp_path: Path) -> None:
    sets = [datasets(written(tmp_path / name, thorax, *volumes(TILTED))) for name in "ab"]
    for level, count in (("StudyInstanceUID", 1), ("SeriesInstanceUID", 2), ("SOPInstanceUID", 5)):
        found = [{dataset[level].value for dataset in one} for one in sets]
        assert len(found[0]) == len(found[1]) == count and not found[0] & found[1]
    for one in sets:
        assert len({dataset.FrameOfReferenceUID for dataset in one}) == 1
        assert {dataset.file_meta.TransferSyntaxUID for dataset in one} == {pydicom.uid.ExplicitVRLittleEndian}


def test_nothing_of_the_sources_metadata_goes_in(thorax: Anatomy, tmp_path: Path) -> None:
    ct, labels = volumes(TILTED)
    for tag in ("0010|0010", "0010|0020", "0020|000d", "0008|0080"):
        ct.SetMetaData(tag, "1.2.3.4.5")
    folder = written(tmp_path / "a", thorax, ct, labels)
    assert all(b"1.2.3.4.5\x00" not in path.read_bytes() for path in folder.rglob("*.dcm"))
    for dataset in datasets(folder):
        for keyword in ("PatientBirthDate", "PatientSex", "AccessionNumber", "ReferringPhysicianName"):
            assert not dataset.get(keyword)


def test_an_image_has_what_the_standard_demands(thorax: Anatomy, tmp_path: Path) -> None:
    """The elements of type 1 and 2 of all modules that a CT image must have (DICOM PS3.3, table A.3-1)."""
    slices = [d for d in datasets(written(tmp_path / "a", thorax, *volumes(TILTED))) if d.Modality == "CT"]
    for number, dataset in enumerate(slices, 1):
        assert all(dataset[keyword].value not in (None, "") for keyword in VALUED)
        assert all(keyword in dataset for keyword in PRESENT)
        assert dataset.InstanceNumber == number and dataset.pixel_array.dtype == np.int16
        assert (dataset.RescaleSlope, dataset.RescaleIntercept, dataset.WindowCenter[0]) == (1, 0, 40)


@pytest.mark.parametrize("direction", [TILTED, LEFT_HANDED, SAGITTAL])
def test_segments_lie_on_the_images(thorax: Anatomy, tmp_path: Path, direction: tuple[float, ...]) -> None:
    ct, labels = volumes(direction)
    folder = written(tmp_path / "a", thorax, ct, labels)
    upright = sitk.GetArrayFromImage(sitk.DICOMOrient(labels, "LPS"))
    segmentation = highdicom.seg.segread(folder / "SEG.dcm")
    uids = [dataset.SOPInstanceUID for dataset in datasets(folder / "CT")]
    masks = segmentation.get_pixels_by_source_instance(uids)
    told = [segmentation.get_segment_description(number) for number in segmentation.segment_numbers]
    assert [segment.segment_label for segment in told] == ["body", "lungs", "mediastinum"]
    for number in range(3):
        assert np.array_equal(masks[..., number], upright == number + 1)
    code = told[1].segmented_property_type
    assert (code.value, code.scheme_designator) == ("39607008", "SCT")
    placed = segmentation.get_volume(combine_segments=True)
    for slice_, row, column in ((0, 0, 0), (3, 0, 0), (0, *(size - 1 for size in upright.shape[1:]))):
        point = (placed.affine @ [slice_, row, column, 1])[:3].tolist()
        assert labels[labels.TransformPhysicalPointToIndex(point)] == placed.array[slice_, row, column]
    frames = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "SEG.dcm")))  # by GDCM
    assert np.array_equal(frames > 0, pydicom.dcmread(folder / "SEG.dcm").pixel_array > 0)


def test_a_code_means_what_the_segment_is_not_its_organ(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    write_dicom(folder, *volumes(LEFT_HANDED), [SourceLabel(3, "aorta", "15825003", "mediastinum")], 1, MADE_BY)
    (segment,) = pydicom.dcmread(folder / "SEG.dcm").SegmentSequence
    (kind,) = segment.SegmentedPropertyTypeCodeSequence
    assert (kind.CodeValue, kind.CodeMeaning) == ("15825003", "aorta")


def test_values_without_a_code_keep_their_name(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    ct, labels = volumes(LEFT_HANDED)
    write_dicom(folder, ct, labels, [SourceLabel(3, "my lesion", None, "body")], 1, MADE_BY)
    dataset = pydicom.dcmread(folder / "SEG.dcm")
    assert [segment.SegmentLabel for segment in dataset.SegmentSequence] == ["my lesion"]
    assert dataset.pixel_array.sum() == (sitk.GetArrayFromImage(labels) == 3).sum()


def test_no_segmentation_of_nothing(thorax: Anatomy, tmp_path: Path) -> None:
    ct, labels = volumes(LEFT_HANDED)
    written(tmp_path / "a", thorax, ct, labels * 0)
    assert not (tmp_path / "a" / "SEG.dcm").exists() and len(datasets(tmp_path / "a")) == 4


def test_missing_packages_are_told(monkeypatch: pytest.MonkeyPatch, refused: Refused) -> None:
    require_dicom()
    monkeypatch.setattr("CTStyleGenCore.dicom_export.find_spec", lambda name: None if name == "highdicom" else sys)
    assert "pip install 'ctstylegen[dicom]'" in refused(require_dicom)
