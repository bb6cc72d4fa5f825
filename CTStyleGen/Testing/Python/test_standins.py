"""What the panels run on where there is no application refuses what the application doesn't have."""

import enum
import gc
import os
import subprocess
import sys
import tempfile
import typing
import unittest
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Annotated

import CTStyleGenTesting  # prepares slicer
import ctk
import qt
import slicer
from slicer.parameterNodeWrapper import Choice, Minimum, WithinRange, parameterNodeWrapper

if not CTStyleGenTesting.IN_APPLICATION:
    from CTStyleGenTesting import pythonqt, uifiles


class Color(enum.Enum):
    RED = 1
    BLUE = 2


def form(widgets: str, connections: str = "") -> ElementTree.Element:
    """A form with these widgets in it."""
    return ElementTree.fromstring(
        f'<ui><widget class="QWidget" name="Form">{widgets}</widget><connections>{connections}</connections></ui>'
    )


@unittest.skipIf(CTStyleGenTesting.IN_APPLICATION, "the application has the real ones")
class PythonQtTest(unittest.TestCase):
    def setUp(self) -> None:
        self.button = qt.QPushButton("Go")

    def test_properties_are_attributes(self) -> None:
        self.assertEqual(self.button.text, "Go")
        self.button.text = "Stop"
        self.assertEqual(self.button.text, "Stop")
        self.button.setText("Go")
        self.assertEqual((self.button.text, self.button.enabled), ("Go", True))
        self.button.name = "goButton"
        self.assertEqual(self.button.objectName, "goButton")

    def test_unknown_names_are_refused(self) -> None:
        for name in ("txet", "isEnabled"):
            with self.assertRaises(AttributeError):
                getattr(self.button, name)
        with self.assertRaises(AttributeError):
            self.button.txet = "Go"
        with self.assertRaises(TypeError):
            self.button.text = 3
        with self.assertRaises(TypeError):
            qt.QSpinBox().value = True
        for module, name in ((qt, "QNothing"), (ctk, "ctkNothing"), (qt, "Signal"), (qt.QWidget, "show")):
            with self.assertRaises(AttributeError):
                getattr(module, name)
        with self.assertRaises(ValueError):
            self.button.connect("clickd(bool)", print)
        with self.assertRaises(ValueError):
            slicer.qMRMLNodeComboBox().connect("currentNodeChanged(vtkMRMLScene*)", print)

    def test_timers_are_no_single_shots_by_a_property(self) -> None:
        timer = qt.QTimer()
        with self.assertRaises(AttributeError):
            timer.singleShot = True
        timer.setSingleShot(True)
        self.assertTrue(timer.isSingleShot())

    def test_slots_get_as_many_arguments_as_they_take(self) -> None:
        told: list[tuple] = []
        self.button.checkable = True
        self.button.connect("clicked(bool)", lambda: told.append(()))
        self.button.connect("clicked(bool)", lambda checked: told.append((checked,)))
        self.button.connect("clicked(bool)", lambda name="mine": told.append((name,)))
        self.button.connect("clicked(bool)", lambda *all: told.append(all))
        self.button.click()
        self.assertEqual(told, [(), (True,), (True,), (True,)])

    def test_disconnect(self) -> None:
        told: list[bool] = []
        self.button.connect("clicked(bool)", told.append)
        self.button.disconnect("clicked(bool)", told.append)
        self.button.click()
        self.assertEqual(told, [])

    def test_what_a_slot_raises_is_kept(self) -> None:
        self.button.connect("clicked()", lambda: 1 / 0)
        self.button.click()
        self.assertIsInstance(pythonqt.slotErrors.pop(), ZeroDivisionError)

    def test_objects_stay_the_same(self) -> None:
        layout = qt.QVBoxLayout()
        widget = qt.QWidget()
        widget.setLayout(layout)
        layout.addWidget(self.button)
        gc.collect()
        self.assertEqual(widget.layout(), layout)
        self.assertIsInstance(widget.children()[-1], qt.QAbstractButton)
        self.assertEqual([type(w) for w in widget.findChildren(qt.QPushButton)], [qt.QPushButton])


@unittest.skipIf(CTStyleGenTesting.IN_APPLICATION, "the application has the real ones")
class TemporaryFilesTest(unittest.TestCase):
    def test_nothing_is_left_of_them(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            script = "import CTStyleGenTesting, slicer; slicer.app.userSettings().setValue('a', 1)"
            environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "TMPDIR": folder, "TMP": folder}
            subprocess.run([sys.executable, "-c", script], env=environment, check=True)
            self.assertEqual(list(Path(folder).iterdir()), [])


