"""Training from Slicer: real child processes, from the nodes of a scene to a model; and every way a run may end."""

import json
import os
import signal
import subprocess
import sys
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import CTStyleGenTesting  # prepares slicer
import numpy as np
import SimpleITK as sitk
import slicer
from CTStyleGenTesting import scenes
from CTStyleGenCore import background
from CTStyleGenCore.anatomy import load_anatomy
from CTStyleGenCore.errors import InputError
from CTStyleGenCore.files import is_left_over
from CTStyleGenCore.model_file import read_card
from CTStyleGenLib import jobs, loss_plot, training, training_cases
from CTStyleGenLib.geometry import ijkToRAS
from CTStyleGenLib.training_cases import CaseChecks, TrainingCase
from CTStyleGenLib.training_run import LossCurve, State, Training
from CTStyleGenTesting.chest import CAN_TRAIN, CANT_TRAIN, SHAPE, chestCT, chestLabels, chestMasks
from CTStyleGenTesting.model_files import ModelsFolderTestCase

from CTStyleGen import CTStyleGenLogic

HERE = Path(__file__).parent
LONG = 100_000  # steps: as many as never end within a test


def addChest(name: str = "Chest", origin: tuple[float, float, float] = (-120.5, 33.3, 40.1)) -> tuple:
    """A CT and its segmentation, oblique, anisotropic and left-handed, as nodes; the one drawn on the other."""
    grid = scenes.grid((5.1, 6.2, -7.5), origin, 12)
    volume = scenes.addVolume(chestCT(), grid, f"{name} CT")
    segmentation = scenes.addSegmentation(chestMasks(), grid, name)
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    return volume, segmentation


class TrainingTestCase(ModelsFolderTestCase):
    """An empty scene, an empty models folder, and no process left at the end."""

    def setUp(self) -> None:
        super().setUp()
        slicer.mrmlScene.Clear(False)
        self.logic = CTStyleGenLogic()
        self.addCleanup(self.endAll)

    def endAll(self) -> None:
        for started in self.logic.trainings():
            started.discard()

    def train(self, **options: object) -> Training:
        given = {"cases": [addChest("A"), addChest("B")], "styles": ["case-1"], "name": "chest", "preset": "quick"}
        given |= {"size": 64, "steps": LONG, "features": "random", "device": "cpu"}
        return self.logic.train(**{**given, **options})

    def until(self, holds: Callable[[], bool], watched: Training, seconds: float = 180) -> None:
        end = time.monotonic() + seconds
        while not holds():
            state = f"{watched.state} {watched.message}\n{watched.log()}"
            self.assertIsNot(watched.state, State.FAILED, state)
            self.assertLess(time.monotonic(), end, state)
            watched.poll()
            time.sleep(0.02)

    def assertNothingStarted(self, words: str, **options: object) -> None:
        with self.assertRaisesRegex(InputError, words) as caught:
            self.train(**options)
        self.assertEqual(str(caught.exception).count("\n"), 0)
        self.assertEqual(self.logic.trainings(), [])
        self.assertEqual([path for path in self.folder.rglob("*") if path.name != "training"], [])


