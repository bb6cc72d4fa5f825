"""The widgets of CTK and Slicer that the panels use, over PySide6, with the names that the real ones have.

To use another one, add it here with the properties, signals and slots of its header file, and no others.
"""

import importlib
import re
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer
from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Property, Qt, Signal

from . import pythonqt


def stored(kind: Any, default: Any) -> Any:
    """A property that is kept, and after whose change the widget's ``_refresh`` is called."""
    key = object()

    def get(self: Any) -> Any:
        return self.__dict__.get(key, default)

    def set(self: Any, value: Any) -> None:
        self.__dict__[key] = value
        self._refresh()

    return Property(kind, get, set)


def _weakly(method: Callable[..., None]) -> Callable[..., None]:
    """The method as an observer that keeps no object, and is called as long as there is one."""
    reference = weakref.WeakMethod(method)

    def observe(*arguments: Any) -> None:
        if alive := reference():
            alive(*arguments)

    return observe


class ctkCollapsibleButton(QtWidgets.QAbstractButton):
    contentsCollapsed = Signal(bool)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._hidden: list[QtWidgets.QWidget] = []
        self.setCheckable(True)
        self.setChecked(True)
        self.setSizePolicy(QtWidgets.QSizePolicy.Policy.Minimum, QtWidgets.QSizePolicy.Policy.Preferred)
        self.setContentsMargins(0, self._headHeight(), 0, 0)
        self.toggled.connect(self._collapse)

    def _headHeight(self) -> int:
        return self.fontMetrics().height() + 10

    def _collapse(self, isOpen: bool) -> None:
        if isOpen:
            for child in self._hidden:
                child.show()
        else:
            self._hidden = [
                c for c in self.findChildren(QtWidgets.QWidget, options=Qt.FindDirectChildrenOnly) if not c.isHidden()
            ]
            for child in self._hidden:
                child.hide()
        self.setMaximumHeight(16777215 if isOpen else self._headHeight())
        self.updateGeometry()
        self.contentsCollapsed.emit(not isOpen)

    def _collapsed(self) -> bool:
        return not self.isChecked()

    def setCollapsed(self, collapsed: bool) -> None:
        self.setChecked(not collapsed)

    collapsed = Property(bool, _collapsed, setCollapsed)

    def sizeHint(self) -> QtCore.QSize:
        head = QtCore.QSize(self.fontMetrics().horizontalAdvance(self.text()) + 40, self._headHeight())
        return head if self.collapsed or not self.layout() else self.layout().totalSizeHint().expandedTo(head)

    def minimumSizeHint(self) -> QtCore.QSize:
        head = QtCore.QSize(0, self._headHeight())
        return head if self.collapsed or not self.layout() else self.layout().totalMinimumSize().expandedTo(head)

    def hitButton(self, at: QtCore.QPoint) -> bool:
        return at.y() < self._headHeight()

    def paintEvent(self, event: Any) -> None:
        painter = QtGui.QPainter(self)
        head = QtCore.QRect(0, 0, self.width(), self._headHeight())
        button = QtWidgets.QStyleOptionButton()
        button.initFrom(self)
        button.rect = head
        self.style().drawControl(QtWidgets.QStyle.ControlElement.CE_PushButtonBevel, button, painter, self)
        arrow = QtWidgets.QStyleOption()
        arrow.initFrom(self)
        arrow.rect = QtCore.QRect(6, (head.height() - 10) // 2, 10, 10)
        element = QtWidgets.QStyle.PrimitiveElement
        kind = element.PE_IndicatorArrowRight if self.collapsed else element.PE_IndicatorArrowDown
        self.style().drawPrimitive(kind, arrow, painter, self)
        painter.drawText(head.adjusted(24, 0, 0, 0), int(Qt.AlignVCenter | Qt.AlignLeft), self.text())


class ctkCollapsibleGroupBox(QtWidgets.QGroupBox):
    def _refresh(self) -> None:
        for child in self.findChildren(QtWidgets.QWidget, options=Qt.FindDirectChildrenOnly):
            child.setVisible(not self.collapsed)

    collapsed = stored(bool, False)


class ctkPathLineEdit(QtWidgets.QWidget):
    Dirs, Files, Drives, NoSymLinks, Readable, Writable, Executable = 1, 2, 4, 8, 16, 32, 64
    validInputChanged = Signal(bool)
    currentPathChanged = Signal(str)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._combo = QtWidgets.QComboBox(editable=True)
        self._combo.setSizePolicy(QtWidgets.QSizePolicy.Policy.Expanding, QtWidgets.QSizePolicy.Policy.Fixed)
        self._combo.setMinimumContentsLength(8)
        self._combo.setSizeAdjustPolicy(QtWidgets.QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self._browse = QtWidgets.QToolButton(text="...")
        layout.addWidget(self._combo)
        layout.addWidget(self._browse)
        self._isValid = False
        self._combo.currentTextChanged.connect(self._onText)

    def _refresh(self) -> None:
        self._browse.setVisible(self.showBrowseButton)

    def _onText(self, text: str) -> None:
        """Tells of acceptable paths alone: of each name filter the real one knows the first extension only."""
        before = self._isValid
        extensions = [re.search(r"\*(\.\w+)", one)[1] for one in self.nameFilters]
        self._isValid = text.endswith(tuple(extensions)) if extensions else bool(text)
        if self._isValid:
            self.currentPathChanged.emit(text)
        if self._isValid != before:
            self.validInputChanged.emit(self._isValid)

    def _path(self) -> str:
        return self._combo.currentText()

    def setCurrentPath(self, path: str) -> None:
        self._combo.setEditText(path)

    def addCurrentPathToHistory(self) -> None:
        self._combo.addItem(self._path())

    def retrieveHistory(self) -> None:
        pass  # there are no settings to take it from

    currentPath = Property(str, _path, setCurrentPath)
    label = stored(str, "")
    filters = stored(int, 7)
    nameFilters = stored("QStringList", [])
    settingKey = stored(str, "")
    showBrowseButton = stored(bool, True)
    showHistoryButton = stored(bool, True)
    minimumContentsLength = stored(int, 0)


class ctkDirectoryButton(QtWidgets.QWidget):
    directoryChanged = Signal(str)
    directorySelected = Signal(str)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._button = QtWidgets.QPushButton()
        self._button.setIcon(self.style().standardIcon(QtWidgets.QStyle.StandardPixmap.SP_DirIcon))
        layout.addWidget(self._button)
        self.setDirectory(".")

    def _refresh(self) -> None:
        self._button.setText(self.text or self._directory)

    def _getDirectory(self) -> str:
        return self._directory

    def setDirectory(self, directory: str) -> None:
        absolute = str(Path(directory).absolute())  # as the real one does, so that "" is the current folder
        if absolute != self.__dict__.get("_directory"):
            self._directory = absolute
            self._refresh()
            self.directoryChanged.emit(absolute)

    directory = Property(str, _getDirectory, setDirectory)
    text = stored(str, "")
    caption = stored(str, "")


class ctkSliderWidget(QtWidgets.QWidget):
    valueChanged = Signal(float)
    valueIsChanging = Signal(float)
    _STEPS = 1000

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._slider = QtWidgets.QSlider(Qt.Orientation.Horizontal)
        self._slider.setRange(0, self._STEPS)
        self._spin = QtWidgets.QDoubleSpinBox()
        layout.addWidget(self._slider)
        layout.addWidget(self._spin)
        self._refresh()
        self._spin.valueChanged.connect(self._onSpin)
        self._slider.sliderMoved.connect(self._onSlider)

    def _refresh(self) -> None:
        self._spin.setDecimals(self.decimals)
        self._spin.setRange(self.minimum, self.maximum)
        self._spin.setSingleStep(self.singleStep)
        self._spin.setSuffix(self.suffix)
        self._spin.setPrefix(self.prefix)
        self._spin.setVisible(self.spinBoxVisible)

    def _onSpin(self, value: float) -> None:
        share = (value - self.minimum) / max(1e-12, self.maximum - self.minimum)
        self._slider.setValue(round(share * self._STEPS))
        self.valueChanged.emit(value)

    def _onSlider(self, step: int) -> None:
        self._spin.setValue(self.minimum + step / self._STEPS * (self.maximum - self.minimum))

    def _value(self) -> float:
        return self._spin.value()

    def setValue(self, value: float) -> None:
        self._spin.setValue(value)

    def setRange(self, minimum: float, maximum: float) -> None:
        self.setProperty("minimum", minimum)
        self.setProperty("maximum", maximum)

    value = Property(float, _value, setValue)
    decimals = stored(int, 2)
    singleStep = stored(float, 1.0)
    pageStep = stored(float, 10.0)
    minimum = stored(float, 0.0)
    maximum = stored(float, 99.0)
    prefix = stored(str, "")
    suffix = stored(str, "")
    tracking = stored(bool, True)
    spinBoxVisible = stored(bool, True)


class ctkRangeWidget(QtWidgets.QWidget):
    minimumValueChanged = Signal(float)
    maximumValueChanged = Signal(float)
    valuesChanged = Signal(float, float)
    rangeChanged = Signal(float, float)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._low, self._high = QtWidgets.QDoubleSpinBox(), QtWidgets.QDoubleSpinBox()
        line = QtWidgets.QSlider(Qt.Orientation.Horizontal)  # stands for the slider with two handles
        for widget in (self._low, line, self._high):
            layout.addWidget(widget)
        self._refresh()
        self._high.setValue(self._high.maximum())
        self._low.valueChanged.connect(self._onLow)
        self._high.valueChanged.connect(self._onHigh)

    def _refresh(self) -> None:
        for spin in (self._low, self._high):
            spin.setDecimals(self.decimals)
            spin.setSingleStep(self.singleStep)
            spin.setRange(self.minimum, self.maximum)
            spin.setSuffix(self.suffix)

    def _onLow(self, value: float) -> None:
        if value > self._high.value():
            self._high.setValue(value)
        self.minimumValueChanged.emit(value)
        self.valuesChanged.emit(value, self._high.value())

    def _onHigh(self, value: float) -> None:
        if value < self._low.value():
            self._low.setValue(value)
        self.maximumValueChanged.emit(value)
        self.valuesChanged.emit(self._low.value(), value)

    def setRange(self, minimum: float, maximum: float) -> None:
        self.setProperty("minimum", minimum)
        self.setProperty("maximum", maximum)
        self.rangeChanged.emit(minimum, maximum)

    def setValues(self, low: float, high: float) -> None:
        self._low.setValue(low)
        self._high.setValue(high)

    def setMinimumValue(self, value: float) -> None:
        self._low.setValue(value)

    def setMaximumValue(self, value: float) -> None:
        self._high.setValue(value)

    minimumValue = Property(float, lambda self: self._low.value(), setMinimumValue)
    maximumValue = Property(float, lambda self: self._high.value(), setMaximumValue)
    minimum = stored(float, 0.0)
    maximum = stored(float, 99.0)
    decimals = stored(int, 2)
    singleStep = stored(float, 1.0)
    suffix = stored(str, "")


class ctkComboBox(QtWidgets.QComboBox):
    def _refresh(self) -> None:
        self.setPlaceholderText(self.defaultText)

    defaultText = stored(str, "")


class ctkSearchBox(QtWidgets.QLineEdit):
    pass


class ctkMessageBox(QtWidgets.QMessageBox):
    def _refresh(self) -> None:
        pass

    dontShowAgainSettingsKey = stored(str, "")


class qMRMLWidget(QtWidgets.QWidget):
    mrmlSceneChanged = Signal(object)
    nodeSignals = ("mrmlSceneChanged(vtkMRMLScene*)",)
    nodeSlots = ("setMRMLScene(vtkMRMLScene*)",)
    _scene = None

    def mrmlScene(self) -> Any:
        return self._scene

    def setMRMLScene(self, scene: Any) -> None:
        if scene is not self._scene:
            self._scene = scene
            self.mrmlSceneChanged.emit(scene)


class qMRMLNodeComboBox(QtWidgets.QWidget):
    currentNodeChanged = Signal((object,), (bool,))
    currentNodeIDChanged = Signal(str)
    nodeActivated = Signal(object)
    nodeAddedByUser = Signal(object)
    nodeSignals = (
        "currentNodeChanged(vtkMRMLNode*)",
        "nodeActivated(vtkMRMLNode*)",
        "nodeAddedByUser(vtkMRMLNode*)",
    )
    nodeSlots = ("setMRMLScene(vtkMRMLScene*)", "setCurrentNode(vtkMRMLNode*)")

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._combo = QtWidgets.QComboBox()
        self._combo.setSizeAdjustPolicy(QtWidgets.QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self._combo.setMinimumContentsLength(8)
        layout.addWidget(self._combo)
        self._scene: Any = None
        self._tags: list[int] = []
        self._selected = ""  # the ID of the node that was told last
        self._attributes: list[tuple[str, str, Any]] = []
        self.setEnabled(False)
        self._combo.currentIndexChanged.connect(self._tell)
        self._combo.activated.connect(lambda index: self.nodeActivated.emit(self.currentNode()))

    def mrmlScene(self) -> Any:
        return self._scene

    def setMRMLScene(self, scene: Any) -> None:
        for tag in self._tags:
            self._scene.RemoveObserver(tag)
        self._scene = scene
        events = ("NodeAddedEvent", "NodeRemovedEvent", "EndCloseEvent", "EndImportEvent")
        onScene = _weakly(self._onScene)  # the scene lives longer
        self._tags = [scene.AddObserver(getattr(scene, event), onScene) for event in events] if scene else []
        self.setEnabled(scene is not None)
        self._refresh()

    def _onScene(self, caller: Any, event: str) -> None:
        self._refresh()

    def _refresh(self) -> None:
        """Lists the scene's nodes anew; keeps the selected one, if it is still there."""
        self._combo.blockSignals(True)
        self._combo.clear()
        if self.noneEnabled:
            self._combo.addItem(self.noneDisplay, "")
        for node in self.nodes():
            self._combo.addItem(node.GetName(), node.GetID())
        ids = [self._combo.itemData(index) for index in range(self._combo.count())]
        self._combo.setCurrentIndex(ids.index(self._selected) if self._selected in ids else 0 if ids else -1)
        self._combo.blockSignals(False)
        self._tell()

    def _tell(self) -> None:
        if self.currentNodeID != self._selected:
            self._selected = self.currentNodeID
            self.currentNodeChanged[object].emit(self.currentNode())
            self.currentNodeChanged[bool].emit(self.currentNode() is not None)
            self.currentNodeIDChanged.emit(self._selected)

    def nodes(self) -> list[Any]:
        found = slicer.util.getNodesByClass("vtkMRMLNode", self._scene) if self._scene else []
        return [node for node in found if self._shows(node)]

    def _shows(self, node: Any) -> bool:
        isOne = node.IsA if self.showChildNodeTypes else lambda kind: node.GetClassName() == kind
        return (
            any(map(isOne, self.nodeTypes))
            and not any(map(node.IsA, self.hideChildNodeTypes))
            and (self.showHidden or not node.GetHideFromEditors())
            and all(self._hasAttribute(node, *wanted) for wanted in self._attributes)
        )

    def addAttribute(self, nodeType: str, name: str, value: Any = None) -> None:
        self._attributes.append((nodeType, name, value))
        self._refresh()

    def _hasAttribute(self, node: Any, nodeType: str, name: str, value: Any) -> bool:
        return not node.IsA(nodeType) or node.GetAttribute(name) == value or (value is None and node.GetAttribute(name))

    def nodeCount(self) -> int:
        return len(self.nodes())

    def currentNode(self) -> Any:
        return self._scene.GetNodeByID(self.currentNodeID) if self._scene and self.currentNodeID else None

    def setCurrentNode(self, node: Any) -> None:
        self.setCurrentNodeID(node.GetID() if node else "")

    def _currentNodeID(self) -> str:
        return self._combo.currentData() or ""

    def setCurrentNodeID(self, nodeID: str) -> None:
        index = self._combo.findData(nodeID or "")
        self._combo.setCurrentIndex(index)

    currentNodeID = Property(str, _currentNodeID, setCurrentNodeID)
    nodeTypes = stored("QStringList", [])
    showHidden = stored(bool, False)
    showChildNodeTypes = stored(bool, True)
    hideChildNodeTypes = stored("QStringList", [])
    baseName = stored(str, "")
    noneEnabled = stored(bool, False)
    noneDisplay = stored(str, "None")
    addEnabled = stored(bool, True)
    removeEnabled = stored(bool, True)
    editEnabled = stored(bool, False)
    renameEnabled = stored(bool, False)
    selectNodeUponCreation = stored(bool, True)


class qMRMLSegmentEditorWidget(qMRMLWidget):
    """No editor: it keeps what it is told, and shows its name."""

    currentSegmentIDChanged = Signal(str)
    segmentationNodeChanged = Signal(object)
    nodeSignals = ("segmentationNodeChanged(vtkMRMLSegmentationNode*)",)
    nodeSlots = (
        "setMRMLSegmentEditorNode(vtkMRMLSegmentEditorNode*)",
        "setSegmentationNode(vtkMRMLNode*)",
        "setSourceVolumeNode(vtkMRMLNode*)",
    )

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._editorNode: Any = None
        self._observesViews = self._hearsKeys = False
        layout = QtWidgets.QVBoxLayout(self)
        label = QtWidgets.QLabel("Segment Editor")
        label.setAlignment(Qt.AlignmentFlag.AlignCenter)
        label.setFrameShape(QtWidgets.QFrame.Shape.StyledPanel)
        label.setMinimumHeight(80)
        layout.addWidget(label)

    def _refresh(self) -> None:
        pass

    def mrmlSegmentEditorNode(self) -> Any:
        return self._editorNode

    def setMRMLSegmentEditorNode(self, node: Any) -> None:
        self._editorNode = node

    def segmentationNode(self) -> Any:
        return self._editorNode.GetSegmentationNode() if self._editorNode else None

    def setSegmentationNode(self, node: Any) -> None:
        self._requireEditorNode().SetAndObserveSegmentationNode(node)

    def sourceVolumeNode(self) -> Any:
        return self._editorNode.GetSourceVolumeNode() if self._editorNode else None

    def setSourceVolumeNode(self, node: Any) -> None:
        self._requireEditorNode().SetAndObserveSourceVolumeNode(node)

    def _requireEditorNode(self) -> Any:
        if not self._editorNode or not self._scene:  # the real one ignores the call
            raise RuntimeError("setMRMLSegmentEditorNode and setMRMLScene come first")
        return self._editorNode

    def setActiveEffectByName(self, name: str) -> None:
        self._requireEditorNode().SetActiveEffectName(name)

    def setActiveEffect(self, effect: None) -> None:
        if self._editorNode:
            self._editorNode.SetActiveEffectName("")

    def removeViewObservations(self) -> None:
        pass  # there are no views

    def installKeyboardShortcuts(self, parent: Any = None) -> None:
        self._hearsKeys = True

    def uninstallKeyboardShortcuts(self) -> None:
        self._hearsKeys = False

    def updateWidgetFromMRML(self) -> None:
        pass

    segmentationNodeSelectorVisible = stored(bool, True)
    sourceVolumeNodeSelectorVisible = stored(bool, True)
    switchToSegmentationsButtonVisible = stored(bool, True)
    undoEnabled = stored(bool, True)
    maximumNumberOfUndoStates = stored(int, 10)


class qMRMLPlotView(QtWidgets.QWidget):
    """No plot: it keeps its node, and shows its name."""

    nodeSlots = ("setMRMLScene(vtkMRMLScene*)", "setMRMLPlotViewNode(vtkMRMLPlotViewNode*)")

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._scene = self._node = None
        self.setMinimumHeight(120)

    def paintEvent(self, event: Any) -> None:
        painter = QtGui.QPainter(self)
        painter.fillRect(self.rect(), Qt.GlobalColor.white)
        painter.setPen(Qt.GlobalColor.gray)
        painter.drawText(self.rect(), int(Qt.AlignCenter), "Plot")

    def mrmlScene(self) -> Any:
        return self._scene

    def setMRMLScene(self, scene: Any) -> None:
        self._scene = scene

    def mrmlPlotViewNode(self) -> Any:
        return self._node

    def setMRMLPlotViewNode(self, node: Any) -> None:
        self._node = node


class qMRMLPlotWidget(qMRMLPlotView):
    pass


class qSlicerScriptedLoadableModuleWidget(qMRMLWidget):
    """What holds a scripted module's widget, and tells it when the user comes and goes."""

    _python: Any = None

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        QtWidgets.QVBoxLayout(self)
        self._isEntered = False

    isEntered = Property(bool, lambda self: self._isEntered)

    def self(self) -> Any:
        return self._python

    def reload(self) -> None:
        """Makes the module's widget, of the module as it is loaded now."""
        module = sys.modules.get("CTStyleGen") or importlib.import_module("CTStyleGen")
        self._python = module.CTStyleGenWidget(pythonqt.wrap(self))
        slicer.modules.CTStyleGenWidget = self._python
        self._python.setup()

    def enter(self) -> None:
        self._isEntered = True
        self._python.enter()

    def exit(self) -> None:
        self._python.exit()
        self._isEntered = False


class qSlicerApplication(QtWidgets.QApplication):
    """The application's object, without windows, as after `Slicer --no-main-window --testing`."""

    startupCompleted = Signal()

    def __init__(self, applicationLogic: Any) -> None:
        super().__init__(["CTStyleGenTesting"])
        self._logic = applicationLogic

    def applicationLogic(self) -> Any:
        return self._logic

    def testingEnabled(self) -> bool:
        return True

    def layoutManager(self) -> None:
        return None

    def settings(self) -> QtCore.QSettings:
        return QtCore.QSettings()

    def userSettings(self) -> QtCore.QSettings:
        return QtCore.QSettings()

    def pauseRender(self) -> None:
        pass

    def resumeRender(self) -> None:
        pass


def classes() -> dict[str, type]:
    """All classes here by name."""
    return {
        name: kind
        for name, kind in globals().items()
        if isinstance(kind, type) and issubclass(kind, QtCore.QObject) and kind.__module__ == __name__
    }
