"""From nodes to a new node: checks, the exchange with the child process, and the result's provenance."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import CTStyleGenCore
import numpy as np
import SimpleITK as sitk
import slicer
from CTStyleGenCore.anatomy import Anatomy, SegmentReport
from CTStyleGenCore.errors import InputError
from CTStyleGenCore.files import sha256
from CTStyleGenCore.model_file import read_card
from CTStyleGenCore.volumes import same_grid, write_volume

from .conditioning import Conditioning, conditioningFromSegmentation, referenceOf
from .geometry import imageInGrid
from .jobs import Event, Job, JobError
from .outputs import addSyntheticVolume


@dataclass(frozen=True)
class CheckResult:
    """What `check` found: one report a segment, and a sentence for everything that isn't as it should be."""

    segments: tuple[SegmentReport, ...]
    problems: tuple[str, ...]
    ready: bool  # whether synthesize would start


def check(
    segmentationNode: "slicer.vtkMRMLSegmentationNode | None",
    referenceVolumeNode: "slicer.vtkMRMLScalarVolumeNode | None",
    model: str | Path,
    styles: Sequence[str] | None = None,
) -> CheckResult:
    """Whether `synthesize` can work with these, and what it would leave out. Changes nothing and raises nothing."""
    reference = referenceVolumeNode or referenceOf(segmentationNode)
    try:
        conditioning, _card = _prepare(segmentationNode, reference, Path(model), styles)
    except InputError as error:
        return CheckResult((), (str(error),), ready=False)
    return CheckResult(conditioning.segments, conditioning.problems, ready=True)


def synthesize(
    segmentationNode: "slicer.vtkMRMLSegmentationNode",
    referenceVolumeNode: "slicer.vtkMRMLScalarVolumeNode | None",
    model: str | Path,
    styles: Sequence[str] | None = None,
    seed: int = 0,
    device: str = "auto",
    onEvent: Callable[[Event], None] = lambda event: None,
) -> "slicer.vtkMRMLScalarVolumeNode":
    """Synthesizes a CT for the segmentation and returns it as a new volume node; waits until it is there.

    ``onEvent`` is told the child's events. Raises InputError when the input is at fault, JobError when the child
    process fails, and OSError when the temporary folder can't be made; then no node is added. The temporary folder,
    which holds the patient's organ labels, is removed in any case.
    """
    model = Path(model).absolute()
    reference = referenceVolumeNode or referenceOf(segmentationNode)
    conditioning, card = _prepare(segmentationNode, reference, model, styles)
    labels = imageInGrid(conditioning.labels, reference)
    provenance = {
        "Model": model.name,
        "ModelSHA256": sha256(model),
        "Segmentation": segmentationNode.GetName(),
        "Styles": ", ".join(card["styles"]),
        "Seed": str(seed),
        "Version": CTStyleGenCore.__version__,
        "SlicerVersion": slicer.app.applicationVersion,
    }
    with tempfile.TemporaryDirectory(prefix="CTStyleGen-") as folder:  # only the user may read it
        segmentation, output = Path(folder) / "labels.nrrd", Path(folder) / "ct.nrrd"
        write_volume(labels, segmentation)
        arguments = ["synthesize", "--model", str(model), "--segmentation", str(segmentation), "--output", str(output)]
        Job([*arguments, "--seed", str(seed), "--device", device], folder, onEvent).wait()
        voxels = _readResult(output, labels)
    return addSyntheticVolume(voxels, segmentationNode, reference, provenance)


def _prepare(
    segmentationNode: "slicer.vtkMRMLSegmentationNode | None",
    referenceVolumeNode: "slicer.vtkMRMLScalarVolumeNode | None",
    model: Path,
    styles: Sequence[str] | None,
) -> tuple[Conditioning, dict[str, Any]]:
    """Organ labels and the model's card; raises InputError for what can't work."""
    card = read_card(model)
    if styles is not None and sorted(styles) != sorted(card["styles"]):
        raise InputError(
            f"The model {model.name} has one look, learned from {', '.join(card['styles'])}, and can't make "
            f"{', '.join(styles) or 'none'}: leave the styles out, or choose another model."
        )
    anatomy = Anatomy.from_json(card["anatomy"])
    return conditioningFromSegmentation(segmentationNode, referenceVolumeNode, anatomy), card


def _readResult(path: Path, labels: sitk.Image) -> np.ndarray:
    """The child's voxels, int16 HU [k, j, i].

    Read by SimpleITK, which keeps the order of the voxels; Slicer's reader turns the slices of left-handed volumes.
    """
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise JobError("The CTStyleGen process ended well but wrote no readable volume.") from error
    if image.GetPixelID() != sitk.sitkInt16 or not same_grid(image, labels):
        raise JobError("The CTStyleGen process wrote a volume in another grid than it was asked for.")
    return sitk.GetArrayFromImage(image)
