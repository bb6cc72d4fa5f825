"""The table of cases in the Train panel: which are learned from, and whose look."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import qt
from slicer.i18n import tr as _

from .tables import fitHeight, prepareTable

_STYLE, _NAME, _SEGMENTATION, _CT = range(4)
_ROWS_SHOWN = (3, 6)  # at least, at most; more are scrolled


@dataclass(frozen=True)
class CaseRow:
    """What the table shows of a case."""

    name: str
    isStyle: bool  # whether its look is learned
    segmentation: str
    ct: str


class CaseTable:
    """The rows of a QTableWidget."""

    def __init__(self, table: Any, onStyle: Callable[[int, bool], None], onRename: Callable[[int, str], None]) -> None:
        """``onStyle`` is told the row that was ticked or not, ``onRename`` the row that got another name."""
        self._table, self._onStyle, self._onRename = table, onStyle, onRename
        header = prepareTable(table, [_("Style"), _("Case"), _("Segmentation"), _("CT")])
        header.setSectionResizeMode(_STYLE, qt.QHeaderView.ResizeToContents)
        table.connect("cellChanged(int,int)", self._onChanged)

    def show(self, rows: Sequence[CaseRow], canRename: bool) -> None:
        """Shows the cases."""
        table = self._table
        wasBlocked = table.blockSignals(True)
        table.setRowCount(len(rows))
        for number, row in enumerate(rows):
            for column, text in ((_STYLE, ""), (_NAME, row.name), (_SEGMENTATION, row.segmentation), (_CT, row.ct)):
                item = qt.QTableWidgetItem(text)
                item.setToolTip(text)
                if column == _STYLE:
                    item.setCheckState(qt.Qt.Checked if row.isStyle else qt.Qt.Unchecked)
                if column != _NAME or not canRename:
                    item.setFlags(item.flags() & ~qt.Qt.ItemIsEditable)
                table.setItem(number, column, item)
        table.blockSignals(wasBlocked)
        fitHeight(table, *_ROWS_SHOWN)

    def current(self) -> int:
        """The row that is selected, -1 for none."""
        return self._table.currentRow()

    def _onChanged(self, row: int, column: int) -> None:
        item = self._table.item(row, column)
        if column == _STYLE:
            self._onStyle(row, item.checkState() == qt.Qt.Checked)
        elif column == _NAME:
            self._onRename(row, item.text())
