"""The Generate panel as the user sees it: what it says before a run, the run, and what is there after it."""

import json
import sys
import unittest
from pathlib import Path
from unittest import mock

import CTStyleGenTesting  # prepares slicer
import numpy as np
import qt
import slicer
from CTStyleGenTesting import chest, scenes
from CTStyleGenLib.conditioning import chosenOrgan
from CTStyleGenLib.devices import Devices
from CTStyleGenLib.job_queue import State
from CTStyleGenLib.parameters import Device, ExportCases, ExportLook, SliceChoice, VaryWay
from CTStyleGenTesting.chest import SHAPE, chestMasks, tinyModel
from CTStyleGenTesting.model_files import writeModel
from CTStyleGenTesting.panels import (
    ModuleTestCase,
    argumentsOfCopied,
    closeModule,
    compositeNode,
    openModule,
    passTime,
    passTimeUntil,
    sliceView,
)

SEGMENT, ORGAN, STATE, STYLE, SHARE = range(5)


class PanelTestCase(ModuleTestCase):
    """A chest, drawn on a volume, in the open module."""

    model: Path | None = None  # of the models folder

    def setUp(self) -> None:
        super().setUp()
        self.model = self.addModels()
        self.grid = scenes.grid((5.1, 6.2, 7.5), (-120.5, 33.3, 40.1))
        self.volume = scenes.addVolume(np.zeros(SHAPE, np.int16), self.grid)
        self.segmentation = scenes.addSegmentation(chestMasks(), self.grid)
        self.segmentation.CreateDefaultDisplayNodes()
        self.segmentation.SetReferenceImageGeometryParameterFromVolumeNode(self.volume)
        closeModule()
        self.module = openModule()
        self.panel = self.module.panels[0]
        self.ui, self.parameters = self.panel.ui, self.panel.parameters

    def addModels(self) -> Path:
        return writeModel(self.folder / "chest.ctstyle")

    def checked(self) -> str:
        """What the panel says, when it has taken notice of all changes."""
        passTimeUntil(lambda: not self.panel._checkTimer.active)
        return self.ui.preflightLabel.text

    def row(self, name: str) -> int:
        names = [self.ui.organTable.item(row, SEGMENT).text() for row in range(self.ui.organTable.rowCount)]
        return names.index(name)

    def cell(self, name: str, column: int) -> object:
        """The text of a cell, or the widget in it."""
        item = self.ui.organTable.item(self.row(name), column)
        return item.text() if item else self.ui.organTable.cellWidget(self.row(name), column)


