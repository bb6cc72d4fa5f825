"""The extension as a whole: what it ships, what may import what, and that panel and parameters agree."""

import ast
import importlib
import re
import unittest
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import CTStyleGenTesting  # noqa: F401 - prepares slicer

MODULE_FOLDER = Path(__file__).resolve().parents[2]
LIBRARIES = ("CTStyleGenCore", "CTStyleGenLib")
IN_SLICER = {"slicer", "qt", "ctk", "vtk", "vtkmodules"}
IN_CHILD = {"torch", "torchvision", "safetensors"}
WITHOUT_TORCH = ("__init__", "errors", "anatomy", "cases", "files", "model_file", "volumes")  # the Lib imports these


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
        self.ui = ElementTree.parse(MODULE_FOLDER / "Resources" / "UI" / "CTStyleGen.ui").getroot()

    def test_metadata(self) -> None:
        parent = SimpleNamespace(path=str(MODULE_FOLDER / "CTStyleGen.py"))
        self.module.CTStyleGen(parent)
        self.assertEqual(parent.title, "CT Style Generation")
        self.assertEqual(parent.categories, ["Image Synthesis"])
        self.assertIn("research use only", parent.helpText)
        self.assertIn("Medical (CT) Image Generation with Style", parent.acknowledgementText)

    def test_every_parameter_has_its_widget(self) -> None:
        bound = [
            entry.findtext("string") for entry in self.ui.iter("property") if entry.get("name") == "SlicerParameterName"
        ]
        self.assertEqual(sorted(bound), sorted(self.module.CTStyleGenParameterNode.__annotations__))

    def test_every_node_selector_gets_the_scene(self) -> None:
        selectors = {w.get("name") for w in self.ui.iter("widget") if w.get("class") == "qMRMLNodeComboBox"}
        root = self.ui.find("widget").get("name")
        connected = {
            connection.findtext("receiver")
            for connection in self.ui.iter("connection")
            if connection.findtext("sender") == root and connection.findtext("slot") == "setMRMLScene(vtkMRMLScene*)"
        }
        self.assertEqual(connected, selectors)

    def test_every_widget_in_code_is_in_the_panel(self) -> None:
        code = (MODULE_FOLDER / "CTStyleGen.py").read_text(encoding="utf-8")
        used = set(re.findall(r"self\.ui\.(\w+)", code))
        self.assertLessEqual(used, {widget.get("name") for widget in self.ui.iter("widget")})
        self.assertTrue(used)

    def test_custom_widget_classes_are_declared(self) -> None:
        declared = {entry.findtext("class") for entry in self.ui.iter("customwidget")}
        used = {widget.get("class") for widget in self.ui.iter("widget")}
        self.assertEqual({name for name in used if not name.startswith("Q")}, declared)


if __name__ == "__main__":
    unittest.main()
