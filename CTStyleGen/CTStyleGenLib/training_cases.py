"""What a training learns from, checked and exported: pairs of a CT and its segmentation in the scene, or a folder.

A pair is kept in the scene itself, at its segmentation: a reference to the CT and attributes for the case's name and
whether its look is learned. So it is saved with the scene, and goes with its nodes.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import slicer
from CTStyleGenCore.anatomy import Anatomy
from CTStyleGenCore.cases import CaseFiles, find_cases
from CTStyleGenCore.errors import InputError
from CTStyleGenCore.presets import Preset
from CTStyleGenCore.volumes import in_hu, write_volume
from slicer.i18n import tr as _

from .conditioning import Conditioning, conditioningFromSegmentation, lacksBody, referenceOf, segmentTimes
from .geometry import imageInGrid
from .outputs import ATTRIBUTE_PREFIX
from .progress_dialog import ProgressDialog

CT_ROLE = "CTStyleGen.caseCT"
_NAME, _STYLE = ATTRIBUTE_PREFIX + "CaseName", ATTRIBUTE_PREFIX + "CaseIsStyle"
_SAFE_NAME = re.compile(r"[\w][\w .-]{0,62}[\w]|[\w]")  # a folder's name on every system, without commas
Volume = Any  # vtkMRMLScalarVolumeNode
Segmentation = Any  # vtkMRMLSegmentationNode
# Cases as a script gives them: pairs, maybe by name, or a folder.
Given = str | Path | Mapping[str, tuple[Volume, Segmentation]] | Sequence[tuple[Volume, Segmentation]]


@dataclass(frozen=True)
class TrainingCase:
    """A CT and its segmentation, under a name that goes into the model's card: never a patient's."""

    name: str
    volumeNode: Volume
    segmentationNode: Segmentation


# --- pairs in the scene ---------------------------------------------------------------------------------------------


def casesInScene() -> list[TrainingCase]:
    """The scene's pairs, in the order of their segmentations; without a CT where that has been deleted."""
    return [
        TrainingCase(node.GetAttribute(_NAME), node.GetNodeReference(CT_ROLE), node)
        for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
        if node.GetAttribute(_NAME)
    ]


def addCase(volumeNode: Volume, segmentationNode: Segmentation) -> TrainingCase:
    """Makes the two a pair, in place of the one that the segmentation may have been in; it is named "case-1" or so."""
    taken = {case.name for case in casesInScene()}
    name = segmentationNode.GetAttribute(_NAME)
    name = name or next(free for n in range(1, len(taken) + 2) if (free := f"case-{n}") not in taken)
    segmentationNode.SetAttribute(_NAME, name)
    segmentationNode.SetNodeReferenceID(CT_ROLE, volumeNode.GetID())
    return TrainingCase(name, volumeNode, segmentationNode)


def removeCase(segmentationNode: Segmentation) -> None:
    """Undoes `addCase`; the nodes stay."""
    segmentationNode.RemoveNodeReferenceIDs(CT_ROLE)
    segmentationNode.RemoveAttribute(_NAME)
    segmentationNode.RemoveAttribute(_STYLE)


def renameCase(segmentationNode: Segmentation, name: str) -> None:
    segmentationNode.SetAttribute(_NAME, name.strip() or segmentationNode.GetAttribute(_NAME))


def isStyle(segmentationNode: Segmentation) -> bool:
    """Whether the look of the segmentation's CT is to be learned."""
    return segmentationNode.GetAttribute(_STYLE) == "1"


def setStyle(segmentationNode: Segmentation, style: bool) -> None:
    segmentationNode.SetAttribute(_STYLE, "1" if style else None)


def addCasesByReference() -> tuple[int, int]:
    """Pairs every segmentation with the volume that it was drawn on; how many were added, how many have no volume.

    Pairs that are there stay, and synthetic volumes are nothing to learn from.
    """
    added = without = 0
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        if node.GetAttribute(_NAME):
            continue
        volume = referenceOf(node)
        if volume is None or not volume.IsA("vtkMRMLScalarVolumeNode"):
            without += 1
        elif volume.GetAttribute(f"{ATTRIBUTE_PREFIX}Synthetic") != "1":
            addCase(volume, node)
            added += 1
    return added, without


# --- what a training is given ---------------------------------------------------------------------------------------


def isSafeName(name: str) -> bool:
    """Whether the name can be a file's on every system and in a list with commas."""
    return _SAFE_NAME.fullmatch(name) is not None


def casesFrom(given: Given) -> list[TrainingCase] | Path:
    """Pairs with the names that are given, or named case-1, case-2 and so on; or the folder of cases."""
    if isinstance(given, str | Path):
        return Path(given).absolute()
    named = given.items() if isinstance(given, Mapping) else ((f"case-{n}", pair) for n, pair in enumerate(given, 1))
    return [TrainingCase(name, *pair) for name, pair in named]


def styleNames(styles: Sequence[str | Volume], cases: Sequence[TrainingCase]) -> list[str]:
    """The names of the cases whose look is learned, given by name or by CT node."""
    byNode = {case.volumeNode.GetID(): case.name for case in cases if case.volumeNode}
    return [style if isinstance(style, str) else byNode.get(style.GetID(), style.GetName()) for style in styles]