class ChoicesTest(PanelTestCase):
    def test_begins_with_what_is_there(self) -> None:
        self.assertIs(self.parameters.segmentation, self.segmentation)
        self.assertEqual(self.parameters.model, self.model)
        self.assertEqual(self.ui.modelComboBox.currentText, "chest")
        self.assertRegex(
            self.checked(),
            r"^Makes 4 slices on CPU, 2 threads, in about \d+ s\.$",
        )
        self.assertTrue(self.ui.generateButton.enabled)

    def test_says_what_is_missing(self) -> None:
        self.parameters.segmentation = None
        self.assertRegex(self.checked(), "^There is no segmentation: load one with its CT")
        self.parameters.segmentation = self.segmentation
        self.model.unlink()
        self.parameters.model = Path()
        self.assertIn("Choose a model", self.checked())
        self.assertEqual(self.ui.modelComboBox.currentText, "(none yet)")
        text = self.elsewhere / "text.ctstyle"
        text.write_text("no model")
        self.parameters.model = text
        self.assertIn("not a CTStyleGen model", self.checked())
        for widget in (self.ui.generateButton, self.ui.copyButton, self.ui.liveCheckBox):
            self.assertFalse(widget.enabled)
        self.assertEqual(self.ui.generateButton.toolTip, self.ui.preflightLabel.text)

    def test_reference_of_a_segmentation_from_a_file(self) -> None:
        """It tells no volume that it was drawn on: the only CT is chosen, of several none."""
        synthetic = scenes.addVolume(np.zeros(SHAPE, np.int16), self.grid, "Synthetic")
        synthetic.SetAttribute("CTStyleGen.Synthetic", "1")
        self.parameters.referenceVolume = None
        fromFile = scenes.addSegmentation(chestMasks(), self.grid, "From a file")
        self.parameters.segmentation = fromFile
        self.assertIs(self.parameters.referenceVolume, self.volume)
        self.assertRegex(self.checked(), "^Makes 4 slices")
        self.parameters.segmentation = self.parameters.referenceVolume = None
        scenes.addVolume(np.zeros(SHAPE, np.int16), self.grid, "Another CT")
        self.parameters.segmentation = fromFile
        self.assertIsNone(self.parameters.referenceVolume)
        self.assertRegex(self.checked(), "^There is no reference volume: choose the CT")

    def test_model_from_a_file(self) -> None:
        elsewhere = writeModel(self.elsewhere / "other.ctstyle")
        with mock.patch.object(qt.QFileDialog, "getOpenFileName", lambda *arguments: str(elsewhere), create=True):
            self.ui.modelFileButton.click()
        self.assertEqual(self.parameters.model, elsewhere)
        self.assertEqual(self.ui.modelComboBox.currentText, "other (in elsewhere)")
        self.ui.modelComboBox.setCurrentIndex(0)
        self.assertEqual(self.parameters.model, self.model)

    def test_slices(self) -> None:
        sliceView().JumpSliceByCentering(*(self.grid @ (20, 20, 2, 1))[:3])
        self.assertFalse(self.ui.firstSliceSpinBox.visible)
        self.parameters.slices = SliceChoice.CURRENT
        self.assertTrue(self.checked().startswith("Makes slice 2 on"))
        sliceView().JumpSliceByCentering(*(self.grid @ (20, 20, 3, 1))[:3])
        self.assertTrue(self.checked().startswith("Makes slice 3 on"))
        sliceView().JumpSliceByCentering(*(self.grid @ (20, 20, 9, 1))[:3])
        self.assertEqual(self.checked(), "The axial view shows no slice of the reference CT.")
        self.parameters.slices = SliceChoice.RANGE
        self.parameters.firstSlice, self.parameters.lastSlice = 1, 2
        self.assertTrue(self.checked().startswith("Makes 2 slices on"))
        self.parameters.firstSlice, self.parameters.lastSlice = 3, 2
        self.checked()
        self.assertEqual((self.parameters.firstSlice, self.parameters.lastSlice), (3, 3))

    def test_samples_and_device(self) -> None:
        self.assertFalse(self.ui.sequenceCheckBox.enabled)
        self.parameters.samples = 3
        self.parameters.device = Device.CPU
        self.assertRegex(self.checked(), r"^Makes 4 slices, 3 times on CPU, 2 threads, in about \d+ s\.$")
        self.assertTrue(self.ui.sequenceCheckBox.enabled)
        self.assertFalse(self.ui.outputSelector.enabled)

    def test_graphics_cards(self) -> None:
        self.parameters.device = Device.CUDA
        self.assertEqual(self.checked(), "No graphics card of this computer can be used: choose another device.")
        self.assertFalse(self.ui.generateButton.enabled)
        card = {"name": "cuda:0", "title": "Some GPU", "memory_bytes": 9_000_000_000, "works": True}
        self.panel._devices._onEvent({"event": "devices", "devices": [*Devices.known, card]})
        self.assertRegex(self.checked(), r"^Makes 4 slices on Some GPU, in about")
        self.parameters.device = Device.AUTO
        self.assertRegex(self.checked(), r"^Makes 4 slices on Some GPU, in about")
        Devices.known = []
        self.parameters.device = Device.CPU
        self.assertRegex(self.checked(), r"^Makes 4 slices on the processor, in about")
        self.parameters.device = Device.AUTO
        self.assertRegex(self.checked(), "^Makes 4 slices on the graphics card if there is one, else on the processor")

    def test_only_synthetic_volumes_can_be_written_into(self) -> None:
        self.assertEqual([node.GetName() for node in self.ui.outputSelector.nodes()], [])
        self.assertEqual([node.GetName() for node in self.ui.referenceVolumeSelector.nodes()], ["CT"])

    def test_copy_as_python(self) -> None:
        self.parameters.seed = 12
        self.parameters.slices = SliceChoice.RANGE
        self.parameters.firstSlice, self.parameters.lastSlice = 1, 2
        self.cell("heart", ORGAN).setCurrentIndex(0)
        self.checked()
        self.ui.copyButton.click()
        told = argumentsOfCopied("synthesize")
        self.assertIs(told.pop("segmentationNode"), self.segmentation)
        self.assertIs(told.pop("referenceVolumeNode"), self.volume)
        expected = {
            **{"model": str(self.model), "styles": None, "organs": {"heart": None}, "slices": range(1, 3)},
            **{"samples": 1, "seed": 12, "device": "auto", "styleCases": None, "output": None},
            **{"asSequence": False, "wait": True},
        }
        self.assertEqual(told, expected)
        self.assertEqual(
            qt.QApplication.clipboard().text().splitlines()[2:4],
            [
                "result = CTStyleGenLogic().synthesize(",
                "    segmentationNode=slicer.mrmlScene.GetFirstNodeByName('Chest'),",
            ],
        )

    def test_copy_as_python_of_a_run_into_a_volume(self) -> None:
        output = scenes.addVolume(np.zeros(SHAPE, np.int16), self.grid, "CT")  # two of one name
        output.SetAttribute("CTStyleGen.Synthetic", "1")
        self.parameters.output, self.parameters.device = output, Device.CPU
        self.checked()
        self.ui.copyButton.click()
        told = argumentsOfCopied("synthesize")
        self.assertIs(told["output"], output)
        self.assertIs(told["referenceVolumeNode"], self.volume)
        self.assertEqual(told["device"], "cpu")


