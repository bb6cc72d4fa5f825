"""The module in the application: opened, left, reloaded, in scenes that come and go; and all its words translated."""

import ast
import gc
import itertools
import os
import subprocess
import sys
import tempfile
import unittest
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import CTStyleGenTesting
import qt
import slicer
import vtk
from CTStyleGenTesting import scenes
from CTStyleGenLib import models, setup
from CTStyleGenLib.parameters import CTStyleGenParameterNode
from CTStyleGenTesting.chest import CAN_TRAIN, CANT_TRAIN
from CTStyleGenTesting.panels import ModuleTestCase, closeModule, openModule, passTime

import CTStyleGen

MODULE_FOLDER = Path(__file__).resolve().parents[2]


class ModuleTest(ModuleTestCase):
    def test_tabs(self) -> None:
        tabs = self.module.ui.panelTabs
        titles = [tabs.tabText(index) for index in range(tabs.count)]
        self.assertEqual(titles, [panel.title for panel in self.module.panels])
        self.assertEqual(titles[0], "Generate")
        for index in range(tabs.count):
            tabs.setCurrentIndex(index)
            passTime()

    @unittest.skipIf(CTStyleGenTesting.IN_APPLICATION, "where widgets lie in a window is the application's")
    def test_tab_key_goes_from_top_to_bottom(self) -> None:
        place = self.module.parent
        place.resize(420, 1600)
        place.show()
        self.addCleanup(place.hide)
        for index, panel in enumerate(self.module.panels):
            self.module.ui.panelTabs.setCurrentIndex(index)
            for name, widget in vars(panel.ui).items():
                if name.endswith(("Section", "CollapsibleButton")):
                    widget.collapsed = False
            passTime(0.1)
            stops = focusChain(panel.widget)
            self.assertGreater(len(stops), 8)
            for (name, (x, y)), (nextName, (nextX, nextY)) in itertools.pairwise(stops):
                isSameRow = abs(nextY - y) < 12
                self.assertTrue(nextX >= x if isSameRow else nextY > y, f"{panel.title}: {name}, then {nextName}")

    def test_left_and_opened_again(self) -> None:
        closeModule()
        self.assertEqual([panel.parameters for panel in self.module.panels], [None] * len(self.module.panels))
        openModule()
        self.assertTrue(all(panel.parameters for panel in self.module.panels))

    def test_opens_without_its_models_folder(self) -> None:
        """As with a disk that is not there: where else could another folder be chosen?"""
        closeModule()
        (self.elsewhere / "file").touch()
        models.setModelsFolder(self.elsewhere / "file" / "models")
        with mock.patch.object(slicer.util, "errorDisplay") as errors:
            generate, train, modelsPanel = panels = [type(panel)(self.module.logic) for panel in self.module.panels]
            for panel in panels:
                self.addCleanup(panel.cleanup)
                self.addCleanup(panel.setParameterNode, None)
                panel.setParameterNode(self.module.logic.getParameterNode())
                panel.shown()
            generate.check()
            train.check()
        self.assertIn("There is no segmentation", generate.ui.preflightLabel.text)
        self.assertRegex(train.ui.preflightLabel.text, "There are no cases")
        self.assertRegex(train.ui.statusLabel.text, "^The models folder .* can't be made .*choose another one")
        self.assertRegex(modelsPanel.ui.storageLabel.text, "^The models folder .* can't be made")
        errors.assert_not_called()
        models.setModelsFolder(self.folder)
        train.shown()
        self.assertFalse(train.ui.statusLabel.isVisibleTo(train.widget))
        self.assertEqual(train.parameters.trainName, "model-1")

    def test_a_scene_of_another_version(self) -> None:
        """Values that are possible no more don't keep the module from being opened."""
        for name, value in (("trainPreset", "gone"), ("slices", "SOME"), ("seed", "many"), ("samples", "0")):
            with self.subTest(name):
                closeModule()
                node = self.module.logic.getParameterNode().parameterNode
                node.SetParameter(name, value)
                node.SetParameter("organStyles", "[1")
                node.SetParameter("trainFolderStyles", "{}")
                openModule()
                for panel in self.module.panels[:2]:
                    panel.check()
                new = CTStyleGenParameterNode(slicer.vtkMRMLScriptedModuleNode())
                self.assertEqual(getattr(self.module.panels[0].parameters, name), getattr(new, name))

    def test_a_path_that_is_not_chosen_is_shown_as_nothing(self) -> None:
        train = self.module.panels[1]
        self.assertEqual(train.ui.folderPathLineEdit.currentPath, "")
        train.parameters.trainFolder = self.folder
        self.assertEqual(train.ui.folderPathLineEdit.currentPath, str(self.folder))
        train.parameters.trainFolder = Path()
        self.assertEqual(train.ui.folderPathLineEdit.currentPath, "")

    def test_paths_are_what_their_fields_say(self) -> None:
        """Of whatever kind the file is, and also where a field has been emptied."""
        train, export = self.module.panels[1], self.module.panels[0]._sections[1]
        for panel, field, name in (
            (train, train.ui.folderPathLineEdit, "trainFolder"),
            (train, train.ui.weightsPathLineEdit, "trainWeights"),
            (train, train.ui.organsPathLineEdit, "trainOrgansFile"),
            (export, export.ui.casesPathLineEdit, "exportCasesFolder"),
            (export, export.ui.folderPathLineEdit, "exportFolder"),
        ):
            with self.subTest(name):
                self.assertEqual(field.currentPath, "")
                for path in (self.folder / "vgg19.pth", self.folder / "vgg16.safetensors", self.folder / "a"):
                    field.currentPath = str(path)
                    self.assertEqual(panel.parameters.getValue(name), path)
                field.currentPath = ""
                self.assertEqual(panel.parameters.getValue(name), Path())
                self.assertEqual(field.currentPath, "")

    def test_nothing_stays_in_memory(self) -> None:
        """Neither a segmentation that was chosen once, with all its voxels, nor the parameters of each visit."""
        node = scenes.addSegmentation({}, scenes.grid())
        self.module.panels[0].parameters.segmentation = node
        passTime(0.5)
        gone: list[str] = []
        node.GetSegmentation().AddObserver(vtk.vtkCommand.DeleteEvent, lambda caller, event: gone.append(event))
        parameters = weakref.ref(self.module.panels[0].parameters)
        closeModule()
        slicer.mrmlScene.RemoveNode(node)
        del node
        openModule()
        passTime(0.5)
        gc.collect()
        self.assertEqual(gone, ["DeleteEvent"])
        self.assertIsNone(parameters())

    def test_parameters_are_the_scenes(self) -> None:
        parameters = self.module.panels[0].parameters
        parameters.seed = 12
        slicer.mrmlScene.Clear(True)
        self.assertEqual(self.module.panels[0].parameters.seed, 0)
        self.assertEqual(self.module.panels[0].ui.seedSpinBox.value, 0)
        closeModule()
        slicer.mrmlScene.Clear(True)
        self.assertIsNone(self.module.panels[0].parameters)
        passTime(0.5)

    @unittest.skipIf(CTStyleGenTesting.IN_APPLICATION, "there, Reload and Test does it")
    def test_reload(self) -> None:
        """In a process of its own, because reloading leaves other tests with the libraries of before."""
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
        done = subprocess.run(
            [sys.executable, "-c", RELOAD], env=environment, capture_output=True, text=True, check=False
        )
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_torch_is_not_in_this_process(self) -> None:
        if CTStyleGenTesting.IN_APPLICATION:  # elsewhere test_logic looks, in a process of its own
            self.assertNotIn("torch", sys.modules)