class BadInputTest(TrainingTestCase):
    """What can't be trained with is said in a sentence before anything is begun; no child process is needed for it."""

    def test_cases(self) -> None:
        pair, other = addChest("A"), addChest("B")
        self.assertNothingStarted("^There are no cases: add pairs", cases=[])
        self.assertNothingStarted("^'case-1' is the only case", cases=[pair])
        self.assertNothingStarted("^No style is chosen: tick the case", cases=[pair, other], styles=[])
        self.assertNothingStarted("^There is no case 'X' to take the style from", cases=[pair, other], styles=["X"])
        self.assertNothingStarted("has no CT or no segmentation", cases=[pair, (None, other[1])])
        self.assertNothingStarted("^The case name 'a,b' is not possible", cases={"a,b": pair, "c": other}, styles=["c"])
        self.assertNothingStarted("^The case name '../x' is not possible", cases={"../x": pair, "c": other})
        self.assertNothingStarted("holds no cases", cases=self.folder)
        self.assertNothingStarted("doesn't exist", cases=self.folder / "nowhere")

    def test_synthetic_ct(self) -> None:
        pair, other = addChest("A"), addChest("B")
        other[0].SetAttribute("CTStyleGen.Synthetic", "1")
        self.assertNothingStarted("^The CT of 'case-2' is synthetic", cases=[pair, other])

    def test_one_patient(self) -> None:
        pairs = [addChest("A"), addChest("B")]
        hierarchy = scenes.hierarchyNode()
        patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "Somebody")
        study = hierarchy.CreateStudyItem(patient, "Chest")
        for volume, _segmentation in pairs:
            hierarchy.SetItemParent(hierarchy.GetItemByDataNode(volume), study)
        self.assertNothingStarted("^All cases are of one patient", cases=pairs)

    def test_segments(self) -> None:
        pair, (volume, segmentation) = addChest("A"), addChest("B")
        segments = segmentation.GetSegmentation()
        segments.AddEmptySegment("Catheter", "Catheter")
        segments.AddEmptySegment("heart", "heart")
        check = self.check([pair, (volume, segmentation)])
        self.assertTrue(check.ready)
        self.assertRegex(check.problems[0], "^case-2: The segment 'Catheter' is left out")
        self.assertRegex(check.problems[1], "^case-2: The segment 'heart' is empty")
        segments.RemoveAllSegments()
        segments.AddEmptySegment("Catheter", "Catheter")
        self.assertNothingStarted("^case-2: .* knows none of the segments", cases=[pair, (volume, segmentation)])
        self.assertFalse(self.check([pair, (volume, segmentation)]).ready)

    def test_a_check_notices_painting_and_moving(self) -> None:
        volume, segmentation = addChest("A")
        case, checks, anatomy = TrainingCase("A", volume, segmentation), CaseChecks(), load_anatomy("thorax")
        segmentId = segmentation.GetSegmentation().AddEmptySegment("spinal canal", "spinal canal")

        def paint(mask: np.ndarray) -> None:
            """As the brush does."""
            modes = slicer.vtkSlicerSegmentationsModuleLogic
            image = scenes.orientedImage(mask, ijkToRAS(volume))
            modes.SetBinaryLabelmapToSegment(image, segmentation, segmentId, modes.MODE_REPLACE)

        line = np.indices(SHAPE)[1] == 20
        paint(line)
        transform = scenes.addTransform(np.eye(4), segmentation)
        self.assertEqual(checks.problems(case, anatomy), ())
        paint(np.zeros(SHAPE, bool))
        self.assertEqual(checks.problems(case, anatomy), ("A: The segment 'spinal canal' is empty.",))
        paint(line)
        self.assertEqual(checks.problems(case, anatomy), ())
        transform.SetMatrixTransformToParent(scenes.vtkMatrix(scenes.grid(origin=(30, 0, 0))))
        self.assertRegex(" ".join(checks.problems(case, anatomy)), "cut off")

    def test_no_hounsfield_units(self) -> None:
        pair, (volume, segmentation) = addChest("A"), addChest("B")
        slicer.util.updateVolumeFromArray(volume, np.indices(SHAPE)[1].astype(np.uint8))
        self.assertNothingStarted("^The CT of 'case-2' isn't in Hounsfield units", cases=[pair, (volume, segmentation)])

    def test_options(self) -> None:
        self.assertNothingStarted("'' can't be a model's name", name="")
        self.assertNothingStarted("A model's name can't have '/'", name="a/b")
        self.assertNothingStarted("There is no preset 'x'", preset="x")
        self.assertNothingStarted("There is no organ table 'x'; give", anatomy="x")
        self.assertNothingStarted("organ table .*nowhere.json is missing", anatomy="nowhere.json")
        self.assertNothingStarted("must be at least 1", steps=0)
        self.assertNothingStarted("^The size 100 is not possible: choose", size=100)
        self.assertNothingStarted("feature weights .* don't exist", featureWeights="nowhere.pth")
        (self.folder / "taken.ctstyle").touch()
        with self.assertRaisesRegex(InputError, "^There is a model named 'taken' already"):
            self.train(name="taken")

    def check(self, cases: list, **options: object) -> training.TrainingCheck:
        return self.logic.checkTraining(cases, **{"styles": ["case-1"], "name": "chest", "size": 64, **options})

    def test_estimate(self) -> None:
        pairs = [addChest("A"), addChest("B")]
        short = self.check(pairs, preset="quick", steps=100, device="cpu").estimate
        long = self.check(pairs, preset="quick", steps=100_000, device="cpu").estimate
        self.assertEqual(short.steps, 100)
        self.assertLess(short.seconds, long.seconds)
        self.assertEqual(short.memory_bytes, long.memory_bytes)
        self.assertGreater(self.check(pairs, size=256).estimate.memory_bytes, short.memory_bytes)
        # One style of two cases with four slices each: four slices to learn from, two with the preset "paper".
        self.assertEqual(self.check(pairs, preset="quick", epochs=5).estimate.steps, 20)
        self.assertEqual(self.check(pairs, preset="styles", epochs=5, styles=[]).estimate.steps, 40)
        self.assertEqual(self.check(pairs, preset="paper", epochs=5).estimate.steps, 10)
        self.assertIsNone(self.check(pairs, device="cuda:0").estimate.seconds)