class OrganTableTest(PanelTestCase):
    def test_states(self) -> None:
        segmentation = self.segmentation.GetSegmentation()
        segmentation.AddEmptySegment("Catheter", "Catheter")
        segmentation.AddEmptySegment("rib left 3", "rib left 3")
        self.assertIn("'Catheter' is left out", self.checked())
        told = {name: self.cell(name, STATE) for name in ("body", "heart", "Catheter", "rib left 3")}
        expected = {"body": "overlaps", "heart": "found", "Catheter": "unknown", "rib left 3": "empty"}
        self.assertEqual(told, expected)
        heart = segmentation.GetSegmentIdBySegmentName("heart")
        self.segmentation.GetDisplayNode().SetSegmentVisibility(heart, False)
        self.checked()
        self.assertEqual(self.cell("heart", STATE), "hidden")
        self.assertEqual(self.cell("lung", ORGAN).currentText, "lungs")

    def test_a_body_that_is_missing_is_added_from_the_ct(self) -> None:
        self.assertNotIn("No segment is the whole body", self.checked())
        self.assertFalse(self.ui.addBodyButton.isVisibleTo(self.panel.widget))
        segmentation = self.segmentation.GetSegmentation()
        segmentation.RemoveSegment(segmentation.GetSegmentIdBySegmentName("body"))
        hu = np.where(chestMasks()["body"], 40, -1000).astype(np.int16)
        slicer.util.updateVolumeFromArray(self.volume, hu)
        self.assertIn("No segment is the whole body: what no organ covers counts as air.", self.checked())
        self.assertTrue(self.ui.addBodyButton.isVisibleTo(self.panel.widget) and self.ui.addBodyButton.enabled)
        self.ui.addBodyButton.click()
        self.assertFalse(self.ui.addBodyButton.isVisibleTo(self.panel.widget) or self.ui.generateButton.enabled)
        self.assertEqual(self.ui.preflightLabel.text, "The body is being added: wait for it.")
        passTimeUntil(lambda: segmentation.GetSegmentIdBySegmentName("body") != "")
        self.assertNotIn("No segment is the whole body", self.checked())
        self.assertEqual(self.cell("body", STATE), "overlaps")
        self.assertFalse(self.ui.addBodyButton.isVisibleTo(self.panel.widget))

    def test_another_organ(self) -> None:
        self.checked()
        organ = self.cell("heart", ORGAN)
        names = [organ.itemText(index) for index in range(organ.count)]
        organ.setCurrentIndex(names.index("bone"))
        self.checked()
        self.assertEqual(self.panel.wish.organs, {"heart": "bone"})
        self.cell("heart", ORGAN).setCurrentIndex(0)
        self.assertNotIn("heart", self.checked())
        self.assertEqual(self.cell("heart", STATE), "left out")
        self.assertEqual(self.panel.wish.organs, {"heart": None})
        self.cell("heart", ORGAN).setCurrentIndex(names.index("mediastinum"))
        self.checked()
        self.assertIsNone(self.panel.wish.organs)

    def test_the_table_follows_the_segmentation(self) -> None:
        self.checked()
        segmentation = self.segmentation.GetSegmentation()
        segmentation.GetSegment(segmentation.GetSegmentIdBySegmentName("lung")).SetName("Airways and lungs")
        segmentation.RemoveSegment(segmentation.GetSegmentIdBySegmentName("heart"))
        self.checked()
        self.assertEqual(self.ui.organTable.rowCount, 2)
        self.row("Airways and lungs")
        self.parameters.segmentation = None
        self.checked()
        self.assertEqual(self.ui.organTable.rowCount, 0)

    def test_one_look_can_not_be_chosen(self) -> None:
        self.checked()
        for column in (STYLE, SHARE):
            self.assertFalse(self.cell("lung", column).enabled)
            self.assertIn("one look", self.cell("lung", column).toolTip)
        self.assertEqual(self.cell("lung", STYLE).currentText, "A")
        self.assertIsNone(self.panel.wish.styles)


