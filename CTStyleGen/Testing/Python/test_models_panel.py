"""The Models panel as a user works with it: real files, and real child processes for what they do."""

import contextlib
import json
import os
import sys
import time
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import CTStyleGenTesting  # noqa: F401 - prepares slicer
import qt
import slicer
from CTStyleGenLib import jobs, models, setup
from CTStyleGenLib.models_panel import ModelsPanel, cardText
from CTStyleGenLib.setup import State
from CTStyleGenTesting.chest import CAN_TRAIN, CANT_TRAIN, tinyModel
from CTStyleGenTesting.model_files import writeModel
from CTStyleGenTesting.panels import ModuleTestCase, passTimeUntil

READY = [
    {"event": "requirement", "package": requirement.package, "state": "ready", "message": f"{requirement.title} 9.9"}
    for requirement in setup.REQUIREMENTS
]


@contextlib.contextmanager
def answering(kind: type, name: str, answer: Any) -> Iterator[None]:
    """A dialog that gives this answer at once."""
    with mock.patch.object(kind, name, lambda *arguments: answer, create=True):
        yield


@contextlib.contextmanager
def childSaying(*lines: str) -> Iterator[None]:
    """A child process with another program, of these lines of Python."""
    program = "\n".join(["import json, sys, time, os", *lines])
    with mock.patch.object(jobs, "coreCommand", lambda: [jobs.corePython(), "-c", program]):
        yield


