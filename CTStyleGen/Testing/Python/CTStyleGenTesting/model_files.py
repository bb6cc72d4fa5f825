"""A models folder of the test's own, and .ctstyle files made without torch."""

import json
import struct
import tempfile
import unittest
from pathlib import Path
from typing import Any

import slicer
from CTStyleGenCore.anatomy import load_anatomy
from CTStyleGenLib import models


def writeModel(path: Path, weight: float = 1.0, **changes: Any) -> Path:
    """A well-formed model file with a card and one weight, for what only looks at the card."""
    card = {
        "format": "ctstyle",
        "format_version": 1,
        "preset": {"name": "paper"},
        "anatomy": load_anatomy("thorax").to_json(),
        "styles": ["A"],
        "cases": ["B", "C"],
        "size": 64,
        "steps": 20,
        "hu_range": [-1000.0, 1000.0],
        "features": {"kind": "vgg19", "sha256": "dcbb9e9d" * 8},
        "losses": {},
        "versions": {"ctstylegen": "0.1.0"},
    } | changes
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    header = json.dumps({"__metadata__": {"card": json.dumps(card)}, "weight": entry}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + struct.pack("<f", weight))
    return path


class ModelsFolderTestCase(unittest.TestCase):
    """Tests with a models folder of their own; the user's stays as it is."""

    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory(prefix="CTStyleGen models ü ")
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name) / "models"
        self.elsewhere = Path(temporary.name) / "elsewhere"
        self.elsewhere.mkdir()
        settings = slicer.app.userSettings()
        self.addCleanup(models.setModelsFolder, settings.value(models.SETTING) or "")
        models.setModelsFolder(self.folder)
        models.modelsFolder()

    def names(self) -> list[str]:
        """What is in the folder."""
        return sorted(path.name for path in self.folder.iterdir())
