"""Synthetic volumes as DICOM: a series of CT images, and their labels as a DICOM segmentation (SEG).

Nothing of a patient goes in: names, ids and UIDs are made anew, and every file says what it is by Synthetic Data
(0008,001C), image type and names. pydicom and highdicom are imported here alone, where DICOM is asked for.
"""

from collections.abc import Sequence
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk

from . import __version__
from .cases import SourceLabel
from .errors import InputError

if TYPE_CHECKING:
    from pydicom import Dataset

_USE = "SYNTHETIC, for research use only, not for diagnosis"
_CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
_EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
_WINDOWS = {"Soft tissue": (40, 400), "Lung": (-600, 1500)}  # center, width in HU
_EMPTY = (
    *("PatientBirthDate", "PatientSex", "AccessionNumber", "ReferringPhysicianName", "KVP", "AcquisitionNumber"),
    "PositionReferenceIndicator",
)  # elements that must be there and may have no value


def require_dicom() -> None:
    """Raises InputError when the packages that DICOM export needs are not installed."""
    if not all(map(find_spec, ("pydicom", "highdicom"))):
        raise InputError("DICOM export needs pydicom and highdicom: install them by pip install 'ctstylegen[dicom]'.")


def write_dicom(
    folder: Path, ct: sitk.Image, labels: sitk.Image, table: Sequence[SourceLabel], number: int, made_by: str
) -> None:
    """Writes a CT and its labels into a folder that is there: CT/0001.dcm, 0002.dcm, ... and SEG.dcm.

    ct: int16 HU, 3-D; labels: values of the table, in the CT's grid. Slices are axial, from inferior to superior: the
    axis of the grid that is nearest to it. The patient is "SYNTHETIC^number"; ``made_by`` is told as the derivation.
    """
    from pydicom import dcmwrite

    ct, labels = (sitk.DICOMOrient(image, "LPS") for image in (ct, labels))
    (folder / "CT").mkdir()
    slices = _ct_slices(ct, number, made_by)
    for place, dataset in enumerate(slices, 1):
        dcmwrite(folder / "CT" / f"{place:04d}.dcm", dataset, enforce_file_format=True)
    if (segmentation := _segmentation(slices, labels, table)) is not None:
        dcmwrite(folder / "SEG.dcm", segmentation, enforce_file_format=True)


def _ct_slices(ct: sitk.Image, number: int, made_by: str) -> list["Dataset"]:
    """One dataset a slice, in one new study, series and frame of reference."""
    from pydicom.uid import generate_uid

    hu, now = sitk.GetArrayViewFromImage(ct), datetime.now()
    if hu.dtype != np.int16:
        raise ValueError(f"a CT of {hu.dtype}, not int16")
    common: dict[str, Any] = dict.fromkeys(_EMPTY, "") | {
        "SOPClassUID": _CT_IMAGE_STORAGE,
        "ImageType": ["DERIVED", "SECONDARY", "AXIAL"],
        "Modality": "CT",
        "PatientName": f"SYNTHETIC^{number}",
        "PatientID": f"SYNTHETIC-{number}",
        "PatientComments": _USE,
        "StudyInstanceUID": generate_uid(),
        "SeriesInstanceUID": generate_uid(),
        "FrameOfReferenceUID": generate_uid(),
        "StudyID": str(number),
        "SeriesNumber": 1,
        "StudyDescription": "SYNTHETIC CT",
        "SeriesDescription": "SYNTHETIC CT",
        "DerivationDescription": made_by,
        "ImageComments": _USE,
        "Manufacturer": "CTStyleGen",
        "ManufacturerModelName": "CTStyleGen",
        "SoftwareVersions": __version__,
        "BurnedInAnnotation": "NO",
        "StudyDate": now.strftime("%Y%m%d"),
        "StudyTime": now.strftime("%H%M%S"),
        "ContentDate": now.strftime("%Y%m%d"),
        "ContentTime": now.strftime("%H%M%S"),
        "RescaleIntercept": 0,
        "RescaleSlope": 1,
        "RescaleType": "HU",
        "WindowCenter": [center for center, _ in _WINDOWS.values()],
        "WindowWidth": [width for _, width in _WINDOWS.values()],
        "WindowCenterWidthExplanation": list(_WINDOWS),
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 1,
    }
    return [_ct_slice(common, ct, hu[k], k) for k in range(len(hu))]