class StylesTest(PanelTestCase):
    def addModels(self) -> Path:
        return writeModel(self.folder / "styles.ctstyle", styles=["A", "B", "C"], style_codes={})

    def test_style_and_share_of_an_organ(self) -> None:
        segmentation = self.segmentation.GetSegmentation()
        segmentation.AddEmptySegment("left lung", "left lung")
        self.checked()
        style = self.cell("lung", STYLE)
        self.assertEqual([style.itemText(n) for n in range(style.count)], ["all alike", "A", "B", "C"])
        self.assertFalse(self.cell("lung", SHARE).enabled)
        self.assertIsNone(self.panel.wish.styles)
        style.setCurrentIndex(2)
        self.checked()
        self.assertEqual(self.panel.wish.styles, ["lungs=B"])
        self.assertEqual(self.cell("left lung", STYLE).currentText, "B")
        self.cell("left lung", SHARE).setValue(70)
        self.cell("body", STYLE).setCurrentIndex(1)
        self.assertRegex(self.checked(), "^Makes 4 slices")
        self.assertEqual(self.panel.wish.styles, ["lungs=B:0.7", "lungs=A:0.15", "lungs=C:0.15", "body=A"])
        self.assertEqual(self.cell("lung", SHARE).value, 70)
        self.cell("lung", STYLE).setCurrentIndex(0)
        self.checked()
        self.assertEqual(self.panel.wish.styles, ["body=A"])

    def test_styles_of_another_model(self) -> None:
        """What the model doesn't have isn't asked for, as the table shows; with its own model it is there again."""
        self.parameters.organStyles = json.dumps({"lungs": ["Z", 100], "body": ["B", 100]})
        self.assertRegex(self.checked(), "^Makes 4 slices")
        self.assertEqual(self.cell("lung", STYLE).currentText, "all alike")
        self.assertEqual(self.panel.wish.styles, ["body=B"])
        self.parameters.model = writeModel(self.folder / "other.ctstyle", styles=["Y", "Z"], style_codes={})
        self.checked()
        self.assertEqual(self.panel.wish.styles, ["lungs=Z"])

    def test_a_ct_of_the_scene_gives_the_look(self) -> None:
        other = scenes.addVolume(np.zeros(SHAPE, np.int16), self.grid, "Low/dose: B")
        self.parameters.styleVolume = other
        self.assertRegex(self.checked(), "^The style CT 'Low/dose: B' has no segmentation: draw its organs")
        self.assertFalse(self.ui.generateButton.enabled)
        drawn = scenes.addSegmentation({name: chestMasks()[name] for name in ("body", "lung")}, self.grid, "Its organs")
        drawn.SetReferenceImageGeometryParameterFromVolumeNode(other)
        self.parameters.seed = 1
        self.assertRegex(self.checked(), r"\nThe style CT 'Low dose B' has no mediastinum: there, the model's mean")
        self.assertEqual(self.panel.wish.styles, ["Low dose B"])
        self.assertEqual(self.panel.wish.styleCases, {"Low dose B": (other, drawn)})
        style = self.cell("lung", STYLE)
        looks = [style.itemText(n) for n in range(style.count)]
        self.assertEqual(looks, ["style CT", "A", "B", "C", "Low dose B"])
        style.setCurrentIndex(2)
        self.checked()
        self.cell("lung", SHARE).setValue(40)
        self.checked()
        self.assertEqual(self.panel.wish.styles, ["Low dose B", "lungs=B:0.4", "lungs=Low dose B:0.6"])
        self.ui.copyButton.click()
        copied = argumentsOfCopied("synthesize")
        self.assertEqual((copied["styles"], copied["styleCases"]), (self.panel.wish.styles, self.panel.wish.styleCases))
        self.parameters.model = writeModel(self.folder / "one look.ctstyle")
        self.assertRegex(self.checked(), "^Makes 4 slices")
        self.assertFalse(self.ui.styleSelector.enabled)
        self.assertIsNone(self.panel.wish.styleCases)


