"""Volumes on disk: every format in and out, HU, geometry, DICOM, and what is refused."""

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from conftest import LEFT_HANDED, OBLIQUE, Refused, image, noise
from CTStyleGenCore.errors import InputError
from CTStyleGenCore.volumes import (
    axial_places,
    metadata,
    read_ct,
    read_image,
    same_grid,
    write_volume,
    write_volumes,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

FORMATS = ("a.nrrd", "a.nii", "a.nii.gz", "a.mha")


def write_dicom(
    folder: Path, hu: np.ndarray, positions_mm: list[float], series: str | None = None, modality: str = "CT"
) -> Path:
    """A DICOM series, one file a slice, named so that the order of names isn't the order of positions."""
    folder.mkdir(exist_ok=True)
    series = series or str(generate_uid())
    for number, (values, position) in enumerate(zip(hu, positions_mm, strict=True)):
        data = pydicom.Dataset()
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CTImageStorage
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
        data.SeriesInstanceUID, data.StudyInstanceUID, data.FrameOfReferenceUID = series, "1.2.3", "1.2.4"
        data.Modality, data.PatientName, data.PatientID = modality, "Doe^Jane", "secret-4711"
        data.ImagePositionPatient, data.ImageOrientationPatient = [-20, 30, position], [1, 0, 0, 0, 1, 0]
        data.PixelSpacing, data.SliceThickness = [0.9, 0.7], 2.5  # between rows, between columns
        data.Rows, data.Columns = values.shape
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
        data.RescaleIntercept, data.RescaleSlope = -1024, 1
        data.InstanceNumber = number + 1
        data.PixelData = (values + 1024).astype(np.uint16).tobytes()
        data.save_as(folder / f"{(number * 7) % 10}-{series[-4:]}-{number}.dcm", enforce_file_format=True)
    return folder


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("direction", [None, OBLIQUE, LEFT_HANDED])
def test_what_is_written_is_read_again(tmp_path: Path, name: str, direction: tuple[float, ...] | None) -> None:
    ct = image(noise(), direction=direction)
    write_volume(ct, tmp_path / name)
    again = read_ct(tmp_path / name)
    assert np.array_equal(sitk.GetArrayFromImage(again), sitk.GetArrayFromImage(ct).clip(-1024))
    for got, want in ((again.GetOrigin(), ct.GetOrigin()), (again.GetSpacing(), ct.GetSpacing())):
        assert got == pytest.approx(want, abs=1e-6)
    assert again.GetDirection() == pytest.approx(ct.GetDirection(), abs=1e-6)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@settings(max_examples=25, deadline=None)
@given(arrays.arrays(np.float32, (2, 3, 4), elements=st.floats(-1e6, 1e6, width=32)))
def test_any_numbers_become_int16_hu(tmp_path_factory: pytest.TempPathFactory, values: np.ndarray) -> None:
    values[0, 0, :2] = -900, 500  # so that they can be HU
    path = tmp_path_factory.mktemp("hu") / "ct.mha"
    sitk.WriteImage(image(values), str(path))
    ct = read_ct(path)
    assert ct.GetPixelID() == sitk.sitkInt16
    assert np.array_equal(sitk.GetArrayFromImage(ct), np.rint(values).clip(-1024, 32767))


def test_padding_below_air_becomes_air(tmp_path: Path) -> None:
    values = noise()
    values[0, 0] = -3024
    sitk.WriteImage(image(values), str(tmp_path / "ct.nrrd"))
    assert sitk.GetArrayFromImage(read_ct(tmp_path / "ct.nrrd"))[0, 0].tolist() == [-1024] * 8


def test_a_flat_image_is_one_slice(tmp_path: Path) -> None:
    flat = sitk.GetImageFromArray(noise((9, 8)))
    flat.SetSpacing((0.7, 0.9))
    sitk.WriteImage(flat, str(tmp_path / "ct.nrrd"))
    ct = read_ct(tmp_path / "ct.nrrd")
    assert (ct.GetSize(), ct.GetSpacing()) == ((8, 9, 1), (0.7, 0.9, 1.0))


def test_no_metadata_is_read_and_only_our_own_is_written(tmp_path: Path) -> None:
    ct = image(noise())
    ct.SetMetaData("0010|0010", "Doe^Jane")
    ct.SetMetaData("0029|1010", "private")
    ct.SetMetaData("descrip", "Jane Doe")
    ct.SetMetaData("CTStyleGen.Seed", "7")
    write_volume(ct, tmp_path / "a.nrrd")
    text = (tmp_path / "a.nrrd").read_bytes()
    assert b"Jane" not in text and b"private" not in text and b"CTStyleGen.Seed:=7" in text
    assert ct.GetMetaData("0010|0010") == "Doe^Jane"  # the image given is left alone
    sitk.WriteImage(ct, str(tmp_path / "b.nrrd"))
    assert read_ct(tmp_path / "b.nrrd").GetMetaDataKeys() == ()


def test_dicom_slices_are_sorted_by_position(tmp_path: Path) -> None:
    hu = noise()
    ct = read_ct(write_dicom(tmp_path / "s", hu, [10.0, 12.5, 15.0, 17.5, 20.0]))
    assert np.array_equal(sitk.GetArrayFromImage(ct), hu)
    assert same_grid(ct, image(hu, origin=(-20, 30, 10)))
    assert ct.GetMetaDataKeys() == ()


def test_one_dicom_slice_is_as_thick_as_it_says(tmp_path: Path) -> None:
    folder = write_dicom(tmp_path / "s", noise((1, 9, 8)), [10.0])
    for path in (folder, next(folder.iterdir())):
        assert read_ct(path).GetSpacing() == pytest.approx((0.7, 0.9, 2.5))


@pytest.mark.parametrize(
    ("whole", "broken"),
    [(b"DS\4\0002.5 ", b"DS\4\0002\\5 "), (b"DS\4\0002.5 ", b"DS\4\0thin"), (b"\2\0US\2\0\1\0", b"\2\0US\2\0x ")],
    ids=["two thicknesses", "a word for thickness", "8312 samples a pixel"],
)
def test_dicom_with_numbers_that_cannot_be_is_refused(
    tmp_path: Path, refused: Refused, whole: bytes, broken: bytes
) -> None:
    folder = write_dicom(tmp_path / "one", noise((1, 5, 6)), [7.5])
    (file,) = folder.iterdir()
    data = file.read_bytes()
    assert data.count(whole) == 1
    file.write_bytes(data.replace(whole, broken))
    assert "can't be read" in refused(read_ct, folder) and "can't be read" in refused(read_ct, file)


def test_a_damaged_slice_is_told_and_not_left_out(tmp_path: Path, refused: Refused) -> None:
    folder = write_dicom(tmp_path / "s", noise(), [10.0, 12.5, 15.0, 17.5, 20.0])
    last = max(folder.iterdir())
    last.write_bytes(last.read_bytes() + b"\xe1\x7f\x10\0OB\0\0\xff\xff\xff\x7f")  # an element of 2 GB
    assert str(last) in refused(read_ct, folder)


@pytest.mark.parametrize("sizes", ["2 2", "2 2 2"])
def test_keys_and_values_of_a_header_may_be_no_text(tmp_path: Path, sizes: str) -> None:
    header = f"NRRD0004\ntype: short\ndimension: {len(sizes.split())}\nsizes: {sizes}\nencoding: raw\nendian: little\n"
    (tmp_path / "a.nrrd").write_bytes(header.encode() + b"k\xff:=1\nname:=Lungenfl\xfcgel\n\n" + b"\1" * 16)
    assert metadata(read_image(tmp_path / "a.nrrd"))["name"] == "Lungenfl�gel"


def test_a_folder_with_several_series_is_refused_unless_one_is_ct(tmp_path: Path, refused: Refused) -> None:
    folder = write_dicom(tmp_path / "s", noise(), [10.0, 12.5, 15.0, 17.5, 20.0], "1.2.826.1111")
    write_dicom(folder, noise((1, 9, 8)), [0.0], "1.2.826.2222", modality="MR")
    assert read_ct(folder).GetSize() == (8, 9, 5)
    write_dicom(folder, noise((2, 9, 8)), [0.0, 2.5], "1.2.826.3333")
    message = refused(read_ct, folder)
    assert "-1111-" in message and "-3333-" in message and "-2222-" not in message  # files of both
    assert "1.2.826" not in message and "Jane" not in message


def test_dicom_that_is_no_whole_ct_is_refused(tmp_path: Path, refused: Refused, capfd: pytest.CaptureFixture) -> None:
    gap = write_dicom(tmp_path / "gap", noise(), [10.0, 12.5, 15.0, 20.0, 22.5])
    assert "regular grid" in refused(read_ct, gap)
    thin = [0.6 * k for k in range(21) if k != 10]  # none is half a slice off
    assert "0.60 to 1.20 mm apart" in refused(read_ct, write_dicom(tmp_path / "thin", noise((20, 9, 8)), thin))
    assert "no CT" in refused(read_ct, write_dicom(tmp_path / "mr", noise((1, 9, 8)), [0.0], modality="MR"))
    assert "is MR" in refused(read_ct, next((tmp_path / "mr").iterdir()))
    (tmp_path / "empty").mkdir()
    assert "no DICOM" in refused(read_ct, tmp_path / "empty")
    assert capfd.readouterr().err == ""


def test_real_dicom_gives_the_case_made_from_it(shared: Path) -> None:
    series, case = (
        read_ct(shared / "dicom" / "LIDC-IDRI-0001"),
        read_ct(shared / "cases" / "LIDC-IDRI-0001" / "ct.nrrd"),
    )
    assert np.array_equal(sitk.GetArrayFromImage(series), sitk.GetArrayFromImage(case))
    assert same_grid(series, case)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.99])
