"""The section Evaluate of the Generate panel: the organs of a result as a table, and what to doubt."""

from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from .evaluation import ResultReport
from .outputs import SYNTHETIC
from .panel import Panel
from .tables import fitHeight, prepareTable


class EvaluateSection(Panel):
    """A synthetic CT in, numbers and sentences out: quick enough for Slicer's own process."""

    def __init__(self, logic: Any) -> None:
        super().__init__("EvaluateSection.ui", logic)
        self._shown: Any = None  # the result that the table is of
        self.ui.resultSelector.addAttribute("vtkMRMLScalarVolumeNode", SYNTHETIC, "1")
        titles = [_("Organ"), _("Mean"), _("SD"), _("To CT"), _("To style")]
        prepareTable(self.ui.reportTable, titles).setSectionResizeMode(0, qt.QHeaderView.ResizeToContents)
        self.ui.evaluateButton.connect("clicked(bool)", self._onEvaluate)
        self._show(None)

    def choose(self, resultNode: Any) -> None:
        """Takes the newest result as the one to evaluate."""
        if self.parameters:
            self.parameters.evaluateResult = resultNode

    def update(self) -> None:
        """A table says nothing of another result."""
        chosen = self.parameters.evaluateResult
        self.ui.evaluateButton.enabled = chosen is not None
        self.ui.evaluateButton.toolTip = _("Measure its organs.") if chosen else _("Choose a synthetic CT.")
        if chosen is not self._shown:
            self._show(None)

    def _onEvaluate(self) -> None:
        chosen = self.parameters
        self._show(None)
        with slicer.util.tryWithErrorDisplay(_("Nothing was evaluated."), waitCursor=True):
            model = chosen.model if chosen.model.is_file() else None
            report = self.logic.evaluate(chosen.evaluateResult, model=model)
            self._show(report)
            self._shown = chosen.evaluateResult

    def _show(self, report: ResultReport | None) -> None:
        table, organs = self.ui.reportTable, report.organs if report else ()
        table.setRowCount(len(organs))
        for number, organ in enumerate(organs):
            distances = ("" if value is None else f"{value:.0f}" for value in (organ.to_content, organ.to_style))
            for column, text in enumerate((organ.organ, f"{organ.mean:.0f}", f"{organ.deviation:.0f}", *distances)):
                item = qt.QTableWidgetItem(text)
                item.setToolTip(text)
                table.setItem(number, column, item)
        fitHeight(table)
        self.ui.doubtsLabel.text = "\n".join(report.doubts) or _("No organ stands out.") if report else ""
        self._shown = None