class CasesInSceneTest(TrainingTestCase):
    def test_pairs_by_reference_volume(self) -> None:
        (volume, segmentation), (_volume, other) = addChest("A"), addChest("B")
        scenes.addSegmentation(chestMasks(), scenes.grid(), "Alone")
        self.assertEqual(training_cases.addCasesByReference(), (2, 1))
        self.assertEqual(training_cases.addCasesByReference(), (0, 1))
        cases = training_cases.casesInScene()
        self.assertEqual([case.name for case in cases], ["case-1", "case-2"])
        self.assertIs(cases[0].volumeNode, volume)
        self.assertIs(cases[0].segmentationNode, segmentation)
        training_cases.removeCase(segmentation)
        self.assertEqual([case.name for case in training_cases.casesInScene()], ["case-2"])
        self.assertEqual(training_cases.addCase(volume, segmentation).name, "case-1")
        training_cases.renameCase(other, " Meier? ")
        self.assertEqual(training_cases.casesInScene()[1].name, "Meier?")

    def test_pairs_are_saved_with_the_scene(self) -> None:
        volume, segmentation = addChest("A")
        training_cases.addCase(volume, segmentation)
        training_cases.setStyle(segmentation, True)
        slicer.mrmlScene.SetSaveToXMLString(1)
        self.addCleanup(slicer.mrmlScene.SetSaveToXMLString, 0)
        slicer.mrmlScene.Commit()
        saved = slicer.mrmlScene.GetSceneXMLString()
        self.assertRegex(saved, "CTStyleGen.CaseName:case-1")
        self.assertRegex(saved, "CTStyleGen.caseCT:" + volume.GetID())
        self.assertTrue(training_cases.isStyle(segmentation))

    def test_deleted_ct(self) -> None:
        volume, segmentation = addChest("A")
        training_cases.addCase(volume, segmentation)
        slicer.mrmlScene.RemoveNode(volume)
        self.assertIsNone(training_cases.casesInScene()[0].volumeNode)

    def test_export_is_exact(self) -> None:
        """Every labelled point lies where it did, by SimpleITK's account of it, under a transform of its own."""
        volume, segmentation = addChest("A")
        turned = scenes.rotation(90, (0, 0, 1))
        scenes.addTransform(turned, segmentation)
        scenes.addTransform(turned, volume)
        folder = self.folder / "cases"
        folder.mkdir()
        cases = training_cases.casesFrom({"one": (volume, segmentation)})
        training_cases.exportCases(cases, folder, training.load_anatomy("thorax"))
        ct, labels = (sitk.ReadImage(str(folder / "one" / name)) for name in ("ct.nrrd", "labels.nrrd"))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(ct), slicer.util.arrayFromVolume(volume))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(labels), chestLabels())
        grid = np.diag([-1, -1, 1, 1]) @ scenes.grid((5.1, 6.2, -7.5), (-120.5, 33.3, 40.1), 12)
        for image in (ct, labels):
            np.testing.assert_allclose(image.TransformIndexToPhysicalPoint((7, 5, 2)), (grid @ (7, 5, 2, 1))[:3])
        self.assertEqual(set(ct.GetMetaDataKeys()) & {"PatientName"}, set())
        self.assertEqual(scenes.encodings(folder), {"gzip"})  # it stays as long as the training