def test_a_file_cut_short_is_refused(
    tmp_path: Path, refused: Refused, capfd: pytest.CaptureFixture, name: str, share: float
) -> None:
    write_volume(image(noise((6, 40, 40))), tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(share * len(whole))])
    assert name in refused(read_ct, tmp_path / name)
    assert capfd.readouterr().err == ""


def test_what_is_no_image_is_refused(tmp_path: Path, refused: Refused, capfd: pytest.CaptureFixture) -> None:
    for name in (*FORMATS, "a.txt", "a.dcm", "a"):
        (tmp_path / name).write_text("not an image\n")
        assert "can't be read" in refused(read_ct, tmp_path / name)
    assert "doesn't exist" in refused(read_ct, tmp_path / "missing.nrrd")
    assert capfd.readouterr().err == ""


def test_reading_in_many_threads_gives_stderr_back(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    sitk.WriteImage(image(noise()), str(tmp_path / "ct.nrrd"))
    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(read_ct, [tmp_path / "ct.nrrd"] * 64))) == 64
    os.write(2, b"still here")
    assert capfd.readouterr().err == "still here"


def test_images_that_are_no_ct_are_refused(tmp_path: Path, refused: Refused) -> None:
    bad = tmp_path / "bad.nrrd"
    for values, told in (
        (np.full((3, 4, 5), np.nan, np.float32), "NaN"),
        (np.array([[[-500, np.inf]]], np.float32), "NaN"),
        (np.arange(60, dtype=np.uint8).reshape(3, 4, 5), "Hounsfield"),
        (np.linspace(0, 1, 60, dtype=np.float32).reshape(3, 4, 5), "Hounsfield"),
    ):
        sitk.WriteImage(sitk.GetImageFromArray(values), str(bad))
        assert told in refused(read_ct, bad)
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((3, 4, 5, 3), np.uint8), isVector=True), str(bad))
    assert "color" in refused(read_ct, bad)
    sitk.WriteImage(sitk.GetImageFromArray(noise((2, 3, 4, 5)), isVector=False), str(bad))
    assert "4 dimensions" in refused(read_ct, bad)


