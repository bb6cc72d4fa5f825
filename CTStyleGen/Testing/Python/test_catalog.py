"""What others read of the extension before they have it: its entry for the Extensions Index, and its sample data."""

import json
import re
import struct
import sys
import types
import unittest
from importlib import util
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import CTStyleGenTesting
import slicer
from CTStyleGenCore.anatomy import load_anatomy
from CTStyleGenCore.files import sha256
from CTStyleGenLib import sample_data

from CTStyleGen import CTStyleGen

MODULE_FOLDER = Path(__file__).resolve().parents[2]
ROOT = MODULE_FOLDER.parent
# The fields of Slicer's schema for catalog entries, version 1.0.2, which allows no others.
FIELDS = {
    "$schema": str,
    "build_dependencies": list,
    "build_subdirectory": str,
    "category": str,
    "dicom_support_rule": str,
    "enabled": bool,
    "scm_revision": str,
    "scm_type": str,
    "scm_url": str,
    "tier": int,
}
REQUIRED = {"$schema", "category", "scm_url"}


@unittest.skipUnless((ROOT / "CTStyleGen.json").is_file(), "the entry comes with the source code")
class CatalogEntryTest(unittest.TestCase):
    def setUp(self) -> None:
        self.bytes = (ROOT / "CTStyleGen.json").read_bytes()
        self.entry = json.loads(self.bytes)
        text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
        self.cmake = dict(re.findall(r'set\(EXTENSION_(\w+) "([^"]*)"\)', text))
        self.project = re.search(r"project\((\w+)\)", text)[1]

    def test_fields_are_those_of_the_schema(self) -> None:
        self.assertLessEqual(REQUIRED, set(self.entry))
        for name, value in self.entry.items():
            self.assertIs(type(value), FIELDS[name], name)
        self.assertTrue(self.entry["$schema"].endswith("/slicer-extension-catalog-entry-schema-v1.0.2.json#"))
        self.assertIn(self.entry["tier"], range(1, 6))

    def test_is_written_as_the_index_wants_it(self) -> None:
        self.assertNotIn(b"\r", self.bytes)
        self.assertTrue(self.bytes.endswith(b"}\n"))
        self.assertEqual(list(self.entry), sorted(self.entry))

    def test_agrees_with_cmake(self) -> None:
        self.assertEqual(self.project, "CTStyleGen")
        self.assertEqual(self.cmake["DEPENDS"].split(), self.entry["build_dependencies"])
        self.assertEqual(self.cmake["CATEGORY"], self.entry["category"])
        self.assertEqual(self.cmake["HOMEPAGE"], self.entry["scm_url"])
        self.assertTrue(self.entry["scm_url"].rpartition("/")[2].startswith("Slicer"))

    def test_pictures_are_in_the_repository(self) -> None:
        raw = "https://raw.githubusercontent.com/" + self.entry["scm_url"].partition("github.com/")[2]
        raw += f"/{self.entry['scm_revision']}/"
        urls = [self.cmake["ICONURL"], *self.cmake["SCREENSHOTURLS"].split()]
        self.assertGreater(len(urls), 1)
        for url in urls:
            self.assertTrue(url.startswith(raw), url)
            self.assertTrue((ROOT / url.removeprefix(raw)).read_bytes().startswith(b"\x89PNG"))
        self.assertGreaterEqual(min(pngSize(ROOT / "CTStyleGen.png")), 128)

    def test_what_the_index_looks_for(self) -> None:
        self.assertTrue((ROOT / "LICENSE").is_file())
        self.assertGreater(len(self.cmake["DESCRIPTION"]), 40)
        self.assertNotIn("&", self.cmake["ICONURL"] + self.cmake["SCREENSHOTURLS"])


class SampleDataTest(unittest.TestCase):
    def register(self) -> dict[str, Any]:
        """What is registered, as the Sample Data module of Slicer 5.12 would be told it."""
        told: dict[str, Any] = {}

        class SampleDataLogic:
            @staticmethod
            def registerCustomSampleDataCategory(category: str, title: str) -> None:
                told["title"] = title

            @staticmethod
            def registerCustomSampleDataSource(
                *,
                category: str,
                sampleName: str,
                uris: list[str],
                fileNames: list[str],
                nodeNames: list[str],
                thumbnailFileName: str,
                loadFileTypes: list[str],
                checksums: list[str],
            ) -> None:
                told.update(locals())

        module = types.ModuleType("SampleData")
        module.SampleDataLogic = SampleDataLogic  # type: ignore[attr-defined]
        with (
            mock.patch.dict(sys.modules, SampleData=module),
            mock.patch.object(slicer, "modules", SimpleNamespace(sampledata=True)),
        ):
            sample_data.registerSampleData()
        return told

    def test_every_file_has_its_checksum(self) -> None:
        told = self.register()
        self.assertEqual(
            {len(told[key]) for key in ("uris", "fileNames", "nodeNames", "loadFileTypes", "checksums")}, {2}
        )
        for uri, checksum in zip(told["uris"], told["checksums"], strict=True):
            self.assertRegex(uri, "^https://raw.githubusercontent.com/[^/]+/[^/]+/[0-9a-f]{40}/")  # never another file
            self.assertRegex(checksum, "^SHA256:[0-9a-f]{64}$")

    def test_thumbnail(self) -> None:
        self.assertEqual(pngSize(Path(self.register()["thumbnailFileName"])), (260, 280))

    @unittest.skipUnless(util.find_spec("slicerio"), "slicerio, which has the same files, is not installed")
    def test_files_are_a_chest_that_the_organ_table_knows(self) -> None:
        import slicerio

        told = self.register()
        paths = [Path(slicerio.get_testdata_file(uri.rpartition("/")[2])) for uri in told["uris"]]
        self.assertEqual([f"SHA256:{sha256(path)}" for path in paths], told["checksums"])
        segments = slicerio.read_segmentation(str(paths[1]))["segments"]
        anatomy = load_anatomy("thorax")
        organs = {organ.name for segment in segments if (organ := anatomy.place(segment["name"]))}
        self.assertLessEqual({"body", "lungs", "bone"}, organs)

    def test_is_registered_when_slicer_has_started(self) -> None:
        if CTStyleGenTesting.IN_APPLICATION:
            self.assertIn("CTStyleGen", slicer.modules.sampleDataSources)
            return
        with mock.patch.object(type(slicer.app), "connect") as connect:
            CTStyleGen(SimpleNamespace(path=str(MODULE_FOLDER / "CTStyleGen.py")))
        connect.assert_called_once_with("startupCompleted()", sample_data.registerSampleData)

    def test_without_the_sample_data_module(self) -> None:
        with mock.patch.object(slicer, "modules", SimpleNamespace()):
            sample_data.registerSampleData()


def pngSize(path: Path) -> tuple[int, int]:
    """Width and height from a PNG's header."""
    return struct.unpack(">II", path.read_bytes()[16:24])


if __name__ == "__main__":
    unittest.main()
