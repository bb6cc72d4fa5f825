"""Volumes on disk: NRRD, NIfTI, MetaImage and DICOM in, int16 HU with its geometry out, and back.

Images are SimpleITK's: index order (i, j, k), physical points in mm, LPS. Arrays from them are (k, j, i). What a file
says beyond voxels and geometry (a patient's name, private DICOM tags) is dropped as it is read.
"""

import gzip
import math
import os
import struct
import sys
import threading
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import product
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .dicom_elements import has_pixels, is_dicom
from .errors import InputError
from .files import require_file_place, written_beside
from .headers import data_file

AIR_HU = -1024  # scanners pad the corners with less (-2000, -3024); that is not Hounsfield units
MAX_VOXELS = 2**30  # 1024 x 1024 x 1024; a header that claims more is damaged, or no CT
_WIDEST_GAP = 1.3  # between slices of a series, in units of the median one
_DEFLATE = 1032  # bytes that deflate packs into one, at the most
_NOT_STRAIGHT = 0.01  # of the cosine between two axes; what a file rounds is less
_IMAGE_IO = {
    ".nrrd": "NrrdImageIO",
    ".nhdr": "NrrdImageIO",
    ".nii": "NiftiImageIO",
    ".nii.gz": "NiftiImageIO",
    ".mha": "MetaImageIO",
    ".mhd": "MetaImageIO",
}
_MODALITY, _THICKNESS, _SERIES = "0008|0060", "0018|0050", "0020|000e"
_FORMATS = "NRRD, NIfTI, MetaImage (.mha) or DICOM"
_STDERR = threading.RLock()  # stderr is the whole process's: one thread at a time turns it away
_WRITABLE = (".nrrd", ".nii", ".nii.gz", ".mha")


def read_ct(path: str | Path) -> sitk.Image:
    """A CT as a 3-D int16 image in HU, without metadata: from a file, a DICOM file, or a folder with one DICOM series.

    HU below -1024 are padding and become -1024, HU above 32767 become 32767; fractions are rounded. A 2-D image becomes
    one slice, 1 mm thick. InputError: missing, unreadable, cut short, 4-D, in color, not finite, not in HU, no CT, or a
    folder with no or several series, or with slices missing.
    """
    path = Path(path)
    return in_hu(_read_series(path) if path.is_dir() else read_image(path), path)


def read_image(path: str | Path) -> sitk.Image:
    """A 3-D image file as it is, several components a voxel allowed, metadata kept; 2-D gets a third axis of 1 mm."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} doesn't exist or is no file: check the path.")
    if suffix_of(path) not in _IMAGE_IO:
        return _read_dicom_file(path)
    reader = _header(path)
    _check_size(path, (*reader.GetSize(), reader.GetNumberOfComponents()), reader.GetDimension())
    _check_length(path, reader)
    _check_whole(path)
    with _unreadable(path):
        image = reader.Execute()
    if image.GetDimension() == 2:
        told = metadata(image)
        image = sitk.JoinSeries(image)
        for key, value in told.items():
            image.SetMetaData(key, value)
    _check_grid(path, image)
    return image


def voxel_count(path: str | Path) -> int:
    """The number of voxels of a CT, as `read_ct` takes it, by its header alone. InputError where there is none."""
    path = Path(path)
    if not path.is_dir():
        return math.prod(_header(path).GetSize())
    return sum(math.prod(reader.GetSize()) for reader in _ct_slices(path).values())


def write_volume(image: sitk.Image, path: str | Path, compress: bool = True) -> None:
    """Writes one volume: see `write_volumes`."""
    write_volumes([image], [Path(path)], compress)


def write_volumes(images: Iterable[sitk.Image], paths: Sequence[Path], compress: bool = True) -> None:
    """Writes each volume when it comes, beside its place, and moves them all in: all are whole, or all absent.

    Voxels and geometry are written, compressed unless somebody waits for a file that is soon gone.

    Of the metadata only keys that start with "CTStyleGen" are written; NIfTI, which has one line for all, says of a
    synthetic volume that it is one. InputError: a suffix other than .nrrd, .nii, .nii.gz, .mha; no such folder; no
    permission, no room on the disk.
    """
    for path in paths:
        _require_suffix(path)
    with ExitStack() as places:
        for image, path in zip(images, paths, strict=True):
            _write(image, path, places.enter_context(written_beside(path)), compress and suffix_of(path) != ".nii")


def _write(image: sitk.Image, path: Path, beside: Path, compress: bool) -> None:
    """Writes to ``beside`` what is to be ``path``."""
    kept = {key: value for key, value in metadata(image).items() if key.startswith("CTStyleGen")}
    image = without_metadata(image)
    for key, value in kept.items():
        image.SetMetaData(key, value)
    if kept.get("CTStyleGen.Synthetic") and suffix_of(path) in (".nii", ".nii.gz"):
        image.SetMetaData("ITK_FileNotes", "SYNTHETIC CTStyleGen")  # the header field "descrip"
    try:
        with _quiet():
            sitk.WriteImage(image, str(beside), useCompression=compress)
        # Not every writer complains when the disk fills up, so what is there is read back.
        whole = np.array_equal(sitk.GetArrayFromImage(read_image(beside)), sitk.GetArrayViewFromImage(image))
    except (RuntimeError, InputError):
        whole = False
    if not whole:
        raise InputError(f"{path} can't be written: look for room on the disk, and for permission.")


def require_writable(path: Path) -> None:
    """Raises InputError for what `write_volume` can't write, before there is anything to write."""
    _require_suffix(path)
    require_file_place(path)


