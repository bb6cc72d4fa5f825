"""A CT of the scene gives the look: its HU are the result's, also where it lies in another grid, live as well."""

import tempfile
import unittest
from pathlib import Path

import CTStyleGenTesting  # noqa: F401 - prepares slicer
import numpy as np
import slicer
from CTStyleGenTesting import chest, scenes
from CTStyleGenCore.anatomy import load_anatomy
from CTStyleGenCore.errors import InputError
from CTStyleGenLib.live import Live
from CTStyleGenLib.style_cases import exportStyles, styleMix
from CTStyleGenLib.synthesis import Wish
from CTStyleGenTesting.chest import SHAPE, chestLabels, chestMasks, tinyModel
from CTStyleGenTesting.panels import passTimeUntil, sliceView

from CTStyleGen import CTStyleGenLogic

LUNGS_HU, OTHER_LUNGS_HU = -800, -500


class SceneTestCase(unittest.TestCase):
    """A chest to make a CT for, and the CT of another one, larger and turned, to make it look like."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear(False)
        self.grid = scenes.grid((5.1, 6.2, 7.5), (-120.5, 33.3, 40.1))
        self.volume = scenes.addVolume(np.zeros(SHAPE, np.int16), self.grid)
        self.segmentation = scenes.addSegmentation(chestMasks(), self.grid)
        shape = (6, 60, 60)
        masks = chestMasks(shape)
        voxels = np.select([masks["heart"], masks["lung"], masks["body"]], [60, OTHER_LUNGS_HU, 40], -1000)
        grid = scenes.grid((4.0, 4.1, -5.0), (-100.0, 20.0, 60.0), 12)
        self.other = scenes.addVolume(voxels.astype(np.int16), grid, "Other")
        self.cases = {"Other": (self.other, scenes.addSegmentation(masks, grid, "Other organs"))}

    def lungs(self, node: slicer.vtkMRMLScalarVolumeNode) -> float:
        return float(np.median(slicer.util.arrayFromVolume(node)[chestLabels() == 2]))


class StylesTest(SceneTestCase):
    def test_mix(self) -> None:
        card = {"styles": ["A", "B"], "style_codes": {}, "anatomy": load_anatomy("thorax").to_json()}
        mix = styleMix(card, ["lungs=Other:0.7", "lungs=A:0.3"], self.cases)
        self.assertEqual(mix["lungs"], {"Other": 0.7, "A": 0.3})
        self.assertEqual(mix["bone"], {"A": 0.5, "B": 0.5})
        self.assertEqual(styleMix(card, ["Other"], self.cases)["bone"], {"Other": 1.0})
        with self.assertRaisesRegex(InputError, "The model has a style 'A' of its own: name the CT otherwise."):
            styleMix(card, (), {"A": self.cases["Other"]})
        self.other.SetAttribute("CTStyleGen.Synthetic", "1")
        with self.assertRaisesRegex(InputError, "is synthetic: learn from real CT only"):
            styleMix(card, (), self.cases)

    def test_folders_take_the_place_of_names(self) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            folder, asked = Path(temporary), ["Other", "Other:0.5", "lungs=Other", "bone=Other:0.25", "lungs=A:1", "B"]
            styles = exportStyles(asked, self.cases, folder, load_anatomy("thorax"))
            path = folder / "Other"
            expected = [str(path), f"{path}:0.5", f"lungs={path}", f"bone={path}:0.25", "lungs=A:1", "B"]
            self.assertEqual(styles, expected)
            self.assertEqual(sorted(one.name for one in path.iterdir()), ["ct.nrrd", "labels.nrrd"])
            self.assertEqual(scenes.encodings(path), {"raw"})


@unittest.skipUnless(chest.CAN_TRAIN, chest.CANT_TRAIN)
class LookTest(SceneTestCase):
    def test_the_organs_of_the_result_have_its_hu(self) -> None:
        logic, asked = CTStyleGenLogic(), {"model": tinyModel("styles"), "styleCases": self.cases}
        self.assertEqual(logic.check(self.segmentation, self.volume, styles=["Other"], **asked).problems, ())
        all_ = logic.synthesize(self.segmentation, self.volume, styles=["Other"], device="cpu", **asked)
        half = ["lungs=Other:0.5", "lungs=A:0.5"]
        mixed = logic.synthesize(self.segmentation, self.volume, styles=half, device="cpu", **asked)
        self.assertAlmostEqual(self.lungs(all_), OTHER_LUNGS_HU, delta=25)
        self.assertAlmostEqual(self.lungs(mixed), (LUNGS_HU + OTHER_LUNGS_HU) / 2, delta=25)
        self.assertEqual(all_.GetAttribute("CTStyleGen.Styles"), "Other")

    def test_what_it_lacks_is_told_before(self) -> None:
        segmentation = self.cases["Other"][1].GetSegmentation()
        segmentation.RemoveSegment(segmentation.GetSegmentIdBySegmentName("heart"))
        checked = CTStyleGenLogic().check(
            self.segmentation, self.volume, model=tinyModel("styles"), styles=["Other"], styleCases=self.cases
        )
        self.assertTrue(checked.ready)
        self.assertRegex(checked.problems[0], "The style CT 'Other' has no mediastinum")
        segmentation.RemoveAllSegments()
        checked = CTStyleGenLogic().check(
            self.segmentation, self.volume, model=tinyModel("styles"), styles=["Other"], styleCases=self.cases
        )
        self.assertFalse(checked.ready)
        self.assertRegex(checked.problems[0], "^The style CT 'Other': .* has no segments")

    def test_live(self) -> None:
        sliceView().JumpSliceByCentering(*(self.grid @ (20, 20, 2, 1))[:3])
        live = Live(
            self.segmentation, self.volume, Wish(tinyModel("styles"), ["Other"], styleCases=self.cases, device="cpu")
        )
        self.addCleanup(live.stop)
        told: list[str] = []
        live.onStatus = told.append
        passTimeUntil(lambda: any("took" in sentence for sentence in told))
        lungs = slicer.util.arrayFromVolume(live.output)[2][chestLabels()[2] == 2]
        self.assertAlmostEqual(float(np.median(lungs)), OTHER_LUNGS_HU, delta=25)


if __name__ == "__main__":
    unittest.main()
