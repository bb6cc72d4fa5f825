"""Slicer's slice views, as the scene has them, drawn off screen without the application.

Slicer's slice logic makes the images, its displayable manager the segments on them; VTK draws both.
"""

import os
import sys
from typing import Any

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

ORIENTATIONS = {"Red": "Axial", "Yellow": "Sagittal", "Green": "Coronal"}
_MANAGER = "vtkMRMLSegmentationsDisplayableManager2D"
_MARGIN = 1.05  # of the field of view around a volume
if sys.platform == "linux" and not os.environ.get("DISPLAY"):
    os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")  # else VTK complains before it uses that


class SliceView:
    """A view of Slicer's standard layout. Its nodes are saved with the scene, which so opens as it is drawn here."""

    def __init__(self, name: str, side: int = 400) -> None:
        """``name``: Red, Yellow or Green. ``side``: of the square picture, in pixels."""
        self._side = side
        self._logic = slicer.vtkMRMLSliceLogic()
        self._logic.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        self._logic.SetMRMLScene(slicer.mrmlScene)
        self.node = slicer.mrmlScene.GetSingletonNode(name, "vtkMRMLSliceNode")
        if self.node:  # of a scene that was loaded
            self._logic.SetSliceNode(self.node)
        else:
            self.node = self._logic.AddSliceNode(name)
            self.node.SetOrientation(ORIENTATIONS[name])
        self.node.SetDimensions(side, side, 1)

    def show(self, background: Any, foreground: Any = None) -> None:
        """Shows the middle of the background volume, covered by the foreground volume."""
        composite = self._logic.GetSliceCompositeNode()
        composite.SetBackgroundVolumeID(background.GetID())
        composite.SetForegroundVolumeID(foreground.GetID() if foreground else None)
        composite.SetForegroundOpacity(1.0)
        self._logic.FitSliceToBackground(self._side, self._side)
        width, height, depth = self.node.GetFieldOfView()
        self.node.SetFieldOfView(_MARGIN * width, _MARGIN * height, depth)

    def close(self) -> None:
        """Follows the scene no more; the nodes stay."""
        self._logic.SetMRMLScene(None)

    def picture(self) -> np.ndarray:
        """What the view shows, RGB [row, column, 3], with the segmentations as their display nodes say."""
        window = vtk.vtkRenderWindow()
        window.SetOffScreenRendering(True)
        window.SetSize(self._side, self._side)
        window.SetNumberOfLayers(2)
        interactor = vtk.vtkGenericRenderWindowInteractor()  # the displayable manager wants one
        interactor.SetRenderWindow(window)
        images, segments = vtk.vtkRenderer(), vtk.vtkRenderer()
        segments.SetLayer(1)
        for renderer in (images, segments):
            renderer.GetActiveCamera().ParallelProjectionOn()
            window.AddRenderer(renderer)
        mapper, actor = vtk.vtkImageMapper(), vtk.vtkActor2D()
        mapper.SetInputConnection(self._logic.GetImageDataConnection())
        mapper.SetColorWindow(255)
        mapper.SetColorLevel(127.5)
        actor.SetMapper(mapper)
        images.AddViewProp(actor)
        managers = _factory().InstantiateDisplayableManagers(segments)
        managers.SetMRMLDisplayableNode(self.node)
        window.Render()
        pixels = vtk.vtkUnsignedCharArray()
        window.GetPixelData(0, 0, self._side - 1, self._side - 1, 0, pixels, 0)
        managers.SetMRMLDisplayableNode(None)
        return vtk_to_numpy(pixels).reshape(self._side, self._side, 3)[::-1].copy()


def _factory() -> Any:
    """Slicer's factory of what is drawn over the images of slice views: here, segments alone."""
    factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
    factory.SetMRMLApplicationLogic(slicer.app.applicationLogic())
    if not factory.IsDisplayableManagerRegistered(_MANAGER):
        factory.RegisterDisplayableManager(_MANAGER)
    return factory