def _require_suffix(path: Path) -> None:
    _require_unicode(path)
    if suffix_of(path) not in _WRITABLE:
        raise InputError(f"{path} can't be written: its name must end in {', '.join(_WRITABLE)}.")


def _require_unicode(path: Path) -> None:
    """InputError for a path that SimpleITK can't be told of: it would end the process."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"The name {path} isn't written in UTF-8: rename the file or its folder.") from error


def suffix_of(path: Path) -> str:
    """The suffix in lower case; ".nii.gz" is one."""
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else Path(name).suffix


def metadata(image: sitk.Image) -> dict[str, str]:
    """What a file says besides, by key, without keys that SimpleITK can't be asked for; bytes not in UTF-8 as �."""
    keys = [key for key in image.GetMetaDataKeys() if key.isascii()]
    return {key: image.GetMetaData(key).encode(errors="surrogateescape").decode(errors="replace") for key in keys}


def without_metadata(image: sitk.Image) -> sitk.Image:
    """A copy of voxels and geometry with an empty metadata dictionary."""
    several = image.GetNumberOfComponentsPerPixel() > 1
    copy = sitk.GetImageFromArray(sitk.GetArrayViewFromImage(image), isVector=several)
    copy.CopyInformation(image)
    return copy


def same_grid(one: sitk.Image, other: sitk.Image) -> bool:
    """Whether voxels lie on voxels: equal sizes, and corners less than a hundredth of a voxel apart."""
    if one.GetSize() != other.GetSize():
        return False
    tolerance_mm = 0.01 * min(one.GetSpacing())
    corners = product(*((0, size - 1) for size in one.GetSize()))
    return all(_distance_mm(one, other.TransformIndexToPhysicalPoint(at), at) < tolerance_mm for at in corners)


def axial(image: sitk.Image) -> np.ndarray:
    """The volume's voxels as [slice, row, column], slices axial (the axis nearest to inferior-superior first)."""
    return sitk.GetArrayFromImage(sitk.DICOMOrient(image, "LPS"))


def axial_axis(image: sitk.Image) -> int:
    """The axis (0: i, 1: j, 2: k) nearest to inferior-superior: the one that slices are numbered along."""
    letters = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection())
    return next(axis for axis, letter in enumerate(letters) if letter in "IS")


def axial_places(image: sitk.Image) -> np.ndarray:
    """Where the slices of ``axial`` lie along their normal, in mm: [slices]; one that is cut out stays in its place."""
    turned = sitk.DICOMOrient(image, "LPS")
    normal = np.reshape(turned.GetDirection(), (3, 3))[:, 2]
    return normal @ turned.GetOrigin() + turned.GetSpacing()[2] * np.arange(turned.GetSize()[2])


def from_axial(array: np.ndarray, reference: sitk.Image) -> sitk.Image:
    """The inverse of ``axial``: an image of ``array``'s voxels, of as many values, in exactly ``reference``'s grid."""
    turned = sitk.DICOMOrient(reference, "LPS")
    image = sitk.GetImageFromArray(array, isVector=reference.GetNumberOfComponentsPerPixel() > 1)
    image.CopyInformation(turned)
    stored = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(reference.GetDirection())
    image = sitk.DICOMOrient(image, stored)
    image.CopyInformation(reference)  # equal already, but for rounding
    return image


def _distance_mm(image: sitk.Image, point: Sequence[float], index: Sequence[int]) -> float:
    return math.dist(point, image.TransformIndexToPhysicalPoint(tuple(index)))