class ModelsPanelTestCase(ModuleTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.panel = ModelsPanel(None)
        self.addCleanup(self.panel.cleanup)
        self.panel.setUpRows._libraries = setup.libraries(READY)  # no check of seconds at first
        self.ui = self.panel.ui
        confirm = mock.patch.object(slicer.util, "confirmOkCancelDisplay", return_value=True)
        self.confirm = confirm.start()
        self.addCleanup(confirm.stop)
        display = mock.patch.object(slicer.util, "errorDisplay")
        self.errors = display.start()
        self.addCleanup(display.stop)

    def store(self, *names: str) -> None:
        for number, name in enumerate(names):
            writeModel(self.folder / f"{name}.ctstyle", weight=number)
        self.panel.refresh()

    def rows(self) -> list[str]:
        table = self.ui.modelsTable
        return [table.item(row, 0).text() for row in range(table.rowCount)]

    def select(self, name: str) -> None:
        self.ui.modelsTable.selectRow(self.rows().index(name))

    def waitForJob(self) -> None:
        passTimeUntil(lambda: not self.panel.isBusy)


class ModelsTest(ModelsPanelTestCase):
    def test_empty_folder(self) -> None:
        self.panel.shown()
        self.assertEqual(self.rows(), [])
        self.assertIn("There is no model yet", self.ui.cardLabel.text)
        for button in (self.ui.useButton, self.ui.exportButton, self.ui.renameButton, self.ui.deleteButton):
            self.assertFalse(button.enabled)
        self.assertTrue(self.ui.importButton.enabled)

    def test_the_selected_models_card(self) -> None:
        self.store("chest", "lung")
        self.assertEqual(self.rows(), ["chest", "lung"])
        self.assertIn("<b>chest</b>", self.ui.cardLabel.text)
        self.select("lung")
        card = self.ui.cardLabel.text
        for part in (
            "<b>lung</b>",
            "thorax (outside, body, lungs",
            "paper, 64 px",
            "20 steps",
            "2: B, C",
            "vgg19 (SHA-",
        ):
            self.assertIn(part, card)

    def test_card_of_a_stranger_is_text(self) -> None:
        """A model file may come from anyone: its words are shown as they are, never as HTML."""
        writeModel(self.folder / "a.ctstyle", styles=["<img src='x'>"], cases=["</b>&"], use="<a href='x'>click</a>")
        text = cardText(models.storedModels()[0])
        self.assertNotIn("<img", text)
        self.assertNotIn("<a ", text)
        self.assertIn("&lt;/b&gt;&amp;", text)

    def cardTold(self, **changes: Any) -> str:
        """The selected model's card, as the panel shows it."""
        writeModel(self.folder / "a.ctstyle", **changes)
        self.panel.refresh()
        return self.ui.cardLabel.text

    def test_near_copies_of_training_slices(self) -> None:
        found = {"images": 16, "copies": 0.1875, "distance": 0.31, "real_distance": 0.72, "finding": "near copies"}
        text = self.cardTold(memorisation=found)
        self.assertIn("3 of 16 images drawn from training maps. Don&#x27;t share the model or its images as", text)
        text = self.cardTold(memorisation=found | {"copies": 0.0, "finding": "nearer than real slices"})
        self.assertIn("none of 16 images drawn from training maps, but they are nearer to training slices (0.31", text)
        text = self.cardTold(memorisation=found | {"copies": 0.0, "distance": 0.77, "finding": "none"})
        self.assertIn("none of 16 images drawn from training maps, at a median distance of 0.77", text)
        self.assertIn("different cases: 0.72). A sample, no proof.", text)

    def test_near_copies_that_no_training_has_told(self) -> None:
        """Cards of older versions, and of anybody's making."""
        whole = {"images": 16, "copies": 0.1, "distance": 0.3, "real_distance": 0.7, "finding": "none"}
        odd = [{}, [], 3, None, "none", {"images": 16}, *(whole | {"copies": odd} for odd in (-1, "0", None, 1e300))]
        odd += [whole | {"finding": value} for value in (None, [], {}, "all")]
        for text in (self.cardTold(), *(self.cardTold(memorisation=told) for told in odd)):
            self.assertIn("<b>Near copies of training slices:</b> not measured.", text)

    def test_a_bad_file_can_be_deleted_only(self) -> None:
        (self.folder / "bad.ctstyle").write_bytes(b"nothing")
        self.panel.refresh()
        self.assertIn("is not a CTStyleGen model", self.ui.cardLabel.text)
        self.assertFalse(self.ui.useButton.enabled or self.ui.exportButton.enabled or self.ui.pictureButton.enabled)
        self.ui.deleteButton.click()
        self.assertEqual(self.names(), [])

    def test_import_selects_and_tells_what_is_bad(self) -> None:
        good, bad = writeModel(self.elsewhere / "new.ctstyle", weight=5), self.elsewhere / "bad.ctstyle"
        bad.write_bytes(b"nothing")
        self.store("chest")
        with answering(qt.QFileDialog, "getOpenFileNames", (str(bad), str(good))):
            self.ui.importButton.click()
        self.assertEqual(self.rows(), ["chest", "new"])
        self.assertEqual(self.panel.selectedModel().name, "new")
        self.errors.assert_called_once()
        self.assertIn("is not a CTStyleGen model", self.errors.call_args.args[0])

    def test_export(self) -> None:
        self.store("chest")
        with answering(qt.QFileDialog, "getSaveFileName", str(self.elsewhere / "out")):
            self.ui.exportButton.click()
        self.assertEqual((self.elsewhere / "out.ctstyle").read_bytes(), (self.folder / "chest.ctstyle").read_bytes())

    def test_rename(self) -> None:
        self.store("chest", "lung")
        self.select("chest")
        with answering(qt.QInputDialog, "getText", "thorax"):
            self.ui.renameButton.click()
        self.assertEqual(self.rows(), ["lung", "thorax"])
        self.assertEqual(self.panel.selectedModel().name, "thorax")
        with answering(qt.QInputDialog, "getText", "lung"):
            self.ui.renameButton.click()
        self.assertIn("There is a model 'lung' already", self.errors.call_args.args[0])
        with answering(qt.QInputDialog, "getText", ""):  # canceled
            self.ui.renameButton.click()
        self.assertEqual(self.rows(), ["lung", "thorax"])

    def test_delete_asks(self) -> None:
        self.store("chest", "lung")
        self.confirm.return_value = False
        self.ui.deleteButton.click()
        self.assertEqual(self.rows(), ["chest", "lung"])
        self.confirm.return_value = True
        self.ui.deleteButton.click()
        self.assertEqual(self.rows(), ["lung"])
        self.assertEqual(self.panel.selectedModel().name, "lung")

    def test_use_and_rename_keep_generate_at_the_model(self) -> None:
        parameters = self.module.logic.getParameterNode()
        self.panel.setParameterNode(parameters)
        self.addCleanup(self.panel.setParameterNode, None)
        self.store("chest")
        self.ui.useButton.click()
        self.assertEqual(parameters.model, self.folder / "chest.ctstyle")
        with answering(qt.QInputDialog, "getText", "thorax"):
            self.ui.renameButton.click()
        self.assertEqual(parameters.model, self.folder / "thorax.ctstyle")

    def test_models_that_come_and_go_meanwhile(self) -> None:
        self.store("chest", "lung")
        self.select("lung")
        writeModel(self.folder / "abdomen.ctstyle", weight=9)
        (self.folder / "chest.ctstyle").unlink()
        self.panel.shown()
        self.assertEqual(self.rows(), ["abdomen", "lung"])
        self.assertEqual(self.panel.selectedModel().name, "lung")
        (self.folder / "lung.ctstyle").unlink()
        self.ui.deleteButton.click()
        self.assertIn("lung.ctstyle can't be deleted", self.errors.call_args.args[0])
        self.assertEqual(self.rows(), ["abdomen"])

    def test_folder_can_be_changed(self) -> None:
        self.store("chest")
        writeModel(self.elsewhere / "other.ctstyle")
        with answering(qt.QFileDialog, "getExistingDirectory", str(self.elsewhere)):
            self.ui.changeFolderButton.click()
        self.assertEqual(self.rows(), ["other"])
        self.assertIn(str(self.elsewhere), self.ui.storageLabel.text)
        self.assertEqual(self.names(), ["chest.ctstyle"])

    def test_all_can_be_removed(self) -> None:
        """Models, pictures, weights, and trainings with their cases; not what isn't ours."""
        self.store("chest", "abdomen")
        for name in ("chest.png", "notes.txt", "weights/vgg.pth", "training/lung/cases/ct.nrrd"):
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_bytes(bytes(1_000_000))
        asked = {"model": str(self.folder / "lung.ctstyle"), "started": "2026-01-01", "options": {}}
        (self.folder / "training" / "lung" / "training.json").write_text(json.dumps(asked), encoding="utf-8")
        self.panel.refresh()
        self.assertRegex(self.ui.storageLabel.text, r"Models: 0.0 MB. Trainings: 1.0 MB. VGG weights: 1.0 MB.$")
        self.confirm.return_value = False
        self.ui.removeAllButton.click()
        self.assertEqual(len(self.names()), 6)
        self.confirm.return_value = True
        self.ui.removeAllButton.click()
        self.assertEqual(self.names(), ["notes.txt"])
        self.assertEqual(self.rows(), [])
        self.errors.assert_not_called()

    def test_folder_that_is_a_file(self) -> None:
        (self.elsewhere / "file").touch()
        models.setModelsFolder(self.elsewhere / "file")
        self.panel.shown()
        self.assertEqual(self.rows(), [])
        self.assertIn("can't be made", self.ui.storageLabel.text)
        self.assertIn("can't be made", self.ui.cardLabel.text)
        self.errors.assert_not_called()

    @unittest.skipUnless(CAN_TRAIN, CANT_TRAIN)
    def test_picture_by_the_real_child_process(self) -> None:
        models.importModel(tinyModel())
        before = set(sys.modules)
        self.panel.refresh()
        self.assertEqual(self.ui.pictureLabel.text, "No picture yet")
        self.ui.pictureButton.click()
        self.assertFalse(self.ui.pictureButton.enabled)
        self.waitForJob()
        self.errors.assert_not_called()
        self.assertEqual(self.names(), ["tiny.ctstyle", "tiny.png"])
        self.assertFalse(self.ui.pictureLabel.pixmap.isNull())
        self.assertNotIn("torch", set(sys.modules) - before)


class SetUpTest(ModelsPanelTestCase):
    def test_the_first_look_starts_a_check(self) -> None:
        """Two libraries work, the third one crashes the child: rows, title, and the buttons that help."""
        self.panel.setUpRows._libraries = setup.libraries([])
        lines = [f"print(json.dumps({event!r}), flush=True)" for event in READY[:2]]
        with childSaying(*lines, "os.abort()"):
            self.panel.shown()
        self.waitForJob()
        self.errors.assert_not_called()
        self.assertEqual(self.ui.torchLabel.text, "PyTorch 9.9")
        self.assertEqual((self.ui.torchStateLabel.text, self.ui.torchvisionStateLabel.text), ("✓", "✗"))
        self.assertIn("torchvision crashes Python", self.ui.torchvisionLabel.text)
        self.assertEqual(self.ui.setUpCollapsibleButton.text, "Set-up: torchvision needs attention")
        self.assertTrue(self.ui.torchvisionButton.enabled and self.ui.wheelsButton.enabled)
        self.assertFalse(self.ui.downloadWeightsButton.enabled)
        with mock.patch.object(self.panel.setUpRows, "check") as check:
            self.panel.shown()
        check.assert_not_called()

    def test_devices(self) -> None:
        gpus = [
            {"name": "cuda:0", "title": "NVIDIA H100", "memory_bytes": 85_017_493_504, "works": True},
            {"name": "cuda:1", "title": "NVIDIA Old", "memory_bytes": 4_000_000_000, "works": False},
        ]
        told = {"event": "devices", "devices": [{"name": "cpu", "title": "CPU, 8 threads"}, *gpus]}
        with childSaying(*(f"print(json.dumps({event!r}))" for event in [*READY, told, {"event": "done"}])):
            self.panel.setUpRows.check()
        self.waitForJob()
        self.assertEqual(
            self.ui.torchLabel.text,
            "PyTorch 9.9\nComputes on: CPU, 8 threads; NVIDIA H100, 85 GB; "
            "NVIDIA Old, 4 GB (this PyTorch can't use it)",
        )

    def test_report(self) -> None:
        """It tells what was found, and nobody's name."""
        self.panel.setUpRows._devices = "CPU, 8 threads"
        self.ui.logTextEdit.appendPlainText(f"No space in {self.folder} of {Path.home()}/x")
        self.ui.reportButton.click()
        report = qt.QApplication.clipboard().text()
        self.assertRegex(report, r"^CTStyleGen 0\.\d+\.\d+, Slicer .*\nPython 3\.\d+\.\d+, ")
        self.assertIn("torchvision: ready. torchvision 9.9\n", report)
        self.assertIn("devices: CPU, 8 threads\n", report)
        self.assertIn("No space in MODELS of HOME/x\n", report)
        self.assertNotIn(str(self.folder), report)

    def test_complete(self) -> None:
        self.panel.shown()
        self.assertEqual(self.ui.setUpCollapsibleButton.text, "Set-up: complete")
        self.assertFalse(self.ui.wheelsButton.enabled)
        self.assertTrue(self.ui.torchButton.isHidden() and self.ui.safetensorsButton.isHidden())

    def test_an_installation_shows_progress_and_output_then_checks(self) -> None:
        self.panel.setUpRows._libraries = setup.libraries([])
        self.panel.refresh()
        with childSaying(
            "print(json.dumps({'event': 'notice', 'message': 'asked: ' + ' '.join(sys.argv[1:])}), flush=True)",
            "print(json.dumps({'event': 'progress', 'done': 5000000, 'total': 9000000}), flush=True)",
            "time.sleep(0.5 if 'install' in sys.argv else 0)",
            "print(json.dumps({'event': 'done'}), flush=True)",
        ):
            self.panel.setUpRows.onInstallSafetensors()
            passTimeUntil(lambda: self.ui.progressBar.format == "5 of 9 MB")
            self.assertFalse(self.ui.progressBar.isHidden() or self.ui.cancelButton.isHidden())
            self.assertIn("asked: install safetensors --json", self.ui.logTextEdit.plainText)
            self.waitForJob()  # of the installation
            passTimeUntil(lambda: not self.panel.isBusy)  # and of the check
        self.assertTrue(self.ui.progressBar.isHidden() and self.ui.cancelButton.isHidden())
        self.assertIn("torchvision has not been checked", self.ui.torchvisionLabel.text)
        self.errors.assert_not_called()

    def test_torch_needs_its_extension_and_consent(self) -> None:
        with mock.patch.object(slicer.util, "infoDisplay") as info, mock.patch.object(self.panel._child, "run") as run:
            with mock.patch.object(setup, "hasTorchExtension", return_value=False):
                self.panel.setUpRows.onInstallTorch()
            self.assertIn("PyTorch extension", info.call_args.args[0])
            with mock.patch.object(setup, "hasTorchExtension", return_value=True):
                self.confirm.return_value = False
                self.panel.setUpRows.onInstallTorch()
                run.assert_not_called()
                self.confirm.return_value = True
                self.panel.setUpRows.onInstallTorch()
                run.assert_called_once()

    def test_a_failure_is_shown_and_the_output_stays(self) -> None:
        with childSaying(
            "print(json.dumps({'event': 'notice', 'message': 'no network'}))",
            "print(json.dumps({'event': 'error', 'message': 'It failed: go online.'})); sys.exit(2)",
        ):
            self.panel.setUpRows.onInstallSafetensors()
        self.waitForJob()
        self.errors.assert_called_once_with("It failed: go online.")
        self.assertEqual(self.ui.logTextEdit.plainText, "no network")
        self.assertFalse(self.ui.logTextEdit.isHidden())
        self.assertTrue(self.ui.checkButton.enabled)

    def test_cancel_is_quick_and_no_error(self) -> None:
        with childSaying("time.sleep(60)"):
            self.panel.setUpRows.onDownloadWeights()
        began = time.monotonic()
        self.ui.cancelButton.click()
        self.waitForJob()
        self.assertLess(time.monotonic() - began, 2)
        self.errors.assert_not_called()

    def test_no_process_outlives_the_panel(self) -> None:
        with childSaying("time.sleep(60)"):
            self.panel.setUpRows.check()
        job = self.panel._child._job
        self.panel.cleanup()
        self.assertFalse(job.isAlive)

    def test_python_that_is_not_there(self) -> None:
        with mock.patch.object(jobs, "coreCommand", lambda: [str(self.elsewhere / "PythonSlicer")]):
            self.ui.checkButton.click()
        self.assertIn("can't be started", self.errors.call_args.args[0])
        self.assertFalse(self.panel.isBusy)
        self.assertTrue(self.ui.checkButton.enabled)

    def test_weights_take_the_place_of_older_ones_and_can_be_removed(self) -> None:
        folder = models.weightsFolder()
        folder.mkdir()
        (folder / "old.pth").write_bytes(bytes(10))
        os.utime(folder / "old.pth", (1000, 1000))
        with (
            childSaying(
                f"open({str(folder / 'new.pth')!r}, 'wb').write(bytes(2000000))",
                "print(json.dumps({'event': 'done', 'outputs': []}))",
            ),
            answering(qt.QFileDialog, "getOpenFileName", "new.pth"),
        ):
            self.panel.setUpRows.onWeightsFile()
        self.waitForJob()
        self.assertEqual([path.name for path in folder.iterdir()], ["new.pth"])
        self.assertEqual(self.ui.weightsLabel.text, "VGG-19 weights: new.pth")
        self.assertIn("VGG weights: 2.0 MB", self.ui.storageLabel.text)
        self.ui.removeWeightsButton.click()
        self.assertIn("No VGG-19 weights", self.ui.weightsLabel.text)
        self.assertFalse(self.ui.removeWeightsButton.enabled)


class UnknownTest(unittest.TestCase):
    def test_marks(self) -> None:
        """Every state has its mark in the panel."""
        from CTStyleGenLib.setup_rows import _MARKS

        self.assertEqual(set(_MARKS), set(State))


if __name__ == "__main__":
    unittest.main()
