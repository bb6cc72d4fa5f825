"""The Train panel as the user sees it: cases, what it says before the start, a training watched and found again."""

import contextlib
import json
import os
import signal
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import CTStyleGenTesting  # noqa: F401 - prepares slicer
import qt
import SimpleITK as sitk
import slicer
from CTStyleGenTesting import scenes
from CTStyleGenCore import background
from CTStyleGenCore.anatomy import load_anatomy
from CTStyleGenCore.errors import InputError
from CTStyleGenLib import progress_dialog, training, training_cases
from CTStyleGenLib.devices import Devices
from CTStyleGenLib.jobs import JobError
from CTStyleGenLib.parameters import CaseSource, Features, TableChoice
from CTStyleGenLib.train_panel import TrainPanel
from CTStyleGenLib.training_run import State
from CTStyleGenTesting.chest import CAN_TRAIN, CANT_TRAIN, chestCT, chestLabels, chestMasks
from CTStyleGenTesting.panels import ModuleTestCase, argumentsOfCopied, passTimeUntil

STYLE, NAME, SEGMENTATION, CT = range(4)


class TrainPanelTestCase(ModuleTestCase):
    """The open module with the tab Train in front."""

    def setUp(self) -> None:
        super().setUp()
        self.panel = next(panel for panel in self.module.panels if isinstance(panel, TrainPanel))
        self.addCleanup(self.endAll)
        self.ui, self.parameters = self.panel.ui, self.panel.parameters
        self.parameters.trainPreset = "paper"  # one style has to be chosen

    def endAll(self) -> None:
        for training_ in self.module.logic.trainings():
            training_.discard()
        self.panel.trainings.refresh()

    def addChests(self, count: int = 2) -> list:
        """Segmentations that were drawn on CTs."""
        made = []
        for number in range(count):
            grid = scenes.grid((5.1, 6.2, 7.5), (-120.5, 33.3 + number, 40.1))
            volume = scenes.addVolume(chestCT(), grid, f"CT {number}")
            segmentation = scenes.addSegmentation(chestMasks(), grid, f"Chest {number}")
            segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
            segmentation.SetNodeReferenceID(segmentation.GetReferenceImageGeometryReferenceRole(), volume.GetID())
            made.append((volume, segmentation))
        return made

    def checked(self) -> str:
        """What the panel says, when it has taken notice of all changes."""
        passTimeUntil(lambda: not self.panel._checkTimer.active)
        return self.ui.preflightLabel.text

    def cells(self, column: int) -> list[str]:
        return [self.ui.casesTable.item(row, column).text() for row in range(self.ui.casesTable.rowCount)]

    def tick(self, row: int, isStyle: bool = True) -> None:
        self.ui.casesTable.item(row, STYLE).setCheckState(qt.Qt.Checked if isStyle else qt.Qt.Unchecked)


