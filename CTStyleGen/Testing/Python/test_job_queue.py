"""Jobs in the scene: one after the other, and nothing left of them when scene, nodes, module or application go."""

import subprocess
import sys
import tempfile
import textwrap
import time
import unittest
from pathlib import Path
from unittest import mock

import CTStyleGenTesting
import slicer
from CTStyleGenCore.errors import InputError
from CTStyleGenLib import job_queue, jobs
from CTStyleGenLib.job_queue import QueuedJob, State, jobQueue
from CTStyleGenLib.worker import Worker
from CTStyleGenTesting.panels import passTime, passTimeUntil
from test_jobs import PYTHON, isRunning

DONE = """
    print(json.dumps({"event": "progress", "done": 1, "total": 2}))
    print(json.dumps({"event": "done", "number": 7}))
    """
ENDLESS = """
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    print(json.dumps({"event": "started", "pids": [os.getpid(), child.pid]}))
    time.sleep(60)
    """


class ScriptJob(QueuedJob):
    """A job whose process runs another program."""

    def __init__(self, folder: Path, script: str) -> None:
        super().__init__()
        self.folder, self.script = folder, script
        self.events: list[jobs.Event] = []
        self.ends: list[State] = []
        self.closed = 0
        self.onEvent = self.events.append
        self.onEnd = lambda job: self.ends.append(job.state)

    def _begin(self) -> jobs.Job:
        program = self.folder / f"{id(self)}.py"
        program.write_text("import json, os, subprocess, sys, time\n" + textwrap.dedent(self.script), encoding="utf-8")
        return jobs.Job([], self.folder, self._note, command=[PYTHON, str(program)])

    def _finish(self, done: jobs.Event) -> int:
        return done["number"]

    def _close(self) -> None:
        self.closed += 1

    @property
    def pids(self) -> list[int]:
        return self.events[0]["pids"]


class QueueTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.addCleanup(job_queue.closeJobQueue)

    def queued(self, *scripts: str) -> list[ScriptJob]:
        made = [ScriptJob(self.folder, script) for script in scripts]
        for job in made:
            jobQueue().add(job)
        return made

    def assertGone(self, pids: list[int], seconds: float = 2) -> None:
        end = time.monotonic() + seconds
        while any(map(isRunning, pids)) and time.monotonic() < end:
            time.sleep(0.01)
        self.assertEqual([pid for pid in pids if isRunning(pid)], [])

    def test_one_after_the_other_by_themselves(self) -> None:
        first, second, third = self.queued(DONE, "sys.exit('no\\n')", DONE)
        self.assertEqual([job.state for job in (first, second, third)], [State.WAITING] * 3)
        passTimeUntil(lambda: first.hasEnded)
        self.assertNotIn(third.state, (State.RUNNING, State.DONE))
        passTimeUntil(lambda: third.hasEnded)
        self.assertEqual([job.state for job in (first, second, third)], [State.DONE, State.FAILED, State.DONE])
        self.assertEqual((first.result, first.done, first.total), (7, 1, 2))
        self.assertIsInstance(second.error, jobs.JobError)
        self.assertEqual([job.ends for job in (first, second)], [[State.DONE], [State.FAILED]])
        self.assertEqual([job.closed for job in (first, second, third)], [1, 1, 1])
        self.assertEqual(jobQueue().lanes(), set())

    def test_lanes_hold_up_none_but_their_own(self) -> None:
        long, waiting, quick = self.queued(ENDLESS, DONE, DONE)
        for job in (long, waiting):
            job.lane = "data sets"
        self.assertEqual(jobQueue().lanes(), {"data sets", "scene"})
        passTimeUntil(lambda: quick.hasEnded and long.events)
        self.assertEqual([job.state for job in (long, waiting, quick)], [State.RUNNING, State.WAITING, State.DONE])
        long.cancel()
        passTimeUntil(lambda: waiting.hasEnded)
        self.assertEqual(waiting.state, State.DONE)

    def test_waiting_for_one_runs_those_before_it(self) -> None:
        first, second = self.queued(DONE, DONE)
        self.assertEqual(second.wait(), 7)
        self.assertEqual(first.state, State.DONE)
        (failing,) = self.queued('print(json.dumps({"event": "error", "message": "No such file."})); sys.exit(2)')
        with self.assertRaisesRegex(InputError, "No such file"):
            failing.wait()

    def test_a_job_that_is_waited_for_within_anothers_end(self) -> None:
        (first,) = self.queued(DONE)
        results: list[int] = []
        first.onEnd = lambda job: results.append(ScriptJob(self.folder, DONE).wait())
        passTimeUntil(lambda: results)
        self.assertEqual(results, [7])

    def test_cancel_leaves_no_process_and_the_next_begins(self) -> None:
        first, second = self.queued(ENDLESS, DONE)
        passTimeUntil(lambda: first.events)
        started = time.monotonic()
        first.cancel()
        self.assertGone(first.pids)
        self.assertLess(time.monotonic() - started, 2)
        passTimeUntil(lambda: second.hasEnded)
        self.assertEqual((first.state, first.closed, second.state), (State.CANCELED, 1, State.DONE))
        with self.assertRaises(jobs.JobCanceled):
            first.wait()
        first.cancel()
        self.assertEqual(first.ends, [State.CANCELED])

    def test_cancel_before_its_turn(self) -> None:
        first, second = self.queued(DONE, ENDLESS)
        second.cancel()
        first.wait()
        passTime(0.2)
        self.assertEqual((second.state, second.events), (State.CANCELED, []))

    def test_closed_scene(self) -> None:
        first, second, beside = self.queued(ENDLESS, DONE, DONE)
        beside.lane = "data sets"
        passTimeUntil(lambda: first.events)
        slicer.mrmlScene.Clear(False)
        self.assertEqual((first.state, second.state), (State.CANCELED, State.CANCELED))
        passTimeUntil(lambda: beside.hasEnded)
        self.assertEqual(beside.state, State.DONE)
        self.assertGone(first.pids)
        (after,) = self.queued(DONE)
        self.assertEqual(after.wait(), 7)

    def test_application_that_quits(self) -> None:
        """In a process of its own, because this one goes on."""
        script = self.folder / "quits.py"
        script.write_text(
            textwrap.dedent(
                f"""
                import sys
                sys.path.insert(0, {str(Path(__file__).parent)!r})
                import CTStyleGenTesting, slicer
                from pathlib import Path
                from test_job_queue import ENDLESS, ScriptJob
                from CTStyleGenLib.job_queue import jobQueue
                job = ScriptJob(Path({str(self.folder)!r}), ENDLESS)
                jobQueue().add(job)
                job.onEvent = lambda event: (print(*event["pids"], flush=True), slicer.app.quit())
                slicer.app.exec_()
                print(job.state.value)
                """
            )
        )
        if CTStyleGenTesting.IN_APPLICATION:
            self.skipTest("the application is needed for other tests")
        done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, timeout=60)
        self.assertEqual(done.stdout.splitlines()[1:], ["canceled"], done.stderr)
        self.assertGone([int(pid) for pid in done.stdout.splitlines()[0].split()])

    def test_an_end_is_told_even_if_what_is_left_cannot_be_removed(self) -> None:
        done, canceled = self.queued(DONE, ENDLESS)
        done._close = canceled._close = mock.Mock(side_effect=PermissionError)
        passTimeUntil(lambda: canceled.events)
        with self.assertRaises(PermissionError):
            canceled.cancel()
        self.assertEqual((done.ends, canceled.ends), ([State.DONE], [State.CANCELED]))
        self.assertEqual(done.result, 7)

    def test_all_are_canceled_even_if_one_of_them_fails(self) -> None:
        running, waiting, last = jobs = self.queued(ENDLESS, ENDLESS, ENDLESS)
        last._close = mock.Mock(side_effect=PermissionError)
        passTimeUntil(lambda: running.events)
        with self.assertRaises(PermissionError):
            jobQueue().cancelAll()
        self.assertEqual([job.ends for job in jobs], [[State.CANCELED]] * 3)
        self.assertFalse(any(job in jobQueue() for job in jobs))
        self.assertGone(running.pids)
        self.assertEqual(waiting.events, [])

    def test_a_listener_that_fails(self) -> None:
        job = ScriptJob(self.folder, ENDLESS)

        def fail(event: jobs.Event) -> None:
            job.events.append(event)
            raise ZeroDivisionError

        job.onEvent = fail
        with self.assertRaises(ZeroDivisionError):
            job.wait()
        self.assertEqual((job.state, job.closed), (State.FAILED, 1))
        self.assertGone(job.pids)


