"""What the panels' tables have in common: rows as high as a line, no numbers beside them, no scroll bar for few."""

from collections.abc import Sequence
from typing import Any

import qt


def prepareTable(table: Any, titles: Sequence[str]) -> Any:
    """Names the columns, which share the width alike; returns the header, to say otherwise."""
    table.setColumnCount(len(titles))
    table.setHorizontalHeaderLabels(titles)
    table.verticalHeader().hide()
    table.verticalHeader().setDefaultSectionSize(table.fontMetrics().height() + 6)
    header = table.horizontalHeader()
    header.setSectionResizeMode(qt.QHeaderView.Stretch)
    return header


def fitHeight(table: Any, least: int = 0, most: int = 1000) -> None:
    """Makes the table as high as its rows, or so many at least and at most; more are scrolled."""
    rows = min(max(table.rowCount, least), most) * table.verticalHeader().defaultSectionSize
    table.setFixedHeight(table.horizontalHeader().sizeHint.height() + rows + 4)
