"""The warm worker as a real process, and every example in docs/worker.md."""

import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import CTStyleGenCore
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from CTStyleGenCore.__main__ import main
from CTStyleGenCore.model_file import write_model
from CTStyleGenCore.networks import Generator
from CTStyleGenCore.worker import LINE_BYTES, PROTOCOL, axial_slices
from phantoms import chest, write_cases
from test_model_file import card

Event = dict[str, Any]
DOCS = Path(__file__).parents[3] / "docs" / "worker.md"
CORE = [sys.executable, "-m", "CTStyleGenCore"]
SERVE = [*CORE, "serve", "--device", "cpu"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(CTStyleGenCore.__file__).parents[1])}
FINAL = {"hello", "loaded", "done", "error", "stopped"}
SLICES, LONG = 10, 3000


# --- the process and what it works on -------------------------------------------------------------------------------


class Child:
    """``serve`` in a process of its own, followed as a program would."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / f"log {id(self)}.txt"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                SERVE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=ENVIRONMENT
            )
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._lines.put(line)

    def send(self, *requests: Any) -> None:
        """Sends bytes as they are, and all else as JSON, in one piece."""
        assert self.process.stdin
        text = b"".join(r if isinstance(r, bytes) else json.dumps(r).encode() for r in _ended(requests))
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def event(self) -> Event:
        """The next line of stdout, which must be an event."""
        event = json.loads(self._lines.get(timeout=60))
        assert isinstance(event["event"], str) and "id" in event
        return event

    def answers(self) -> list[Event]:
        """The events up to one that ends a request."""
        events = [self.event()]
        while events[-1]["event"] not in FINAL:
            events.append(self.event())
        return events

    def ask(self, request: Any) -> Event:
        self.send(request)
        return self.answers()[-1]

    def end(self) -> int:
        """Closes stdin and waits; the exit code."""
        assert self.process.stdin
        self.process.stdin.close()
        return self.process.wait(timeout=60)


def _ended(requests: tuple[Any, ...]) -> Iterator[Any]:
    for request in requests:
        yield request
        yield b"\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, labels whose slices all differ, stored coronally from back to front, and very many of them."""
    folder = tmp_path_factory.mktemp("wörker with space")
    torch.manual_seed(0)
    write_model(folder / "thorax.ctstyle", Generator(64).state_dict(), card())
    sitk.WriteImage(labels(), str(folder / "labels.nrrd"))
    many = sitk.GetImageFromArray(np.repeat(sitk.GetArrayFromImage(chest(1, 16)[1]), LONG, 0))
    sitk.WriteImage(many, str(folder / "long.nrrd"), useCompression=True)
    return folder


def labels() -> sitk.Image:
    _, image = chest(slices=SLICES, side=80)
    values = sitk.GetArrayFromImage(image)
    shifted = sitk.GetImageFromArray(np.stack([np.roll(one, 3 * k, 1) for k, one in enumerate(values)]))
    shifted.CopyInformation(image)
    return sitk.DICOMOrient(shifted, "LIP")


@pytest.fixture(scope="module")
def child(folder: Path) -> Iterator[Child]:
    child = Child(folder)
    yield child
    assert child.end() == 0


def synthesis(folder: Path, id: Any, segmentation: str = "labels.nrrd", output: str = "out.nrrd", **more: Any) -> Event:
    paths = {"model": "thorax.ctstyle", "segmentation": segmentation, "output": output}
    return {"id": id, "request": "synthesize"} | {key: str(folder / name) for key, name in paths.items()} | more


def made(child: Child, folder: Path, id: Any, **more: Any) -> sitk.Image:
    """The volume that the worker makes."""
    done = child.ask(synthesis(folder, id, **more))
    assert done["event"] == "done" and done["id"] == id and done["outputs"] == [str(folder / "out.nrrd")]
    return sitk.ReadImage(done["outputs"][0])


def command_events(*arguments: Any) -> list[Event]:
    """What a command, run to its end, prints with --json."""
    run = subprocess.run([*CORE, *map(str, arguments), "--json"], capture_output=True, env=ENVIRONMENT, check=False)
    assert b"Traceback" not in run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()] + [{"event": "exit", "code": run.returncode}]


