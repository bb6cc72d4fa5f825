"""Segments to organ labels: geometry against the truth computed voxel by voxel, and what is said about the segments."""

import unittest
from unittest import mock

import CTStyleGenTesting  # noqa: F401 - prepares slicer
import numpy as np
import slicer
import vtk
from CTStyleGenTesting import scenes
from CTStyleGenCore.anatomy import SegmentReport, load_anatomy
from CTStyleGenCore.errors import InputError
from CTStyleGenLib import conditioning as conditioningModule
from CTStyleGenLib.conditioning import (
    LEFT_OUT,
    ORGAN_TAG,
    Conditioning,
    conditioningFromSegmentation,
    labelsOfSlice,
    lacksBody,
    referenceOf,
    segmentsInGrid,
)
from CTStyleGenLib.geometry import extentOfSlices, part, sliceCount, sliceInView
from CTStyleGenTesting.panels import sliceView

SHAPE = (9, 12, 14)  # of the segmentation's grid: k, j, i
THORAX = load_anatomy("thorax")
BODY, LUNGS, MEDIASTINUM = (THORAX.organ(name).label for name in ("body", "lungs", "mediastinum"))


def box(k: slice, j: slice, i: slice, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[k, j, i] = True
    return mask


LUNG = box(slice(2, 7), slice(2, 9), slice(1, 6))
HEART = box(slice(3, 8), slice(4, 8), slice(4, 11))  # overlaps the lung


def conditioning(segmentation: slicer.vtkMRMLSegmentationNode, volume: slicer.vtkMRMLVolumeNode) -> Conditioning:
    return conditioningFromSegmentation(segmentation, volume, THORAX)


class SlicerTestCase(unittest.TestCase):
    def setUp(self) -> None:
        slicer.mrmlScene.Clear(False)

    def assertInputError(self, words: str, *arguments: object) -> None:
        """The message is one sentence with these words, and the scene stays as it was."""
        before = slicer.mrmlScene.GetNumberOfNodes()
        with self.assertRaisesRegex(InputError, words) as caught:
            conditioning(*arguments)
        self.assertEqual(str(caught.exception).count("\n"), 0)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), before)