class CasesTest(TrainPanelTestCase):
    def test_begins_empty(self) -> None:
        self.assertEqual(self.parameters.trainName, "model-1")
        self.assertEqual(
            self.checked(), "There are no cases: add pairs of a CT and its segmentation, or choose a folder of cases."
        )
        self.assertFalse(self.ui.startButton.enabled)
        self.assertEqual(self.ui.startButton.toolTip, self.ui.preflightLabel.text)
        self.assertEqual(self.ui.trainingComboBox.currentText, "(none yet)")

    def test_cases_of_the_scene(self) -> None:
        (volume, _segmentation), (_volume, other) = self.addChests()
        scenes.addSegmentation(chestMasks(), scenes.grid(), "Alone")
        self.ui.addAllButton.click()
        self.assertEqual(self.cells(NAME), ["case-1", "case-2"])
        self.assertEqual(self.cells(SEGMENTATION), ["Chest 0", "Chest 1"])
        self.assertEqual(self.cells(CT), ["CT 0", "CT 1"])
        self.assertRegex(self.checked(), "^No style is chosen: tick the case")
        self.tick(1)
        self.assertRegex(
            self.checked(),
            r"^Learns in \d+ steps on .*\.\nExpected( on the processor)?: about .* of memory\.",
        )
        self.assertTrue(self.ui.startButton.enabled)
        self.tick(1, False)
        self.assertFalse(training_cases.isStyle(other))
        self.ui.casesTable.item(1, NAME).setText("clinic A")
        self.assertEqual(training_cases.casesInScene()[1].name, "clinic A")
        self.ui.casesTable.item(1, NAME).setText("a/b")
        self.assertRegex(self.checked(), "^The case name 'a/b' is not possible")
        slicer.mrmlScene.RemoveNode(volume)
        self.checked()
        passTimeUntil(lambda: self.cells(CT)[0] == "(deleted)")
        self.ui.casesTable.selectRow(0)
        self.ui.removeButton.click()
        self.assertEqual(self.cells(NAME), ["a/b"])

    def test_one_pair_at_a_time(self) -> None:
        ((volume, segmentation),) = self.addChests(1)
        self.ui.segmentationSelector.setCurrentNode(segmentation)
        self.assertIs(self.ui.ctSelector.currentNode(), volume)
        self.ui.addButton.click()
        self.assertEqual(self.cells(NAME), ["case-1"])
        self.assertRegex(self.checked(), "^No style is chosen")
        self.tick(0)
        self.assertRegex(self.checked(), "^'case-1' is the only case")

    def test_segments_that_nobody_knows(self) -> None:
        (_volume, segmentation), _other = self.addChests()
        segmentation.GetSegmentation().AddEmptySegment("Catheter", "Catheter")
        self.ui.addAllButton.click()
        self.tick(0)
        self.assertRegex(self.checked(), "\ncase-1: The segment 'Catheter' is left out")

    def test_cases_of_a_folder(self) -> None:
        self.parameters.trainSource = CaseSource.FOLDER
        self.assertEqual(self.checked(), "No folder of cases is chosen: choose one.")
        for name in ("A", "B"):
            case = self.elsewhere / name
            case.mkdir()
            sitk.WriteImage(sitk.GetImageFromArray(chestCT()), str(case / "ct.nrrd"))
            sitk.WriteImage(sitk.GetImageFromArray(chestLabels()), str(case / "labels.nrrd"))
        self.parameters.trainFolder = self.elsewhere
        self.assertEqual((self.cells(NAME), self.cells(CT)), (["A", "B"], ["ct.nrrd"] * 2))
        self.assertFalse(self.ui.addButton.isVisibleTo(self.panel.widget))
        self.tick(0)
        self.tick(1)
        self.tick(1, False)
        self.assertRegex(self.checked(), "^Learns in 200 steps")
        self.assertEqual(self.panel.options.styles, ["A"])

    def test_copy_as_python(self) -> None:
        pairs = self.addChests(6)  # more than a line
        self.ui.addAllButton.click()
        self.tick(1)
        self.parameters.trainOutlives, self.parameters.trainEpochs = True, 7
        self.checked()
        self.ui.copyButton.click()
        expected = {
            **{"cases": {f"case-{n}": pair for n, pair in enumerate(pairs, 1)}, "styles": ["case-2"]},
            **{"name": "model-1", "preset": "paper", "size": 256, "epochs": 7, "steps": None, "device": "auto"},
            **{"features": "auto", "featureWeights": None, "download": False, "seed": 0, "outlives": True},
            **{"anatomy": "thorax", "wait": False},
        }
        self.assertEqual(argumentsOfCopied("train"), expected)

    def test_options(self) -> None:
        self.parameters.trainPreset = "styles"
        self.assertRegex(self.ui.presetHintLabel.text, "^All looks in one model")
        for features, expected in (
            (Features.RANDOM, ("random", False)),
            (Features.DOWNLOAD, ("vgg19", True)),
            (Features.AUTO, ("auto", False)),
        ):
            self.parameters.trainFeatures = features
            self.assertEqual((self.panel.options.features, self.panel.options.download), expected)
        self.assertFalse(self.ui.weightsPathLineEdit.isVisibleTo(self.panel.widget))
        self.parameters.trainFeatures = Features.FILE
        self.parameters.trainWeights = self.elsewhere / "vgg19.pth"
        self.assertTrue(self.ui.weightsPathLineEdit.isVisibleTo(self.panel.widget))
        self.addChests()
        self.ui.addAllButton.click()
        self.assertRegex(self.checked(), "^The feature weights .*vgg19.pth don't exist")

    def test_organ_tables(self) -> None:
        self.addChests()
        self.ui.addAllButton.click()
        self.tick(0)
        self.assertFalse(self.ui.organsPathLineEdit.isVisibleTo(self.panel.widget))
        self.parameters.trainOrgans = TableChoice.LCTSC
        self.assertRegex(self.checked(), "The segment 'lung' is left out, .*: the organ table 'lctsc' knows")
        self.parameters.trainOrgans = TableChoice.FILE
        self.assertTrue(self.ui.organsPathLineEdit.isVisibleTo(self.panel.widget))
        self.assertEqual(self.checked(), "No organ table is chosen: choose its file.")
        self.assertFalse(self.ui.startButton.enabled)
        table = self.elsewhere / "mine.json"
        table.write_text(json.dumps(load_anatomy("thorax").to_json() | {"name": "mine"}))
        self.parameters.trainOrgansFile = table
        self.assertRegex(self.checked(), "^Learns in ")
        self.assertTrue(self.ui.startButton.enabled)
        self.assertEqual(self.panel.options.anatomy, table)
        table.write_text("{}")
        self.panel.shown()
        self.assertRegex(self.checked(), "mine.json: An organ table is a JSON object with")

    def test_devices(self) -> None:
        Devices.known = []
        self.addChests()
        self.ui.addAllButton.click()
        self.tick(0)
        self.assertRegex(
            self.checked(), r"a graphics card if one works, else on the processor\.\nExpected on the processor: about"
        )
        cpu = {"name": "cpu", "title": "CPU, 2 threads"}
        old = {"name": "cuda:0", "title": "Old GPU", "memory_bytes": 9_000_000_000, "works": False}
        card = {"name": "cuda:1", "title": "Some GPU", "memory_bytes": 1_000_000_000, "works": True}
        for devices, expected in (
            ([cpu], ["Automatic: CPU, 2 threads", "CPU, 2 threads"]),
            (
                [cpu, old, card],
                [
                    *("Automatic: Some GPU, 1 GB", "CPU, 2 threads"),
                    *("Old GPU, 9 GB (this PyTorch can't use it)", "Some GPU, 1 GB"),
                ],
            ),
        ):
            self.panel._devices._onEvent({"event": "devices", "devices": devices})
            combo = self.ui.deviceComboBox
            self.assertEqual([combo.itemText(index) for index in range(combo.count)], expected)
        self.assertRegex(self.checked(), r"on Some GPU\.(.|\n)*nothing like it has been measured before\.")
        self.parameters.trainSize = "512"
        self.assertRegex(self.checked(), "more memory than the device has: choose a smaller size")
        self.panel._onDevice(1)
        self.assertEqual(self.parameters.trainDevice, "cpu")
        self.assertRegex(self.checked(), r"on CPU, 2 threads\.\nExpected: about \d")


