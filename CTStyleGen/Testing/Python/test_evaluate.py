"""Evaluate: the organs of a synthetic CT in the scene, what to doubt about it, and the section that shows both."""

import unittest

import CTStyleGenTesting  # noqa: F401 - prepares slicer
import numpy as np
import slicer
from CTStyleGenTesting import scenes
from CTStyleGenCore.errors import InputError
from CTStyleGenCore.model_file import read_card
from CTStyleGenCore.styles import LEVELS
from CTStyleGenLib.evaluation import ResultReport
from CTStyleGenLib.outputs import Place
from CTStyleGenLib.synthesis import Wish, provenanceOf
from CTStyleGenTesting.chest import chestCT, chestLabels, chestMasks
from CTStyleGenTesting.model_files import writeModel
from CTStyleGenTesting.panels import ModuleTestCase, closeModule, openModule

from CTStyleGen import CTStyleGenLogic

LUNGS = -800  # HU in the chest


def flat(hu: float) -> list[float]:
    """The style code of an organ of one gray."""
    return [hu] * len(LEVELS) + [0.0] * 4


class EvaluateTestCase(ModuleTestCase):
    """A chest and a model whose card tells of two styles: lungs and body of A and of B, no heart."""

    def setUp(self) -> None:
        super().setUp()
        codes = {"A": {"lungs": flat(-700), "body": flat(40)}, "B": {"lungs": flat(-900), "body": flat(40)}}
        preset = {"name": "styles"}
        self.model = writeModel(self.folder / "m.ctstyle", style_codes=codes, styles=["A", "B"], preset=preset)
        self.grid = scenes.grid((5.1, 6.2, 7.5), (-120.5, 33.3, 40.1), 12)
        self.volume = scenes.addVolume(chestCT(), self.grid)
        self.segmentation = scenes.addSegmentation(chestMasks(), self.grid)
        self.logic = CTStyleGenLogic()

    def result(self, hu: np.ndarray, *styles: str, slices: range | None = None) -> slicer.vtkMRMLScalarVolumeNode:
        """A synthetic volume as a synthesis in these styles leaves it."""
        wish = Wish(self.model, styles or None, slices=slices)
        place = Place(self.segmentation, self.volume, slices)
        return place.add(place.cut(hu), provenanceOf(self.segmentation, read_card(self.model), wish))

    def organ(self, report: ResultReport, name: str) -> object:
        (found,) = (row for row in report.organs if row.organ == name)
        return found