class GeometryTest(SlicerTestCase):
    OBLIQUE = scenes.grid((1.3, 0.9, 2.1), (-6.13, 4.27, -8.05), 25)
    LEFT_HANDED = scenes.grid((1.1, 1.2, -1.7), (-10.1, 9.3, 14.2), -40)
    SHIFTED = scenes.rotation(17, (1, 2, 3)) + np.array([[0, 0, 0, 1.37], [0, 0, 0, -2.11], [0, 0, 0, 0.63], [0] * 4])
    SCALED = np.diag([1.2, 0.9, 1.1, 1]) @ scenes.rotation(-21, (2, -1, 1))

    def check(
        self,
        segmentationGrid: np.ndarray,
        volumeGrid: np.ndarray,
        segmentationParent: np.ndarray | None = None,
        volumeParent: np.ndarray | None = None,
    ) -> None:
        """Labels in a volume of other size equal those of masks resampled one voxel after another."""
        segmentation = scenes.addSegmentation({"lung": LUNG, "heart": HEART}, segmentationGrid)
        volume = scenes.addVolume(np.zeros((11, 13, 15), np.int16), volumeGrid)
        toWorld = [segmentationGrid, volumeGrid]
        for index, (parent, node) in enumerate([(segmentationParent, segmentation), (volumeParent, volume)]):
            if parent is not None:
                scenes.addTransform(parent, node)
                toWorld[index] = parent @ toWorld[index]
        lung, heart = (scenes.nearest(mask, toWorld[0], (11, 13, 15), toWorld[1]) for mask in (LUNG, HEART))
        self.assertGreater(np.count_nonzero(lung), 20)
        self.assertGreater(np.count_nonzero(lung & heart), 2)
        result = conditioning(segmentation, volume)
        np.testing.assert_array_equal(result.labels, np.where(heart, MEDIASTINUM, np.where(lung, LUNGS, 0)))
        self.assertEqual(result.labels.dtype, np.uint8)
        self.assertSlicesEqual(result.labels, segmentation, volume)
        expected = (np.count_nonzero(lung), np.count_nonzero(lung & heart))
        self.assertEqual((result.segments[0].voxels, result.segments[0].overlapped), expected)

    def assertSlicesEqual(
        self, labels: np.ndarray, segmentation: slicer.vtkMRMLSegmentationNode, volume: slicer.vtkMRMLVolumeNode
    ) -> None:
        """Each axial slice by itself is what it is in the whole."""
        self.assertIn(sliceCount(volume), labels.shape)
        for number in range(sliceCount(volume)):
            whole = labels[part(extentOfSlices(volume, range(number, number + 1)))]
            np.testing.assert_array_equal(labelsOfSlice(segmentation, volume, THORAX, number), whole)

    def test_same_grid(self) -> None:
        segmentation = scenes.addSegmentation({"lung": LUNG}, self.OBLIQUE)
        result = conditioning(segmentation, scenes.addVolume(np.zeros(SHAPE, np.int16), self.OBLIQUE))
        np.testing.assert_array_equal(result.labels, LUNGS * LUNG)
        self.assertEqual(result.problems, ())

    def test_axis_aligned_anisotropic(self) -> None:
        self.check(scenes.grid((1, 1, 3), (0.2, 0.1, 0.3)), scenes.grid((0.8, 1.1, 2), (0.63, 1.21, 2.17)))

    def test_oblique(self) -> None:
        self.check(self.OBLIQUE, scenes.grid((1, 1.4, 1.9), (-5, 3, -6), -10))

    def test_left_handed_volume(self) -> None:
        self.check(self.OBLIQUE, self.LEFT_HANDED)

    def test_left_handed_segmentation(self) -> None:
        self.check(self.LEFT_HANDED, self.OBLIQUE)

    def test_transform_on_segmentation(self) -> None:
        self.check(self.OBLIQUE, scenes.grid((1.2, 1.3, 1.8), (-7, 2, -7), 20), segmentationParent=self.SHIFTED)

    def test_transform_on_volume(self) -> None:
        self.check(self.OBLIQUE, scenes.grid((1.2, 1.3, 1.8), (-7, 2, -7), 20), volumeParent=self.SCALED)

    def test_different_transforms_on_both(self) -> None:
        self.check(self.OBLIQUE, self.LEFT_HANDED, self.SHIFTED, self.SCALED)

    def test_nested_transforms(self) -> None:
        segmentation = scenes.addSegmentation({"lung": LUNG}, self.OBLIQUE)
        volume = scenes.addVolume(np.zeros(SHAPE, np.int16), self.SHIFTED @ self.SHIFTED @ self.OBLIQUE)
        scenes.addTransform(self.SHIFTED, scenes.addTransform(self.SHIFTED, segmentation))
        np.testing.assert_array_equal(conditioning(segmentation, volume).labels, LUNGS * LUNG)

    def test_same_nonlinear_transform_on_both(self) -> None:
        segmentation = scenes.addSegmentation({"lung": LUNG}, self.OBLIQUE)
        volume = scenes.addVolume(np.zeros(SHAPE, np.int16), self.OBLIQUE)
        scenes.addWarp(segmentation, volume)
        np.testing.assert_array_equal(conditioning(segmentation, volume).labels, LUNGS * LUNG)

    def test_nonlinear_transform_on_one_is_refused(self) -> None:
        segmentation = scenes.addSegmentation({"lung": LUNG}, self.OBLIQUE)
        volume = scenes.addVolume(np.zeros(SHAPE, np.int16), self.OBLIQUE)
        scenes.addWarp(segmentation)
        self.assertInputError("non-linear transform lies between 'Chest' and 'CT': harden", segmentation, volume)

    def test_singular_transform_is_refused(self) -> None:
        segmentation = scenes.addSegmentation({"lung": LUNG}, self.OBLIQUE)
        volume = scenes.addVolume(np.zeros(SHAPE, np.int16), self.OBLIQUE)
        scenes.addTransform(np.diag([1, 1, 0, 1]), segmentation)
        self.assertInputError("can't be inverted", segmentation, volume)

    def test_sheared_volume_is_refused(self) -> None:
        segmentation = scenes.addSegmentation({"lung": LUNG}, self.OBLIQUE)
        sheared = np.eye(4)
        sheared[1, 2] = 0.2
        volume = scenes.addVolume(np.zeros(SHAPE, np.int16), sheared)
        self.assertInputError("axes of the volume 'CT' aren't perpendicular", segmentation, volume)

    def test_closed_surface(self) -> None:
        """Surfaces, as from STL, have no labelmaps: they are converted in a copy, also under transforms."""
        center, radius = np.array([1.0, 2.0, 3.0]), 7.0
        sphere = vtk.vtkSphereSource()
        sphere.SetCenter(center)
        sphere.SetRadius(radius)
        sphere.SetThetaResolution(60)
        sphere.SetPhiResolution(60)
        sphere.Update()
        segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Surface")
        segmentation.SetSourceRepresentationToClosedSurface()
        segmentation.AddSegmentFromClosedSurfaceRepresentation(sphere.GetOutput(), "lung")
        ijkToRAS = scenes.grid((1.0, 1.3, -2), (-10, -12, 25), -15)
        shape = (26, 27, 28)
        volume = scenes.addVolume(np.zeros(shape, np.int16), ijkToRAS)
        scenes.addTransform(self.SHIFTED, segmentation)
        k, j, i = np.indices(shape)
        points = np.stack([i, j, k, np.ones_like(i)], axis=-1) @ (np.linalg.inv(self.SHIFTED) @ ijkToRAS).T
        truth = np.linalg.norm(points[..., :3] - center, axis=-1) < radius
        labels = conditioning(segmentation, volume).labels
        self.assertLess(np.count_nonzero((labels == LUNGS) != truth), 0.02 * np.count_nonzero(truth))
        self.assertFalse(segmentation.GetSegmentation().ContainsRepresentation("Binary labelmap"))