class WorkerTest(unittest.TestCase):
    """The other end of the worker's lines; the worker itself is tested beside it, and by test_live."""

    ECHO = """
        import json, os, sys, time
        for line in sys.stdin:
            request = json.loads(line)
            if request["request"] == "die":
                print("I die.", file=sys.stderr, flush=True)
                os._exit(1)
            if request["request"] == "stop" and "--stubborn" not in sys.argv:
                break
            print(json.dumps({"event": "progress", "id": request["id"], "done": 1, "total": 1}), flush=True)
            print(json.dumps({"event": "done", "id": request["id"], "pid": os.getpid(), **request}), flush=True)
        while "--stubborn" in sys.argv:
            time.sleep(1)
        """

    def worker(self, *arguments: str) -> Worker:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        program = Path(folder.name) / "echo.py"
        program.write_text(textwrap.dedent(self.ECHO), encoding="utf-8")
        with mock.patch("CTStyleGenLib.worker.coreCommand", lambda: [PYTHON, str(program), *arguments]):
            worker = Worker(folder.name)
        self.addCleanup(worker.close)
        return worker

    def answers(self, worker: Worker, request: str, **values: object) -> list[jobs.Event]:
        events: list[jobs.Event] = []
        worker.ask(request, events.append, **values)
        end = time.monotonic() + 20
        while worker.isBusy:
            self.assertLess(time.monotonic(), end)
            worker.poll()
            time.sleep(0.01)
        return events

    def test_answers(self) -> None:
        worker = self.worker()
        for text in ("Größe", "b"):
            progress, done = self.answers(worker, "synthesize", model=text)
            self.assertEqual((progress["event"], done["event"], done["model"]), ("progress", "done", text))

    def test_process_that_dies_answers_with_an_error(self) -> None:
        worker = self.worker()
        (error,) = self.answers(worker, "die")
        self.assertEqual(error["event"], "error")
        self.assertIn("I die.", error["message"])
        self.assertTrue(worker.poll())
        (error,) = self.answers(worker, "synthesize")
        self.assertEqual(error["kind"], "failed")

    def test_close_ends_it_within_two_seconds_even_if_it_does_not_listen(self) -> None:
        for arguments in ((), ("--stubborn",)):
            worker = self.worker(*arguments)
            pid = self.answers(worker, "hello")[-1]["pid"]
            started = time.monotonic()
            worker.close()
            self.assertLess(time.monotonic() - started, 2)
            self.assertFalse(isRunning(pid))


if __name__ == "__main__":
    unittest.main()