class ExportTest(TrainPanelTestCase):
    """What is seen while the scene's cases are exported, for a training of which nothing is begun."""

    def setUp(self) -> None:
        super().setUp()
        self.addChests(3)
        self.ui.addAllButton.click()
        self.tick(0)
        self.checked()
        window = qt.QMainWindow()
        for patched in (
            mock.patch.object(slicer.util, "mainWindow", return_value=window),
            mock.patch.object(progress_dialog, "_AFTER_MS", 0),
            mock.patch.object(slicer.util, "errorDisplay"),
        ):
            patched.start()
            self.addCleanup(patched.stop)

    def start(self, write: Callable[..., None], onDialog: Callable[[Any], None]) -> None:
        """As a click on Start, with this in place of `write_volume`, and this called while the dialog is seen."""

        def look() -> None:
            for window in slicer.app.topLevelWidgets():
                if window.className() == "QProgressDialog" and window.visible:
                    onDialog(window)

        timer = qt.QTimer(self.panel.widget)
        timer.connect("timeout()", look)
        timer.start(1)
        self.addCleanup(timer.stop)
        with mock.patch.object(training_cases, "write_volume", write):
            self.panel._onStart()

    def assertNothingLeft(self) -> None:
        passTimeUntil(lambda: not any(w.className() == "QProgressDialog" for w in slicer.app.topLevelWidgets()))
        self.assertEqual(self.module.logic.trainings(), [])
        self.assertEqual([path for path in self.folder.rglob("*") if path.name != "training"], [])
        self.checked()
        self.assertTrue(self.ui.startButton.enabled)

    def test_slicer_stays_alive(self) -> None:
        seen: list[tuple[int, str]] = []
        began = mock.patch.object(training.Training, "begin", side_effect=JobError("That was all."))
        with began, self.assertRaisesRegex(JobError, "That was all."):
            self.start(lambda *given: time.sleep(0.1), lambda shown: seen.append((shown.value, shown.labelText)))
        self.assertEqual(list(dict.fromkeys(seen)), [(n, f"Exporting 'case-{n + 1}' ...") for n in range(3)])
        self.assertNothingLeft()

    def test_cancel(self) -> None:
        written: list[Path] = []

        def write(image: sitk.Image, path: Path, compress: bool) -> None:
            written.append(path)
            time.sleep(0.1)

        self.start(write, lambda dialog: dialog.cancel())
        self.assertEqual([path.name for path in written], ["ct.nrrd"])
        self.assertNothingLeft()

    def test_no_room(self) -> None:
        def write(image: sitk.Image, path: Path, compress: bool) -> None:
            raise InputError("There is no room on the disk.")

        with self.assertRaisesRegex(InputError, "no room"):
            self.start(write, lambda dialog: None)
        self.assertNothingLeft()


