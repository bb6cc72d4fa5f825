"""Where temporary folders are made during a test, so that one that stays is found."""

import tempfile
import unittest
from pathlib import Path
from unittest import mock


def temporaryPlace(test: unittest.TestCase) -> Path:
    """A folder that takes the place of the system's temporary one until the test's end."""
    folder = tempfile.TemporaryDirectory()
    test.addCleanup(folder.cleanup)
    patcher = mock.patch.object(tempfile, "tempdir", folder.name)
    patcher.start()
    test.addCleanup(patcher.stop)
    return Path(folder.name)
