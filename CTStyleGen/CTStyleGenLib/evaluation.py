"""What a synthetic CT in the scene looks like, organ by organ, and what to doubt about it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import slicer
from CTStyleGenCore.anatomy import Anatomy, load_anatomy
from CTStyleGenCore.errors import InputError
from CTStyleGenCore.files import sha256
from CTStyleGenCore.model_file import read_card
from CTStyleGenCore.organ_report import OrganReport, organ_reports, style_quantiles
from slicer.i18n import tr as _

from .conditioning import Organs, conditioningFromSegmentation
from .geometry import axialAxis, gridSize, ijkToRAS
from .models import modelsFolder
from .outputs import ATTRIBUTE_PREFIX, SOURCE_SEGMENTATION_ROLE, SOURCE_VOLUME_ROLE, SYNTHETIC

_TABLE = "thorax"  # organ table where the model is not at hand


@dataclass(frozen=True)
class ResultReport:
    """The organs of a result, and a sentence for each thing to doubt."""

    organs: tuple[OrganReport, ...]
    doubts: tuple[str, ...]


def evaluateResult(
    resultNode: "slicer.vtkMRMLScalarVolumeNode | None",
    segmentationNode: "slicer.vtkMRMLSegmentationNode | None" = None,
    model: str | Path | None = None,
    organs: Organs | None = None,
) -> ResultReport:
    """The report of a synthetic volume; segmentation and reference are those that it was made of, if they are there.

    ``model``: its file; without, the one of that name in the models folder. Raises InputError when the volume isn't
    synthetic, its segmentation is gone, or the segmentation doesn't fit.
    """
    if resultNode is None or not resultNode.GetAttribute(SYNTHETIC):
        raise InputError(_("Choose a synthetic CT: one that CTStyleGen has made."))
    segmentation = segmentationNode or resultNode.GetNodeReference(SOURCE_SEGMENTATION_ROLE)
    if segmentation is None:
        raise InputError(
            _("The segmentation that '{volume}' was made from is gone: choose one.").format(volume=resultNode.GetName())
        )
    card = _cardOf(resultNode, Path(model) if model else None)
    anatomy = Anatomy.from_json(card["anatomy"]) if card else load_anatomy(_TABLE)
    labels = conditioningFromSegmentation(segmentation, resultNode, anatomy, organs).labels
    voxels = slicer.util.arrayFromVolume(resultNode)
    reports = organ_reports(voxels, labels, anatomy, _contentOf(resultNode), _styleOf(resultNode, card))
    return ResultReport(reports, tuple(_doubts(resultNode, reports, anatomy, card)))


def _cardOf(resultNode: "slicer.vtkMRMLScalarVolumeNode", model: Path | None) -> dict[str, Any] | None:
    """The card of the model that made the result; None where it isn't at hand, or is another one by now."""
    path = model or modelsFolder() / (resultNode.GetAttribute(ATTRIBUTE_PREFIX + "Model") or "")
    if not path.is_file() or sha256(path) != resultNode.GetAttribute(ATTRIBUTE_PREFIX + "ModelSHA256"):
        return None
    return read_card(path)


def _contentOf(resultNode: "slicer.vtkMRMLScalarVolumeNode") -> np.ndarray | None:
    """The voxels of the reference, where it has the result's grid."""
    reference = resultNode.GetNodeReference(SOURCE_VOLUME_ROLE)
    if reference is None or reference.GetImageData() is None or gridSize(reference) != gridSize(resultNode):
        return None
    isSame = np.allclose(ijkToRAS(reference), ijkToRAS(resultNode), atol=1e-4)
    return slicer.util.arrayFromVolume(reference) if isSame else None


def _styleOf(resultNode: "slicer.vtkMRMLScalarVolumeNode", card: dict[str, Any] | None) -> dict[str, np.ndarray]:
    """The HU of each organ's style, where the model's card tells."""
    told = resultNode.GetAttribute(ATTRIBUTE_PREFIX + "StyleShares")
    return style_quantiles(card, json.loads(told)) if card and told else {}


def _doubts(
    resultNode: "slicer.vtkMRMLScalarVolumeNode",
    reports: tuple[OrganReport, ...],
    anatomy: Anatomy,
    card: dict[str, Any] | None,
) -> Iterator[str]:
    for report in reports:
        low, high = anatomy.organ(report.organ).plausible_hu
        if not low <= report.mean <= high:
            yield _("{organ}: its mean of {mean} HU lies outside of {low} to {high} HU, where real ones lie.").format(
                organ=report.organ, mean=round(report.mean), low=round(low), high=round(high)
            )
    if card is None:
        name = resultNode.GetAttribute(ATTRIBUTE_PREFIX + "Model")
        yield _("The model '{model}' is not at hand, or has changed: styles can't be compared.").format(model=name)
        return
    learned = {organ for codes in card.get("style_codes", {}).values() for organ in codes}
    for report in reports:
        if learned and report.organ not in learned:
            yield _("{organ}: no case that the model was trained with has it.").format(organ=report.organ)
    side, size = max(np.delete(gridSize(resultNode), axialAxis(ijkToRAS(resultNode)))), int(card["size"])
    if side > size:
        sentence = _("The model draws slices of {size} x {size} pixels, these have {side}: there is no finer detail.")
        yield sentence.format(size=size, side=side)
