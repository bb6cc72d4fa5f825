"""The child process: its events and its ends, and that canceling leaves no process."""

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import CTStyleGenTesting  # prepares slicer
from CTStyleGenTesting import chest
from CTStyleGenCore.errors import InputError
from CTStyleGenLib import jobs

PYTHON = jobs.coreCommand()[0]


def isRunning(pid: int) -> bool:
    """Whether the process lives; one that has ended but wasn't waited for doesn't."""
    if sys.platform.startswith("linux"):
        status = Path(f"/proc/{pid}/stat")
        return status.exists() and status.read_text().rpartition(")")[2].split()[0] not in "ZX"
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


class JobTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.events: list[jobs.Event] = []

    def job(self, script: str, onEvent: Callable[[jobs.Event], None] | None = None) -> jobs.Job:
        """A job whose child is a real process with another program."""
        program = self.folder / "child.py"
        program.write_text("import json, os, subprocess, sys, time\n" + textwrap.dedent(script), encoding="utf-8")
        return jobs.Job(["work"], self.folder, onEvent or self.events.append, command=[PYTHON, str(program)])

    def test_events_arrive_in_order(self) -> None:
        done = self.job(
            """
            for number in range(500):
                print(json.dumps({"event": "progress", "done": number, "total": 500}))
            print("a library's chatter")
            print(json.dumps({"event": "done", "outputs": ["Größe.nrrd"], "arguments": sys.argv[1:]}))
            """
        ).wait()
        self.assertEqual([event.get("done") for event in self.events[:-1]], list(range(500)))
        self.assertEqual(done, {"event": "done", "outputs": ["Größe.nrrd"], "arguments": ["work", "--json"]})

    def test_events_come_while_it_runs(self) -> None:
        job = self.job(
            """
            print(json.dumps({"event": "started"}))
            while not os.path.exists("go"):
                time.sleep(0.01)
            print(json.dumps({"event": "done"}))
            """
        )
        self.pollUntil(job, lambda: bool(self.events))
        self.assertFalse(job.poll())
        (self.folder / "go").touch()
        self.pollUntil(job, job.poll)
        self.assertEqual(job.result(), {"event": "done"})

    def test_bad_input(self) -> None:
        job = self.job(
            'print(json.dumps({"event": "error", "kind": "input", "message": "No such file."})); sys.exit(2)'
        )
        with self.assertRaisesRegex(InputError, r"^No such file\.$"):
            job.wait()

    def test_bad_arguments(self) -> None:
        job = self.job('sys.exit(print("usage: ...\\nctstylegen: error: no such option", file=sys.stderr) or 2)')
        with self.assertRaisesRegex(InputError, "^ctstylegen: error: no such option$"):
            job.wait()

    def test_crash(self) -> None:
        with self.assertRaisesRegex(jobs.JobError, "ended with code 1: ZeroDivisionError: division by zero"):
            self.job("1 / 0").wait()

    def test_killed_by_the_system(self) -> None:
        with self.assertRaisesRegex(jobs.JobError, "ended with code -?[0-9]+: it wrote no message"):
            self.job("os.abort()").wait()

    def test_end_without_result(self) -> None:
        with self.assertRaisesRegex(jobs.JobError, "ended with code 0"):
            self.job("pass").wait()

    def test_missing_program(self) -> None:
        with self.assertRaisesRegex(jobs.JobError, "can't be started"):
            jobs.Job([], self.folder, command=[str(self.folder / "nothing")])

    def test_log_is_bounded(self) -> None:
        job = self.job(
            """
            sys.stderr.write("x" * 3_000_000 + "\\n")
            for number in range(3000):
                print("line", number, file=sys.stderr)
            sys.exit(1)
            """
        )
        with self.assertRaisesRegex(jobs.JobError, "line 2999$"):
            job.wait()
        self.assertEqual(len(job.log().splitlines()), 200)

    def test_cancel_kills_the_whole_tree(self) -> None:
        job = self.treeOfProcesses(self.events.append)
        self.pollUntil(job, lambda: bool(self.events))
        pids = self.events[0]["pids"]
        self.assertTrue(all(map(isRunning, pids)))
        started = time.monotonic()
        job.cancel()
        self.assertNoneRunning(pids)
        self.assertLess(time.monotonic() - started, 2)
        with self.assertRaises(jobs.JobCanceled):
            job.wait()

    @unittest.skipIf(sys.platform == "win32", "there is no SIGKILL")
    def test_cancel_waits_until_the_whole_tree_is_gone(self) -> None:
        """The processes of Windows end one after the other."""
        job = self.treeOfProcesses(self.events.append)
        self.pollUntil(job, lambda: bool(self.events))
        child, grandchild = self.events[0]["pids"]
        killed: list[int] = []

        def kill(pid: int) -> None:
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)

        def killOneByOne(pid: int) -> None:
            kill(pid)
            threading.Timer(0.5, kill, [grandchild]).start()

        with mock.patch.object(jobs, "killTree", killOneByOne):
            job.cancel()
        self.assertEqual(killed, [child, grandchild])

    def test_cancel_while_waiting(self) -> None:
        def cancel(event: jobs.Event) -> None:
            self.events.append(event)
            job.cancel()

        job = self.treeOfProcesses(cancel)
        with self.assertRaises(jobs.JobCanceled):
            job.wait()
        self.assertNoneRunning(self.events[0]["pids"])

    def test_failing_listener_leaves_no_process(self) -> None:
        def fail(event: jobs.Event) -> None:
            self.events.append(event)
            raise KeyboardInterrupt

        with self.assertRaises(KeyboardInterrupt):
            self.treeOfProcesses(fail).wait()
        self.assertNoneRunning(self.events[0]["pids"])

    @unittest.skipIf(sys.platform == "win32", "Windows can't find the children of a process that has ended")
    @unittest.skipIf(CTStyleGenTesting.IN_APPLICATION, "the application is needed for other tests")
    @unittest.skipIf(sys.platform == "win32", "there is no SIGKILL")
    @unittest.skipUnless(chest.CAN_TRAIN, chest.CANT_TRAIN)
    def test_a_command_ends_with_a_slicer_that_is_killed(self) -> None:
        """At the latest when it has to tell something, and nobody is there to hear it."""
        cases, model = chest.tinyModel().parent / "cases", self.folder / "endless.ctstyle"
        options = ["--style", "A", "--size", "64", "--steps", "1000000", "--features", "random", "--device", "cpu"]
        arguments = ["train", "--cases", str(cases), "--output", str(model), *options]
        script = f"""
            import os, signal, sys
            sys.path.insert(0, {str(Path(__file__).parent)!r})
            import CTStyleGenTesting
            from CTStyleGenLib import jobs

            def end(event):
                if event["event"] == "progress":
                    print(job._process.pid, flush=True)
                    os.kill(os.getpid(), signal.SIGKILL)

            job = jobs.Job({arguments!r}, {str(self.folder)!r}, end)
            job.wait()
            """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)],
            env={**os.environ, "TMPDIR": str(self.folder)},  # a killed process removes nothing
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        self.assertEqual(done.returncode, -signal.SIGKILL, done.stderr)
        end = time.monotonic() + 20
        while isRunning(int(done.stdout)) and time.monotonic() < end:
            time.sleep(0.05)
        self.assertFalse(isRunning(int(done.stdout)))
        self.assertFalse(model.exists())

    def test_workers_left_behind_are_killed(self) -> None:
        self.job(
            """
            worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
            print(json.dumps({"event": "done", "pids": [worker.pid]}))
            """
        ).wait()
        self.assertNoneRunning(self.events[0]["pids"])

    def treeOfProcesses(self, onEvent: Callable[[jobs.Event], None]) -> jobs.Job:
        """A child with a grandchild; neither would end by itself within the test, nor by a polite request."""
        return self.job(
            """
            import signal
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
            print(json.dumps({"event": "started", "pids": [os.getpid(), grandchild.pid]}))
            time.sleep(60)
            """,
            onEvent,
        )

    def pollUntil(self, job: jobs.Job, holds: Callable[[], bool]) -> None:
        end = time.monotonic() + 20
        while not holds():
            self.assertLess(time.monotonic(), end, f"nothing came; the child wrote: {job.log()}")
            job.poll()
            time.sleep(0.01)

    def assertNoneRunning(self, pids: list[int]) -> None:
        end = time.monotonic() + 5
        while any(map(isRunning, pids)) and time.monotonic() < end:
            time.sleep(0.01)
        self.assertEqual([pid for pid in pids if isRunning(pid)], [])


if __name__ == "__main__":
    unittest.main()