class EditorTest(PanelTestCase):
    def test_edits_the_chosen_segmentation(self) -> None:
        editor = self.ui.segmentEditor
        self.assertIsNone(editor.mrmlSegmentEditorNode())
        self.ui.editorSection.collapsed = False
        self.assertIs(editor.segmentationNode(), self.segmentation)
        self.assertIs(editor.sourceVolumeNode(), self.volume)
        node = editor.mrmlSegmentEditorNode()
        node.SetActiveEffectName("Paint")
        if not CTStyleGenTesting.IN_APPLICATION:
            self.assertTrue(editor._object._hearsKeys)
        closeModule()
        self.assertEqual(node.GetActiveEffectName(), "")
        if not CTStyleGenTesting.IN_APPLICATION:
            self.assertFalse(editor._object._hearsKeys)
        slicer.mrmlScene.Clear(True)
        openModule()
        self.assertIsNotNone(editor.mrmlSegmentEditorNode().GetScene())


@unittest.skipUnless(chest.CAN_TRAIN, chest.CANT_TRAIN)
class RunTest(PanelTestCase):
    def addModels(self) -> Path:
        (self.folder / "tiny.ctstyle").write_bytes(tinyModel().read_bytes())
        return self.folder / "tiny.ctstyle"

    def test_two_runs_and_their_result(self) -> None:
        self.checked()
        self.volume.GetDisplayNode().AutoWindowLevelOff()
        self.volume.GetDisplayNode().SetWindowLevel(1400, -500)
        self.ui.generateButton.click()
        self.assertTrue(self.ui.progressBar.visible or not self.panel.widget.visible)
        self.parameters.seed = 3  # no longer of this run
        self.assertIn("waits", self.checked())
        self.ui.generateButton.click()
        self.assertRegex(self.ui.progressBar.format, "1 more waiting$")
        passTimeUntil(lambda: not self.panel._runs.jobs, 300)
        first, second = (slicer.util.getNode(f"Chest synthetic CT{suffix}") for suffix in ("", "_1"))
        self.assertEqual([node.GetAttribute("CTStyleGen.Seed") for node in (first, second)], ["0", "3"])
        view = compositeNode()
        self.assertEqual(view.GetBackgroundVolumeID(), self.volume.GetID())
        self.assertEqual(view.GetForegroundVolumeID(), second.GetID())
        self.assertEqual(second.GetDisplayNode().GetWindow(), 1400)
        self.parameters.fade = 30
        self.assertAlmostEqual(view.GetForegroundOpacity(), 0.3)
        self.ui.boneButton.click()
        self.assertEqual([self.windowOf(node) for node in (self.volume, second)], [(1000, 400)] * 2)
        self.volume.GetDisplayNode().SetWindowLevel(90, 20)
        self.ui.asReferenceButton.click()
        self.assertEqual(self.windowOf(second), (90, 20))
        self.assertFalse(self.ui.cancelButton.enabled)
        self.assertIn(second, self.ui.outputSelector.nodes())
        self.assertNotIn(self.volume, self.ui.outputSelector.nodes())

    def windowOf(self, node: slicer.vtkMRMLScalarVolumeNode) -> tuple[float, float]:
        return node.GetDisplayNode().GetWindow(), node.GetDisplayNode().GetLevel()

    def test_deleted_nodes_and_another_module(self) -> None:
        self.checked()
        self.ui.generateButton.click()
        passTime(0.2)
        slicer.mrmlScene.RemoveNode(self.volume)
        slicer.mrmlScene.RemoveNode(self.segmentation)
        closeModule()
        passTimeUntil(lambda: not self.panel._runs.jobs, 300)
        node = slicer.util.getNode("Chest synthetic CT")
        self.assertEqual(slicer.util.arrayFromVolume(node).shape, SHAPE)
        self.assertIsNone(node.GetNodeReference("CTStyleGen.sourceVolume"))

    def test_cancel_and_failure(self) -> None:
        self.checked()
        self.ui.generateButton.click()
        passTime(0.3)
        self.ui.cancelButton.click()
        self.assertEqual(self.panel._runs.jobs, [])
        damaged = self.model.read_bytes()[:-1] + b"\0"
        (self.folder / "tiny.ctstyle").write_bytes(damaged)
        with mock.patch("CTStyleGenLib.jobs.coreCommand", lambda: [sys.executable, "-c", "raise SystemExit('Oh.')"]):
            self.ui.generateButton.click()
            with mock.patch.object(slicer.util, "errorDisplay") as display:
                passTimeUntil(lambda: not self.panel._runs.jobs, 300)
        self.assertIn("Oh.", display.call_args.args[0])
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"), [self.volume])

    def test_live(self) -> None:
        sliceView().JumpSliceByCentering(*(self.grid @ (20, 20, 2, 1))[:3])
        self.checked()
        self.ui.liveCheckBox.checked = True
        output = self.panel._live.output
        passTimeUntil(lambda: self.ui.liveStatusLabel.text.startswith("Slice 2 took"))
        self.assertTrue(slicer.util.arrayFromVolume(output)[2].std() > 0)
        self.assertEqual(compositeNode().GetForegroundVolumeID(), output.GetID())
        self.parameters.seed = 8
        passTimeUntil(lambda: self.ui.liveStatusLabel.text.startswith("Generating"))
        slicer.mrmlScene.Clear(False)
        passTimeUntil(lambda: not self.ui.liveCheckBox.checked)
        self.assertIn("deleted", self.ui.liveStatusLabel.text)
        self.assertIsNone(self.panel._live)

    def test_cleaning_up_goes_on_even_if_live_cannot_be_stopped(self) -> None:
        self.panel._live = mock.Mock(**{"stop.side_effect": OSError})
        with self.assertRaises(OSError), mock.patch.object(self.panel._runs, "close") as close:
            self.panel.cleanup()
        close.assert_called_once_with()
        self.assertIsNone(self.panel._live)


