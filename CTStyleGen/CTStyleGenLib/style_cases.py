"""Styles from CTs of the scene: whose look the organs get when no training has seen it. For models with a style bank.

A case is a CT and its segmentation, under a name that styles can say beside those of the model ("lungs=NAME:0.7").
The child process, which measures its look, is given it as a folder.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import slicer
from CTStyleGenCore.anatomy import Anatomy
from CTStyleGenCore.errors import InputError
from CTStyleGenCore.styles import Mix, has_style_bank, style_mix
from slicer.i18n import tr as _

from .conditioning import conditioningFromSegmentation, referenceOf
from .organ_table import styleArguments, stylesIn
from .outputs import SYNTHETIC
from .training_cases import CT_ROLE, Segmentation, TrainingCase, Volume, exportCases, requireCases

StyleCases = Mapping[str, tuple[Volume, Segmentation]]


def styleMix(card: Mapping[str, Any], styles: Sequence[str], cases: StyleCases) -> Mix:
    """The shares of the styles asked for, by organ, as `CTStyleGenCore.styles.style_mix` has it. Raises InputError."""
    own, names = list(card["styles"]), [*card["styles"], *cases]
    if taken := [name for name in cases if name in own]:
        raise InputError(_("The model has a style '{name}' of its own: name the CT otherwise.").format(name=taken[0]))
    requireCases([TrainingCase(name, *pair) for name, pair in cases.items()])
    if cases and not any(style in names or "=" not in style for style in styles):
        styles = [*own, *styles]  # for the organs that aren't named; not the scene's, too
    return style_mix({**card, "styles": names}, styles)


def exportStyles(styles: Sequence[str], cases: StyleCases, folder: Path, anatomy: Anatomy) -> list[str]:
    """The styles with folders in place of the scene's cases, which are written there.

    Raises InputError where a CT has no HU, or no segment is of use.
    """
    exportCases([TrainingCase(name, *pair) for name, pair in cases.items()], folder, anatomy, compress=False)
    return stylesInFolder(styles, cases, folder)


def stylesInFolder(styles: Sequence[str], cases: StyleCases, folder: Path) -> list[str]:
    """The styles with the folders that `exportStyles` has written in place of the scene's cases."""
    return [_inFolder(style, cases, folder) for style in styles]


def _inFolder(style: str, cases: StyleCases, folder: Path) -> str:
    organ, equals, rest = style.rpartition("=")
    case, colon, weight = rest.rpartition(":")
    if rest in cases:
        return f"{organ}{equals}{folder / rest}"
    return f"{organ}{equals}{folder / case}:{weight}" if colon and case in cases else style


def missingOrgans(cases: StyleCases, wanted: set[str], anatomy: Anatomy) -> Iterator[str]:
    """A sentence for each case that has none of some organs that are wanted. Raises InputError where it has none."""
    for name, (volume, segmentation) in cases.items():
        try:
            found = conditioningFromSegmentation(segmentation, volume, anatomy).segments
        except InputError as error:
            raise InputError(_("The style CT '{name}': {reason}").format(name=name, reason=error)) from error
        body = anatomy.place("body")
        ofTheCT = {body.name} if body else set()  # in the CT, where no segment is the body
        missing = wanted - ofTheCT - {segment.organ for segment in found if segment.organ and segment.voxels}
        if missing:
            yield _("The style CT '{name}' has no {organs}: there, the model's mean look is taken.").format(
                name=name, organs=", ".join(sorted(missing))
            )


def styleCaseOf(volumeNode: Volume, card: Mapping[str, Any]) -> tuple[str, tuple[Volume, Segmentation]]:
    """The CT with a segmentation that was drawn on it, and a name for it that the model has not.

    Raises InputError when there is no such segmentation.
    """
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        isOfIt = volumeNode in (referenceOf(node), node.GetNodeReference(CT_ROLE))
        if isOfIt and not node.GetAttribute(SYNTHETIC):
            return styleName(volumeNode, card), (volumeNode, node)
    raise InputError(
        _(
            "The style CT '{name}' has no segmentation: draw its organs on it, or load them and add both in Train."
        ).format(name=volumeNode.GetName())
    )


def lookChosen(parameters: Any, card: Mapping[str, Any]) -> tuple[list[str], StyleCases]:
    """The look that the Generate panel's parameters ask of a model: styles, and the style CT among their cases, if any.

    Raises InputError when the style CT has no segmentation.
    """
    volume = parameters.styleVolume
    cases = dict([styleCaseOf(volume, card)]) if volume and has_style_bank(dict(card)) else {}
    name = next(iter(cases), "")
    return styleArguments(card, stylesIn(parameters.organStyles, card, name), name), cases


def styleName(volumeNode: Volume, card: Mapping[str, Any]) -> str:
    """The CT's name, as far as a style can be called so."""
    name = re.sub(r"[^\w.-]+", " ", volumeNode.GetName())[:50].strip(" .-") or "CT"
    return f"{name} CT" if name in card["styles"] else name
