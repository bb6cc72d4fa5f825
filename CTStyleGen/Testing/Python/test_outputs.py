"""The result as a node: where it lies, how it is shown, what it says about itself, and that saving keeps it."""

import tempfile
import unittest
import zipfile
from pathlib import Path

import CTStyleGenTesting  # noqa: F401 - prepares slicer
import numpy as np
import SimpleITK as sitk
import slicer
import vtk
from CTStyleGenTesting import scenes
from CTStyleGenLib.geometry import ijkToRAS, imageInGrid
from CTStyleGenLib.outputs import SOURCE_SEGMENTATION_ROLE, SOURCE_VOLUME_ROLE, Place

SHAPE = (5, 6, 7)
PROVENANCE = {"Model": "m.ctstyle", "ModelSHA256": "ab" * 32, "Seed": "7", "Styles": 'a, "b" & <c>', "Version": "0.1"}


class OutputsTest(unittest.TestCase):
    def setUp(self) -> None:
        slicer.mrmlScene.Clear(False)
        self.grid = scenes.grid((0.9, 1.1, -2.5), (-12.3, 45.6, 7.8), 31)
        self.volume = scenes.addVolume(np.zeros(SHAPE, np.int16), self.grid)
        self.segmentation = scenes.addSegmentation({"lung": np.ones(SHAPE, bool)}, self.grid)
        self.voxels = np.random.default_rng(0).integers(-1024, 3071, SHAPE).astype(np.int16)

    def add(self) -> slicer.vtkMRMLScalarVolumeNode:
        return Place(self.segmentation, self.volume).add(self.voxels, PROVENANCE)

    def test_voxels_and_grid_are_exact(self) -> None:
        node = self.add()
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(node), self.voxels)
        self.assertEqual(node.GetImageData().GetScalarType(), vtk.VTK_SHORT)
        np.testing.assert_array_equal(ijkToRAS(node), ijkToRAS(self.volume))
        self.assertIsNone(node.GetParentTransformNode())

    def test_same_parent_transform(self) -> None:
        transform = scenes.addTransform(scenes.rotation(30, (0, 1, 0)), self.volume)
        self.assertIs(self.add().GetParentTransformNode(), transform)

    def test_says_that_it_is_synthetic(self) -> None:
        first, second = self.add(), self.add()
        self.assertEqual(first.GetName(), "Chest synthetic CT")
        self.assertIn("synthetic", second.GetName())
        self.assertNotEqual(first.GetName(), second.GetName())
        self.assertEqual(first.GetAttribute("CTStyleGen.Synthetic"), "1")
        for key, value in PROVENANCE.items():
            self.assertEqual(first.GetAttribute(f"CTStyleGen.{key}"), value)
        self.assertIs(first.GetNodeReference(SOURCE_SEGMENTATION_ROLE), self.segmentation)
        self.assertIs(first.GetNodeReference(SOURCE_VOLUME_ROLE), self.volume)

    def test_display_of_a_reference_with_automatic_window(self) -> None:
        """It is seen as the reference is, since in two windows the same HU look different."""
        self.volume = scenes.addVolume(self.voxels, self.grid)
        display = self.volume.GetDisplayNode()
        self.assertTrue(display.GetAutoWindowLevel())
        self.assertGreater(display.GetWindow(), 1000)
        self.assertEqual(self.windowLevel(self.add()), (display.GetWindow(), display.GetLevel()))

    def test_display_of_a_reference_with_its_own_window(self) -> None:
        self.volume.GetDisplayNode().AutoWindowLevelOff()
        self.volume.GetDisplayNode().SetWindowLevel(1400, -500)
        self.assertEqual(self.windowLevel(self.add()), (1400, -500))

    def test_display_of_a_reference_without_display(self) -> None:
        self.volume.RemoveAllDisplayNodeIDs()
        self.assertEqual(self.windowLevel(self.add()), (350, 40))

    def windowLevel(self, node: slicer.vtkMRMLScalarVolumeNode) -> tuple[float, float]:
        self.assertFalse(node.GetDisplayNode().GetAutoWindowLevel())
        return node.GetDisplayNode().GetWindow(), node.GetDisplayNode().GetLevel()

    def test_lies_in_the_references_study(self) -> None:
        hierarchy = scenes.hierarchyNode()
        patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "Patient")
        study = hierarchy.CreateStudyItem(patient, "Study")
        hierarchy.SetItemParent(hierarchy.GetItemByDataNode(self.volume), study)
        self.assertEqual(hierarchy.GetItemParent(hierarchy.GetItemByDataNode(self.add())), study)

    def test_lies_at_the_top_without_study(self) -> None:
        hierarchy = scenes.hierarchyNode()
        item = hierarchy.GetItemByDataNode(self.add())
        self.assertNotEqual(item, 0)
        self.assertEqual(hierarchy.GetItemParent(item), hierarchy.GetSceneItemID())

    def test_wrong_voxels_add_nothing(self) -> None:
        before = slicer.mrmlScene.GetNumberOfNodes()
        for voxels in (self.voxels[:-1], self.voxels.astype(np.float32)):
            with self.assertRaises(ValueError):
                Place(self.segmentation, self.volume).add(voxels, PROVENANCE)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), before)

    def test_the_file_that_slicer_saves_says_that_it_is_synthetic(self) -> None:
        node = self.add()
        storage = node.GetStorageNode()
        self.assertEqual(storage.GetDefaultWriteFileExtension(), "nrrd")
        formats = storage.GetSupportedWriteFileTypes()
        offered = [formats.GetValue(number) for number in range(formats.GetNumberOfValues())]
        self.assertEqual(offered, ["NRRD (.nrrd)", "NRRD (.nhdr)"])  # none that loses the mark
        with tempfile.TemporaryDirectory() as folder:
            storage.SetFileName(str(Path(folder) / "saved.nrrd"))
            self.assertTrue(storage.WriteData(node))
            saved = sitk.ReadImage(storage.GetFileName())
        self.assertEqual(saved.GetMetaData("CTStyleGen.Synthetic"), "1")
        self.assertEqual(saved.GetMetaData("CTStyleGen.Model"), PROVENANCE["Model"])
        np.testing.assert_array_equal(sitk.GetArrayFromImage(saved), self.voxels)
        np.testing.assert_allclose(saved.GetOrigin(), imageInGrid(self.voxels, node).GetOrigin(), atol=1e-9)
        np.testing.assert_allclose(saved.GetDirection(), imageInGrid(self.voxels, node).GetDirection(), atol=1e-9)

    def test_the_file_of_samples_says_that_each_is_synthetic(self) -> None:
        Place(self.segmentation, self.volume).addSequence([self.voxels] * 2, [PROVENANCE] * 2)
        sequence = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSequenceNode")
        sequence.AddDefaultStorageNode()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "samples.seq.nrrd"
            sequence.GetStorageNode().SetFileName(str(path))
            self.assertTrue(sequence.GetStorageNode().WriteData(sequence))
            header = path.read_bytes().partition(b"\n\n")[0]
        for number in range(2):
            self.assertIn(f"axis 3 item {number:04} CTStyleGen.Synthetic:=1".encode(), header)

    def test_saved_scene_keeps_everything(self) -> None:
        scenes.addTransform(scenes.rotation(30, (0, 1, 0)), self.volume)
        hierarchy = scenes.hierarchyNode()
        study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "Study")
        hierarchy.SetItemParent(hierarchy.GetItemByDataNode(self.volume), study)
        node = self.add()
        name, centers = node.GetName(), self.voxelCenters(node)
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "scene.mrb")
            self.assertTrue(slicer.mrmlScene.WriteToMRB(path))
            with zipfile.ZipFile(path) as bundle:
                (file,) = [file for file in bundle.namelist() if "synthetic" in file]
                self.assertIn(b"CTStyleGen.Synthetic:=1", bundle.read(file).partition(b"\n\n")[0])
            slicer.mrmlScene.Clear(False)
            self.assertTrue(slicer.mrmlScene.ReadFromMRB(path, True))
        node = slicer.util.getNode(name)
        self.assertEqual(node.GetAttribute("CTStyleGen.Synthetic"), "1")
        for key, value in PROVENANCE.items():
            self.assertEqual(node.GetAttribute(f"CTStyleGen.{key}"), value)
        self.assertEqual(node.GetNodeReference(SOURCE_SEGMENTATION_ROLE).GetName(), "Chest")
        self.assertEqual(node.GetNodeReference(SOURCE_VOLUME_ROLE).GetName(), "CT")
        self.assertEqual(node.GetParentTransformNode(), slicer.util.getNode("CT").GetParentTransformNode())
        self.assertIsNotNone(node.GetParentTransformNode())
        self.assertEqual(self.windowLevel(node), (350, 40))
        hierarchy = scenes.hierarchyNode()
        parent = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node))
        self.assertEqual(hierarchy.GetItemName(parent), "Study")
        self.assertSameVoxels(self.voxelCenters(node), centers)

    def voxelCenters(self, node: slicer.vtkMRMLScalarVolumeNode) -> list[tuple[float, ...]]:
        """HU and RAS of every voxel, sorted: reading may turn the slices of a left-handed volume."""
        voxels = slicer.util.arrayFromVolume(node)
        k, j, i = np.indices(voxels.shape)
        points = np.stack([i, j, k, np.ones_like(i)], axis=-1) @ ijkToRAS(node).T
        return sorted(zip(voxels.ravel().tolist(), *points[..., :3].round(3).reshape(-1, 3).T.tolist(), strict=True))

    def assertSameVoxels(self, found: list[tuple[float, ...]], expected: list[tuple[float, ...]]) -> None:
        np.testing.assert_allclose(np.array(found), np.array(expected), atol=2e-3)


if __name__ == "__main__":
    unittest.main()
