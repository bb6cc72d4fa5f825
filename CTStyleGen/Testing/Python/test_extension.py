"""The extension as a whole: what it ships, what may import what, and that panel and parameters agree."""

import ast
import importlib
import re
import unittest
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import CTStyleGenTesting  # prepares slicer
from CTStyleGenLib.parameters import CTStyleGenParameterNode

MODULE_FOLDER = Path(__file__).resolve().parents[2]
UI_FOLDER = MODULE_FOLDER / "Resources" / "UI"
LIBRARIES = ("CTStyleGenCore", "CTStyleGenLib")
IN_SLICER = {"slicer", "qt", "ctk", "vtk", "vtkmodules"}
IN_CHILD = {"torch", "torchvision", "safetensors"}
# The Lib imports these.
WITHOUT_TORCH = (
    "__init__",
    "airways",
    "anatomy",
    "background",
    "cases",
    "environment",
    "errors",
    "estimates",
    "expansion",
    "files",
    "labelling",
    "model_file",
    "morphology",
    "organ_report",
    "presets",
    "styles",
    "volumes",
)


def importedNames(path: Path, functionsToo: bool) -> Iterator[str]:
    """The top-level packages that a file imports, with or without those imported inside functions."""
    pending: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield (node.module or "").partition(".")[0]
        isTypeCheckingOnly = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        isFunction = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if not isTypeCheckingOnly and (functionsToo or not isFunction):
            pending.extend(ast.iter_child_nodes(node))


class WallTest(unittest.TestCase):
    """The Slicer process never imports torch, and the Core runs without Slicer."""

    def test_slicer_side_never_imports_torch(self) -> None:
        files = [MODULE_FOLDER / "CTStyleGen.py", *(MODULE_FOLDER / "CTStyleGenLib").rglob("*.py")]
        self.assertGreater(len(files), 5)
        for path in files:
            with self.subTest(path.name):
                self.assertEqual(set(importedNames(path, functionsToo=True)) & IN_CHILD, set())

    def test_core_never_imports_slicer(self) -> None:
        files = list((MODULE_FOLDER / "CTStyleGenCore").rglob("*.py"))
        self.assertGreater(len(files), 10)
        for path in files:
            with self.subTest(path.name):
                forbidden = IN_SLICER | {"CTStyleGenLib", "CTStyleGen"}
                self.assertEqual(set(importedNames(path, functionsToo=True)) & forbidden, set())

    def test_what_slicer_imports_of_the_core_needs_no_torch(self) -> None:
        for name in WITHOUT_TORCH:
            with self.subTest(name):
                path = MODULE_FOLDER / "CTStyleGenCore" / f"{name}.py"
                self.assertEqual(set(importedNames(path, functionsToo=False)) & IN_CHILD, set())

    def test_slicer_side_imports_only_that_of_the_core(self) -> None:
        for path in (MODULE_FOLDER / "CTStyleGenLib").rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("CTStyleGenCore."):
                    with self.subTest(f"{path.name}: {node.module}"):
                        self.assertIn(node.module.removeprefix("CTStyleGenCore."), WITHOUT_TORCH)


class ShippedFilesTest(unittest.TestCase):
    """CMake ships what is listed, and nothing else: a file that isn't listed is missing in the installed extension."""

    def listed(self, folder: str, pattern: str) -> list[str]:
        text = (MODULE_FOLDER / folder / "CMakeLists.txt").read_text(encoding="utf-8")
        found = re.findall(pattern, text)
        return [name.replace("${MODULE_NAME}", "CTStyleGen") for block in found for name in block.split()]

    def test_scripts(self) -> None:
        files = [path for library in LIBRARIES for path in (MODULE_FOLDER / library).rglob("*.py")]
        expected = ["CTStyleGen.py", *(path.relative_to(MODULE_FOLDER).as_posix() for path in files)]
        self.assertEqual(sorted(self.listed("", r"set\(MODULE_PYTHON_SCRIPTS([^)]*)\)")), sorted(expected))

    def test_resources(self) -> None:
        files = [path for folder in ("Resources", *LIBRARIES) for path in (MODULE_FOLDER / folder).rglob("*.*")]
        isResource = [path.is_file() and path.suffix not in (".py", ".pyc") for path in files]
        expected = [
            path.relative_to(MODULE_FOLDER).as_posix() for path, is_ in zip(files, isResource, strict=True) if is_
        ]
        self.assertEqual(sorted(self.listed("", r"set\(MODULE_PYTHON_RESOURCES([^)]*)\)")), sorted(expected))

    def test_tests(self) -> None:
        expected = sorted(path.name for path in Path(__file__).parent.glob("test_*.py"))
        self.assertEqual(
            sorted(self.listed("Testing/Python", r"slicer_add_python_unittest\(SCRIPT ([^)]*)\)")), expected
        )

    def test_project_is_named_like_the_module(self) -> None:
        text = (MODULE_FOLDER.parent / "CMakeLists.txt").read_text(encoding="utf-8")
        self.assertIn("project(CTStyleGen)", text)
        self.assertIn("add_subdirectory(CTStyleGen)", text)