def requireCases(cases: Sequence[TrainingCase]) -> None:
    """Raises InputError where pairs lack a node, a real CT or a good name."""
    names = [case.name for case in cases]
    for case in cases:
        if not _SAFE_NAME.fullmatch(case.name):
            text = _("The case name '{name}' is not possible: use letters, digits, spaces, '.', '-' and '_'.")
            raise InputError(text.format(name=case.name))
        if names.count(case.name) > 1:
            raise InputError(_("Two cases are named '{name}': give each its own name.").format(name=case.name))
        if case.volumeNode is None or case.segmentationNode is None:
            text = _("The case '{name}' has no CT or no segmentation any more: remove it, or add it again.")
            raise InputError(text.format(name=case.name))
        if case.volumeNode.GetAttribute(f"{ATTRIBUTE_PREFIX}Synthetic") == "1":
            raise InputError(_("The CT of '{name}' is synthetic: learn from real CT only.").format(name=case.name))


def requireLearnable(
    cases: Sequence[TrainingCase], names: Sequence[str], styles: Sequence[str], preset: Preset
) -> None:
    """Raises InputError unless there is something to learn from cases of these names: a style, and another patient.

    ``cases``: those of the scene, none for a folder. A preset with a bank of styles takes them all if none is chosen.
    """
    if not names:
        raise InputError(_("There are no cases: add pairs of a CT and its segmentation, or choose a folder of cases."))
    if not styles and not preset.style_bank:
        raise InputError(_("No style is chosen: tick the case whose CT the model shall look like."))
    for style in styles:
        if style not in names:
            text = _("There is no case '{style}' to take the style from: the cases are {names}.")
            raise InputError(text.format(style=style, names=", ".join(names)))
    if len(names) < 2:
        text = _("'{name}' is the only case: a style is learned for other patients' anatomies; add another patient.")
        raise InputError(text.format(name=names[0]))
    patients = {_patient(case.volumeNode) for case in cases}
    if len(patients) == 1 and patients != {0}:
        raise InputError(
            _("All cases are of one patient: a style is learned for other patients' anatomies; add another patient.")
        )


def _patient(volumeNode: Volume) -> int:
    """The subject hierarchy's item of the volume's patient, 0 where it has none."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(volumeNode.GetScene())
    level = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMLevelPatient()
    item = hierarchy.GetItemByDataNode(volumeNode)
    return hierarchy.GetItemAncestorAtLevel(item, level) if item else 0


class CaseChecks:
    """What there is to say about the segments of cases; remembered, as it takes some tenths of a second a case."""

    def __init__(self) -> None:
        self._said: dict[tuple[object, ...], tuple[str, ...]] = {}

    def problems(self, case: TrainingCase, anatomy: Anatomy) -> tuple[str, ...]:
        """A sentence for each segment that can't be learned as drawn. Raises InputError when none can."""
        key = (case.name, anatomy, *_state(case.volumeNode), *_state(case.segmentationNode), _segmentsState(case))
        if key not in self._said:
            found = _conditioning(case, anatomy)
            noBody = _("No segment seems to be the whole body: what is missing of it is found in the CT.")
            problems = (*found.problems, *([noBody] if lacksBody(found.labels, case.volumeNode, anatomy) else []))
            self._said[key] = tuple(f"{case.name}: {problem}" for problem in problems)
        return self._said[key]


def _state(node: Any) -> tuple[object, ...]:
    """What tells whether a node is still the same, in the same place."""
    transform = node.GetParentTransformNode()
    return node.GetID(), node.GetMTime(), transform.GetTransformToWorldMTime() if transform else 0


def _segmentsState(case: TrainingCase) -> tuple[int, ...]:
    segmentation = case.segmentationNode.GetSegmentation()
    return segmentation.GetMTime(), *segmentTimes(segmentation)


def _conditioning(case: TrainingCase, anatomy: Anatomy) -> Conditioning:
    try:
        return conditioningFromSegmentation(case.segmentationNode, case.volumeNode, anatomy)
    except InputError as error:
        raise InputError(f"{case.name}: {error}") from error


def exportCases(cases: Sequence[TrainingCase], folder: Path, anatomy: Anatomy, compress: bool = True) -> None:
    """Writes each case's CT and organ labels, in the CT's own grid, into a folder of its name.

    Compressing takes seconds a case: worth it where they stay long, as a training's.
    Raises InputError where a volume has no HU or no segment is of use, and when the disk is full; JobCanceled when the
    user cancels it, in a dialog that comes when it takes long.
    """
    with ProgressDialog(_("Exporting cases"), len(cases)) as progress:
        for case in cases:
            progress.next(_("Exporting '{name}' ...").format(name=case.name))
            labels = imageInGrid(_conditioning(case, anatomy).labels, case.volumeNode)
            voxels = slicer.util.arrayFromVolume(case.volumeNode)
            ct = in_hu(imageInGrid(voxels, case.volumeNode), _("The CT of '{name}'").format(name=case.name))
            (folder / case.name).mkdir()
            progress.aside(partial(write_volume, ct, folder / case.name / "ct.nrrd", compress))
            progress.aside(partial(write_volume, labels, folder / case.name / "labels.nrrd", compress))


def casesIn(folder: Path) -> list[CaseFiles]:
    """The cases in a folder on disk. Raises InputError where there are none, or one isn't whole."""
    if folder == Path():
        raise InputError(_("No folder of cases is chosen: choose one."))
    return find_cases(folder)


def sliceCounts(cases: Sequence[TrainingCase]) -> Iterator[int]:
    for case in cases:
        yield case.volumeNode.GetImageData().GetDimensions()[2]
