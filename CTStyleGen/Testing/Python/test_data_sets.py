"""Data sets from Slicer: from nodes and from folders, and that Slicer itself reads what was written."""

import csv
import importlib.util
import json
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import CTStyleGenTesting  # noqa: F401 - prepares slicer
import numpy as np
import SimpleITK as sitk
import slicer
from CTStyleGenTesting import scenes
from CTStyleGenCore.errors import InputError
from CTStyleGenLib.geometry import ijkToRAS
from CTStyleGenLib.job_queue import State
from CTStyleGenLib.jobs import JobCanceled
from CTStyleGenTesting.chest import CAN_TRAIN, CANT_TRAIN, SHAPE, chestLabels, chestMasks, tinyModel

from CTStyleGen import CTStyleGenLogic

CANT_DICOM = "this Python has no highdicom"


@unittest.skipUnless(CAN_TRAIN, CANT_TRAIN)
class ExpansionTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = Path(folder.name)
        cls.model, cls.bank = tinyModel(), tinyModel("styles")

    def setUp(self) -> None:
        slicer.mrmlScene.Clear(False)
        self.logic = CTStyleGenLogic()
        self.grid = scenes.grid((5.1, 6.2, -7.5), (-120.5, 33.3, 40.1), 12)  # left-handed, oblique, anisotropic
        rng = np.random.default_rng(0)
        hu = np.where(chestMasks()["body"], rng.integers(-900, 900, SHAPE), -1000)
        self.volume = scenes.addVolume(hu.astype(np.int16), self.grid)
        self.segmentation = scenes.addSegmentation(chestMasks(), self.grid)
        temporary = tempfile.TemporaryDirectory(dir=self.folder)
        self.addCleanup(temporary.cleanup)
        self.temporary = Path(temporary.name)
        (self.temporary / "tmp").mkdir()
        patcher = mock.patch.object(tempfile, "tempdir", str(self.temporary / "tmp"))  # what stays there is found
        patcher.start()
        self.addCleanup(patcher.stop)

    def expand(self, **options: object) -> Path:
        given = {"model": self.model, "perCase": 2, "amount": 0.0, "device": "cpu", **options}
        given.setdefault("cases", {"one": (self.volume, self.segmentation)})
        return self.logic.expand(given.pop("cases"), self.temporary / "set", **given)

    def rows(self) -> list[dict[str, str]]:
        with (self.temporary / "set" / "manifest.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    @unittest.skipUnless(importlib.util.find_spec("highdicom"), CANT_DICOM)
    def test_slicer_reads_what_was_made_of_the_scene(self) -> None:
        self.assertEqual(self.expand(dicom=True), self.temporary / "set")
        self.assertEqual([row["name"] for row in self.rows()], ["one_001", "one_002"])
        for row in self.rows():
            image, labels = (sitk.ReadImage(str(self.temporary / "set" / row[key])) for key in ("image", "label"))
            np.testing.assert_array_equal(sitk.GetArrayFromImage(labels), chestLabels())
            self.assertSameVolume(self.read(self.temporary / "set" / row["image"]), image)
            self.assertSameVolume(self.read(self.temporary / "set" / row["label"]), labels)
            series = sorted((self.temporary / "set" / "dicom" / row["name"] / "CT").iterdir())
            self.assertEqual(len(series), SHAPE[0])
            self.assertSameVolume(self.read(*series), image)
        self.assertEqual(list((self.temporary / "tmp").iterdir()), [])

    def read(self, *files: Path) -> slicer.vtkMRMLScalarVolumeNode:
        storage, node = slicer.vtkMRMLVolumeArchetypeStorageNode(), slicer.vtkMRMLScalarVolumeNode()
        slicer.mrmlScene.AddNode(node)
        storage.SetFileName(str(files[0]))
        for file in files:
            storage.AddFileName(str(file))
        storage.SetSingleFile(len(files) == 1)
        self.assertTrue(storage.ReadData(node))
        return node

    def assertSameVolume(self, node: slicer.vtkMRMLScalarVolumeNode, image: sitk.Image) -> None:
        """The node has the image's values at the image's places, whatever the order of its voxels."""
        voxels = slicer.util.arrayFromVolume(node)
        self.assertEqual(voxels.size, image.GetNumberOfPixels())
        rasToLPS = np.diag([-1, -1, 1, 1])
        for k, j, i in np.ndindex(*voxels.shape):
            place = (rasToLPS @ ijkToRAS(node) @ [i, j, k, 1])[:3]
            index = image.TransformPhysicalPointToContinuousIndex(place.tolist())
            np.testing.assert_allclose(index, np.rint(index), atol=1e-2)
            self.assertEqual(image[tuple(int(n) for n in np.rint(index))], voxels[k, j, i])

    def test_exported_cases_are_not_compressed(self) -> None:
        job = self.expand(wait=False)
        self.addCleanup(job.cancel)
        self.assertEqual(scenes.encodings(self.temporary), {"raw"})

    def test_a_folder_of_cases_and_its_estimate(self) -> None:
        cases = self.model.parent / "cases"
        told = self.logic.estimateExpansion(cases, perCase=2)
        self.assertEqual((told.cases, told.images), (2, 4))
        self.expand(cases=cases)
        self.assertEqual(len(self.rows()), told.images)
        fromScene = self.logic.estimateExpansion([(self.volume, self.segmentation)], perCase=4)
        self.assertEqual((fromScene.cases, fromScene.images, fromScene.size_bytes), (1, 4, told.size_bytes))
        self.assertGreater(self.logic.estimateExpansion(cases, perCase=2, dicom=True).size_bytes, told.size_bytes)

    def test_splits_and_styles_reach_the_command(self) -> None:
        splits = self.temporary / "splits.json"
        splits.write_text(json.dumps({"train": ["A"], "test": ["B"]}))
        with self.assertRaisesRegex(InputError, "has learned the case B"):
            self.expand(cases=self.model.parent / "cases", splits=splits)
        with self.assertRaisesRegex(InputError, "Z"):
            self.expand(styles=["Z"])
        self.assertEqual([path.name for path in self.temporary.iterdir() if path.name == "set"], [])
        self.assertEqual(list((self.temporary / "tmp").iterdir()), [])

    def test_the_look_of_a_ct_of_the_scene(self) -> None:
        """Its HU are the images', the files know its name alone, and the data set can be gone on with."""
        masks = chestMasks()
        voxels = np.select([masks["heart"], masks["lung"], masks["body"]], [60, -500, 40], -1000).astype(np.int16)
        other = scenes.addVolume(voxels, self.grid, "Other")
        look = {"styles": ["Other"], "styleCases": {"Other": (other, scenes.addSegmentation(masks, self.grid, "Its"))}}
        output = self.expand(model=self.bank, **look)
        self.assertEqual({row["style"] for row in self.rows()}, {"Other"})
        ct, labels = (sitk.ReadImage(str(output / self.rows()[0][key])) for key in ("image", "label"))
        lungs = sitk.GetArrayFromImage(ct)[sitk.GetArrayFromImage(labels) == 2]
        self.assertAlmostEqual(float(np.median(lungs)), -500, delta=25)
        (output / "dataset.json").unlink()
        self.expand(model=self.bank, resume=True, **look)
        slicer.util.arrayFromVolume(other)[masks["lung"]] += 100
        with self.assertRaisesRegex(InputError, "another look of a style CT"):
            self.expand(model=self.bank, resume=True, **look)
        with self.assertRaisesRegex(InputError, "has a style 'A' of its own"):
            self.expand(model=self.bank, styleCases={"A": look["styleCases"]["Other"]})
        self.assertEqual(list((self.temporary / "tmp").iterdir()), [])

    def test_a_canceled_job_can_be_gone_on_with(self) -> None:
        job = self.expand(perCase=24, wait=False)
        while job.done < 1 and not job.poll():
            pass
        job.cancel()
        self.assertEqual(job.state, State.CANCELED)
        self.assertIsInstance(job.error, JobCanceled)
        self.assertFalse((self.temporary / "set" / "dataset.json").exists())
        self.assertEqual(list((self.temporary / "tmp").iterdir()), [])
        with self.assertRaisesRegex(InputError, "--resume"):
            self.expand(perCase=24)
        self.expand(perCase=24, resume=True)
        self.assertEqual(len(self.rows()), 24)

    def test_bad_input(self) -> None:
        with self.assertRaisesRegex(InputError, "does not exist"):
            self.expand(model=self.folder / "nowhere.ctstyle")
        with self.assertRaisesRegex(InputError, "no CT or no segmentation"):
            self.expand(cases=[(None, self.segmentation)])
        with self.assertRaisesRegex(InputError, "no labels 'mine'"):
            self.expand(labels="mine")
        self.assertEqual(list((self.temporary / "tmp").iterdir()), [])


if __name__ == "__main__":
    unittest.main()