def in_hu(image: sitk.Image, path: str | Path) -> sitk.Image:
    """The image as int16 HU with nothing but voxels and geometry; InputError, about ``path``, if it can't be HU."""
    if image.GetNumberOfComponentsPerPixel() > 1 or "complex" in image.GetPixelIDTypeAsString():
        raise InputError(f"{path} is in color or has several values a voxel: give a CT with one value in HU a voxel.")
    values = sitk.GetArrayViewFromImage(image)
    low, high = values.min(), values.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError(f"{path} has voxels that are no number (NaN or infinite): replace them, for example by -1024.")
    if 0 <= low < high <= 255:
        raise InputError(f"{path} isn't in Hounsfield units (values {low:g} to {high:g}): is it a picture or labels?")
    clipped = np.clip(np.rint(values) if values.dtype.kind == "f" else values, AIR_HU, np.iinfo(np.int16).max)
    ct = sitk.GetImageFromArray(clipped.astype(np.int16))
    ct.CopyInformation(image)
    return ct


def _read_series(folder: Path) -> sitk.Image:
    """The one CT series of a DICOM folder; InputError unless its slices lie on one regular grid."""
    slices = _ct_slices(folder)
    files, readers = list(slices), list(slices.values())
    if len(files) == 1:
        return _read_dicom_file(files[0])
    _check_size(folder, (*readers[0].GetSize()[:2], len(files)), 3)
    for file, reader in slices.items():
        _check_length(file, reader)
    with _unreadable(folder):
        image = sitk.ReadImage([*map(str, files)], imageIO="GDCMImageIO")
    _check_grid(folder, image)
    off_mm = max(_distance_mm(image, reader.GetOrigin(), (0, 0, k)) for k, reader in enumerate(readers))
    gaps_mm = np.diff([_height_mm(reader) for reader in readers])
    # One slice that is missing among many thin ones puts none far off.
    if off_mm > 0.5 * min(image.GetSpacing()) or gaps_mm.max() > _WIDEST_GAP * np.median(gaps_mm):
        raise InputError(
            f"The slices in {folder} don't lie on a regular grid ({off_mm:.1f} mm off, {gaps_mm.min():.2f} to "
            f"{gaps_mm.max():.2f} mm apart): slices are missing or doubled, or the gantry was tilted; export the whole "
            "series, or resample it in 3D Slicer."
        )
    return image


def _ct_slices(folder: Path) -> dict[Path, sitk.ImageFileReader]:
    """The files of the one CT series in a DICOM folder, each with its header, in the order of their positions."""
    series: dict[str, dict[Path, sitk.ImageFileReader]] = {}
    for path in sorted(path for path in folder.iterdir() if path.is_file() and is_dicom(path)):
        with _unreadable(path):
            is_image = has_pixels(path)
        if is_image:
            reader = _header(path)
            series.setdefault(_tag(reader, _SERIES), {})[path] = reader
    if not series:
        raise InputError(f"{folder} holds no DICOM series: give an image file, or a folder with one CT series.")
    cts = [files for files in series.values() if _tag(next(iter(files.values())), _MODALITY) in ("CT", "")]
    if not cts:
        raise InputError(f"{folder} holds DICOM but no CT: give a folder with one CT series.")
    if len(cts) > 1:
        found = "; ".join(f"{next(iter(files)).name} and {len(files) - 1} more files" for files in cts)
        raise InputError(f"{folder} holds {len(cts)} DICOM series, so give each a folder of its own: {found}.")
    return dict(sorted(cts[0].items(), key=lambda slice_: _height_mm(slice_[1])))


def _height_mm(reader: sitk.ImageFileReader) -> float:
    """Where a slice lies along its normal."""
    return float(np.dot(np.reshape(reader.GetDirection(), (3, 3))[:, 2], reader.GetOrigin()))


def _read_dicom_file(path: Path) -> sitk.Image:
    """One DICOM file; a lone slice is as thick as its header says, where SimpleITK says 1 mm."""
    reader = _header(path)
    if _tag(reader, _MODALITY) not in ("CT", ""):
        raise InputError(f"{path} is {_tag(reader, _MODALITY)}, not CT: give a CT.")
    _check_size(path, (*reader.GetSize(), reader.GetNumberOfComponents()), reader.GetDimension())
    _check_length(path, reader)
    with _unreadable(path):
        image = reader.Execute()
        thickness_mm = float(_tag(reader, _THICKNESS) or 0)
    if image.GetSize()[-1] == 1 and thickness_mm > 0:
        image.SetSpacing((*image.GetSpacing()[:2], thickness_mm))
    _check_grid(path, image)
    return image


def _header(path: Path) -> sitk.ImageFileReader:
    """A reader of that file, with its header read."""
    _require_unicode(path)
    with _unreadable(path):
        if not _image_io(path):
            has_pixels(path)
        data_file(path, _image_io(path))
    reader = sitk.ImageFileReader()
    reader.SetImageIO(_image_io(path) or "GDCMImageIO")  # named, as guessing tries HDF5, aloud
    reader.SetFileName(str(path))
    with _unreadable(path):
        reader.ReadImageInformation()
    return reader


