"""The losses of a training as a table and its plot in the scene: renewed while it learns, saved with the scene."""

import numpy as np
import slicer
from slicer.i18n import tr as _

from .outputs import ATTRIBUTE_PREFIX
from .training_run import Training

_ATTRIBUTE = ATTRIBUTE_PREFIX + "Training"
_STEP = "step"  # the column
_COLORS = {  # by loss: Tol's palette for the color-blind
    "style": (0.93, 0.40, 0.47),
    "moments": (0.93, 0.40, 0.47),
    "content": (0.13, 0.53, 0.20),
    "coarse": (0.13, 0.53, 0.20),
    "adversarial": (0.27, 0.47, 0.67),
    "discriminator": (0.40, 0.80, 0.93),
}
_OTHER_COLOR = (0.67, 0.67, 0.67)


def showLossPlot(training: Training) -> "slicer.vtkMRMLPlotChartNode":
    """The training's plot, in the scene and in a layout that has room for it."""
    if _find(training, "vtkMRMLTableNode") is None:
        _add(training, "vtkMRMLTableNode", _("{name} losses"))
    chart = _find(training, "vtkMRMLPlotChartNode")
    if chart is None:
        chart = _add(training, "vtkMRMLPlotChartNode", _("{name} loss plot"))
        chart.SetTitle(_("Training of {name}").format(name=training.name))
        chart.SetXAxisTitle(_("Step"))
        chart.SetYAxisTitle(_("Loss / first loss"))
        chart.SetYAxisLogScale(True)
    updateLossPlot(training)
    slicer.modules.plots.logic().ShowChartInLayout(chart)
    return chart


def updateLossPlot(training: Training) -> None:
    """Renews table and plot from what the training has told, as far as the scene has them."""
    table, chart = _find(training, "vtkMRMLTableNode"), _find(training, "vtkMRMLPlotChartNode")
    if table is None or chart is None:
        return
    curve = training.curve
    losses = _names(training)
    columns = [
        np.array(curve.steps, float),
        *(_relative([point.get(name) for point in curve.losses]) for name in losses),
    ]
    wasModifying = table.StartModify()
    slicer.util.updateTableFromArray(table, columns, [_STEP, *losses])
    table.EndModify(wasModifying)
    shown = {chart.GetNthPlotSeriesNode(n).GetYColumnName() for n in range(chart.GetNumberOfPlotSeriesNodes())}
    for loss in losses:
        if loss not in shown:
            chart.AddAndObservePlotSeriesNodeID(_addSeries(table, loss).GetID())


def relativeLosses(training: Training) -> dict[str, float]:
    """The last losses divided by the first ones."""
    columns = {name: _relative([point.get(name) for point in training.curve.losses]) for name in _names(training)}
    return {name: values[np.isfinite(values)][-1] for name, values in columns.items()}


def _names(training: Training) -> list[str]:
    """All losses of a training."""
    return list(dict.fromkeys(name for point in training.curve.losses for name in point))


def lossTitle(loss: str) -> str:
    """What people call a loss."""
    titles = {
        "adversarial": _("Adversarial"),
        "coarse": _("Layout"),
        "code": _("Style code"),
        "content": _("Content"),
        "discriminator": _("Discriminator"),
        "moments": _("Style"),
        "style": _("Style"),
        "total_variation": _("Total variation"),
    }
    return titles.get(loss, loss)


def _relative(values: "list[float | None]") -> np.ndarray:
    """The values divided by the first of them; NaN, which plots leave out, for None."""
    array = np.array(values, float)
    known = array[np.isfinite(array)]
    return array / known[0] if known.size and known[0] else array


def _find(training: Training, className: str) -> "slicer.vtkMRMLNode | None":
    nodes = slicer.util.getNodesByClass(className)
    return next((node for node in nodes if node.GetAttribute(_ATTRIBUTE) == training.name), None)


def _add(training: Training, className: str, name: str) -> "slicer.vtkMRMLNode":
    node = slicer.mrmlScene.AddNewNodeByClass(className, name.format(name=training.name))
    node.SetAttribute(_ATTRIBUTE, training.name)
    return node


def _addSeries(table: "slicer.vtkMRMLTableNode", loss: str) -> "slicer.vtkMRMLPlotSeriesNode":
    series = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", lossTitle(loss))
    series.SetAndObserveTableNodeID(table.GetID())
    series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
    series.SetXColumnName(_STEP)
    series.SetYColumnName(loss)
    series.SetMarkerStyle(slicer.vtkMRMLPlotSeriesNode.MarkerStyleNone)
    series.SetLineWidth(2)
    series.SetColor(*_COLORS.get(loss, _OTHER_COLOR))
    return series
