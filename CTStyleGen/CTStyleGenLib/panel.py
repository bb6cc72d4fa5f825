"""What the panels have in common: each is a .ui file whose widgets show and change the scene's parameters."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer
import vtk

_UI_FOLDER = Path(__file__).parents[1] / "Resources" / "UI"


class Panel(slicer.util.VTKObservationMixin):
    """One tab of the module.

    A widget of the .ui file with the property SlicerParameterName is bound to the parameter of that name. `update` is
    called after every change of a parameter.
    """

    title = ""  # of the tab

    def __init__(self, uiFile: str, logic: Any) -> None:
        super().__init__()
        self.logic = logic
        self.widget = slicer.util.loadUI(str(_UI_FOLDER / uiFile))
        self.ui = slicer.util.childWidgetVariables(self.widget)
        self.widget.setMRMLScene(slicer.mrmlScene)
        self.parameters: Any = None  # a CTStyleGenParameterNode while the module is open
        self._guiTag = self._modifiedTag = 0
        for one in vars(self.ui).values():
            if one.className() == "ctkPathLineEdit":
                one.connect("currentPathChanged(QString)", self._blanker(one))
                one.connect("validInputChanged(bool)", self._emptier(one))

    def setParameterNode(self, parameterNode: Any) -> None:
        """Binds the panel to the parameters of a scene, or to none (None)."""
        if self.parameters:
            self.parameters.disconnectGui(self._guiTag)
            self.parameters.RemoveObserver(self._modifiedTag)
        self.parameters = parameterNode
        if self.parameters:
            self._guiTag = self.parameters.connectGui(self.ui)
            self._modifiedTag = self.parameters.AddObserver(vtk.vtkCommand.ModifiedEvent, self._onModified)
            self.update()

    def enter(self) -> None:
        """Called each time the module is opened, after setParameterNode."""

    def shown(self) -> None:
        """Called each time the panel comes to be seen: its tab is chosen, or the module is opened at it."""

    def exit(self) -> None:
        """Called each time another module is opened, before setParameterNode(None)."""

    def cleanup(self) -> None:
        """Called when the application closes or the module is reloaded."""
        self.removeObservers()

    def update(self) -> None:
        """Shows what follows from the parameters, which aren't None."""

    def _blanker(self, pathLineEdit: Any) -> Callable[[str], None]:
        """Shows nothing where no path is chosen, instead of ".", which is how a parameter node writes that."""

        def blank(path: str) -> None:
            if path == ".":
                pathLineEdit.currentPath = ""

        return blank

    def _emptier(self, pathLineEdit: Any) -> Callable[[bool], None]:
        """Chooses no path where the user has emptied the field, of which currentPathChanged doesn't tell."""

        def empty(isValid: bool) -> None:
            if self.parameters and not isValid and not pathLineEdit.currentPath:
                self.parameters.setValue(pathLineEdit.property("SlicerParameterName"), Path())

        return empty

    def _onModified(self, caller: Any, event: str) -> None:
        if self.parameters:
            self.update()
