"""The main job on real CT, from files to a scene that opens in Slicer: python -m tools.demo FOLDER (make demo).

Trains on one patient's slices with the look of another patient's CT, then synthesizes, through
Slicer's own libraries, CT for slices that were held out and for the same anatomy with a heart grown by 8 mm.
"""

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import SimpleITK as sitk
from CTStyleGenCore.anatomy import load_anatomy
from CTStyleGenCore.cases import read_case, write_volume
from CTStyleGenCore.errors import InputError
from CTStyleGenCore.slices import axial

from . import demo_data

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parents[1]
_HELD_OUT = (15, 22)  # slices of the content patient that training never sees: the middle of the chest
_TRAINED = ((6, 14), (23, 34))  # below and above, a slice of distance between
_STYLE_SLICES = (8, 45)  # of the style patient: heart to upper chest
_GROWTH_MM = 8.0
_TRAINING = ("--preset", "styles", "--size", "128", "--steps", "400", "--features", "random")
_CODES = 3


def main(arguments: list[str]) -> int:
    """Runs the demo in a folder; 2 and a sentence on stderr where that can't be."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path("demo"))
    folder = parser.parse_args(arguments).folder.resolve()
    start = time.monotonic()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _prepare_cases(folder)
        _train(folder)
        synthesize(folder)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    seconds = time.monotonic() - start
    print(f"Done in {seconds:.0f} s. Look at {folder}/contact_sheet.png; {folder}/demo.mrb opens in Slicer.")
    return 0


def _prepare_cases(folder: Path) -> None:
    """The content patient and the style patient, cut into cases."""
    demo_data.content_case(folder / "data" / "content")
    cut_cases(folder, demo_data.style_case(folder / "data" / "style", folder / "data" / "cache"))


def cut_cases(folder: Path, style_case: Path) -> None:
    """Two training cases of the content patient, the held-out slices between them, and the style case."""
    anatomy = load_anatomy("thorax")
    content, style = (read_case(path, anatomy) for path in (folder / "data" / "content", style_case))
    shutil.rmtree(folder / "cases", ignore_errors=True)
    for name, case, (first, last) in (
        ("content-below", content, _TRAINED[0]),
        ("content-above", content, _TRAINED[1]),
        ("style", style, _STYLE_SLICES),
        ("../held-out", content, _HELD_OUT),
    ):
        case_folder = (folder / "cases" / name).resolve()
        case_folder.mkdir(parents=True, exist_ok=True)
        write_volume(case.ct[:, :, first:last], case_folder / "ct.nrrd")
        write_volume(case.labels[:, :, first:last], case_folder / "labels.nrrd")


def _train(folder: Path) -> None:
    print("Training on 28 slices of both patients (minutes).", flush=True)
    command = [sys.executable, "-m", "CTStyleGenCore", "train", "--cases", str(folder / "cases"), "--style", "style"]
    subprocess.run([*command, *_TRAINING, "--output", str(folder / "chest.ctstyle")], check=True)


def synthesize(folder: Path) -> None:
    """Through MRML: loads the held-out CT and the Slicer segmentation, synthesizes, edits, synthesizes again, saves."""
    sys.path[:0] = [str(ROOT / "CTStyleGen"), str(ROOT / "CTStyleGen" / "Testing" / "Python")]
    from CTStyleGenTesting import prepare

    prepare()
    import slicer
    from CTStyleGenLib.conditioning import conditioningFromSegmentation
    from CTStyleGenLib.geometry import imageInGrid

    from CTStyleGen import CTStyleGenLogic

    print("Synthesizing the held-out slices with three noise codes, then an edited anatomy.", flush=True)
    reference = add_volume(sitk.ReadImage(str(folder / "held-out" / "ct.nrrd")), "Chest CT, held-out slices")
    add_volume(sitk.ReadImage(str(folder / "cases" / "style" / "ct.nrrd")), "Style CT of another patient")
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Chest")
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(folder / "data" / "content" / "segmentation.seg.nrrd"))
    storage.ReadData(segmentation)
    segmentation.CreateDefaultDisplayNodes()

    logic, model = CTStyleGenLogic(), folder / "chest.ctstyle"
    codes = logic.synthesize(segmentation, reference, model=model, samples=_CODES)
    edited = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    edited.Copy(segmentation)
    edited.SetName("Chest with a larger heart")
    edited.RemoveAllDisplayNodeIDs()  # else both have one
    edited.CreateDefaultDisplayNodes()
    grow(edited, "mediastinum", reference)
    grown = logic.synthesize(edited, reference, model=model)

    for name, node in [*((f"code-{n}", node) for n, node in enumerate(codes, 1)), ("larger-heart", grown)]:
        _write(node, folder / f"synthetic-{name}.nrrd")
    _save_scene(folder / "demo.mrb", reference, grown, [segmentation, edited])
    arrays = [axial(imageInGrid(slicer.util.arrayFromVolume(node), node)) for node in (*codes, grown)]
    labels = conditioningFromSegmentation(edited, reference, load_anatomy("thorax")).labels
    _contact_sheet(folder, arrays[:_CODES], arrays[-1], axial(imageInGrid(labels, reference)))


def _save_scene(path: Path, reference: Any, result: Any, segmentations: list[Any]) -> None:
    """Writes the scene: it opens with the result in the views, over the reference, in the last segments' outlines."""
    import slicer

    from .slice_views import ORIENTATIONS, SliceView

    for segmentation in segmentations:
        segmentation.GetDisplayNode().SetVisibility2DFill(False)
        segmentation.GetDisplayNode().SetVisibility(segmentation is segmentations[-1])
    for name in ORIENTATIONS:
        view = SliceView(name)
        view.show(reference, result)
        view.close()
    if not slicer.mrmlScene.WriteToMRB(str(path)):
        raise InputError(f"The scene {path} can't be written: look for room on the disk.")