def test_an_absurd_header_is_refused_before_memory_is_asked_for(tmp_path: Path, refused: Refused) -> None:
    header = "NRRD0004\ntype: int16\ndimension: 3\nsizes: {}\nencoding: raw\nendian: little\n\n"
    for sizes in ("100000 100000 1000", "4000000000 4000000000 4000000000"):
        (tmp_path / "huge.nrrd").write_text(header.format(sizes))
        refused(read_ct, tmp_path / "huge.nrrd")


def test_a_sheared_nifti_is_refused(tmp_path: Path, refused: Refused) -> None:
    write_volume(image(noise()), tmp_path / "a.nii")
    data = bytearray((tmp_path / "a.nii").read_bytes())
    data[252:256] = (0).to_bytes(2, "little") + (1).to_bytes(2, "little")  # no qform; an sform whose rows follow
    data[280:328] = np.array([[1, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]], np.float32).tobytes()
    (tmp_path / "a.nii").write_bytes(data)
    assert "sheared" in refused(read_ct, tmp_path / "a.nii")


def test_nothing_is_left_where_a_volume_cannot_be_written(tmp_path: Path, refused: Refused) -> None:
    for name in ("a.png", "a", "missing/a.nrrd"):
        refused(write_volume, image(noise()), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", FORMATS)
def test_a_full_disk_leaves_the_old_file(tmp_path: Path, refused: Refused, name: str) -> None:
    write_volume(image(noise()), tmp_path / name)
    before = (tmp_path / name).read_bytes()
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # writes beyond fail, as on a full disk
    try:
        assert "room" in refused(write_volume, image(noise((20, 60, 60))), tmp_path / name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == before


def test_several_volumes_are_all_whole_or_all_absent(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.nrrd" for number in range(3)]
    paths[0].write_text("old")

    def two() -> Iterator[sitk.Image]:
        yield image(noise())
        yield image(noise())
        raise InputError("the third can't be")

    with pytest.raises(InputError, match="the third"):
        write_volumes(two(), paths)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]
    write_volumes([image(noise())] * 3, paths)
    assert sorted(tmp_path.iterdir()) == paths and all(same_grid(read_ct(path), image(noise())) for path in paths)


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="names there are always text")
def test_a_name_that_is_no_text_is_refused(tmp_path: Path, refused: Refused) -> None:
    """As old archives leave them; the libraries below would end the process."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/M\xfcller"))
    folder.mkdir()
    write_volume(image(noise()), tmp_path / "ct.nrrd")
    (tmp_path / "ct.nrrd").rename(folder / "ct.nrrd")
    assert "UTF-8" in refused(read_ct, folder / "ct.nrrd")
    assert "UTF-8" in refused(write_volume, image(noise()), folder / "new.nrrd")
    write_dicom(folder / "dicom", noise((2, 9, 8)), [0.0, 2.5])
    assert "UTF-8" in refused(read_ct, folder / "dicom")


def test_axial_places_are_the_slices_own_in_the_patient() -> None:
    image = sitk.Image(5, 6, 7, sitk.sitkUInt8)
    image.SetSpacing((1, 2, 3))
    image.SetOrigin((4, -5, 60))
    assert axial_places(image).tolist() == [60, 63, 66, 69, 72, 75, 78]
    assert axial_places(image[:, :, 2:4]).tolist() == [66, 69]
    assert axial_places(sitk.Flip(image, (False, False, True))).tolist() == axial_places(image).tolist()
    assert axial_places(sitk.DICOMOrient(image, "PIR")).tolist() == axial_places(image).tolist()


def test_same_grid_tells_a_hundredth_of_a_voxel() -> None:
    ct = image(noise(), direction=OBLIQUE)
    assert same_grid(ct, image(noise(), origin=(-20.0001, 30, -100.5), direction=OBLIQUE))
    for other in (
        image(noise(), origin=(-20.1, 30, -100.5), direction=OBLIQUE),
        image(noise(), spacing=(0.7, 0.9, 2.6), direction=OBLIQUE),
        image(noise()),
        image(noise((5, 8, 9)), direction=OBLIQUE),
    ):
        assert not same_grid(ct, other)