class LossCurveTest(unittest.TestCase):
    def test_a_short_one_is_kept_as_it_is(self) -> None:
        curve = LossCurve()
        for step in range(1, 100):
            curve.add(step, {"style": float(step)})
        self.assertEqual(curve.steps, list(range(1, 100)))
        self.assertEqual([point["style"] for point in curve.losses], curve.steps)

    def test_a_long_one_has_the_means(self) -> None:
        curve = LossCurve()
        for step in range(10_000):
            curve.add(step, {"style": 2.0 * step, **({"discriminator": 1.0} if step % 2 else {})})
        self.assertTrue(100 < len(curve.steps) <= 400)
        for step, losses in zip(curve.steps, curve.losses, strict=True):
            self.assertAlmostEqual(losses["style"], 2 * step)
            self.assertEqual(losses["discriminator"], 1)

    def test_a_run_that_goes_on_from_before(self) -> None:
        curve = LossCurve()
        for number, step in enumerate((1, 2, 3, 4, 5, 3, 4)):
            curve.add(step, {"style": float(number)})
        self.assertEqual(curve.steps, [1, 2, 3, 4])
        self.assertEqual(curve.losses[2], {"style": 5.0})


@unittest.skipUnless(CAN_TRAIN, CANT_TRAIN)
class ChildTest(TrainingTestCase):
    def setUp(self) -> None:
        super().setUp()
        patcher = mock.patch.object(training, "_CHECKPOINT_SECONDS", 0.2)
        patcher.start()
        self.addCleanup(patcher.stop)

    def test_a_table_of_the_users_own_outlives_its_file(self) -> None:
        table = self.folder / "mine.json"
        told = training.load_anatomy("thorax").to_json() | {"name": "mine"}
        told["organs"][3] |= {"name": "heart", "codes": [], "aliases": ["mediastinum"]}
        table.write_text(json.dumps(told))
        started = self.train(anatomy=table, steps=3)
        table.unlink()
        started.wait()
        anatomy = read_card(started.model)["anatomy"]
        self.assertEqual((anatomy["name"], anatomy["organs"][3]["name"]), ("mine", "heart"))
        self.assertNotIn("mine.json", json.dumps(read_card(started.model)))

    def test_from_the_scene_to_a_model_in_use(self) -> None:
        volume, segmentation = addChest("Doe^John")
        cases = {"left": (volume, segmentation), "right": addChest("B")}
        done = self.train(cases=cases, styles=[volume], steps=4, wait=True)
        self.assertEqual((done.state, done.done, done.total), (State.DONE, 4, 4))
        self.assertEqual(done.message, "The model chest.ctstyle is ready.")
        self.assertEqual(done.model, self.folder / "chest.ctstyle")
        card = read_card(done.model)
        self.assertEqual((card["styles"], card["cases"], card["size"]), (["left"], ["right"], 64))
        self.assertFalse((done.folder / "cases").exists(), "the patients' data stay on the disk")
        self.assertFalse(done.checkpoint.exists())
        for path in self.folder.rglob("*"):
            self.assertFalse(path.is_file() and b"Doe^John" in path.read_bytes(), path)
        node = self.logic.synthesize(segmentation, volume, model=done.model, device="cpu")
        self.assertEqual(node.GetAttribute("CTStyleGen.Styles"), "left")
        self.assertNothingStartedTwice()

    def assertNothingStartedTwice(self) -> None:
        with self.assertRaisesRegex(InputError, "There is a model named 'chest' already"):
            self.train()

    def test_the_life_of_a_training(self) -> None:
        """Begun, the scene closed, killed, resumed, taken up by another panel, paused, ended early."""
        run = self.train()
        with self.assertRaisesRegex(InputError, "There is a training of 'chest' already"):
            self.train()
        loss_plot.showLossPlot(run)
        slicer.mrmlScene.Clear(False)
        self.until(lambda: run.checkpointStep is not None and run.preview is not None, run)
        self.assertEqual(run.state, State.RUNNING)
        self.assertTrue(run.curve.steps and run.secondsLeft > 0 and run.total == LONG)
        os.killpg(background.process_group(run.folder), signal.SIGKILL)
        self.until(lambda: run.state is State.FAILED, run)
        self.assertRegex(run.message, r"^The training ended unexpectedly \(.*\): resume it from step \d+\.$")
        killedAt = run.checkpointStep

        run.resume()
        self.assertEqual(run.state, State.RUNNING)
        (again,) = CTStyleGenLogic().trainings()  # as another panel, or another Slicer, would find it
        self.until(lambda: (again.checkpointStep or 0) > killedAt, again)
        self.assertEqual(again.state, State.RUNNING)
        self.assertEqual(again.curve.steps, sorted(again.curve.steps))
        again.pause()
        self.assertEqual(again.state, State.STOPPING)
        self.until(lambda: again.state is not State.STOPPING, again)
        self.assertRegex(again.message, rf"^Paused at step \d+ of {LONG}\.$")
        self.assertTrue(again.checkpoint.is_file())

        again.stop()
        self.until(lambda: again.state is State.DONE, again)
        self.assertEqual(read_card(again.model)["steps"], again.checkpointStep)
        self.assertFalse((again.folder / "cases").exists())
        self.assertTrue(run.poll())  # the object that began it comes to know, too
        self.assertEqual(run.state, State.DONE)
        self.assertFalse(background.is_alive(run.folder))

    def test_loss_plot_and_discard(self) -> None:
        run = self.train()
        chart = loss_plot.showLossPlot(run)
        self.until(lambda: len(run.curve.steps) > 2, run)
        loss_plot.updateLossPlot(run)
        names = [chart.GetNthPlotSeriesNode(n).GetName() for n in range(chart.GetNumberOfPlotSeriesNodes())]
        self.assertEqual(sorted(names), ["Adversarial", "Content", "Discriminator", "Style", "Total variation"])
        table = chart.GetNthPlotSeriesNode(0).GetTableNode()
        self.assertEqual(slicer.util.arrayFromTableColumn(table, "style")[0], 1)
        self.assertEqual(slicer.util.arrayFromTableColumn(table, "step").tolist(), run.curve.steps)
        self.assertIs(loss_plot.showLossPlot(run), chart)
        slicer.mrmlScene.Clear(False)
        loss_plot.updateLossPlot(run)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLTableNode"), 0)
        loss_plot.showLossPlot(run)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLPlotSeriesNode"), 5)

        if sys.platform != "win32":
            for folder in (run.folder, run.folder / "cases"):
                self.assertEqual(folder.stat().st_mode & 0o777, 0o700)
        self.until(lambda: run.checkpoint.exists(), run)
        group = background.process_group(run.folder)
        run.discard()
        left = [path for path in self.folder.rglob("*") if path.is_file()]
        inTheMaking = [path for path in left if is_left_over(path)]  # goes with the next one
        self.assertEqual(left, inTheMaking)
        with self.assertRaises(ProcessLookupError):
            os.killpg(group, 0)

    def test_slicer_ends(self) -> None:
        """In a process of its own, which plays Slicer and ends while two trainings are at work."""
        if CTStyleGenTesting.IN_APPLICATION:
            self.skipTest("the application can't end in its own test")
        script = (
            "import sys, CTStyleGenTesting, test_training\n"
            "from CTStyleGenLib import models\n"
            "test = test_training.ChildTest('test_slicer_ends')\n"
            "test.logic = test_training.CTStyleGenLogic()\n"
            "models.setModelsFolder(sys.argv[1])\n"
            "runs = [test.train(name='short'), test.train(name='long', outlives=True)]\n"
            "for run in runs:\n"
            "    test.until(lambda: run.done > 0, run)\n"
        )
        environment = {**os.environ, "PYTHONPATH": str(HERE)}
        done = subprocess.run(
            [sys.executable, "-c", script, str(self.folder)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        runs = {run.name: run for run in self.logic.trainings()}
        self.until(lambda: runs["short"].state is State.PAUSED, runs["short"])
        self.assertTrue(runs["short"].checkpoint.is_file())
        self.assertEqual(runs["long"].state, State.RUNNING)
        before = runs["long"].done
        self.until(lambda: runs["long"].done > before, runs["long"])
        self.assertFalse(runs["short"].outlives)
        self.assertTrue(runs["long"].outlives)

        runs["long"].stop()
        self.assertEqual(runs["long"].wait(), self.folder / "long.ctstyle")
        self.assertGreater(read_card(runs["long"].model)["steps"], 0)
        self.assertFalse(runs["long"].checkpoint.exists())


class FolderTest(TrainingTestCase):
    """Folders as crashes leave them."""

    def test_folders_that_are_no_trainings(self) -> None:
        (self.folder / "training" / "a").mkdir(parents=True)
        (self.folder / "training" / "b").mkdir()
        (self.folder / "training" / "b" / "training.json").write_text("{")
        (self.folder / "training" / "c").mkdir()
        asked = {"model": f"/{'t' * 300}/c.ctstyle", "started": "2026-01-01T00:00:00", "options": {}}
        (self.folder / "training" / "c" / "training.json").write_text(json.dumps(asked))  # a path that can't be
        self.assertEqual(self.logic.trainings(), [])

    def left(self, events: str) -> Training:
        folder = self.folder / "training" / "chest"
        folder.mkdir(parents=True, exist_ok=True)
        asked = {"model": str(self.folder / "chest.ctstyle"), "started": "2026-01-01T00:00:00", "options": {}}
        (folder / "training.json").write_text(json.dumps(asked))
        (folder / "events.jsonl").write_text(events)
        return self.logic.trainings()[0]

    def test_half_a_line(self) -> None:
        progress = {"event": "progress", "done": 1, "total": 9, "losses": {"style": 1.0}, "seconds_left": 8.0}
        run = self.left(f'\n{{"event": "run", "time": 0}}\n{json.dumps(progress)}\n{{"event": "pro')
        self.assertEqual((run.state, run.done), (State.FAILED, 1))
        self.assertRegex(
            run.message, r"^The training ended unexpectedly \(it wrote nothing\): discard it and train again"
        )

    def test_never_begun(self) -> None:
        run = self.left("")
        self.assertEqual((run.state, run.message), (State.FAILED, "The training was never begun: discard it."))

    def test_a_clock_that_was_put_back_or_forward(self) -> None:
        """A run that began at another time, by the clock, and never said so: it has ended, whenever that was."""
        for seconds, state in ((-1e7, State.FAILED), (1e7, State.FAILED), (5, State.RUNNING)):  # 5: just now
            run = self.left(json.dumps({"event": "run", "time": time.time() + seconds}) + "\n")
            self.assertIs(run.state, state)

    def test_a_download_tells_of_bytes(self) -> None:
        run = self.left('{"event": "run", "time": 0}\n{"event": "progress", "done": 1, "total": 9, "unit": "B"}\n')
        self.assertEqual((run.state, run.done), (State.FAILED, 0))

    def test_another_slicer_discards_it(self) -> None:
        run, other = self.left(""), self.logic.trainings()[0]
        other.discard()
        self.assertTrue(run.poll())
        run.discard()

    def test_input_that_only_the_child_finds_at_fault(self) -> None:
        run = self.left(
            '{"event": "run", "time": 0}\n{"event": "error", "kind": "input", "message": "The CT is damaged."}\n'
        )
        with self.assertRaisesRegex(InputError, r"^The CT is damaged\.$"):
            run.wait()
        self.assertEqual(run.state, State.FAILED)
        with self.assertRaisesRegex(InputError, "'chest' has no checkpoint to go on from"):
            run.resume()
        with self.assertRaisesRegex(InputError, "'chest' has learned nothing yet"):
            run.stop()
        run.discard()
        self.assertEqual(self.logic.trainings(), [])

    def test_no_more_memory(self) -> None:
        run = self.left(
            '{"event": "run", "time": 0}\n{"event": "error", "kind": "memory", "message": "Not enough memory."}\n'
        )
        with self.assertRaisesRegex(jobs.JobError, r"^Not enough memory\.$"):
            run.wait()


if __name__ == "__main__":
    unittest.main()