class SliceInViewTest(SlicerTestCase):
    def test_the_slice_at_the_middle_of_the_view(self) -> None:
        grid = scenes.grid((1, 1, -2), (5, 6, 40))
        volume = scenes.addVolume(np.zeros(SHAPE, np.int16), grid)
        view = sliceView()
        for number in (0, 3, SHAPE[0] - 1):
            view.JumpSliceByCentering(*(grid @ (4, 5, number, 1))[:3])
            self.assertEqual(sliceInView(volume, view), number)
        view.JumpSliceByCentering(*(grid @ (4, 5, -3, 1))[:3])
        self.assertIsNone(sliceInView(volume, view))
        scenes.addTransform(np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 6], [0, 0, 0, 1]]), volume)
        self.assertEqual(sliceInView(volume, view), 0)
        self.assertIsNone(sliceInView(None, view))
        self.assertIsNone(sliceInView(volume, None))

    def test_slices_are_axial_however_they_are_stored(self) -> None:
        sagittal = np.array([[0, 0, 3, 0], [1, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0, 1]])  # i to A, j to S, k to R
        self.assertEqual(sliceCount(scenes.addVolume(np.zeros((4, 5, 6), np.int16), sagittal)), 5)


class SegmentsTest(SlicerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.grid = scenes.grid((1, 1, 2))
        self.volume = scenes.addVolume(np.zeros(SHAPE, np.int16), self.grid)

    def test_painting_order_is_the_tables_not_the_segments(self) -> None:
        everything = box(slice(1, 8), slice(1, 11), slice(0, 13))
        segmentation = scenes.addSegmentation({"heart": HEART, "lung": LUNG, "body": everything}, self.grid)
        result = conditioning(segmentation, self.volume)
        expected = np.where(HEART, MEDIASTINUM, np.where(LUNG, LUNGS, np.where(everything, BODY, 0)))
        np.testing.assert_array_equal(result.labels, expected)
        self.assertEqual(
            result.segments,
            (
                SegmentReport("heart", "mediastinum", HEART.sum(), 0),
                SegmentReport("lung", "lungs", LUNG.sum(), (LUNG & HEART).sum()),
                SegmentReport("body", "body", everything.sum(), (everything & (LUNG | HEART)).sum()),
            ),
        )
        self.assertEqual(result.problems, ())

    def test_two_segments_of_one_organ_are_joined(self) -> None:
        other = box(slice(2, 7), slice(2, 9), slice(5, 12))
        segmentation = scenes.addSegmentation({"left lung": LUNG, "right lung": other}, self.grid)
        result = conditioning(segmentation, self.volume)
        np.testing.assert_array_equal(result.labels, LUNGS * (LUNG | other))
        self.assertEqual([segment.overlapped for segment in result.segments], [0, 0])

    def test_segments_that_share_a_labelmap(self) -> None:
        segmentation = scenes.addSegmentation(
            {"lung": LUNG, "heart": HEART & ~LUNG, "unknown": ~LUNG & ~HEART}, self.grid
        )
        segmentation.GetSegmentation().CollapseBinaryLabelmaps()
        self.assertEqual(segmentation.GetSegmentation().GetNumberOfLayers(), 1)
        result = conditioning(segmentation, self.volume)
        np.testing.assert_array_equal(result.labels, LUNGS * LUNG + MEDIASTINUM * (HEART & ~LUNG))

    def test_a_shared_labelmap_is_searched_once_for_all_its_segments(self) -> None:
        """What is found is what a comparison with each segment's value finds, at edges and corners, too."""
        values = np.random.default_rng(3).integers(0, 60, SHAPE).astype(np.int16)
        values[2:7, 3:9, 4:11] = 70
        values[-1, -1, -1], values[0, 0, 0] = 71, 72
        masks = {str(value): values == value for value in np.unique(values[values > 0])}
        node = scenes.addSegmentation(masks, self.grid)
        node.GetSegmentation().CollapseBinaryLabelmaps()
        self.assertEqual(node.GetSegmentation().GetNumberOfLayers(), 1)
        with mock.patch.object(conditioningModule, "_boxes", wraps=conditioningModule._boxes) as boxes:
            result = conditioningFromSegmentation(node, self.volume, THORAX, dict.fromkeys(masks, "lungs"))
            found = {segment.GetName(): (box, mask) for _id, segment, box, mask in segmentsInGrid(node, self.volume)}
        self.assertEqual(boxes.call_count, 2)
        np.testing.assert_array_equal(result.labels, LUNGS * (values > 0))
        for name, (box, mask) in found.items():
            inGrid = np.zeros(SHAPE, bool)
            inGrid[box] = mask
            np.testing.assert_array_equal(inGrid, masks[name])
        own = conditioningModule._values(boxes.call_args.args[0])
        for value, box in conditioningModule._boxes(boxes.call_args.args[0]).items():
            self.assertEqual(box, tuple(slice(at.min(), at.max() + 1) for at in np.nonzero(own == value)))

    def test_hidden_segments_count(self) -> None:
        segmentation = scenes.addSegmentation({"lung": LUNG, "heart": HEART}, self.grid)
        segmentation.CreateDefaultDisplayNodes()
        segmentation.GetDisplayNode().SetAllSegmentsVisibility(False)
        self.assertEqual(set(np.unique(conditioning(segmentation, self.volume).labels)), {0, LUNGS, MEDIASTINUM})

    def test_terminology_goes_before_the_name(self) -> None:
        segmentation = scenes.addSegmentation({"heart": LUNG, "Segment_1": HEART}, self.grid)
        scenes.setTerminology(segmentation, "heart", scenes.CODES["Lung"])
        scenes.setTerminology(segmentation, "Segment_1", scenes.CODES["Bone"])
        result = conditioning(segmentation, self.volume)
        self.assertEqual([segment.organ for segment in result.segments], ["lungs", "bone"])

    def test_the_users_organ_goes_before_all(self) -> None:
        node = scenes.addSegmentation({"lung": LUNG, "Hat": HEART}, self.grid)
        lung, hat = (node.GetSegmentation().GetNthSegment(number) for number in range(2))
        lung.SetTag(ORGAN_TAG, "bone")
        hat.SetTag(ORGAN_TAG, "mediastinum")
        self.assertEqual([report.organ for report in conditioning(node, self.volume).segments], ["bone", "mediastinum"])
        told = conditioningFromSegmentation(node, self.volume, THORAX, {"Hat": None, "lung": "Lungs"})
        self.assertEqual([report.organ for report in told.segments], ["lungs", None])
        self.assertEqual(told.problems, ())
        hat.SetTag(ORGAN_TAG, LEFT_OUT)
        lung.SetTag(ORGAN_TAG, "an organ of another table")
        result = conditioning(node, self.volume)
        self.assertEqual([report.organ for report in result.segments], ["lungs", None])
        self.assertEqual(result.problems, ())
        np.testing.assert_array_equal(result.labels > 0, LUNG)

    def test_codes_of_other_schemes_say_nothing(self) -> None:
        segmentation = scenes.addSegmentation({"heart": LUNG}, self.grid)
        scenes.setTerminology(segmentation, "heart", scenes.CODES["Lung"], scheme="LOCAL")
        self.assertEqual(conditioning(segmentation, self.volume).segments[0].organ, "mediastinum")

    def test_unknown_segment_is_left_out_and_reported(self) -> None:
        segmentation = scenes.addSegmentation({"lung": LUNG, "Catheter": HEART}, self.grid)
        result = conditioning(segmentation, self.volume)
        np.testing.assert_array_equal(result.labels, LUNGS * LUNG)
        self.assertEqual(result.segments[1], SegmentReport("Catheter", None, HEART.sum(), 0))
        self.assertRegex(result.problems[0], "'Catheter' is left out")

    def test_what_a_left_out_segment_cuts_out_of_organs_is_body(self) -> None:
        lesion = box(slice(3, 5), slice(4, 6), slice(3, 5))
        segmentation = scenes.addSegmentation({"lung": LUNG & ~lesion, "Nodule": lesion | ~LUNG}, self.grid)
        labels = conditioning(segmentation, self.volume).labels
        np.testing.assert_array_equal(labels, np.where(lesion, BODY, LUNGS * LUNG))
        for number in range(sliceCount(self.volume)):
            alone = labelsOfSlice(segmentation, self.volume, THORAX, number)
            whole = labels[part(extentOfSlices(self.volume, range(number, number + 1)))]
            np.testing.assert_array_equal(alone, whole)

    def test_a_body_is_missing_where_the_ct_shows_more_of_it_than_is_labelled(self) -> None:
        body = box(slice(0, 9), slice(1, 11), slice(1, 13))
        volume = scenes.addVolume(np.where(body, 40, -1000).astype(np.int16), self.grid)
        for masks, isMissing in (
            ({"lung": LUNG}, True),
            ({"lung": LUNG, "liver": box(slice(2, 7), slice(8, 10), slice(6, 8))}, True),  # is taken for body
            ({"lung": LUNG, "body": body}, False),
        ):
            labels = conditioning(scenes.addSegmentation(masks, self.grid), volume).labels
            self.assertEqual(lacksBody(labels, volume, THORAX), isMissing, masks.keys())
            shownNothing = scenes.addVolume(np.zeros(SHAPE, np.int16), self.grid)  # of which nothing can be told
            self.assertEqual(lacksBody(labels, shownNothing, THORAX), list(masks) == ["lung"])

    def test_empty_segment_is_reported(self) -> None:
        segmentation = scenes.addSegmentation({"lung": LUNG, "heart": np.zeros(SHAPE, bool)}, self.grid)
        segmentation.GetSegmentation().AddEmptySegment("spine", "spine")
        result = conditioning(segmentation, self.volume)
        np.testing.assert_array_equal(result.labels, LUNGS * LUNG)
        self.assertEqual([segment.voxels for segment in result.segments], [LUNG.sum(), 0, 0])
        self.assertRegex(" ".join(result.problems), "'heart' is empty.*'spine'")

    def test_cut_and_outside_segments_are_reported(self) -> None:
        segmentation = scenes.addSegmentation({"lung": LUNG, "heart": HEART, "body": HEART}, self.grid)
        volume = scenes.addVolume(np.zeros((3, 12, 14), np.int16), self.grid)  # the first three slices
        result = conditioning(segmentation, volume)
        np.testing.assert_array_equal(result.labels, LUNGS * LUNG[:3])
        outside = np.count_nonzero(LUNG[3:])
        self.assertIn(f"The segment 'lung' is cut off: {outside} of its voxels lie outside", result.problems[0])
        self.assertRegex(result.problems[1], "'heart' has no voxel in the reference volume")

    def test_covered_segment_is_reported(self) -> None:
        segmentation = scenes.addSegmentation({"lung": HEART, "heart": HEART, "body": LUNG}, self.grid)
        self.assertEqual(
            conditioning(segmentation, self.volume).problems,
            ("The segment 'lung' is covered completely by other organs.",),
        )

    def test_bad_input(self) -> None:
        lung = scenes.addSegmentation({"lung": LUNG}, self.grid, "Good")
        none = scenes.addSegmentation({"Hat": LUNG, "Coat": HEART}, self.grid, "Clothes")
        empty = scenes.addSegmentation({"lung": np.zeros(SHAPE, bool)}, self.grid, "Empty")
        noSegments = scenes.addSegmentation({}, self.grid, "Bare")
        far = scenes.addVolume(np.zeros(SHAPE, np.int16), scenes.grid(origin=(500, 0, 0)), "Far")
        noVoxels = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Hollow")
        self.assertInputError(r"knows none of the segments of 'Clothes' \('Hat', 'Coat'\): choose", none, self.volume)
        self.assertInputError("No segment of 'Empty'", empty, self.volume)
        self.assertInputError("'Bare' has no segments", noSegments, self.volume)
        self.assertInputError("No segment of 'Good' .* inside the volume 'Far'", lung, far)
        self.assertInputError("'Hollow' has no voxels", lung, noVoxels)
        self.assertInputError("no reference volume", lung, None)
        self.assertInputError("no segmentation", None, self.volume)
        self.assertInputError("no segmentation", self.volume, self.volume)

    def test_reference_of_a_segmentation(self) -> None:
        segmentation = scenes.addSegmentation({"lung": LUNG}, self.grid)
        self.assertIsNone(referenceOf(segmentation))
        self.assertIsNone(referenceOf(None))
        segmentation.SetReferenceImageGeometryParameterFromVolumeNode(self.volume)
        self.assertIs(referenceOf(segmentation), self.volume)


if __name__ == "__main__":
    unittest.main()
