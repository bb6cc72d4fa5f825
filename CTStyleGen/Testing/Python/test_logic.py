"""The whole way: nodes in, the real child process, a node out; and what is left when something is wrong."""

import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import CTStyleGenTesting  # prepares slicer
import numpy as np
import SimpleITK as sitk
import slicer
from CTStyleGenTesting import chest, scenes
from CTStyleGenCore.errors import InputError
from CTStyleGenCore.files import sha256
from CTStyleGenLib import jobs, synthesis
from CTStyleGenLib.geometry import ijkToRAS
from CTStyleGenLib.python_call import pythonCall
from CTStyleGenTesting.chest import SHAPE, chestLabels, chestMasks, tinyModel

from CTStyleGen import CTStyleGenLogic

HERE = Path(__file__).parent
PYTHON = jobs.coreCommand()[0]


@unittest.skipUnless(chest.CAN_TRAIN, chest.CANT_TRAIN)
class LogicTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = Path(folder.name)
        cls.model = tinyModel()

    def setUp(self) -> None:
        slicer.mrmlScene.Clear(False)
        self.logic = CTStyleGenLogic()
        self.grid = scenes.grid((5.1, 6.2, -7.5), (-120.5, 33.3, 40.1), 12)  # left-handed, oblique, anisotropic
        self.volume = scenes.addVolume(np.zeros(SHAPE, np.int16), self.grid)
        self.segmentation = scenes.addSegmentation(chestMasks(), self.grid)
        # Temporary folders are made here, so that one that stays is found.
        temporary = tempfile.TemporaryDirectory(dir=self.folder)
        self.addCleanup(temporary.cleanup)
        self.temporary = Path(temporary.name)
        self.patch(tempfile, "tempdir", temporary.name)

    def patch(self, target: object, name: str, value: object) -> None:
        patcher = mock.patch.object(target, name, value)
        patcher.start()
        self.addCleanup(patcher.stop)

    def synthesize(self, **options: object) -> slicer.vtkMRMLScalarVolumeNode:
        arguments = {"model": self.model, "device": "cpu", "referenceVolumeNode": self.volume, **options}
        return self.logic.synthesize(self.segmentation, **arguments)

    def test_result(self) -> None:
        transform = scenes.addTransform(scenes.rotation(20, (0, 0, 1)), self.volume, self.segmentation)
        node = self.synthesize(seed=5)
        voxels = slicer.util.arrayFromVolume(node)
        self.assertEqual((voxels.dtype, voxels.shape), (np.int16, SHAPE))
        self.assertGreater(voxels.std(), 0)
        np.testing.assert_array_equal(ijkToRAS(node), ijkToRAS(self.volume))
        self.assertIs(node.GetParentTransformNode(), transform)
        told = {name: node.GetAttribute(f"CTStyleGen.{name}") for name in ("Model", "ModelSHA256", "Styles", "Seed")}
        expected = {"Model": "tiny.ctstyle", "ModelSHA256": sha256(self.model), "Styles": "A", "Seed": "5"}
        self.assertEqual(told, expected)
        self.assertEqual(node.GetAttribute("CTStyleGen.Segmentation"), "Chest")
        self.assertEqual(list(self.temporary.iterdir()), [])

    def test_voxels_lie_where_the_segments_are(self) -> None:
        """The child's result, computed from the command line for the same labels, arrives voxel for voxel."""
        node = self.synthesize(seed=5)
        image = sitk.GetImageFromArray(chestLabels())
        lps = np.diag([-1, -1, 1, 1]) @ self.grid
        spacing = np.linalg.norm(lps[:3, :3], axis=0)
        image.SetOrigin(lps[:3, 3])
        image.SetSpacing(spacing)
        image.SetDirection((lps[:3, :3] / spacing).ravel())
        source, output = self.temporary / "s.nrrd", self.temporary / "o.nrrd"
        sitk.WriteImage(image, str(source))
        arguments = ["--model", str(self.model), "--segmentation", str(source), "--output", str(output)]
        jobs.Job(["synthesize", *arguments, "--seed", "5", "--device", "cpu"], self.temporary).wait()
        expected = sitk.GetArrayFromImage(sitk.ReadImage(str(output)))
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(node), expected)

    def test_reference_is_the_segmentations_own(self) -> None:
        self.segmentation.SetReferenceImageGeometryParameterFromVolumeNode(self.volume)
        node = self.synthesize(referenceVolumeNode=None)
        np.testing.assert_array_equal(ijkToRAS(node), ijkToRAS(self.volume))

    def test_slices_are_those_of_the_whole(self) -> None:
        whole = self.synthesize(seed=5)
        node = self.synthesize(seed=5, slices=range(1, 3))
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(node), slicer.util.arrayFromVolume(whole)[1:3])
        at = [ijkToRAS(node) @ (7, 9, 0, 1), ijkToRAS(self.volume) @ (7, 9, 1, 1)]
        np.testing.assert_allclose(at[0], at[1], atol=1e-9)
        self.assertEqual(node.GetAttribute("CTStyleGen.Slices"), "1-2")

    def test_slices_go_into_a_volume_that_has_the_others(self) -> None:
        whole = self.synthesize(seed=5)
        before = slicer.util.arrayFromVolume(whole).copy()
        other = slicer.util.arrayFromVolume(self.synthesize(seed=6)).copy()
        self.assertIs(self.synthesize(seed=6, slices=[2], output=whole), whole)
        before[2] = other[2]
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(whole), before)

    def test_output_never_is_a_real_ct(self) -> None:
        node = self.synthesize(output=self.volume)
        self.assertIsNot(node, self.volume)
        self.assertEqual(slicer.util.arrayFromVolume(self.volume).any(), False)
        self.assertIs(self.synthesize(output=node, slices=[1]), node)

    def test_samples_lie_in_a_folder(self) -> None:
        nodes = self.synthesize(samples=2, seed=5)
        names = [node.GetName() for node in nodes]
        self.assertEqual(names, ["Chest synthetic CT 1", "Chest synthetic CT 2"])
        self.assertEqual([node.GetAttribute("CTStyleGen.Sample") for node in nodes], ["1", "2"])
        hierarchy = scenes.hierarchyNode()
        folders = {hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) for node in nodes}
        self.assertEqual([hierarchy.GetItemName(folder) for folder in folders], ["Chest synthetic CT, 2 samples"])
        first, second = map(slicer.util.arrayFromVolume, nodes)
        self.assertTrue((first != second).any())
        np.testing.assert_array_equal(first, slicer.util.arrayFromVolume(self.synthesize(seed=5)))

    def test_samples_as_a_sequence(self) -> None:
        shown = self.synthesize(samples=2, seed=5, asSequence=True)
        (sequence,) = slicer.util.getNodesByClass("vtkMRMLSequenceNode")
        (browser,) = slicer.util.getNodesByClass("vtkMRMLSequenceBrowserNode")
        self.assertEqual(sequence.GetNumberOfDataNodes(), 2)
        self.assertIs(browser.GetProxyNode(sequence), shown)
        samples = [slicer.util.arrayFromVolume(sequence.GetNthDataNode(n)).copy() for n in range(2)]
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(shown), samples[0])
        self.assertTrue((samples[0] != samples[1]).any())
        self.assertEqual(sequence.GetNthDataNode(1).GetAttribute("CTStyleGen.Synthetic"), "1")

    def test_organs(self) -> None:
        plain = slicer.util.arrayFromVolume(self.synthesize())
        other = slicer.util.arrayFromVolume(self.synthesize(organs={"heart": "bone"}))
        self.assertTrue((plain != other).any())
        left = self.logic.check(self.segmentation, self.volume, model=self.model, organs={"heart": None})
        self.assertEqual([segment.organ for segment in left.segments], ["body", "lungs", None])
        self.assertEqual(left.problems, ())

    def test_python_call_repeats_the_run(self) -> None:
        options = {"organs": {"heart": "bone"}, "slices": range(1, 3), "seed": 4, "device": "cpu"}
        self.segmentation.SetName("Chest [1] *")
        node = self.synthesize(**options)
        arguments = {"segmentationNode": self.segmentation, "referenceVolumeNode": self.volume, "model": self.model}
        told: dict = {}
        exec(pythonCall(self.logic.synthesize, **arguments, **options), {"slicer": slicer}, told)
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(told["result"]), slicer.util.arrayFromVolume(node))
        for key in node.GetAttributeNames():
            self.assertEqual(told["result"].GetAttribute(key), node.GetAttribute(key))

    def test_check(self) -> None:
        self.segmentation.GetSegmentation().AddEmptySegment("Catheter", "Catheter")
        before = slicer.mrmlScene.GetNumberOfNodes()
        result = self.logic.check(self.segmentation, self.volume, model=self.model, styles=["A"])
        self.assertTrue(result.ready)
        self.assertEqual([segment.organ for segment in result.segments], ["body", "lungs", "mediastinum", None])
        self.assertRegex("".join(result.problems), "^The segment 'Catheter' is left out")
        result = self.logic.check(self.segmentation, model=self.model)
        self.assertFalse(result.ready)
        self.assertRegex(result.problems[0], "no reference volume")
        self.assertFalse(self.logic.check(None, model="nothing.ctstyle").ready)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), before)

    def assertLeavesNothing(self, error: type[Exception], words: str, **options: object) -> None:
        before = slicer.mrmlScene.GetNumberOfNodes()
        with self.assertRaisesRegex(error, words) as caught:
            self.synthesize(**options)
        self.assertEqual(str(caught.exception).count("\n"), 0)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), before)
        self.assertEqual(list(self.temporary.iterdir()), [])

    def test_bad_input(self) -> None:
        far = scenes.addVolume(np.zeros(SHAPE, np.int16), scenes.grid(origin=(5000, 0, 0)), "Far")
        text = self.folder / "text.ctstyle"
        text.write_text("This is no model.")
        cut = self.folder / "cut.ctstyle"
        cut.write_bytes(self.model.read_bytes()[:-100])
        self.assertLeavesNothing(InputError, "inside the volume 'Far'", referenceVolumeNode=far)
        self.assertLeavesNothing(InputError, "no reference volume", referenceVolumeNode=None)
        self.assertLeavesNothing(InputError, "nowhere.ctstyle does not exist", model=self.folder / "nowhere.ctstyle")
        self.assertLeavesNothing(InputError, "not a CTStyleGen model", model=text)
        self.assertLeavesNothing(InputError, "There is no slice 4 .* 0 to 3", slices=range(2, 5))
        self.assertLeavesNothing(InputError, "There is no slice -1", slices=[-1, 0])
        self.assertLeavesNothing(InputError, "must be consecutive", slices=[0, 2])
        self.assertLeavesNothing(InputError, "must be consecutive", slices=[])
        self.assertLeavesNothing(InputError, "0 samples are not possible", samples=0)
        self.assertLeavesNothing(InputError, "seed -1 is not possible", seed=-1)
        self.assertLeavesNothing(InputError, "no segment 'Hat'", organs={"Hat": "bone"})
        self.assertLeavesNothing(InputError, "has no 'hat'", organs={"heart": "hat"})
        self.assertLeavesNothing(InputError, "cut short", model=cut)
        self.assertLeavesNothing(InputError, "no style 'B': it was trained for A", styles=["B"])
        self.segmentation.GetSegmentation().RemoveAllSegments()
        self.segmentation.GetSegmentation().AddEmptySegment("Hat", "Hat")
        self.assertLeavesNothing(InputError, "knows none of the segments")

    def test_input_that_only_the_child_finds_at_fault(self) -> None:
        damaged = self.folder / "damaged.ctstyle"
        content = self.model.read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        card = json.loads(header["__metadata__"]["card"])
        header["__metadata__"]["card"] = json.dumps({**card, "size": card["size"] * 2})
        text = json.dumps(header).encode()
        damaged.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
        self.assertLeavesNothing(InputError, "damaged.ctstyle", model=damaged)

    def test_failing_child_leaves_nothing(self) -> None:
        program = self.folder / "crash.py"
        program.write_text("import sys, os; sys.stderr.write('Out of memory\\n'); sys.stderr.flush(); os._exit(9)")
        self.patch(jobs, "coreCommand", lambda: [PYTHON, str(program)])
        self.assertLeavesNothing(jobs.JobError, "ended with code 9: Out of memory")

    @unittest.skipIf(sys.platform == "win32", "Windows has other permissions")
    def test_only_the_user_may_read_the_temporary_folder(self) -> None:
        program = self.folder / "mode.py"
        program.write_text("import os, sys; print(oct(os.stat('.').st_mode & 0o777), file=sys.stderr); sys.exit(1)")
        self.patch(jobs, "coreCommand", lambda: [PYTHON, str(program)])
        self.assertLeavesNothing(jobs.JobError, "0o700$")

    def test_labels_for_the_child_are_not_compressed(self) -> None:
        """Slicer would stand still meanwhile."""
        job = synthesis.SynthesisJob(self.segmentation, self.volume, synthesis.Wish(self.model))
        self.addCleanup(job.cancel)
        job.poll()
        self.assertEqual(scenes.encodings(self.temporary), {"raw"})

    def test_interrupted_child_leaves_nothing(self) -> None:
        def interrupt(event: jobs.Event) -> None:
            raise KeyboardInterrupt

        program = self.folder / "slow.py"
        program.write_text('import time; print(\'{"event": "started"}\', flush=True); time.sleep(60)')
        self.patch(jobs, "coreCommand", lambda: [PYTHON, str(program)])
        before = slicer.mrmlScene.GetNumberOfNodes()
        with self.assertRaises(KeyboardInterrupt):
            job = synthesis.SynthesisJob(self.segmentation, self.volume, synthesis.Wish(self.model))
            job.onEvent = interrupt
            job.wait()
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), before)
        self.assertEqual(list(self.temporary.iterdir()), [])

    def test_child_that_writes_nothing_leaves_nothing(self) -> None:
        program = self.folder / "lazy.py"
        program.write_text('print(\'{"event": "done"}\')')
        self.patch(jobs, "coreCommand", lambda: [PYTHON, str(program)])
        self.assertLeavesNothing(jobs.JobError, "didn't write what it was asked for")

    def test_torch_is_never_in_this_process(self) -> None:
        """In a process of its own, because other tests may have imported torch here."""
        script = (
            "import sys, CTStyleGenTesting, CTStyleGen, slicer\n"
            "from CTStyleGenTesting import chest, panels, scenes\n"
            "panels.openModule()\n"
            "segmentation = scenes.addSegmentation(chest.chestMasks(), scenes.grid())\n"
            "volume = scenes.addVolume(chest.chestCT(), scenes.grid())\n"
            "node = CTStyleGen.CTStyleGenLogic().synthesize(segmentation, volume, model=sys.argv[1], device='cpu')\n"
            "assert node.GetAttribute('CTStyleGen.Synthetic') == '1'\n"
            "print(sorted({'torch', 'torchvision', 'safetensors'} & set(sys.modules)))\n"
        )
        if CTStyleGenTesting.IN_APPLICATION:  # this process is the one that matters
            self.assertNotIn("torch", sys.modules)
            return
        done = subprocess.run(
            [sys.executable, "-c", script, str(self.model)],
            env={**os.environ, "PYTHONPATH": str(HERE)},
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual((done.returncode, done.stdout.strip()), (0, "[]"), done.stderr)


if __name__ == "__main__":
    unittest.main()
