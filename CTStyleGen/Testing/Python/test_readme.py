"""The Python in the README does what it says: all its blocks, one after the other."""

import os
import re
import shutil
import tempfile
import unittest
from pathlib import Path

import CTStyleGenTesting  # noqa: F401 - prepares slicer
import slicer
from CTStyleGenTesting import chest, scenes
from CTStyleGenTesting.chest import SHAPE, chestCT, chestMasks, tinyModel
from CTStyleGenTesting.model_files import ModelsFolderTestCase

README = Path(__file__).resolve().parents[3] / "README.md"


@unittest.skipUnless(chest.CAN_TRAIN, chest.CANT_TRAIN)
@unittest.skipUnless(README.is_file(), "the README comes with the source code")
class ReadmeTest(ModelsFolderTestCase):
    def test_blocks(self) -> None:
        slicer.mrmlScene.Clear(False)
        volume = scenes.addVolume(chestCT(), scenes.grid((8, 8, 10)))
        names = {
            "slicer": slicer,
            "referenceVolumeNode": volume,
            "segmentationNode": scenes.addSegmentation(chestMasks(), scenes.grid((8, 8, 10))),
            "otherVolumeNode": scenes.addVolume(chestCT(), scenes.grid((8, 8, 9))),
            "otherSegmentationNode": scenes.addSegmentation(chestMasks(), scenes.grid((8, 8, 9)), "Other"),
        }
        blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
        self.assertGreater(len(blocks), 2)
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(tinyModel(), Path(folder) / "chest.ctstyle")
            before = Path.cwd()
            os.chdir(folder)
            self.addCleanup(os.chdir, before)
            for block in blocks:
                with self.subTest(block):
                    exec(compile(block, "README.md", "exec"), names)
            os.chdir(before)
        self.assertEqual(names["volumeNode"].GetAttribute("CTStyleGen.Synthetic"), "1")
        self.assertEqual([slicer.util.arrayFromVolume(node).shape for node in names["volumeNodes"]], [SHAPE] * 2)
        self.assertTrue(names["model"].is_file())
        for training in names["logic"].trainings():
            training.discard()


if __name__ == "__main__":
    unittest.main()