def add_volume(image: sitk.Image, name: str) -> Any:
    """A volume node of an image: positions in SimpleITK are LPS, in Slicer RAS."""
    import slicer

    lps_to_ras = np.diag([-1.0, -1.0, 1.0, 1.0])
    ijk_to_lps = np.eye(4)
    ijk_to_lps[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    ijk_to_lps[:3, 3] = image.GetOrigin()
    node = slicer.util.addVolumeFromArray(sitk.GetArrayFromImage(image), lps_to_ras @ ijk_to_lps, name)
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().AutoWindowLevelOff()
    node.GetDisplayNode().SetWindowLevel(1400, -500)  # the preset CT_LUNG
    return node


def _write(node: Any, path: Path) -> None:
    """A synthetic volume as a file that says so, with the node's provenance in its header."""
    import slicer
    from CTStyleGenLib.geometry import imageInGrid

    image = imageInGrid(slicer.util.arrayFromVolume(node), node)
    for name in node.GetAttributeNames():
        image.SetMetaData(name, node.GetAttribute(name))
    write_volume(image, path)


def grow(segmentation: Any, name: str, reference: Any) -> None:
    """Grows a segment in every slice, in the segmentation node itself."""
    import slicer

    segment = segmentation.GetSegmentation().GetSegmentIdBySegmentName(name)
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment, reference)
    radius = round(_GROWTH_MM / reference.GetSpacing()[0])
    grown = sitk.BinaryDilate(sitk.GetImageFromArray(mask), (radius, radius, 0))
    slicer.util.updateSegmentBinaryLabelmapFromArray(sitk.GetArrayFromImage(grown), segmentation, segment, reference)


def _contact_sheet(folder: Path, codes: list[np.ndarray], grown: np.ndarray, grown_labels: np.ndarray) -> None:
    """contact_sheet.png: segmentation, original, style, three noise codes and difference, for slices and the edit."""
    anatomy = load_anatomy("thorax")
    held_out, style = (read_case(folder / name, anatomy) for name in ("held-out", "cases/style"))
    real, labels, look = (axial(image) for image in (held_out.ct, held_out.labels, style.ct))
    rows = [(k, labels, codes) for k in (1, 3, 5)] + [(3, grown_labels, [grown, None, None])]
    titles = ("segmentation", "original", "style", "noise code 1", "noise code 2", "noise code 3", "code 1 - original")
    figure, axes = plt.subplots(len(rows), len(titles), figsize=(2.4 * len(titles), 2.6 * len(rows)))
    for row, (k, shown_labels, volumes) in zip(axes, rows, strict=True):
        style_slice = look[round((k + 0.5) * len(look) / len(real))]
        hu = [real[k], style_slice, *(None if volume is None else volume[k] for volume in volumes)]
        row[0].imshow(shown_labels[k], cmap="viridis", vmin=0, vmax=5, interpolation="nearest")
        for axis, image in zip(row[1:6], hu, strict=True):
            if image is not None:
                axis.imshow(image, cmap="gray", vmin=-1200, vmax=400)
        row[6].imshow(hu[2].astype(float) - real[k], cmap="RdBu_r", vmin=-500, vmax=500)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=9)
    axes[-1, 3].set_title("larger heart, code 1", fontsize=9)
    for axis in axes.flat:
        axis.axis("off")
    figure.suptitle("SYNTHETIC CT (noise codes). Window -1200 to 400 HU; difference -500 to 500 HU", fontsize=10)
    figure.tight_layout()
    figure.savefig(folder / "contact_sheet.png", dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