@pytest.fixture(scope="module")
def from_command(folder: Path) -> list[Event]:
    """The events of a ``synthesize`` of two samples with seed 7; the volumes are ct-1.nrrd and ct-2.nrrd."""
    paths = ("--model", folder / "thorax.ctstyle", "--segmentation", folder / "labels.nrrd")
    options = ("--output", folder / "ct.nrrd", "--samples", 2, "--seed", 7, "--device", "cpu")
    return command_events("synthesize", *paths, *options)


# --- answers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sample", [1, 2])
@pytest.mark.parametrize("numbers", [None, [4], [3, 4, 5], [0], [SLICES - 1]])
def test_slices_are_those_of_the_command(
    child: Child, folder: Path, from_command: list[Event], sample: int, numbers: list[int] | None
) -> None:
    whole = sitk.ReadImage(str(folder / f"ct-{sample}.nrrd"))
    assert whole.GetSize()[1] == SLICES  # stored coronally: the axial axis is the second
    part = made(child, folder, f"{sample} {numbers}", slices=numbers, seed=7, sample=sample)
    first, last = (0, SLICES - 1) if numbers is None else (numbers[0], numbers[-1])
    expected = whole[:, first : last + 1, :]
    assert part.GetPixelID() == sitk.sitkInt16
    assert part.GetOrigin() == expected.GetOrigin() and part.GetDirection() == expected.GetDirection()
    assert part.GetSpacing() == expected.GetSpacing()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(part), sitk.GetArrayFromImage(expected))


def test_a_file_of_one_slice_gives_that_slice(child: Child, folder: Path) -> None:
    one = axial_slices(sitk.ReadImage(str(folder / "labels.nrrd")), [4])
    sitk.WriteImage(one, str(folder / "one.nrrd"))
    alone = made(child, folder, "one", segmentation="one.nrrd")
    assert alone.GetMetaData("CTStyleGen.Synthetic") == "YES"
    assert "sha256:" in alone.GetMetaData("CTStyleGen.Model")
    within = made(child, folder, "within", slices=[4])
    assert alone.GetOrigin() == pytest.approx(within.GetOrigin())
    np.testing.assert_array_equal(sitk.GetArrayFromImage(alone), sitk.GetArrayFromImage(within))


def test_another_seed_or_sample_gives_another_volume(child: Child, folder: Path) -> None:
    base, seed, sample = (
        sitk.GetArrayFromImage(made(child, folder, f"other {more}", slices=[4], **more))
        for more in ({}, {"seed": 1}, {"sample": 2})
    )
    assert not np.array_equal(base, seed) and not np.array_equal(base, sample) and not np.array_equal(seed, sample)


def test_a_loaded_model_is_not_read_again_unless_its_file_changed(child: Child, folder: Path) -> None:
    copy = folder / "copy.ctstyle"
    whole = (folder / "thorax.ctstyle").read_bytes()
    copy.write_bytes(whole)
    at = copy.stat().st_mtime_ns
    before = made(child, folder, "cold", slices=[4], model=str(copy))
    copy.write_bytes(bytes(len(whole)))  # nothing left to read, and no sign of it
    os.utime(copy, ns=(at, at))
    after = made(child, folder, "warm", slices=[4], model=str(copy))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(before), sitk.GetArrayFromImage(after))
    os.utime(copy, ns=(at + 1, at + 1))
    changed = child.ask(synthesis(folder, "changed", model=str(copy)))
    assert changed["kind"] == "input" and "not a CTStyleGen model" in changed["message"]


