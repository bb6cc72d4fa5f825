"""A segment of the body from the CT: the real child process, and a segment in its place beneath the others."""

import unittest

import CTStyleGenTesting  # noqa: F401 - prepares slicer
import numpy as np
import slicer
from CTStyleGenTesting import scenes
from CTStyleGenCore.anatomy import load_anatomy
from CTStyleGenCore.errors import InputError
from CTStyleGenLib.conditioning import conditioningFromSegmentation, lacksBody
from CTStyleGenLib.job_queue import State, jobQueue
from CTStyleGenLib.jobs import JobError
from CTStyleGenTesting.temporary import temporaryPlace

from CTStyleGen import CTStyleGenLogic

SHAPE = (4, 70, 80)
THORAX = load_anatomy("thorax")


def chest() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """HU of a body on a table, the body, and a lung in it."""
    _k, j, i = np.indices(SHAPE)
    y, x = j / SHAPE[1] - 0.5, i / SHAPE[2] - 0.5
    body, lung = x**2 / 0.14 + y**2 / 0.09 < 1, (x + 0.15) ** 2 / 0.012 + y**2 / 0.04 < 1
    hu = np.select([lung, body, abs(y - 0.42) < 0.015], [-850, 40, 300], -1000)
    return hu.astype(np.int16), body, lung


class BodySegmentTest(unittest.TestCase):
    def setUp(self) -> None:
        slicer.mrmlScene.Clear(False)
        self.logic = CTStyleGenLogic()
        hu, self.body, self.lung = chest()
        self.grid = scenes.grid((3.1, 3.4, -6.5), (-120.5, 33.3, 40.1), 12)  # left-handed, oblique, anisotropic
        self.volume = scenes.addVolume(hu, self.grid)
        self.segmentation = scenes.addSegmentation({"lung": self.lung}, self.grid)
        self.segmentation.CreateDefaultDisplayNodes()
        self.temporary = temporaryPlace(self)

    def labels(self) -> np.ndarray:
        found = conditioningFromSegmentation(self.segmentation, self.volume, THORAX)
        self.assertFalse(lacksBody(found.labels, self.volume, THORAX))
        return found.labels

    def assertBodyIsThere(self) -> None:
        labels = self.labels()
        np.testing.assert_array_equal(labels == THORAX.organ("lungs").label, self.lung)
        self.assertLess(np.count_nonzero((labels > 0) != self.body), 0.02 * np.count_nonzero(self.body))
        self.assertEqual(list(self.temporary.iterdir()), [])

    def test_it_is_the_first_segment_faint_and_in_its_place(self) -> None:
        segmentId = self.logic.addBody(self.segmentation, self.volume)
        segmentation = self.segmentation.GetSegmentation()
        self.assertEqual(segmentation.GetSegmentIDs()[0], segmentId)
        self.assertEqual(segmentation.GetNumberOfSegments(), 2)
        self.assertLess(self.segmentation.GetDisplayNode().GetSegmentOpacity2DFill(segmentId), 0.5)
        self.assertFalse(self.segmentation.GetDisplayNode().GetSegmentVisibility3D(segmentId))
        self.assertBodyIsThere()

    def test_no_surface_is_made_of_it(self) -> None:
        segmentation = self.segmentation.GetSegmentation()
        segmentation.CreateRepresentation("Closed surface")
        segmentId = self.logic.addBody(self.segmentation, self.volume)
        self.assertEqual(segmentation.GetSegment(segmentId).GetRepresentation("Closed surface").GetNumberOfPoints(), 0)
        self.assertBodyIsThere()

    def test_under_transforms(self) -> None:
        moved = scenes.addTransform(scenes.rotation(20, (0.2, 1, 0.1)), self.volume)
        scenes.addTransform(scenes.rotation(20, (0.2, 1, 0.1)), self.segmentation)
        self.logic.addBody(self.segmentation, self.volume)
        self.assertBodyIsThere()
        self.volume.HardenTransform()
        self.assertIsNot(self.volume.GetParentTransformNode(), moved)
        self.assertBodyIsThere()

    def test_without_a_reference_of_its_own(self) -> None:
        self.segmentation.SetReferenceImageGeometryParameterFromVolumeNode(self.volume)
        self.logic.addBody(self.segmentation)
        self.assertBodyIsThere()

    def test_bad_input(self) -> None:
        empty = scenes.addVolume(np.full(SHAPE, -1000, np.int16), self.grid, "Air")
        flat = scenes.addVolume(np.zeros(SHAPE, np.int16), self.grid, "Sheared")
        scenes.addTransform(np.array([[1, 0.4, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), flat)
        synthetic = scenes.addVolume(chest()[0], self.grid, "Made")
        synthetic.SetAttribute("CTStyleGen.Synthetic", "1")
        for words, arguments in (
            ("There is no segmentation", (None, self.volume)),
            ("no reference volume", (self.segmentation, None)),
            ("shows no air around a body", (self.segmentation, empty)),
            ("shears", (self.segmentation, flat)),
            ("is synthetic", (self.segmentation, synthetic)),
        ):
            with self.assertRaisesRegex(InputError, words):
                self.logic.addBody(*arguments)
        self.assertEqual(self.segmentation.GetSegmentation().GetNumberOfSegments(), 1)
        self.assertEqual(list(self.temporary.iterdir()), [])

    def test_surfaces_are_refused(self) -> None:
        segmentation = self.segmentation.GetSegmentation()
        segmentation.CreateRepresentation("Closed surface")
        segmentation.SetSourceRepresentationName("Closed surface")
        with self.assertRaisesRegex(InputError, "are no binary labelmaps"):
            self.logic.addBody(self.segmentation, self.volume)

    def test_a_segmentation_that_is_deleted_meanwhile(self) -> None:
        job = self.logic.addBody(self.segmentation, self.volume, wait=False)
        slicer.mrmlScene.RemoveNode(self.segmentation)
        with self.assertRaisesRegex(JobError, "gone"):
            job.wait()
        self.assertEqual(self.segmentation.GetSegmentation().GetNumberOfSegments(), 1)
        self.assertEqual((job.state, jobQueue().lanes()), (State.FAILED, set()))


if __name__ == "__main__":
    unittest.main()
