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
        self.node = self._logic.AddSliceNode(name)
        self.node.SetOrientation(ORIENTATIONS[name])
        self.node.SetDimensions(side, side, 1)
        self._window = self._drawing()

    def show(self, background: Any, foreground: Any = None) -> None:
        """Shows the middle of the background volume, covered by the foreground volume."""
        composite = self._logic.GetSliceCompositeNode()
        composite.SetBackgroundVolumeID(background.GetID())
        composite.SetForegroundVolumeID(foreground.GetID() if foreground else None)
        composite.SetForegroundOpacity(1.0)
        self._logic.FitSliceToBackground(self._side, self._side)
        width, height, depth = self.node.GetFieldOfView()
        self.node.SetFieldOfView(_MARGIN * width, _MARGIN * height, depth)

    def picture(self) -> np.ndarray:
        """What the view shows, RGB [row, column, 3], with the segmentations as their display nodes say."""
        self._mapper.SetInputConnection(self._logic.GetImageDataConnection())  # another one since the volumes changed
        self._window.Render()
        pixels = vtk.vtkUnsignedCharArray()
        self._window.GetPixelData(0, 0, self._side - 1, self._side - 1, 0, pixels, 0)
        return vtk_to_numpy(pixels).reshape(self._side, self._side, 3)[::-1].copy()

    def _drawing(self) -> vtk.vtkRenderWindow:
        """A window on no screen, with the images below and the segments over them."""
        window = vtk.vtkRenderWindow()
        window.SetOffScreenRendering(True)
        window.SetSize(self._side, self._side)
        window.SetNumberOfLayers(2)
        self._interactor = vtk.vtkGenericRenderWindowInteractor()  # the displayable manager wants one
        self._interactor.SetRenderWindow(window)
        images, segments = vtk.vtkRenderer(), vtk.vtkRenderer()
        segments.SetLayer(1)
        for renderer in (images, segments):
            renderer.GetActiveCamera().ParallelProjectionOn()
            window.AddRenderer(renderer)
        self._mapper, actor = vtk.vtkImageMapper(), vtk.vtkActor2D()
        self._mapper.SetColorWindow(255)
        self._mapper.SetColorLevel(127.5)
        actor.SetMapper(self._mapper)
        images.AddViewProp(actor)
        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
        factory.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        if not factory.IsDisplayableManagerRegistered(_MANAGER):
            factory.RegisterDisplayableManager(_MANAGER)
        self._managers = factory.InstantiateDisplayableManagers(segments)
        self._managers.SetMRMLDisplayableNode(self.node)
        return window
