"""The module's self-test: on drawn chests all the way, from files through a tiny training to a CT in its place.

It needs what Set-up installs, half a minute, and nothing of the internet; the user's models are left alone.
"""

import sys
import tempfile
import unittest
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import slicer

from . import models, setup
from .geometry import gridSize, ijkToRAS, imageOnGrid

_SHAPE = (4, 40, 48)  # k, j, i
_GRID = np.array([[-4, 3.6, 0, 110.5], [-3, -4.8, 0, 98.2], [0, 0, 7.5, -35.1], [0, 0, 0, 1]])  # IJK to RAS, turned, mm
_EXTENT = "0 47 0 39 0 3"
_HU_BY_ORGAN = {"body": 40, "lungs": -800, "heart": 60}


def runSelfTest(test: unittest.TestCase, logic: Any) -> None:
    """Load, check, train, synthesize; what isn't as it should be is told to the test. Closes the scene."""
    loadedBefore = set(sys.modules)
    for library in setup.check():
        test.assertIs(library.state, setup.State.READY, f"{library.message} See Set-up in the tab Models.")
    slicer.mrmlScene.Clear(False)
    with tempfile.TemporaryDirectory(prefix="CTStyleGen-") as temporary, _modelsFolder(Path(temporary) / "models"):
        folder = Path(temporary)
        volume, segmentation = _load(folder, "Chest", offset_mm=0.0)
        cases = {"A": (volume, segmentation), "B": _load(folder, "Other chest", offset_mm=30.0)}
        options = {"styles": ["A"], "name": "self-test", "preset": "quick", "size": 64, "steps": 2}
        checked = logic.checkTraining(cases, **options, features="random", device="cpu")
        test.assertTrue(checked.ready, checked.problems)
        model = logic.train(cases, **options, features="random", device="cpu", wait=True).model
        result = logic.check(segmentation, volume, model=model)
        test.assertTrue(result.ready, result.problems)
        test.assertEqual([segment.organ for segment in result.segments], ["body", "lungs", "mediastinum"])
        synthetic = logic.synthesize(segmentation, volume, model=model, seed=1, device="cpu")
    test.assertEqual(gridSize(synthetic), gridSize(volume))
    np.testing.assert_allclose(ijkToRAS(synthetic), ijkToRAS(volume), atol=1e-9)
    test.assertIn("synthetic", synthetic.GetName())
    test.assertEqual(synthetic.GetAttribute("CTStyleGen.Synthetic"), "1")
    test.assertIs(synthetic.GetNodeReference("CTStyleGen.sourceVolume"), volume)
    voxels = slicer.util.arrayFromVolume(synthetic)
    test.assertEqual(voxels.dtype, np.int16)
    test.assertGreater(voxels.std(), 0)
    test.assertEqual({"torch", "torchvision"} & (set(sys.modules) - loadedBefore), set(), "in Slicer's own process")


@contextmanager
def _modelsFolder(folder: Path) -> Iterator[None]:
    """Another models folder for the block."""
    chosen = slicer.app.userSettings().value(models.SETTING) or ""
    models.setModelsFolder(folder)
    try:
        yield
    finally:
        models.setModelsFolder(chosen)


def _load(folder: Path, name: str, offset_mm: float) -> tuple[Any, Any]:
    """A drawn chest, written to files in an oblique grid and loaded: its CT and its segmentation."""
    _k, j, i = np.indices(_SHAPE)
    y, x = j / _SHAPE[1] - 0.5, i / _SHAPE[2] - 0.5
    body, lungs = x**2 / 0.2 + y**2 / 0.15 < 1, (np.abs(x) - 0.22) ** 2 / 0.015 + y**2 / 0.05 < 1
    labels = np.select([(x - 0.05) ** 2 + y**2 < 0.02, lungs, body], [3, 2, 1]).astype(np.uint8)
    grid = _GRID.copy()
    grid[2, 3] += offset_mm
    organs = imageOnGrid(labels, grid)
    for number, organ in enumerate(_HU_BY_ORGAN):
        about = {"ID": organ, "Name": organ, "LabelValue": str(number + 1), "Layer": "0", "Extent": _EXTENT}
        for key, value in about.items():
            organs.SetMetaData(f"Segment{number}_{key}", value)
    ct = np.array([-1000, *_HU_BY_ORGAN.values()], np.int16)[labels]
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    for node, image, suffix in ((volume, imageOnGrid(ct, grid), ".nrrd"), (segmentation, organs, ".seg.nrrd")):
        path = str(folder / f"{name}{suffix}")
        sitk.WriteImage(image, path)
        storage = node.CreateDefaultStorageNode()
        storage.SetFileName(path)
        if not storage.ReadData(node):
            raise OSError(f"{path} can't be loaded.")
        node.CreateDefaultDisplayNodes()
    return volume, segmentation