def focusChain(panel: Any) -> list[tuple[str, tuple[int, int]]]:
    """The widgets that the Tab key goes through in a panel, from its top, by name, and where they lie."""
    found, widget = [], panel.nextInFocusChain()
    while widget != panel:
        stops = widget.focusPolicy & qt.Qt.TabFocus
        if panel.isAncestorOf(widget) and widget.isVisibleTo(panel) and stops:
            named = widget
            while not named.objectName or named.objectName.startswith("qt_"):  # a part of it
                named = named.parent()
            at = named.mapTo(panel, qt.QPoint(0, 0))
            found.append((named.objectName, (at.x(), at.y())))
        widget = widget.nextInFocusChain()
    return found


RELOAD = """
import gc, subprocess, sys, weakref
from unittest import mock
import CTStyleGenTesting, qt, slicer
from CTStyleGenTesting import panels, pythonqt, scenes
from CTStyleGenLib import jobs
from CTStyleGenLib.job_queue import jobQueue
from test_job_queue import ScriptJob, ENDLESS
import pathlib, tempfile

folder = tempfile.TemporaryDirectory()
before, library = panels.openModule(), sys.modules["CTStyleGenLib.panel"]
for index in (1, 2, 0):  # the children that look for devices and libraries begin
    before.ui.panelTabs.setCurrentIndex(index)
segmentation = scenes.addSegmentation({}, scenes.grid())
before.panels[0].parameters.seed = 12
before.panels[0].parameters.segmentation = segmentation
job = ScriptJob(pathlib.Path(folder.name), ENDLESS)
jobQueue().add(job)
panels.passTimeUntil(lambda: job.events)
place = slicer.modules.ctstylegen.widgetRepresentation()
widgets = len(place.findChildren(qt.QWidget))

with mock.patch.object(jobs, "killTree", side_effect=jobs.killTree) as kill:
    before.onReload()
assert kill.call_count == 3 and job.hasEnded, kill.call_count
panels.passTime(0.5)
after = panels.openModule()
assert after is not before and sys.modules["CTStyleGenLib.panel"] is not library
assert after.panels[0].parameters.seed == after.panels[0].ui.seedSpinBox.value == 12
assert after.panels[0].ui.segmentationSelector.currentNode() is segmentation
assert [panel.parameters for panel in before.panels] == [None] * len(before.panels)
assert len(place.findChildren(qt.QWidget)) == widgets, "widgets of before are left"
slicer.mrmlScene.Clear(False)

gone = [weakref.ref(one) for one in (before, *before.panels, *before.panels[0]._sections)]
del before
gc.collect()
assert [reference() for reference in gone] == [None] * len(gone), "something still listens for the panels of before"
assert not pythonqt.slotErrors, pythonqt.slotErrors
"""


