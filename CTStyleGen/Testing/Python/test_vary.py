"""New segmentations beside the source: the real child process, and nodes that carry over what the source says."""

import unittest

import CTStyleGenTesting  # noqa: F401 - prepares slicer
import numpy as np
import slicer
from CTStyleGenTesting import scenes
from CTStyleGenCore.errors import InputError
from CTStyleGenLib.geometry import ijkToRAS
from CTStyleGenTesting.temporary import temporaryPlace

from CTStyleGen import CTStyleGenLogic

SHAPE = (5, 60, 72)


def masks() -> dict[str, np.ndarray]:
    """A chest whose lungs are two segments, with a tumor that no organ table knows, and an empty segment."""
    k, j, i = np.indices(SHAPE)
    y, x = j / SHAPE[1] - 0.5, i / SHAPE[2] - 0.5
    return {
        "body": x**2 / 0.16 + y**2 / 0.12 < 1,
        "right lung": (x + 0.2) ** 2 / 0.014 + y**2 / 0.05 < 1,
        "left lung": (x - 0.2) ** 2 / 0.014 + y**2 / 0.05 < 1,
        "heart": x**2 / 0.008 + (y + 0.05) ** 2 / 0.02 < 1,
        "xyz": (x - 0.2) ** 2 + y**2 + ((k - 2) / 40) ** 2 < 0.006,
        "later": x > 2,
    }


class VariationTest(unittest.TestCase):
    def setUp(self) -> None:
        slicer.mrmlScene.Clear(False)
        self.logic = CTStyleGenLogic()
        self.grid = scenes.grid((5.1, 4.2, -7.5), (-120.5, 33.3, 40.1), 12)  # left-handed, oblique, anisotropic
        self.volume = scenes.addVolume(np.zeros(SHAPE, np.int16), self.grid)
        self.segmentation = scenes.addSegmentation(masks(), self.grid)
        scenes.setTerminology(self.segmentation, "heart", "80891009")
        self.temporary = temporaryPlace(self)

    def vary(self, **options: object) -> list[slicer.vtkMRMLSegmentationNode]:
        return self.logic.vary(self.segmentation, self.volume, **{"way": "deform", **options})

    def voxels(self, node: slicer.vtkMRMLSegmentationNode, name: str) -> np.ndarray:
        segmentId = node.GetSegmentation().GetSegmentIdBySegmentName(name)
        return slicer.util.arrayFromSegmentBinaryLabelmap(node, segmentId, self.volume).astype(bool)

    def test_result(self) -> None:
        """Two nodes in the reference's grid and transform, in its study, that say what they are."""
        transform = scenes.addTransform(scenes.rotation(20, (0, 0, 1)), self.volume, self.segmentation)
        hierarchy = scenes.hierarchyNode()
        study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "study")
        hierarchy.SetItemParent(hierarchy.GetItemByDataNode(self.volume), study)
        nodes = self.vary(count=2, amount=8.0, seed=3)
        self.assertEqual([node.GetName() for node in nodes], [f"Chest varied {n} (synthetic)" for n in (1, 2)])
        for number, node in enumerate(nodes, 1):
            self.assertIs(node.GetParentTransformNode(), transform)
            self.assertEqual(hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)), study)
            self.assertIs(node.GetNodeReference("CTStyleGen.sourceSegmentation"), self.segmentation)
            role = node.GetReferenceImageGeometryReferenceRole()
            self.assertIs(node.GetNodeReference(role), self.volume)
            told = {key: node.GetAttribute(f"CTStyleGen.{key}") for key in ("Synthetic", "Seed", "Variation", "Way")}
            self.assertEqual(told, {"Synthetic": "1", "Seed": "3", "Variation": str(number), "Way": "deform"})
            self.assertFalse(node.GetDisplayNode().GetVisibility2DFill())
            self.assertTrue(node.GetDisplayNode().GetVisibility2DOutline())
        first, second = (self.voxels(node, "body") for node in nodes)
        self.assertTrue((first != second).any() and (first != masks()["body"]).any())
        self.assertEqual(list(self.temporary.iterdir()), [])
        np.testing.assert_array_equal(ijkToRAS(self.volume), self.grid)

    def test_segments_are_those_of_the_source(self) -> None:
        (node,) = self.vary(amount=8.0)
        old, new = self.segmentation.GetSegmentation(), node.GetSegmentation()
        self.assertEqual(list(new.GetSegmentIDs()), list(old.GetSegmentIDs()))
        for segmentId in old.GetSegmentIDs():
            source, varied = old.GetSegment(segmentId), new.GetSegment(segmentId)
            self.assertEqual(varied.GetName(), source.GetName())
            self.assertEqual(varied.GetColor(), source.GetColor())
            self.assertEqual(varied.GetTerminology(), source.GetTerminology())
        self.assertFalse(self.voxels(node, "later").any())

    def test_segments_move_together(self) -> None:
        """The tumor stays in its lung, and what overlapped in the source overlaps as before, voxel for voxel."""
        (node,) = self.vary(amount=8.0)
        tumor, lung, body = (self.voxels(node, name) for name in ("xyz", "left lung", "body"))
        self.assertTrue(tumor.any() and (tumor != masks()["xyz"]).any())
        self.assertFalse(np.any(tumor & ~lung) or np.any(lung & ~body))

    def test_amount_0_gives_copies(self) -> None:
        (node,) = self.vary(amount=0.0)
        for name, mask in masks().items():
            np.testing.assert_array_equal(self.voxels(node, name), mask, name)

    def test_seed_says_all(self) -> None:
        one, same, other = (self.vary(amount=8.0, seed=seed)[0] for seed in (1, 1, 2))
        np.testing.assert_array_equal(self.voxels(one, "body"), self.voxels(same, "body"))
        self.assertTrue((self.voxels(one, "body") != self.voxels(other, "body")).any())
        self.assertEqual(len({node.GetName() for node in (one, same, other)}), 3)

    def test_what_the_child_is_given_is_not_compressed(self) -> None:
        job = self.logic.vary(self.segmentation, self.volume, way="deform", wait=False)
        self.addCleanup(job.cancel)
        job.poll()
        self.assertEqual(scenes.encodings(self.temporary), {"raw"})

    def test_nodes_may_go_meanwhile(self) -> None:
        job = self.logic.vary(self.segmentation, self.volume, way="deform", wait=False)
        slicer.mrmlScene.RemoveNode(self.segmentation)
        slicer.mrmlScene.RemoveNode(self.volume)
        (node,) = job.wait()
        self.assertEqual(node.GetSegmentation().GetNumberOfSegments(), len(masks()))

    def test_what_cannot_be_adds_nothing(self) -> None:
        before = slicer.mrmlScene.GetNumberOfNodes()
        for options, told in (
            ({"amount": 50.0}, "smaller amount"),
            ({"count": 0}, "0 variations"),
            ({"way": "wobble"}, "wobble"),
            ({"cases": self.temporary / "absent"}, "absent"),
            ({"anatomy": "absent"}, "absent"),
            ({"organs": {"nobody": "bone"}}, "nobody"),
        ):
            with self.subTest(told), self.assertRaises(InputError) as caught:
                self.vary(**options)
            self.assertIn(told, str(caught.exception))
        with self.assertRaises(InputError):
            self.logic.vary(self.segmentation)  # drawn on no volume
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), before)
        self.assertEqual(list(self.temporary.iterdir()), [])


if __name__ == "__main__":
    unittest.main()
