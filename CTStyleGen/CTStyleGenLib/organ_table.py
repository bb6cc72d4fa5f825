"""The table of segments in the Generate panel: which organ each is taken for, what becomes of it, and its look."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import qt
import slicer
from CTStyleGenCore.anatomy import Anatomy, SegmentReport
from CTStyleGenCore.styles import has_style_bank
from slicer.i18n import tr as _

from .conditioning import LEFT_OUT, ORGAN_TAG, chosenOrgan, recognizedOrgan

OrganStyles = Mapping[str, tuple[str, int]]  # organ name -> style, and its share in percent
_SEGMENT, _ORGAN, _STATE, _STYLE, _SHARE = range(5)
_WIDTHS = {_ORGAN: 108, _STYLE: 76, _SHARE: 46}  # pixels


def stylesIn(text: str, card: Mapping[str, Any] | None, styleCT: str = "") -> OrganStyles:
    """The choices as the parameter node has them, but for styles that neither the model nor the scene has now."""
    looks = [*card["styles"], styleCT] if card and has_style_bank(dict(card)) else []
    try:
        told = {str(organ): (str(style), int(percent)) for organ, (style, percent) in json.loads(text or "{}").items()}
    except (AttributeError, TypeError, ValueError):  # of a scene that something else has written
        return {}
    return {organ: chosen for organ, chosen in told.items() if chosen[0] in looks and 1 <= chosen[1] <= 100}


def styleArguments(card: Mapping[str, Any], chosen: OrganStyles, styleCT: str = "") -> list[str]:
    """The choices as --style writes them. ``styleCT``: the look of all organs but those chosen; without, the model's.

    What a chosen style leaves goes to the style CT or, without one, in equal shares to the model's other styles.
    """
    written = [styleCT] if styleCT else []
    for organ, (style, percent) in chosen.items():
        others = [styleCT] if styleCT and style != styleCT else [other for other in card["styles"] if other != style]
        if percent >= 100 or not others:
            written.append(f"{organ}={style}")
        else:
            written.append(f"{organ}={style}:{percent / 100:g}")
            written += [f"{organ}={other}:{(100 - percent) / 100 / len(others):.6g}" for other in others]
    return written


class OrganTable:
    """The rows of a QTableWidget. What the user chooses for a segment becomes its tag CTStyleGen.Organ."""

    def __init__(self, table: Any, onStyles: Callable[[OrganStyles], None]) -> None:
        """``onStyles`` is told the styles by organ when the user has chosen another one."""
        self._table, self._onStyles = table, onStyles
        self._segmentation: Any = None
        self._anatomy: Anatomy | None = None
        self._styles: dict[str, tuple[str, int]] = {}
        self._shown: object = None  # what the rows were made for
        self._isUpdating = False
        table.setHorizontalHeaderLabels([_("Segment"), _("Organ"), _("State"), _("Style"), _("Share")])
        table.verticalHeader().hide()
        header = table.horizontalHeader()
        header.setSectionResizeMode(_SEGMENT, qt.QHeaderView.Stretch)
        header.setSectionResizeMode(_STATE, qt.QHeaderView.ResizeToContents)
        for column, width in _WIDTHS.items():
            table.setColumnWidth(column, width)

    def show(
        self,
        segmentationNode: "slicer.vtkMRMLSegmentationNode | None",
        card: Mapping[str, Any] | None,
        reports: Sequence[SegmentReport],
        styles: OrganStyles,
        styleCT: str = "",
    ) -> None:
        """Shows the segments; without a model's card, or without reports, what can be told without.

        ``styleCT``: the name of a style beside the model's, the look of the organs that none is chosen for.
        """
        self._segmentation = segmentationNode
        self._anatomy = Anatomy.from_json(card["anatomy"]) if card else None
        self._styles = dict(styles)
        organs = [organ.name for organ in self._anatomy.organs[1:]] if self._anatomy else []
        looks = [*card["styles"], *filter(None, [styleCT])] if card else []
        segments = list(_segmentsOf(segmentationNode))
        shown = ([(segmentId, s.GetName(), s.GetColor()) for segmentId, s in segments], organs, looks, styleCT)
        hasBank = card is not None and has_style_bank(dict(card))
        self._isUpdating = True
        try:
            if shown != self._shown:
                ofAll = _("style CT") if styleCT else _("all alike")
                self._build([segment for _id, segment in segments], organs, looks, ofAll)
                self._shown = shown
            for row, (segmentId, segment) in enumerate(segments):
                report = reports[row] if row < len(reports) else None
                self._update(row, segmentId, segment, report, organs, looks, hasBank)
        finally:
            self._isUpdating = False

    def _build(
        self, segments: "Sequence[slicer.vtkSegment]", organs: Sequence[str], looks: Sequence[str], ofAll: str
    ) -> None:
        """Makes the rows."""
        self._table.setRowCount(0)
        self._table.setRowCount(len(segments))
        for row, segment in enumerate(segments):
            name = qt.QTableWidgetItem(segment.GetName())
            name.setIcon(_colorIcon(segment.GetColor()))
            name.setToolTip(segment.GetName())
            self._table.setItem(row, _SEGMENT, name)
            self._table.setItem(row, _STATE, qt.QTableWidgetItem(""))
            organ, style, share = qt.QComboBox(), qt.QComboBox(), qt.QSpinBox()
            organ.addItems([_("(left out)"), *organs])
            style.addItems([ofAll, *looks] if len(looks) != 1 else looks)
            share.setRange(1, 100)
            share.suffix = " %"
            share.buttonSymbols = qt.QAbstractSpinBox.NoButtons
            for combo in (organ, style):
                combo.sizeAdjustPolicy = qt.QComboBox.AdjustToMinimumContentsLengthWithIcon
                combo.minimumContentsLength = 4
            organ.connect("currentIndexChanged(int)", self._organSetter(row, organ))
            style.connect("currentIndexChanged(int)", self._styleSetter(row, style, share))
            share.connect("valueChanged(int)", self._styleSetter(row, style, share))
            for column, widget in ((_ORGAN, organ), (_STYLE, style), (_SHARE, share)):
                self._table.setCellWidget(row, column, widget)
        self._table.resizeRowsToContents()
        height = sum(self._table.rowHeight(row) for row in range(len(segments)))
        self._table.setFixedHeight(self._table.horizontalHeader().sizeHint.height() + height + 4)

    def _update(
        self,
        row: int,
        segmentId: str,
        segment: "slicer.vtkSegment",
        report: SegmentReport | None,
        organs: Sequence[str],
        looks: Sequence[str],
        hasBank: bool,
    ) -> None:
        """Shows what holds for a segment now."""
        organ = self._organOf(segment)
        combo = self._table.cellWidget(row, _ORGAN)
        combo.currentIndex = 1 + organs.index(organ) if organ in organs else 0
        combo.enabled = bool(organs)
        combo.toolTip = _("The organ that the segment is taken for. Choose another one, or leave the segment out.")
        state, reason = self._state(segmentId, segment, organ, report)
        self._table.item(row, _STATE).setText(state)
        self._table.item(row, _STATE).setToolTip(reason)
        style, share = self._table.cellWidget(row, _STYLE), self._table.cellWidget(row, _SHARE)
        chosen, percent = self._styles.get(organ, ("", 100))
        style.currentIndex = 1 + looks.index(chosen) if len(looks) > 1 and chosen in looks else 0
        share.value = percent
        style.enabled = hasBank and bool(organ) and len(looks) > 1
        share.enabled = style.enabled and style.currentIndex > 0
        if hasBank:
            style.toolTip = _(
                "The CT whose look the organ gets. All alike: all styles of the model in equal parts. "
                "Style CT: that of the CT chosen above."
            )
            share.toolTip = _("How much of that look. The style CT, or the model's other styles, have the rest.")
        else:
            style.toolTip = share.toolTip = _(
                "This model has one look, the one it was trained for. Train with the preset 'styles' to choose."
            )

    def _organOf(self, segment: "slicer.vtkSegment") -> str:
        """The organ's name; empty for a segment that is left out."""
        if self._anatomy is None or chosenOrgan(segment) == LEFT_OUT:
            return ""
        chosen = [organ.name for organ in self._anatomy.organs if organ.name == chosenOrgan(segment)]
        recognized = recognizedOrgan(segment, self._anatomy)
        return chosen[0] if chosen else recognized.name if recognized else ""

    def _state(
        self, segmentId: str, segment: "slicer.vtkSegment", organ: str, report: SegmentReport | None
    ) -> tuple[str, str]:
        """What becomes of a segment, in a word and in a sentence."""
        display = self._segmentation.GetDisplayNode()
        if self._anatomy is None:
            return "", _("Choose a model first: it says which organs it knows.")
        if not organ and chosenOrgan(segment) == LEFT_OUT:
            return _("left out"), _("You left it out.")
        if not organ:
            return _("unknown"), _("The model's organ table knows neither its terminology nor its name.")
        if report is None:
            return "", _("Not checked yet.")
        if not report.voxels:
            return _("empty"), _("It has no voxel in the reference volume.")
        if report.overlapped == report.voxels:
            return _("covered"), _("Other organs cover it completely.")
        if report.overlapped:
            percent = max(1, round(100 * report.overlapped / report.voxels))
            return _("overlaps"), _("{percent} % of its voxels are given to organs that are painted over it.").format(
                percent=percent
            )
        if display is not None and not display.GetSegmentVisibility(segmentId):
            return _("hidden"), _("It is hidden in the views, and used all the same.")
        return _("found"), _("{count} voxels in the reference volume.").format(count=report.voxels)

    def _organSetter(self, row: int, combo: Any) -> Callable[[], None]:
        def set() -> None:
            if self._isUpdating or self._anatomy is None:
                return
            segment = list(_segmentsOf(self._segmentation))[row][1]
            chosen = self._anatomy.organs[combo.currentIndex].name if combo.currentIndex else LEFT_OUT
            recognized = recognizedOrgan(segment, self._anatomy)
            if chosen == (recognized.name if recognized else LEFT_OUT):
                segment.RemoveTag(ORGAN_TAG)
            else:
                segment.SetTag(ORGAN_TAG, chosen)

        return set

    def _styleSetter(self, row: int, style: Any, share: Any) -> Callable[[], None]:
        def set() -> None:
            if self._isUpdating:
                return
            organ = self._organOf(list(_segmentsOf(self._segmentation))[row][1])
            self._styles.pop(organ, None)
            if style.currentIndex > 0:
                self._styles[organ] = (style.currentText, share.value)
            self._onStyles(dict(self._styles))

        return set


def _segmentsOf(segmentationNode: "slicer.vtkMRMLSegmentationNode | None") -> "list[tuple[str, slicer.vtkSegment]]":
    if segmentationNode is None:
        return []
    segmentation = segmentationNode.GetSegmentation()
    return [(segmentId, segmentation.GetSegment(segmentId)) for segmentId in segmentation.GetSegmentIDs()]


def _colorIcon(color: Sequence[float]) -> Any:
    pixmap = qt.QPixmap(12, 12)
    pixmap.fill(qt.QColor.fromRgbF(*color))
    return qt.QIcon(pixmap)