def _image_io(path: Path) -> str | None:
    """SimpleITK's name of the reader of such files; None for DICOM, whose files may have any name."""
    return _IMAGE_IO.get(suffix_of(path))


def _tag(reader: sitk.ImageFileReader, tag: str) -> str:
    return reader.GetMetaData(tag).strip() if reader.HasMetaDataKey(tag) else ""


def _check_size(path: Path, size: Sequence[int], dimension: int) -> None:
    """InputError for 4-D files and for sizes that only a damaged header has, before memory is asked for."""
    if dimension not in (2, 3):
        raise InputError(f"{path} has {dimension} dimensions: give a 3-D volume, one point in time.")
    if not 0 < math.prod(size) <= MAX_VOXELS:
        shape = " x ".join(map(str, size))
        raise InputError(f"{path} claims {shape} voxels, more than the {MAX_VOXELS} that a volume may have.")


def _check_grid(path: Path, image: sitk.Image) -> None:
    """InputError unless voxels have a size, a place, and axes at right angles."""
    axes = np.reshape(image.GetDirection(), (3, 3))
    if not np.isfinite((*image.GetSpacing(), *image.GetOrigin(), *axes.flat)).all() or min(image.GetSpacing()) <= 0:
        raise InputError(f"{path} has voxels without a size or place (spacing, origin, directions): it is damaged.")
    if np.abs(axes.T @ axes - np.eye(3)).max() > _NOT_STRAIGHT:
        raise _sheared(path)


def _sheared(path: Path) -> InputError:
    return InputError(f"{path} is sheared (its axes aren't at right angles): resample it, as in 3D Slicer.")


def _check_length(path: Path, reader: sitk.ImageFileReader) -> None:
    """InputError for a header that claims more than a file of that length can hold, before memory is asked for."""
    width = sitk.Image((1, 1), reader.GetPixelID()).GetSizeOfPixelComponent()
    claimed = math.prod(reader.GetSize()) * reader.GetNumberOfComponents() * width
    if claimed > data_file(path, _image_io(path)).stat().st_size * _DEFLATE:
        raise InputError(f"{path} claims more voxels than fit into a file of its length: it is cut short or damaged.")


def _check_whole(path: Path) -> None:
    """InputError if a NIfTI file is shorter than its header says: SimpleITK would fill the rest with zeros."""
    kind = suffix_of(path)
    if kind not in (".nii", ".nii.gz"):
        return
    with (gzip.open if kind == ".nii.gz" else open)(path, "rb") as file, _unreadable(path):
        wanted = _nifti_length(file.read(540))
        there = file.seek(0, os.SEEK_END) if kind == ".nii" else _unzipped_length(path)
        if there < wanted:
            raise RuntimeError("cut short")


def _unzipped_length(path: Path) -> int:
    with gzip.open(path, "rb") as file:
        return sum(len(block) for block in iter(lambda: file.read(2**20), b""))


def _nifti_length(header: bytes) -> int:
    """The length in bytes of an unzipped NIfTI file, from its header (NIfTI-1: 348 bytes, NIfTI-2: 540 bytes)."""
    order = "<" if struct.unpack("<i", header[:4])[0] in (348, 540) else ">"
    first = struct.unpack(order + "i", header[:4])[0] == 348
    dim, bits, offset = (("8h", 40), ("h", 72), ("f", 108)) if first else (("8q", 16), ("h", 14), ("q", 168))
    count, *sizes = struct.unpack_from(order + dim[0], header, dim[1])
    voxels = math.prod(sizes[:count])
    return int(
        struct.unpack_from(order + offset[0], header, offset[1])[0]
        + voxels * struct.unpack_from(order + bits[0], header, bits[1])[0] // 8
    )


@contextmanager
def _unreadable(path: Path) -> Iterator[None]:
    """SimpleITK's many lines as one InputError, and nothing of it on stderr."""
    try:
        with _quiet():
            yield
    except (RuntimeError, OSError, EOFError, ValueError, MemoryError, struct.error, zlib.error) as error:
        if "orthonormal" in str(error):
            raise _sheared(path) from error
        raise InputError(f"{path} can't be read as {_FORMATS}: it is cut short, damaged or of another kind.") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps ITK and the C libraries below it from writing on stderr: what goes wrong comes as an exception."""
    with _STDERR:
        warned = sitk.ProcessObject.GetGlobalWarningDisplay()
        sitk.ProcessObject.SetGlobalWarningDisplay(False)
        if sys.stderr:  # None in programs without a console
            sys.stderr.flush()
        stderr = os.dup(2)
        try:
            with Path(os.devnull).open("w") as nowhere:
                os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            sitk.ProcessObject.SetGlobalWarningDisplay(warned)