class VarySectionTest(PanelTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.vary = self.panel._sections[0]
        self.parameters.varyCount, self.parameters.varyAmount = 2, 3.0
        self.parameters.varyWay = VaryWay.DEFORM

    def varied(self) -> list[slicer.vtkMRMLSegmentationNode]:
        nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
        return [node for node in nodes if node.GetAttribute("CTStyleGen.Variation")]

    def test_is_closed_at_first(self) -> None:
        for section in (self.vary.ui.varySection, self.panel._sections[1].ui.exportSection):
            self.assertTrue(section.collapsed)
        self.vary.ui.varySection.collapsed = False
        self.assertFalse(self.vary.ui.progressBar.isVisibleTo(self.vary.widget))

    def test_copy_as_python(self) -> None:
        self.vary.ui.copyButton.click()
        told = argumentsOfCopied("vary")
        self.assertIs(told.pop("segmentationNode"), self.segmentation)
        self.assertIs(told.pop("referenceVolumeNode"), self.volume)
        expected = {
            **{"count": 2, "amount": 3.0, "seed": 0, "way": "deform", "anatomy": str(self.model), "wait": True},
            **{"cases": None, "widen": 0.2, "organs": None},
        }
        self.assertEqual(told, expected)

    def test_outlines_and_then_a_choice(self) -> None:
        self.parameters.varySeed = 4
        self.vary.ui.varyButton.click()
        self.assertTrue(self.vary.ui.cancelButton.enabled)
        self.parameters.segmentation = None  # no longer of this job
        passTimeUntil(lambda: not self.vary._jobs.jobs)
        nodes = self.varied()
        self.assertEqual([node.GetName() for node in nodes], [f"Chest varied {n} (synthetic)" for n in (1, 2)])
        self.assertEqual({node.GetAttribute("CTStyleGen.Seed") for node in nodes}, {"4"})
        self.assertIn("Made 2", self.vary.ui.statusLabel.text)
        for shown in (True, False):
            self.vary.ui.outlinesCheckBox.checked = shown
            self.assertEqual([bool(node.GetDisplayNode().GetVisibility()) for node in nodes], [shown] * 2)
        self.assertTrue(self.segmentation.GetDisplayNode().GetVisibility())
        self.parameters.segmentation = nodes[0]
        self.assertTrue(self.checked().startswith("Makes 4 slices on"))
        self.assertIs(self.panel.reference, self.volume)

    def test_organs_that_were_chosen(self) -> None:
        """A segment that no table knows is the organ that the user chose for it."""
        segmentation = self.segmentation.GetSegmentation()
        for segmentId in segmentation.GetSegmentIDs():
            segment = segmentation.GetSegment(segmentId)
            segment.SetTag("CTStyleGen.Organ", {"body": "body", "lung": "lungs"}.get(segment.GetName(), "-"))
            segment.SetName(f"x {segmentId}")
        self.parameters.varyCount = 1
        self.vary.ui.varyButton.click()
        passTimeUntil(lambda: not self.vary._jobs.jobs)
        varied = self.varied()[0].GetSegmentation()
        organs = [chosenOrgan(varied.GetSegment(segmentId)) for segmentId in varied.GetSegmentIDs()]
        self.assertEqual(organs, ["body", "lungs", "-"])

    def test_what_is_missing(self) -> None:
        role = self.segmentation.GetReferenceImageGeometryReferenceRole()
        self.segmentation.RemoveNodeReferenceIDs(role)
        self.parameters.referenceVolume = None
        self.parameters.varySeed = 1
        self.assertFalse(self.vary.ui.varyButton.enabled)
        self.assertIn("'Chest' was drawn on no volume", self.vary.ui.statusLabel.text)
        self.parameters.referenceVolume = self.volume
        self.assertTrue(self.vary.ui.varyButton.enabled)
        self.parameters.segmentation = None
        self.assertEqual(self.vary.ui.varyButton.toolTip, "Choose a segmentation.")

    def test_cancel_failure_and_closed_scene(self) -> None:
        self.vary.ui.varyButton.click()
        passTime(0.2)
        self.vary.ui.cancelButton.click()
        self.assertEqual((self.vary._jobs.jobs, self.varied()), ([], []))
        with (
            mock.patch("CTStyleGenLib.jobs.coreCommand", lambda: [sys.executable, "-c", "raise SystemExit('Oh.')"]),
            mock.patch.object(slicer.util, "errorDisplay") as display,
        ):
            self.vary.ui.varyButton.click()
            passTimeUntil(lambda: not self.vary._jobs.jobs)
        self.assertIn("Oh.", display.call_args.args[0])
        self.vary.ui.varyButton.click()
        passTime(0.2)
        slicer.mrmlScene.Clear(False)
        self.assertEqual((self.vary._jobs.jobs, self.varied()), ([], []))
        self.assertFalse(self.vary.ui.progressBar.visible)


@unittest.skipUnless(chest.CAN_TRAIN, chest.CANT_TRAIN)
class ExportSectionTest(PanelTestCase):
    def addModels(self) -> Path:
        (self.folder / "tiny.ctstyle").write_bytes(tinyModel().read_bytes())
        return self.folder / "tiny.ctstyle"

    def setUp(self) -> None:
        super().setUp()
        self.export = self.panel._sections[1]
        self.export.ui.exportSection.collapsed = False
        self.parameters.exportFolder, self.parameters.exportName = self.elsewhere, "Dataset007_Tiny"
        self.parameters.exportPerCase, self.parameters.exportAmount = 2, 0.0
        self.parameters.device = Device.CPU

    def said(self) -> str:
        """What the section says, when it has taken notice of all changes."""
        passTimeUntil(lambda: not self.export._timer.active)
        return self.export.ui.preflightLabel.text

    def test_one_data_set(self) -> None:
        self.assertRegex(self.said(), r"^Makes 2 images \(cases: 1\), about 1 MB\. The disk has .+ [MG]B free\.$")
        self.export.ui.exportButton.click()
        self.assertFalse(self.export.ui.exportButton.enabled)
        self.assertRegex(self.checked(), "\nA data set is being made beside it: both take longer.$")
        slicer.mrmlScene.RemoveNode(self.segmentation)
        passTimeUntil(lambda: not self.export._jobs.jobs, 300)
        output = self.elsewhere / "Dataset007_Tiny"
        self.assertTrue((output / "dataset.json").is_file())
        self.assertEqual(len(list((output / "imagesTr").iterdir())), 2)
        self.assertIn(str(output), self.export.ui.resultLabel.text)
        self.assertEqual(self.said(), "Choose a segmentation.")

    def test_a_ct_is_generated_meanwhile_and_a_closed_scene_does_not_matter(self) -> None:
        self.parameters.exportPerCase = 60
        self.said()
        self.export.ui.exportButton.click()
        (job,) = self.export._jobs.jobs
        self.checked()
        self.ui.generateButton.click()
        passTimeUntil(lambda: not self.panel._runs.jobs, 300)
        self.assertTrue(slicer.util.getNode("Chest synthetic CT"))
        self.assertEqual(job.state, State.RUNNING)
        slicer.mrmlScene.Clear(False)
        self.assertEqual(job.state, State.RUNNING)
        job.cancel()
        self.assertEqual(self.export._jobs.jobs, [])

    def test_a_canceled_one_is_gone_on_with(self) -> None:
        self.parameters.exportPerCase = 6
        self.said()
        self.export.ui.exportButton.click()
        job = self.export._jobs.jobs[0]
        passTimeUntil(lambda: job.done, 300)
        self.assertRegex(self.export.ui.progressBar.format, r"^\d+ of 6 images")
        self.export.ui.cancelButton.click()
        self.assertIn("Keeps those that are there", self.said())
        self.export.ui.exportButton.click()
        passTimeUntil(lambda: not self.export._jobs.jobs, 300)
        self.assertEqual(len(list((self.elsewhere / "Dataset007_Tiny" / "imagesTr").iterdir())), 6)
        self.assertIn("exists already", self.said())
        self.assertFalse(self.export.ui.exportButton.enabled)

    def test_what_is_missing(self) -> None:
        for name, value, told in (
            ("exportName", "a/b", "Name the data set"),
            ("exportFolder", self.elsewhere / "absent", "Choose the folder to make"),
            ("exportCases", ExportCases.FOLDER, "Choose the folder of cases"),
            ("exportCasesFolder", self.elsewhere / "absent", "absent"),
            ("model", Path(), "Choose a model"),
        ):
            with self.subTest(name):
                setattr(self.parameters, name, value)
                self.assertIn(told, self.said())
                self.assertFalse(self.export.ui.exportButton.enabled)

    def test_copy_as_python(self) -> None:
        self.parameters.exportDicom = True
        self.said()
        self.export.ui.copyButton.click()
        expected = {
            **{"cases": [(self.volume, self.segmentation)], "output": str(self.elsewhere / "Dataset007_Tiny")},
            **{"model": str(self.model), "perCase": 2, "amount": 0.0, "styles": (), "labels": "organs"},
            **{
                "styleCases": None,
                "mix": False,
                "splits": None,
                "dicom": True,
                "seed": 0,
                "device": "cpu",
                "resume": False,
                "wait": True,
            },
        }
        self.assertEqual(argumentsOfCopied("expand"), expected)

    def test_a_folder_of_cases(self) -> None:
        self.parameters.exportCases = ExportCases.FOLDER
        self.parameters.exportCasesFolder = tinyModel().parent / "cases"
        self.assertIn("4 images (cases: 2)", self.said())
        self.parameters.exportDicom = True
        self.assertTrue(self.export.ui.casesPathLineEdit.enabled)
        self.assertTrue(self.said())
        with (
            mock.patch("CTStyleGenLib.jobs.coreCommand", lambda: [sys.executable, "-c", "raise SystemExit('Oh.')"]),
            mock.patch.object(slicer.util, "errorDisplay") as display,
        ):
            self.export.ui.exportButton.click()
            passTimeUntil(lambda: not self.export._jobs.jobs, 300)
        self.assertIn("Oh.", display.call_args.args[0])
        self.assertFalse((self.elsewhere / "Dataset007_Tiny").exists())

    def test_the_look_of_a_style_ct(self) -> None:
        """Asked for where it counts: of a model of many styles, unless these take turns."""
        self.parameters.model = writeModel(self.folder / "bank.ctstyle", styles=["A", "B"], style_codes={})
        self.parameters.styleVolume = other = scenes.addVolume(np.zeros(SHAPE, np.int16), np.eye(4), "Other")
        self.parameters.exportLook = ExportLook.TURNS
        self.assertRegex(self.said(), "^Makes")
        self.assertEqual((self.export._asked()["styles"], self.export._asked()["styleCases"]), ((), None))
        self.parameters.exportLook = ExportLook.CHOSEN
        self.assertRegex(self.said(), "^The style CT 'Other' has no segmentation: draw its organs")
        masks = {name: mask for name, mask in chestMasks().items() if name != "heart"}
        segmentation = scenes.addSegmentation(masks, np.eye(4), "Its")
        segmentation.SetReferenceImageGeometryParameterFromVolumeNode(other)
        self.parameters.exportSeed = 1
        self.assertRegex(self.said(), "^Makes.*\nThe style CT 'Other' has no .*mediastinum")
        asked = self.export._asked()
        self.assertEqual((asked["styles"], asked["styleCases"]), (["Other"], {"Other": (other, segmentation)}))
        self.parameters.model = writeModel(self.folder / "one.ctstyle", styles=["A"])
        self.assertEqual(self.export._asked()["styleCases"], None)


if __name__ == "__main__":
    unittest.main()