class SelfTestTest(unittest.TestCase):
    """The self-test finds what is wrong, and leaves nothing."""

    @unittest.skipIf(CTStyleGenTesting.IN_APPLICATION, "there, it has a test entry of its own")
    @unittest.skipUnless(CAN_TRAIN, CANT_TRAIN)
    def test_it_passes_and_keeps_the_models_folder(self) -> None:
        before = slicer.app.userSettings().value(models.SETTING)
        with tempfile.TemporaryDirectory() as temporary, mock.patch.object(tempfile, "tempdir", temporary):
            CTStyleGen.CTStyleGenTest().test_from_files_to_a_ct()
            self.assertEqual(list(Path(temporary).iterdir()), [])
        self.assertEqual(slicer.app.userSettings().value(models.SETTING), before)
        self.assertEqual(
            slicer.util.getNode("Chest synthetic CT").GetAttribute("CTStyleGen.Model"), "self-test.ctstyle"
        )

    def test_it_says_what_is_not_installed(self) -> None:
        missing = setup.Library("torch", "PyTorch", setup.State.MISSING, "PyTorch is not installed.")
        with (
            mock.patch.object(setup, "check", return_value=[missing]),
            self.assertRaisesRegex(AssertionError, "PyTorch is not installed. See Set-up in the tab Models."),
        ):
            CTStyleGen.CTStyleGenTest().test_from_files_to_a_ct()


class TranslationTest(unittest.TestCase):
    """Every sentence that can be seen goes through a translation, as one literal text."""

    TRANSLATIONS = ("_", "translate")
    # What is shown to programmers alone, or is no language.
    SHOWN = ("text", "toolTip", "title", "format", "placeholderText")  # properties
    SHOWING = (  # methods
        *(
            "setText",
            "setItemText",
            "setToolTip",
            "addItem",
            "addItems",
            "setHorizontalHeaderLabels",
            "appendPlainText",
        ),
        *("SetName", "SetTitle", "SetXAxisTitle", "SetYAxisTitle", "CreateFolderItem"),
        *("infoDisplay", "errorDisplay", "confirmOkCancelDisplay", "showStatusMessage", "tryWithErrorDisplay"),
    )
    EXEMPT_CALLS = ("ValueError", "TypeError", "NotImplementedError", "AssertionError", "assertTrue")

    def test_sentences(self) -> None:
        files = [MODULE_FOLDER / "CTStyleGen.py", *(MODULE_FOLDER / "CTStyleGenLib").glob("*.py")]
        for path in files:
            with self.subTest(path.name):
                self.assertEqual(list(self.untranslated(ast.parse(path.read_text(encoding="utf-8")))), [])

    def test_words_in_widgets_and_names(self) -> None:
        """Also a single word: whatever is put into a widget, a dialog or a node's name."""
        for path in (MODULE_FOLDER / "CTStyleGenLib").glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                shown: list[ast.expr] = []
                if isinstance(node, ast.Assign):
                    shown = [node.value for target in node.targets if getattr(target, "attr", "") in self.SHOWN]
                elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in self.SHOWING:
                    shown = node.args
                if shown:
                    with self.subTest(f"{path.name}, line {getattr(node, 'lineno', 0)}"):
                        self.assertEqual([word for one in shown for word in self.literals(one)], [])

    def literals(self, node: ast.AST) -> Iterator[str]:
        """The texts with letters in an expression, but for what a function, such as the translation, is given."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and any(map(str.isalpha, node.value)):
            yield node.value
        if isinstance(node, ast.Call):
            isFormat = isinstance(node.func, ast.Attribute) and node.func.attr == "format"
            yield from self.literals(node.func.value) if isFormat else ()
        elif not isinstance(node, ast.Subscript):
            for child in ast.iter_child_nodes(node):
                yield from self.literals(child)

    def test_translations_are_of_literal_texts(self) -> None:
        for path in (MODULE_FOLDER / "CTStyleGenLib").glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "_":
                    with self.subTest(f"{path.name}, line {node.lineno}"):
                        self.assertIsInstance(node.args[0], ast.Constant)

    def untranslated(self, node: ast.AST, inside: str = "") -> Iterator[str]:
        """The texts that read like a sentence, a word with a capital followed by others, outside a translation."""
        if isinstance(node, ast.Call):
            inside = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if inside in (*self.TRANSLATIONS, *self.EXEMPT_CALLS):
                return
        for child in ast.iter_child_nodes(node):
            isDocstring = isinstance(node, ast.Expr) and isinstance(child, ast.Constant)
            if isinstance(child, ast.Constant) and isinstance(child.value, str) and not isDocstring:
                words = child.value.split(" ")
                if len(words) > 2 and words[0][:1].isupper():
                    yield child.value
            yield from self.untranslated(child, inside)


if __name__ == "__main__":
    unittest.main()