class ModuleFileTest(unittest.TestCase):
    def setUp(self) -> None:
        self.module = importlib.import_module("CTStyleGen")

    def test_metadata(self) -> None:
        parent = SimpleNamespace(path=str(MODULE_FOLDER / "CTStyleGen.py"))
        self.module.CTStyleGen(parent)
        self.assertEqual(parent.title, "CT Style Generation")
        self.assertEqual(parent.categories, ["Image Synthesis"])
        self.assertIn("For research use only, not for diagnosis", parent.helpText)
        self.assertIn("For research use only", parent.acknowledgementText)
        self.assertIn("Medical (CT) Image Generation with Style", parent.acknowledgementText)


class FormsTest(unittest.TestCase):
    """The .ui files fit the application's classes, the parameters, and the code."""

    def setUp(self) -> None:
        self.forms = {path: ElementTree.parse(path).getroot() for path in UI_FOLDER.glob("*.ui")}
        self.assertTrue(self.forms)

    @unittest.skipIf(CTStyleGenTesting.IN_APPLICATION, "the application has the classes themselves")
    def test_classes_properties_and_connections_exist(self) -> None:
        from CTStyleGenTesting import uifiles

        for path, form in self.forms.items():
            with self.subTest(path.name):
                self.assertEqual(uifiles.problems(form), [])

    def test_every_bound_widget_has_its_parameter(self) -> None:
        parameters = set(CTStyleGenParameterNode.allParameters)
        for path, form in self.forms.items():
            bound = [e.findtext("string") for e in form.iter("property") if e.get("name") == "SlicerParameterName"]
            with self.subTest(path.name):
                self.assertLessEqual(set(bound), parameters)
                self.assertEqual(len(bound), len(set(bound)))

    def test_every_widget_says_what_it_is_for(self) -> None:
        """With a tooltip; and a label in words belongs to a widget, whose name it is to screen readers."""
        own = (
            "QWidget",
            "qMRMLWidget",
            "QTabWidget",
            "QProgressBar",
            "ctkCollapsibleButton",
            "qMRMLSegmentEditorWidget",
        )
        for path, form in self.forms.items():
            names = {widget.get("name") for widget in form.iter("widget")}
            for widget in form.iter("widget"):
                told = {entry.get("name"): "".join(entry.itertext()).strip() for entry in widget.findall("property")}
                with self.subTest(f"{path.name}: {widget.get('name')}"):
                    if widget.get("class") == "QLabel":
                        isName = told.get("text", "").endswith(":")
                        self.assertTrue(told.get("buddy") in names if isName else "buddy" not in told)
                    elif widget.get("class") not in own:
                        self.assertGreater(len(told.get("toolTip", "")), 10)

    def test_numbers_say_their_unit(self) -> None:
        for path, form in self.forms.items():
            for widget in form.iter("widget"):
                if widget.get("class") in ("QDoubleSpinBox", "ctkSliderWidget", "ctkDoubleSpinBox", "ctkRangeWidget"):
                    told = {entry.get("name"): entry.findtext("string") for entry in widget.findall("property")}
                    with self.subTest(f"{path.name}: {widget.get('name')}"):
                        self.assertIn((told.get("suffix") or "").strip(), ("mm", "%", "HU", "s"))

    def test_every_node_selector_gets_the_scene(self) -> None:
        for path, form in self.forms.items():
            selectors = {w.get("name") for w in form.iter("widget") if w.get("class") == "qMRMLNodeComboBox"}
            root = form.find("widget").get("name")
            connected = {
                connection.findtext("receiver")
                for connection in form.iter("connection")
                if connection.findtext("sender") == root
                and connection.findtext("slot") == "setMRMLScene(vtkMRMLScene*)"
            }
            with self.subTest(path.name):
                self.assertLessEqual(selectors, connected)

    def test_every_widget_in_code_is_in_its_form(self) -> None:
        library = MODULE_FOLDER / "CTStyleGenLib"
        parts = {  # given a panel's widgets
            "comparison.py": "GeneratePanel.ui",
            "setup_rows.py": "ModelsPanel.ui",
            "training_list.py": "TrainPanel.ui",
        }
        for code in (*library.glob("*_panel.py"), *library.glob("*_section.py"), *map(library.joinpath, parts)):
            text = code.read_text(encoding="utf-8")
            form = self.forms[UI_FOLDER / (parts.get(code.name) or re.search(r'"(\w+\.ui)"', text)[1])]
            with self.subTest(code.name):
                used = set(re.findall(r"\b_?ui\.(\w+)", text))
                self.assertLessEqual(used, {e.get("name") for e in form.iter()})
                self.assertTrue(used)


if __name__ == "__main__":
    unittest.main()