class LogicTest(EvaluateTestCase):
    def test_numbers(self) -> None:
        """Lungs 30 HU brighter than the CT's, and so 70 below the style's: known distances."""
        hu = chestCT() + 30 * (chestLabels() == 2).astype(np.int16)
        report = self.logic.evaluate(self.result(hu, "A"))
        lungs = self.organ(report, "lungs")
        self.assertEqual((lungs.mean, lungs.deviation), (LUNGS + 30, 0))
        self.assertAlmostEqual(lungs.to_content, 30)
        self.assertAlmostEqual(lungs.to_style, 70)
        self.assertEqual(lungs.voxels, np.count_nonzero(chestLabels() == 2))
        self.assertEqual(self.organ(report, "body").to_style, 0)
        self.assertIsNone(self.organ(report, "mediastinum").to_style)
        self.assertIn("mediastinum: no case that the model was trained with has it.", report.doubts)

    def test_mixed_styles(self) -> None:
        report = self.logic.evaluate(self.result(chestCT(), "lungs=A:0.25", "lungs=B:0.75"))
        self.assertAlmostEqual(self.organ(report, "lungs").to_style, 50)  # the mix is at -850

    def test_what_is_implausible_is_doubted(self) -> None:
        hu = np.where(chestLabels() == 2, 40, chestCT()).astype(np.int16)
        doubts = self.logic.evaluate(self.result(hu, "A")).doubts
        self.assertIn("lungs: its mean of 40 HU lies outside of -950 to -500 HU, where real ones lie.", doubts)
        self.assertFalse([doubt for doubt in doubts if doubt.startswith("body")])

    def test_slices_of_a_volume(self) -> None:
        report = self.logic.evaluate(self.result(chestCT(), "A", slices=range(1, 3)))
        self.assertEqual(self.organ(report, "lungs").voxels, np.count_nonzero(chestLabels()[1:3] == 2))
        self.assertIsNone(self.organ(report, "lungs").to_content)  # the CT has other slices, too
        self.assertAlmostEqual(self.organ(report, "lungs").to_style, 100)

    def test_a_model_that_is_gone_or_another_is_told(self) -> None:
        result = self.result(chestCT(), "A")
        moved = self.model.rename(self.elsewhere / "m.ctstyle")
        report = self.logic.evaluate(result)
        self.assertIn("The model 'm.ctstyle' is not at hand, or has changed: styles can't be compared.", report.doubts)
        self.assertIsNone(self.organ(report, "lungs").to_style)
        self.assertIsNotNone(self.organ(self.logic.evaluate(result, model=moved), "lungs").to_style)
        writeModel(self.model, weight=2.0)
        self.assertIsNone(self.organ(self.logic.evaluate(result), "lungs").to_style)

    def test_what_has_no_finer_detail_is_told(self) -> None:
        coarse = writeModel(self.folder / "m.ctstyle", size=32, styles=["A", "B"], style_codes={"A": {}, "B": {}})
        self.assertEqual(coarse, self.model)
        told = "The model draws slices of 32 x 32 pixels, these have 48: there is no finer detail."
        self.assertIn(told, self.logic.evaluate(self.result(chestCT())).doubts)

    def test_a_folder_of_the_user_is_not_written_into_the_scene(self) -> None:
        result = self.result(chestCT(), str(self.elsewhere))
        self.assertIsNone(result.GetAttribute("CTStyleGen.StyleShares"))
        self.assertIsNone(self.organ(self.logic.evaluate(result), "lungs").to_style)

    def test_refusals(self) -> None:
        result = self.result(chestCT(), "A")
        slicer.mrmlScene.RemoveNode(self.segmentation)
        for node, told in (
            (None, "Choose a synthetic CT"),
            (self.volume, "Choose a synthetic CT"),
            (result, "is gone"),
        ):
            with self.subTest(told), self.assertRaises(InputError) as caught:
                self.logic.evaluate(node)
            self.assertIn(told, str(caught.exception))


class SectionTest(EvaluateTestCase):
    def setUp(self) -> None:
        super().setUp()
        closeModule()
        self.panel = openModule().panels[0]
        self.ui = self.panel._evaluate.ui
        self.ui.evaluateSection.collapsed = False

    def text(self, row: int, column: int) -> str:
        return self.ui.reportTable.item(row, column).text()

    def test_shows_the_organs_and_forgets_them_with_another_result(self) -> None:
        self.assertFalse(self.ui.evaluateButton.enabled or self.ui.reportTable.rowCount)
        first, second = (self.result(chestCT() + shift, "A") for shift in (np.int16(0), np.int16(25)))
        self.panel._evaluate.choose(first)
        self.assertTrue(self.ui.evaluateButton.enabled)
        self.assertIs(self.ui.resultSelector.currentNode(), first)
        self.ui.evaluateButton.click()
        self.assertEqual(self.ui.reportTable.rowCount, 3)
        self.assertEqual([self.text(row, 0) for row in range(3)], ["body", "lungs", "mediastinum"])
        self.assertEqual([self.text(1, column) for column in range(1, 5)], ["-800", "0", "0", "100"])
        self.assertEqual(self.text(2, 4), "")
        self.assertIn("mediastinum: no case", self.ui.doubtsLabel.text)
        self.panel._evaluate.choose(second)
        self.assertEqual(self.ui.reportTable.rowCount, 0)
        self.assertEqual(self.ui.doubtsLabel.text, "")
        self.ui.evaluateButton.click()
        self.assertEqual(self.text(1, 1), "-775")

    def test_a_change_elsewhere_leaves_the_table(self) -> None:
        self.panel._evaluate.choose(self.result(chestCT(), "A"))
        self.ui.evaluateButton.click()
        self.panel.parameters.seed = 5
        self.assertEqual(self.ui.reportTable.rowCount, 3)


if __name__ == "__main__":
    unittest.main()