def test_latency_of_a_warm_slice(child: Child, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seconds = [child.ask(synthesis(folder, f"latency {k}", "labels.nrrd", slices=[4]))["seconds"] for k in range(5)]
    with capsys.disabled():
        print(f"\nwarm slice, size 64: {sorted(seconds)[2]:.3f} s")


# --- bad requests ---------------------------------------------------------------------------------------------------

BAD_LINES = [
    b"",
    b"no JSON",
    b"\xff\xfe{}",
    b"[1]",
    b"[" * 100_000,
    b'{"id":1,"request":' + b"[" * 900 + b"]" * 900 + b"}",
    b'{"id":' + b"9" * 5000 + b"}",
    b"x" * (LINE_BYTES + 1),
    b'{"request":"hello"}',
    b'{"id":true,"request":"hello"}',
    b'{"id":1.0,"request":"hello"}',
    b'{"id":"","request":"hello"}',
]


def bad_requests(folder: Path) -> list[tuple[Event, str]]:
    """Requests with an id, and what the answer must speak of."""
    good = synthesis(folder, "bad")
    relative = {key: value for key, value in good.items() if key != "model"} | {"model": "thorax.ctstyle"}
    return [
        ({"id": "bad"}, "no request None"),
        ({"id": "bad", "request": ["hello"]}, "no request"),
        ({"id": "bad", "request": "dance"}, "'dance'"),
        ({"id": "bad", "request": "hello", "loud": True}, "'loud'"),
        ({"id": "bad", "request": "load"}, "'model'"),
        (relative, "absolute path"),
        (good | {"model": "/a\0b"}, "'model'"),
        (good | {"model": "/\ud800"}, "'model'"),
        (good | {"model": str(folder / "absent.ctstyle")}, "absent.ctstyle"),
        (good | {"model": str(folder / "labels.nrrd")}, "not a CTStyleGen model"),
        (good | {"segmentation": str(folder)}, str(folder)),
        (good | {"segmentation": str(folder / "thorax.ctstyle")}, "thorax.ctstyle"),
        (good | {"output": str(folder / "absent" / "out.nrrd")}, "absent"),
        (good | {"output": str(folder / "out.png")}, "out.png"),
        (good | {"slices": []}, "'slices'"),
        (good | {"slices": [True]}, "'slices'"),
        (good | {"slices": [-1]}, "'slices'"),
        (good | {"slices": [3, 5]}, "consecutive"),
        (good | {"slices": [SLICES]}, f"no slice {SLICES}"),
        (good | {"seed": -1}, "'seed'"),
        (good | {"seed": 1.5}, "'seed'"),
        (good | {"sample": 0}, "'sample'"),
    ]


def test_bad_requests_get_an_error_and_the_worker_goes_on(child: Child, folder: Path) -> None:
    logged = child.log.stat().st_size
    for line in BAD_LINES:
        error = child.ask(line)
        assert error["event"] == "error" and error["id"] in (None, 1) and error["kind"] == "input", line[:80]
        assert len(error["message"]) < 300
    for request, about in bad_requests(folder):
        error = child.ask(request)
        assert (error["event"], error["id"], error["kind"]) == ("error", "bad", "input"), request
        assert about in error["message"] and "\n" not in error["message"]
    assert child.ask({"id": "after", "request": "hello"})["protocol"] == PROTOCOL
    assert child.log.stat().st_size == logged


def test_what_nobody_foresaw_gets_an_error_too(child: Child, folder: Path) -> None:
    """A path that the system refuses: the worker tells, keeps the details in its log, and goes on."""
    error = child.ask(synthesis(folder, "odd", segmentation="x" * 5000 + ".nrrd"))
    assert error["event"] == "error" and error["id"] == "odd"
    assert child.ask({"id": "after it", "request": "hello"})["event"] == "hello"


# --- cancel and the end ---------------------------------------------------------------------------------------------


def test_cancel_ends_what_runs_and_what_waits(child: Child, folder: Path) -> None:
    child.send(synthesis(folder, "runs", "long.nrrd", "long-out.nrrd"), synthesis(folder, "waits"))
    while child.event()["event"] != "progress":
        pass
    child.send({"id": "waits", "request": "cancel"}, {"id": "runs", "request": "cancel"})
    ends = [child.answers()[-1], *child.answers()]
    assert [(end["id"], end["event"], end["kind"]) for end in ends] == [
        (id, "error", "stopped") for id in ("runs", "waits")
    ]
    assert not (folder / "long-out.nrrd").exists()
    assert child.ask({"id": "next", "request": "hello"})["event"] == "hello"


def test_sigterm_ends_it_with_130(folder: Path) -> None:
    child = Child(folder)
    child.send(synthesis(folder, "long", "long.nrrd", "never.nrrd"))
    while child.event()["event"] != "progress":
        pass
    child.process.terminate()
    assert child.process.wait(timeout=60) == 130
    assert not (folder / "never.nrrd").exists() and "Traceback" not in child.log.read_text()


PROGRAM_THAT_DIES = """
import json, os, signal, subprocess, sys
command, request = json.loads(sys.argv[1])
worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
worker.stdin.write(json.dumps(request).encode() + b"\\n")
worker.stdin.flush()
while b'"progress"' not in worker.stdout.readline():
    pass
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_program_that_dies_leaves_no_worker(folder: Path) -> None:
    """Killed in mid-synthesis. They share stderr, which is at its end when the worker is gone, too."""
    arguments = json.dumps([SERVE, synthesis(folder, "long", "long.nrrd", "orphan.nrrd")])
    program = [sys.executable, "-c", PROGRAM_THAT_DIES, arguments]
    killed = subprocess.run(program, stderr=subprocess.PIPE, env=ENVIRONMENT, timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL and killed.stderr == b""
    assert not (folder / "orphan.nrrd").exists()


# --- docs/worker.md -------------------------------------------------------------------------------------------------


def documented_blocks(section: str, folder: Path) -> list[list[Event]]:
    """The JSON blocks of a section, with paths in ``folder`` for those in /data."""
    text = re.search(rf"^## {section}\n(.*?)(?=^## |\Z)", DOCS.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert text
    blocks = re.findall(r"^```json\n(.*?)^```", text[1].replace("/data/", f"{folder}/"), re.DOTALL | re.MULTILINE)
    return [[json.loads(line) for line in block.splitlines()] for block in blocks]


def documented(section: str, folder: Path) -> list[Event]:
    return list(chain(*documented_blocks(section, folder)))


def shape(value: Any) -> str:
    """Keys and types, without values: {"a": [1, 2]} -> "{a: [int]}"."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {shape(each)}" for key, each in sorted(value.items())) + "}"
    if isinstance(value, list):
        return "[" + " | ".join(sorted({shape(each) for each in value})) + "]"
    return type(value).__name__