@unittest.skipUnless(CAN_TRAIN, CANT_TRAIN)
class RunTest(TrainPanelTestCase):
    def setUp(self) -> None:
        super().setUp()
        often = mock.patch.object(training, "_CHECKPOINT_SECONDS", 0.2)
        often.start()
        self.addCleanup(often.stop)

    def assertShown(self, words: str) -> None:
        with contextlib.suppress(AssertionError):
            passTimeUntil(lambda: words in self.ui.statusLabel.text, 180)
        self.assertIn(words, self.ui.statusLabel.text)

    def test_a_training(self) -> None:
        """Begun, watched while the scene is closed, killed, resumed, found by another panel, ended early, and used."""
        self.addChests()
        self.ui.addAllButton.click()
        self.tick(0)
        self.parameters.trainPreset, self.parameters.trainSize = "quick", "64"
        self.parameters.trainFeatures, self.parameters.trainEpochs = Features.RANDOM, 99999
        self.parameters.trainDevice = "cpu"
        self.checked()
        self.ui.startButton.click()
        self.assertEqual(self.ui.trainingComboBox.currentText, "model-1 (at work)")
        self.assertEqual(self.parameters.trainName, "model-2")
        self.assertRegex(self.ui.statusLabel.text, "^Starting")
        self.assertFalse(self.ui.startButton.enabled)
        self.assertRegex(self.checked(), "^A training is at work")
        slicer.mrmlScene.Clear(False)
        self.parameters = self.panel.parameters
        self.assertShown(" of 399996, ")
        self.assertRegex(
            self.ui.statusLabel.text, r"^Step \d+ of 399996, .* left\nLosses, of what they began with: .*%"
        )
        run = self.panel.trainings.selected
        passTimeUntil(lambda: self.ui.previewLabel.isVisibleTo(self.panel.widget), 180)
        self.assertFalse(self.ui.goesOnCheckBox.checked)
        self.ui.goesOnCheckBox.click()
        self.assertTrue(run.outlives)
        self.ui.curvesButton.click()
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLPlotSeriesNode"), 5)

        os.killpg(background.process_group(run.folder), signal.SIGKILL)
        self.assertShown("The training ended unexpectedly")
        self.assertEqual(self.ui.trainingComboBox.currentText, "model-1 (failed)")
        self.assertEqual(self.ui.pauseButton.text, "Resume")
        self.ui.pauseButton.click()
        self.assertEqual(self.ui.pauseButton.text, "Pause")

        self.panel = TrainPanel(self.module.logic)  # as in another Slicer
        self.ui = self.panel.ui
        self.addCleanup(self.panel.cleanup)
        self.assertEqual(self.ui.trainingComboBox.currentText, "model-1 (at work)")
        self.assertFalse(self.ui.goesOnCheckBox.enabled)
        self.assertShown(" of 399996, ")
        self.ui.stopButton.click()
        self.assertRegex(self.ui.statusLabel.text, "^Ends after the step")
        self.assertShown("The model model-1.ctstyle is ready.")
        self.assertRegex(self.ui.statusLabel.text, r"\nNear copies of training slices: (none|\d+) of 16 images")
        self.assertEqual(self.panel.trainings.selected.state, State.DONE)
        self.assertTrue((self.folder / "model-1.ctstyle").is_file())
        self.assertFalse(self.ui.pauseButton.enabled or self.ui.stopButton.enabled)
        self.assertFalse(background.is_alive(run.folder))

        self.addCleanup(self.panel.setParameterNode, None)
        self.panel.setParameterNode(self.module.logic.getParameterNode())
        self.ui.discardButton.click()
        self.assertEqual(self.ui.trainingComboBox.currentText, "(none yet)")
        self.assertEqual(self.names(), ["model-1.ctstyle", "training"])
        self.module.ui.panelTabs.setCurrentIndex(0)
        self.module.panels[0].shown()
        self.assertEqual(self.module.panels[0].ui.modelComboBox.currentText, "model-1")


@unittest.skipUnless(CAN_TRAIN, CANT_TRAIN)
class DevicesTest(ModuleTestCase):
    devices: ClassVar = []

    def test_the_child_process_finds_devices(self) -> None:
        index = next(i for i, panel in enumerate(self.module.panels) if isinstance(panel, TrainPanel))
        panel = self.module.panels[index]
        self.addCleanup(self.module.ui.panelTabs.setCurrentIndex, 0)
        self.module.ui.panelTabs.setCurrentIndex(index)
        passTimeUntil(lambda: panel._devices.known, 120)
        self.assertRegex(panel.ui.deviceComboBox.itemText(1), r"^CPU, \d+ threads?, ")
        passTimeUntil(lambda: not panel._devices.isSearching)


if __name__ == "__main__":
    unittest.main()
