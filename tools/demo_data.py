"""Two real chests for the demo and the tests, from packages that anyone can install: the project holds no patient data.

Content: the chest CT and Slicer segmentation inside the package `slicerio` (128 x 128 x 34). Style: a contrast-enhanced
thorax CT of another patient, one file inside TotalSegmentator's source distribution on PyPI, labelled by thresholds.

    python -m tools.demo_data FOLDER        # FOLDER/content, FOLDER/style
"""

import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import slicerio
from CTStyleGenCore.anatomy import load_anatomy
from CTStyleGenCore.cases import read_ct, read_labels, write_volume
from CTStyleGenCore.errors import InputError
from CTStyleGenCore.files import sha256, written_beside
from CTStyleGenCore.labelling import label_chest

_SDIST = "totalsegmentator-2.18.0.tar.gz"
_SDIST_SHA256 = "5d4223ef93973bc36d710869d11e7742ead2c154c72f7f9edcaaadd5b6c4bd03"
_STYLE_CT = "totalsegmentator-2.18.0/tests/reference_files/aorta_report/example_ct.nii.gz"
_STYLE_CT_SHA256 = "372d98723e3283a8d4a0ae2f0ef1e581c0ad17b673b30b2e8d3e215180cc2a12"
_STYLE_SIZE = (256, 256, 50)
_STYLE_SPACING_MM = (1.5234375, 1.5234375, 3.0)  # 390 mm wide, as the content's slices
_STYLE_BOTTOM_MM = 69.0  # from the file's lowest slice: below lies the abdomen


def content_case(folder: Path) -> Path:
    """Writes slicerio's chest as a case: ct.nrrd, and segmentation.seg.nrrd in which nothing of a chest is missing.

    Slicer's own segments there are ribs, spine, lungs and all other tissue; mediastinum and spinal canal are added to
    them, in a layer of their own that overlaps the tissue.
    """
    folder = Path(folder)
    if _is_there(folder, "segmentation.seg.nrrd"):
        return folder
    print(f"Content: slicerio's chest CT and its segmentation -> {folder}")
    ct_path, segmentation_path = map(slicerio.get_testdata_file, ("CTChest4.nrrd", "Segmentation.seg.nrrd"))
    anatomy = load_anatomy("thorax")
    ct = read_ct(ct_path)
    own, _ = read_labels(segmentation_path, anatomy, ct)
    tissue = sitk.GetArrayFromImage(own) == anatomy.organ("body").label
    found = sitk.GetArrayFromImage(label_chest(ct, anatomy))
    segmentation = slicerio.read_segmentation(segmentation_path)
    for name, code, color in (
        ("mediastinum", "72410000", [0.75, 0.22, 0.17]),
        ("spinal canal", "61853006", [0.95, 0.77, 0.06]),
    ):
        mask = tissue & (found == anatomy.organ(name).label)
        slicerio.add_segment(segmentation, mask.T, _described(name, code, color))
    folder.mkdir(parents=True, exist_ok=True)
    with written_beside(folder / "segmentation.seg.nrrd") as path:
        slicerio.write_segmentation(str(path), segmentation)
    write_volume(ct, folder / "ct.nrrd")
    return folder


def style_case(folder: Path, cache: Path) -> Path:
    """Writes the thorax of another patient as a case: ct.nrrd (256 x 256 x 50) and labels.nrrd, by `label_chest`.

    cache: where the source distribution (38 MB) is downloaded to, if it isn't there.
    """
    folder = Path(folder)
    if _is_there(folder, "labels.nrrd"):
        return folder
    with tempfile.TemporaryDirectory() as unpacked:
        whole = read_ct(_extract(_download(Path(cache)), Path(unpacked)))
    ct = _chest_of(whole)
    print(f"Style: labelling the thorax by thresholds -> {folder}")
    labels = label_chest(ct, load_anatomy("thorax"))
    folder.mkdir(parents=True, exist_ok=True)
    write_volume(labels, folder / "labels.nrrd")
    write_volume(ct, folder / "ct.nrrd")
    return folder


def _is_there(folder: Path, segmentation: str) -> bool:
    """Whether the case was written before: the CT comes last."""
    return (folder / segmentation).is_file() and (folder / "ct.nrrd").is_file()


def _described(name: str, code: str, color: list[float]) -> dict:
    """A segment's fields as slicerio wants them."""
    terminology = {
        "contextName": "Segmentation category and type - 3D Slicer General Anatomy list",
        "category": ["SCT", "123037004", "Anatomical Structure"],
        "type": ["SCT", code, name.capitalize()],
    }
    return {"id": name.replace(" ", "_"), "name": name, "color": color, "terminology": terminology}


def _download(cache: Path) -> Path:
    """TotalSegmentator's source distribution, from the package index that pip uses, its hash checked first."""
    path = cache / _SDIST
    if path.is_file() and sha256(path) == _SDIST_SHA256:
        return path
    print(f"Style: downloading {_SDIST} (38 MB) with pip -> {cache}")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        wanted = Path(scratch) / "requirements.txt"
        wanted.write_text(f"TotalSegmentator==2.18.0 --hash=sha256:{_SDIST_SHA256}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "TotalSegmentator"]
        ran = subprocess.run(
            [*command, "--dest", scratch, "--requirement", str(wanted)], capture_output=True, text=True
        )
        found = Path(scratch) / _SDIST
        if ran.returncode or not found.is_file() or sha256(found) != _SDIST_SHA256:
            raise InputError(f"pip can't download {_SDIST}: go online, or put the file from PyPI into {cache}.")
        with written_beside(path) as beside:
            shutil.copyfile(found, beside)
    return path


def _extract(sdist: Path, folder: Path) -> Path:
    """The one CT of the archive, nothing else of it unpacked."""
    path = folder / Path(_STYLE_CT).name
    with tarfile.open(sdist) as archive:
        member = archive.extractfile(_STYLE_CT)
        if member is None:
            raise InputError(f"{sdist} doesn't hold {_STYLE_CT}: delete it, to download it again.")
        path.write_bytes(member.read())
    if sha256(path) != _STYLE_CT_SHA256:
        raise InputError(f"{sdist} holds another CT than expected: delete it, to download it again.")
    return path


def _chest_of(whole: sitk.Image) -> sitk.Image:
    """The chest, in square slices of the content's width, the patient in the middle; -1024 where there was no CT."""
    whole = sitk.DICOMOrient(whole, "LPS")
    size, spacing = np.array(whole.GetSize()), np.array(_STYLE_SPACING_MM)
    middle = np.array(whole.TransformContinuousIndexToPhysicalPoint(((size - 1) / 2).tolist()))
    origin = middle - (np.array(_STYLE_SIZE) - 1) / 2 * spacing
    origin[2] = whole.GetOrigin()[2] + _STYLE_BOTTOM_MM
    grid = sitk.Image(_STYLE_SIZE, sitk.sitkInt16)
    grid.SetSpacing(_STYLE_SPACING_MM)
    grid.SetOrigin(origin.tolist())
    return sitk.Resample(whole, grid, sitk.Transform(), sitk.sitkLinear, -1024.0, sitk.sitkInt16)


def main(arguments: list[str]) -> int:
    """Writes both cases; 2 and a sentence on stderr where that can't be."""
    if len(arguments) != 1:
        print("usage: python -m tools.demo_data FOLDER", file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    try:
        content_case(folder / "content")
        style_case(folder / "style", folder / "cache")
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