def _ct_slice(common: dict[str, Any], ct: sitk.Image, hu: np.ndarray, k: int) -> "Dataset":
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID, generate_uid
    from pydicom.valuerep import DSfloat

    def decimals(*values: float) -> list[DSfloat]:
        return [DSfloat(value, auto_format=True) for value in values]

    direction, spacing = np.reshape(ct.GetDirection(), (3, 3)), ct.GetSpacing()
    position = np.array(ct.TransformIndexToPhysicalPoint((0, 0, k)))
    dataset, uid = Dataset(), generate_uid()
    for keyword, value in common.items():
        setattr(dataset, keyword, value)
    dataset.SyntheticData = "YES"
    dataset.SOPInstanceUID = uid
    dataset.InstanceNumber = k + 1
    dataset.Rows, dataset.Columns = hu.shape
    dataset.PixelSpacing = decimals(spacing[1], spacing[0])
    dataset.SliceThickness = decimals(spacing[2])[0]
    dataset.ImagePositionPatient = decimals(*position)
    dataset.ImageOrientationPatient = decimals(*direction[:, 0], *direction[:, 1])
    dataset.SliceLocation = decimals(float(position @ direction[:, 2]))[0]
    dataset.add_new("PixelData", "OW", np.ascontiguousarray(hu, "<i2").tobytes())
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = UID(_CT_IMAGE_STORAGE)
    dataset.file_meta.MediaStorageSOPInstanceUID = uid
    dataset.file_meta.TransferSyntaxUID = UID(_EXPLICIT_LITTLE_ENDIAN)
    return dataset


def _segmentation(slices: list["Dataset"], labels: sitk.Image, table: Sequence[SourceLabel]) -> "Dataset | None":
    """The labels as a DICOM SEG, a segment for each row of the table that has voxels; None where none has."""
    import highdicom
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid

    values = sitk.GetArrayViewFromImage(labels)
    present = [row for row in table if np.any(values == row.value)]
    if not present:
        return None
    numbers = np.zeros(values.shape, np.uint8)
    for number, row in enumerate(present, 1):
        numbers[values == row.value] = number
    method = highdicom.AlgorithmIdentificationSequence("CTStyleGen", codes.cid7162.DeformableModels, __version__)
    segmentation = highdicom.seg.Segmentation(
        source_images=slices,
        pixel_array=numbers,
        segmentation_type="BINARY",
        segment_descriptions=[
            highdicom.seg.SegmentDescription(
                number,
                row.name[:64],
                segmented_property_category=highdicom.sr.CodedConcept("123037004", "SCT", "Anatomical Structure"),
                segmented_property_type=_concept(row),
                algorithm_type="SEMIAUTOMATIC",  # the user's own segmentation, deformed
                algorithm_identification=method,
            )
            for number, row in enumerate(present, 1)
        ],
        series_instance_uid=generate_uid(),
        series_number=2,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="CTStyleGen",
        manufacturer_model_name="CTStyleGen",
        software_versions=__version__,
        device_serial_number="none",
        content_label="SYNTHETIC",
        content_description="Labels of a synthetic CT",
        series_description="SYNTHETIC labels",
    )
    segmentation.SyntheticData = "YES"
    return segmentation


def _concept(row: SourceLabel) -> Any:
    """What a segment is: its SNOMED CT code, or a name of this program's own."""
    from highdicom.sr import CodedConcept

    if row.code:
        return CodedConcept(row.code, "SCT", row.name[:64])
    return CodedConcept(f"VALUE{row.value}", "99CTSTYLEGEN", row.name[:64])
