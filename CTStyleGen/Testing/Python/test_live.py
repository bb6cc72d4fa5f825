"""Live: the slice in view follows the segmentation, and equals what a whole run makes of it."""

import unittest
from dataclasses import replace
from pathlib import Path
from unittest import mock

import CTStyleGenTesting  # noqa: F401 - prepares slicer
import numpy as np
import slicer
from CTStyleGenTesting import chest, scenes
from CTStyleGenCore.errors import InputError
from CTStyleGenLib.geometry import ijkToRAS
from CTStyleGenLib.live import Live
from CTStyleGenLib.synthesis import SynthesisJob, Wish
from CTStyleGenTesting.chest import SHAPE, chestMasks, tinyModel
from CTStyleGenTesting.panels import passTime, passTimeUntil, sliceView
from CTStyleGenTesting.temporary import temporaryPlace


@unittest.skipUnless(chest.CAN_TRAIN, chest.CANT_TRAIN)
class LiveTest(unittest.TestCase):
    def setUp(self) -> None:
        slicer.mrmlScene.Clear(False)
        self.grid = scenes.grid((5.1, 6.2, 7.5), (-120.5, 33.3, 40.1))
        self.volume = scenes.addVolume(np.zeros(SHAPE, np.int16), self.grid)
        self.segmentation = scenes.addSegmentation(chestMasks(), self.grid)
        self.wish = Wish(tinyModel(), seed=5, device="cpu")
        self.view = sliceView()
        self.show(1)
        self.temporary = temporaryPlace(self)

    def show(self, number: int) -> None:
        """Moves the axial view to a slice."""
        self.view.JumpSliceByCentering(*(self.grid @ (SHAPE[2] / 2, SHAPE[1] / 2, number, 1))[:3])

    def start(self, **options: object) -> Live:
        live = Live(self.segmentation, self.volume, self.wish, **options)
        self.addCleanup(live.stop)
        self.told: list[str] = []
        self.ends: list[str] = []
        live.onStatus, live.onEnd = self.told.append, self.ends.append
        return live

    def waitForSlice(self, number: int) -> None:
        before = len(self.told)
        passTimeUntil(lambda: any(line.startswith(f"Slice {number} took") for line in self.told[before:]))

    def whole(self, wish: Wish) -> np.ndarray:
        return slicer.util.arrayFromVolume(SynthesisJob(self.segmentation, self.volume, wish).wait())

    def test_follows_view_and_edits(self) -> None:
        live = self.start()
        voxels = slicer.util.arrayFromVolume(live.output)
        self.assertTrue((voxels == -1000).all())
        np.testing.assert_array_equal(ijkToRAS(live.output), ijkToRAS(self.volume))
        self.waitForSlice(1)
        self.assertIn("raw", scenes.encodings(self.temporary))  # its labels; the worker compresses the slice
        expected = self.whole(self.wish)
        np.testing.assert_array_equal(voxels[1], expected[1])
        self.assertTrue((voxels[[0, 2, 3]] == -1000).all())
        self.assertEqual(live.output.GetAttribute("CTStyleGen.Synthetic"), "1")

        self.show(2)  # another slice
        self.waitForSlice(2)
        np.testing.assert_array_equal(voxels[2], expected[2])

        self.edit("heart", np.zeros(SHAPE, bool))
        self.waitForSlice(2)
        without = self.whole(self.wish)
        self.assertTrue((without[2] != expected[2]).any())
        np.testing.assert_array_equal(voxels[2], without[2])

        self.show(1)  # edited, too, while it was out of sight
        self.waitForSlice(1)
        np.testing.assert_array_equal(voxels[1], without[1])
        self.segmentation.GetSegmentation().Modified()
        self.show(2)
        passTimeUntil(lambda: self.told[-1] == "Slice 2 is up to date.")

        live.change(Wish(self.wish.model, seed=6, device="cpu"))
        self.waitForSlice(2)
        self.assertTrue((voxels[2] != without[2]).any())

        for name in chestMasks():
            self.edit(name, np.zeros(SHAPE, bool))
        passTimeUntil(lambda: self.told[-1] == "There is no organ in slice 2.")
        self.assertTrue((voxels[2] == -1000).all())
        live.stop()
        self.assertEqual(list(self.temporary.iterdir()), [])

    def edit(self, name: str, mask: np.ndarray) -> None:
        segmentId = self.segmentation.GetSegmentation().GetSegmentIdBySegmentName(name)
        slicer.util.updateSegmentBinaryLabelmapFromArray(
            mask.astype(np.uint8), self.segmentation, segmentId, self.volume
        )

    def test_style_cts_are_exported_again_only_if_others_are_asked_for(self) -> None:
        folders: list[Path] = []

        def export(wish: Wish, folder: Path, card: object) -> list[str]:
            (folder / "ct.nrrd").touch()
            folders.append(folder)
            return []

        with mock.patch("CTStyleGenLib.live.exportedStyles", export):
            live = self.start()
            self.waitForSlice(1)
            live.change(replace(self.wish, seed=6, organs={"heart": "bone"}))
            self.waitForSlice(1)
            self.assertEqual(len(folders), 1)
            self.assertTrue(folders[0].is_dir())
            live.change(replace(self.wish, styles=["A"]))
            self.waitForSlice(1)
            self.assertEqual(len(folders), 1)
            segmentation = scenes.addSegmentation({"lung": np.ones((2, 3, 4), bool)}, scenes.grid())
            volume = scenes.addVolume(np.zeros((2, 3, 4), np.int16), scenes.grid())
            edited = replace(self.wish, styleCases={"Other": (volume, segmentation)})
            live.change(edited)
            live.change(replace(edited, styles=["Other"]))
            self.assertEqual(live._styles, [str(folders[1] / "Other")])
            segmentation.GetSegmentation().GetNthSegment(0).Modified()
            live.change(replace(edited, seed=7))
            self.assertEqual(len(folders), 3)
            live.change(self.wish)
            self.waitForSlice(1)
            self.assertEqual([folder.is_dir() for folder in folders], [False, False, False, True])

    def test_ends_with_its_nodes(self) -> None:
        live = self.start()
        slicer.mrmlScene.RemoveNode(live.output)
        passTimeUntil(lambda: self.ends)
        self.assertIn("deleted", self.ends[0])
        live = self.start()
        slicer.mrmlScene.Clear(False)
        passTimeUntil(lambda: self.ends)
        self.assertEqual(len(self.ends), 1)
        self.assertEqual(list(self.temporary.iterdir()), [])

    def test_ends_with_its_process(self) -> None:
        live = self.start()
        live._worker._child.kill()
        passTimeUntil(lambda: self.ends)
        passTime(0.1)
        self.assertIn("process", self.ends[0])
        self.assertEqual(len(self.ends), 1)

    def test_its_end_is_told_even_if_its_process_resists(self) -> None:
        live = self.start()
        with mock.patch.object(live._worker, "close", side_effect=OSError):
            slicer.mrmlScene.RemoveNode(live.output)
            worker = live._worker
            with self.assertRaises(OSError):
                live.poll()
        worker.close()
        self.assertEqual(len(self.ends), 1)
        self.assertEqual(list(self.temporary.iterdir()), [])

    def test_bad_input(self) -> None:
        before = slicer.mrmlScene.GetNumberOfNodes()
        for arguments in (
            (self.segmentation, None, self.wish),
            (self.segmentation, self.volume, Wish(self.temporary / "nothing.ctstyle")),
            (self.segmentation, self.volume, Wish(self.wish.model, styles=["nobody"])),
        ):
            with self.assertRaises(InputError):
                Live(*arguments)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), before)
        self.assertEqual(list(self.temporary.iterdir()), [])


if __name__ == "__main__":
    unittest.main()
