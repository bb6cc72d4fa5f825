"""The scene that the demo leaves, read again by Slicer's libraries: everything is where it belongs."""

import shutil
import sys
import tempfile
import unittest
from importlib import util
from pathlib import Path

import CTStyleGenTesting
import numpy as np
import SimpleITK as sitk
import slicer
from CTStyleGenTesting import chest
from CTStyleGenCore.anatomy import load_anatomy
from CTStyleGenLib.conditioning import conditioningFromSegmentation
from CTStyleGenLib.geometry import imageInGrid
from CTStyleGenTesting.chest import tinyModel
from CTStyleGenTesting.scenes import hierarchyNode

ROOT = Path(__file__).resolve().parents[3]
RESULTS = [*(f"Chest synthetic CT {number}" for number in (1, 2, 3)), "Chest with a larger heart synthetic CT"]


@unittest.skipIf(CTStyleGenTesting.IN_APPLICATION, "the demo is made without the application")
@unittest.skipUnless((ROOT / "tools").is_dir() and util.find_spec("slicerio"), "the demo comes with the source code")
@unittest.skipUnless(chest.CAN_TRAIN, chest.CANT_TRAIN)
class DemoSceneTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        sys.path.insert(0, str(ROOT))
        from tools import demo, demo_data

        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = Path(folder.name)
        case = demo_data.content_case(cls.folder / "data" / "content")
        style = cls.folder / "data" / "style"  # any other CT will do here
        style.mkdir()
        for name, values in (("ct", chest.chestCT), ("labels", chest.chestLabels)):
            sitk.WriteImage(sitk.GetImageFromArray(np.tile(values(), (12, 1, 1))), str(style / f"{name}.nrrd"))
        demo.cut_cases(cls.folder, style)
        shutil.copy(tinyModel(), cls.folder / "chest.ctstyle")
        slicer.mrmlScene.Clear(True)
        demo.synthesize(cls.folder)
        cls.case = case
        slicer.mrmlScene.Clear(True)
        cls.addClassCleanup(slicer.mrmlScene.Clear, True)
        assert slicer.mrmlScene.ReadFromMRB(str(cls.folder / "demo.mrb"), True)

    def node(self, name: str) -> "slicer.vtkMRMLNode":
        node = slicer.mrmlScene.GetFirstNodeByName(name)
        self.assertIsNotNone(node, name)
        return node

    def test_volumes_lie_in_the_held_out_slices(self) -> None:
        """Their grid is that of those slices in the patient's CT."""
        whole = sitk.ReadImage(str(self.case / "ct.nrrd"))
        heldOut = sitk.ReadImage(str(self.folder / "held-out" / "ct.nrrd"))
        for name in ("Chest CT, held-out slices", *RESULTS):
            node = self.node(name)
            image = imageInGrid(slicer.util.arrayFromVolume(node), node)
            self.assertEqual(image.GetSize(), heldOut.GetSize())
            for index in ((0, 0, 0), (5, 7, 6)):
                there = whole.TransformPhysicalPointToContinuousIndex(image.TransformIndexToPhysicalPoint(index))
                np.testing.assert_allclose(there, np.add(index, (0, 0, 15)), atol=1e-4)

    def test_segments_lie_on_the_volumes(self) -> None:
        labels = sitk.GetArrayFromImage(sitk.ReadImage(str(self.folder / "held-out" / "labels.nrrd")))
        reference, anatomy = self.node("Chest CT, held-out slices"), load_anatomy("thorax")
        found = conditioningFromSegmentation(self.node("Chest"), reference, anatomy).labels
        np.testing.assert_array_equal(found, labels)
        heart = anatomy.organ("mediastinum").label
        grown = conditioningFromSegmentation(self.node("Chest with a larger heart"), reference, anatomy).labels
        self.assertGreater((grown == heart).sum(), 1.2 * (labels == heart).sum())

    def test_results_say_what_they_are(self) -> None:
        hierarchy = hierarchyNode()
        for name in RESULTS:
            node = self.node(name)
            self.assertEqual(node.GetAttribute("CTStyleGen.Synthetic"), "1")
            self.assertEqual(node.GetNodeReference("CTStyleGen.sourceVolume").GetName(), "Chest CT, held-out slices")
            voxels = slicer.util.arrayFromVolume(node)
            self.assertEqual(voxels.dtype, np.int16)
            self.assertGreater(voxels.std(), 0)
        folders = {hierarchy.GetItemParent(hierarchy.GetItemByDataNode(self.node(name))) for name in RESULTS[:3]}
        self.assertEqual([hierarchy.GetItemName(item) for item in folders], ["Chest synthetic CT, 3 samples"])

    def test_views_show_the_result_over_the_reference(self) -> None:
        for color, orientation in (("Red", "Axial"), ("Yellow", "Sagittal"), ("Green", "Coronal")):
            view = slicer.mrmlScene.GetNodeByID(f"vtkMRMLSliceCompositeNode{color}")
            background = slicer.mrmlScene.GetNodeByID(view.GetBackgroundVolumeID())
            foreground = slicer.mrmlScene.GetNodeByID(view.GetForegroundVolumeID())
            self.assertEqual((background.GetName(), foreground.GetName()), ("Chest CT, held-out slices", RESULTS[-1]))
            node = slicer.mrmlScene.GetNodeByID(f"vtkMRMLSliceNode{color}")
            self.assertEqual(node.GetOrientation(), orientation)
            bounds = [0.0] * 6
            background.GetRASBounds(bounds)
            middle = [node.GetSliceToRAS().GetElement(row, 3) for row in range(3)]
            for axis in range(3):
                self.assertTrue(bounds[2 * axis] <= middle[axis] <= bounds[2 * axis + 1])
        shown = [
            node.GetName()
            for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
            if node.GetDisplayVisibility()
        ]
        self.assertEqual(shown, ["Chest with a larger heart"])


if __name__ == "__main__":
    unittest.main()