@unittest.skipIf(CTStyleGenTesting.IN_APPLICATION, "the application has the real ones")
class FormTest(unittest.TestCase):
    def assertProblem(self, root: ElementTree.Element, words: str) -> None:
        self.assertRegex("; ".join(uifiles.problems(root)), words)

    def test_unknown_things_are_refused(self) -> None:
        self.assertProblem(form('<widget class="QNothing" name="x"/>'), "no class QNothing")
        self.assertProblem(form('<widget class="QLabel" name="x"><property name="txet"/></widget>'), "no property txet")
        self.assertProblem(form('<widget class="ctkSliderWidget" name="x"/>'), "missing among the custom widgets")
        self.assertProblem(form('<widget class="QLabel" name="x"/><widget class="QLabel" name="x"/>'), "given twice")
        for signal, slot in (("nothing()", "clear()"), ("windowTitleChanged(QString)", "nothing()")):
            self.assertProblem(self.connected(signal, slot), r"has no (signal|slot) nothing\(\)")
        self.assertEqual(uifiles.problems(self.connected("windowTitleChanged(QString)", "setText(QString)")), [])

    def connected(self, signal: str, slot: str) -> ElementTree.Element:
        ends = f"<sender>Form</sender><signal>{signal}</signal><receiver>x</receiver><slot>{slot}</slot>"
        return form('<widget class="QLabel" name="x"/>', f"<connection>{ends}</connection>")


@unittest.skipIf(CTStyleGenTesting.IN_APPLICATION, "the application has the real ones")
class ParameterNodeTest(unittest.TestCase):
    def declared(self, **hints: object) -> type:
        return parameterNodeWrapper(type("Declared", (), {"__annotations__": hints}))

    def test_kinds(self) -> None:
        made = self.declared(
            text=str,
            path=Path,
            color=Color,
            share=Annotated[float, WithinRange(0, 1)],
            count=Annotated[int, Minimum(0)],
            on=bool,
            node=slicer.vtkMRMLScalarVolumeNode,
            maybe=typing.Optional[slicer.vtkMRMLScalarVolumeNode],  # noqa: UP045 - as Slicer takes it
        )
        node = slicer.vtkMRMLScriptedModuleNode()
        values = made(node)
        self.assertEqual((values.text, values.path, values.color, values.node), ("", Path(), Color.RED, None))
        values.color, values.on, values.share, values.path = Color.BLUE, True, 0.25, Path("a b")
        again = made(node)
        self.assertEqual((again.color, again.on, again.share, again.path), (Color.BLUE, True, 0.25, Path("a b")))

    def test_refused(self) -> None:
        for hint in (list[int], dict, "int | None", Annotated[int, WithinRange(1, 5)], Annotated[str, Choice(["a"])]):
            with self.subTest(hint), self.assertRaises((TypeError, ValueError)):
                self.declared(value=hint)
        values = self.declared(count=Annotated[int, WithinRange(0, 5)])(slicer.vtkMRMLScriptedModuleNode())
        for wrong in (True, 6, "1", 1.0):
            with self.subTest(wrong), self.assertRaises((TypeError, ValueError)):
                values.count = wrong
        with self.assertRaises(AttributeError):
            values.cuont = 1

    def test_binding(self) -> None:
        made = self.declared(count=Annotated[int, WithinRange(0, 5)], color=Color, share=float)
        values = made(slicer.vtkMRMLScriptedModuleNode())
        spin, combo = qt.QSpinBox(), qt.QComboBox()
        spin.setRange(2, 99)
        tag = values.connectParametersToGui({"count": spin, "color": combo})
        self.assertEqual((spin.minimum, spin.maximum, spin.value, combo.count), (0, 5, 0, 2))
        spin.value = 4
        combo.currentIndex = 1
        self.assertEqual((values.count, values.color), (4, Color.BLUE))
        values.count = 3
        self.assertEqual(spin.value, 3)
        values.disconnectGui(tag)
        spin.value = 1
        values.color = Color.RED
        self.assertEqual((values.count, combo.currentIndex), (3, 1))
        for name, widget in (("count", qt.QLineEdit()), ("share", ctk.ctkSliderWidget()), ("nothing", spin)):
            with self.subTest(name), self.assertRaises((RuntimeError, ValueError)):
                values.connectParametersToGui({name: widget})


if __name__ == "__main__":
    unittest.main()