def shapes(events: list[Event]) -> set[str]:
    return {f"{event['event']} {shape(event)}" for event in events if "event" in event}


def test_docs_train(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Stopped after a step, resumed with fewer steps than it has: every event of training, as documented."""
    cases = write_cases(folder / "cases", 2)
    where = ["--cases", str(cases), "--style", "A", "--output", str(folder / "new.ctstyle")]
    small = ["--features", "random", "--size", "64", "--slices-per-case", "1", "--device", "cpu"]
    arguments = ["train", *where, *small, "--json", "--steps"]
    with subprocess.Popen([*CORE, *arguments, "100000"], stdout=subprocess.PIPE, env=ENVIRONMENT) as process:
        assert process.stdout
        events = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.terminate()
        events += map(json.loads, process.stdout)
    assert process.returncode == 130
    assert main([*arguments, "1", "--resume"]) == 0
    events += map(json.loads, capsys.readouterr().out.splitlines())
    examples = documented("train", folder)
    assert any("discriminator" in example.get("losses", ()) for example in examples)
    for event in chain(events, examples):
        event.get("losses", {}).pop("discriminator", None)  # not in every step, as the page says
    assert shapes(events) | {"notice {event: str, message: str}"} == shapes(examples)  # of memory: test_less_memory


def test_docs_synthesize(folder: Path, from_command: list[Event], capsys: pytest.CaptureFixture[str]) -> None:
    assert from_command[-1]["code"] == 0
    absent = ["synthesize", "--model", str(folder / "absent.ctstyle"), "--segmentation", "x", "--output", "y", "--json"]
    assert main(absent) == 2
    events = [*from_command[:-1], *map(json.loads, capsys.readouterr().out.splitlines())]
    examples = documented("synthesize", folder)
    assert shapes(events) == shapes(examples)
    assert [e for e in events if "message" in e] == [e for e in examples if "message" in e]


def test_docs_serve(folder: Path) -> None:
    """The page's conversation, block by block, with a worker of its own: the answers are the page's."""
    child = Child(folder)
    blocks = documented_blocks("serve", folder)
    known = shapes(documented("serve", folder))
    for block in blocks:
        requests, expected = ([one for one in block if key in one] for key in ("request", "event"))
        child.send(*requests)
        answers = child.answers()
        assert shapes(answers) <= known
        assert shapes(expected) <= shapes(answers)
        assert answers[-1]["id"] == expected[-1]["id"] and answers[-1].get("kind") == expected[-1].get("kind")
        assert answers[-1].get("message") == expected[-1].get("message")
    assert child.process.wait(timeout=60) == 0


def test_docs_name_the_limits() -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert f"protocol version {PROTOCOL}\n" in text and f"{LINE_BYTES} bytes" in text
