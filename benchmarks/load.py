"""Much at once: python -m benchmarks.load [--parts cases volume expand edits]

Prints Markdown: seconds of computing, and the peak of a process's memory, over more and more cases, slices and edits,
so that what grows more than linearly is seen. Models are of 64 pixels, so that what is measured is the rest. Linux
alone.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import SimpleITK as sitk
from CTStyleGenCore.anatomy import Anatomy
from CTStyleGenCore.model_file import write_model
from CTStyleGenCore.networks import make_generator
from CTStyleGenCore.presets import load_preset
from phantoms import chest, write_case  # the tests' own

from .phantoms import anatomy_of, labels_of

ROOT = Path(__file__).parents[1]
SIZE = 64  # pixels, of all models
CASES, SLICES, SEGMENTS, IMAGES, EDITS = (250, 500, 1000), (250, 500, 1000), 100, 100, 500
_MIB = 2**20


def main() -> None:
    parts = {"cases": cases, "volume": volume, "expand": expand, "edits": edits}
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    for name in parser.parse_args().parts:
        with tempfile.TemporaryDirectory() as folder:
            parts[name](Path(folder))


class Moment(NamedTuple):
    """Where a command is when it tells of an event."""

    event: dict[str, Any]
    seconds: float  # that it has computed, of all its threads
    memory_mib: float  # that it has at the time
    peak_mib: float  # that it has had at most


def followed(*arguments: object) -> Iterator[Moment]:
    """Runs a command of CTStyleGen to its end, event by event. Raises CalledProcessError when it fails."""
    command = [sys.executable, "-m", "CTStyleGenCore", *map(str, arguments), "--device", "cpu", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "CTStyleGen")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout
        for line in process.stdout:
            yield Moment(json.loads(line), computed(process.pid), *memory_mib(process.pid))
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)


def computed(pid: int) -> float:
    """Seconds that a process has computed."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()  # from the third on
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid: int) -> tuple[float, float]:
    """A process's memory, now and at most."""
    told = Path(f"/proc/{pid}/status").read_text()  # no memory in it once the process has ended
    fields = dict(line.split(":", 1) for line in told.splitlines())
    now, most = (int(fields.get(key, "0 kB").split()[0]) / 1024 for key in ("VmRSS", "VmHWM"))
    return now, most


def whole(*arguments: object) -> tuple[float, float]:
    """Seconds and peak memory in MiB of a command."""
    moments = list(followed(*arguments))
    return moments[-1].seconds, max(moment.peak_mib for moment in moments)


def model_of(path: Path, anatomy: Anatomy) -> Path:
    preset = load_preset("quick")
    generator = make_generator(preset.generator, SIZE, anatomy, preset.noise_size)
    told = {"preset": preset.card(), "anatomy": anatomy.to_json(), "styles": ["A"], "cases": ["A"], "size": SIZE}
    told |= {"hu_range": [-1000.0, 1000.0], "features": {}, "losses": {}, "versions": {}}
    write_model(path, generator.state_dict(), told)
    return path


def cases(folder: Path) -> None:
    """A training of 10 steps, and a data set of one image a case, from 1,000 cases."""
    for number in range(CASES[-1]):
        write_case(folder / "all" / f"C{number:04d}", seed=number)
    model = model_of(folder / "m.ctstyle", anatomy_of(6))
    print("| cases | train, s | peak, MiB | expand, s | peak, MiB |\n| ---: | ---: | ---: | ---: | ---: |")
    for count in CASES:
        some = folder / f"{count}"
        some.mkdir()
        for case in sorted((folder / "all").iterdir())[:count]:
            (some / case.name).symlink_to(case)
        learned = ("--style", "C0000", "--preset", "quick", "--features", "random", "--size", SIZE, "--steps", 10)
        trained = whole("train", "--cases", some, *learned, "--output", folder / f"{count}.ctstyle")
        made = ("--per-case", 1, "--amount", 0, "--output", folder / f"set {count}")
        expanded = whole("expand", "--model", model, "--cases", some, *made)
        print(
            f"| {count:,} | {trained[0]:.0f} | {trained[1]:.0f} | {expanded[0]:.0f} | {expanded[1]:.0f} |", flush=True
        )


def volume(folder: Path) -> None:
    """A segmentation of 100 segments in a grid of 512 x 512 pixels, up to 1,000 slices."""
    model = model_of(folder / "m.ctstyle", anatomy_of(SEGMENTS + 1))
    one = labels_of(512, SEGMENTS + 1, 0).numpy().astype(np.uint8)
    print(f"\n| slices of 512 x 512, {SEGMENTS} segments | seconds | peak, MiB | bytes a voxel |")
    print("| ---: | ---: | ---: | ---: |")
    for count in SLICES:
        write_segmentation(folder / "s.seg.nrrd", np.repeat(one[None], count, 0))
        told = ("--model", model, "--segmentation", folder / "s.seg.nrrd", "--output", folder / "ct.nrrd")
        seconds, peak = whole("synthesize", *told)
        print(f"| {count:,} | {seconds:.0f} | {peak:.0f} | {peak * _MIB / (count * 512**2):.1f} |", flush=True)


def write_segmentation(path: Path, labels: np.ndarray) -> None:
    """A segmentation as Slicer writes it: a segment for each value [k, j, i] of the table of as many organs."""
    image = sitk.GetImageFromArray(labels)
    for number in range(SEGMENTS):
        told = {"ID": f"S{number}", "Name": f"organ {number + 1}", "LabelValue": f"{number + 1}", "Layer": "0"}
        for key, value in told.items():
            image.SetMetaData(f"Segment{number}_{key}", value)
    sitk.WriteImage(image, str(path), useCompression=True)


def expand(folder: Path) -> None:
    """One data set of 10,000 slices: 100 images of 100, whose anatomy stays as it is."""
    slices, per_case = 100, 10
    for number in range(IMAGES // per_case):
        write_case(folder / "cases" / f"C{number}", slices=slices, side=SIZE, seed=number)
    model = model_of(folder / "m.ctstyle", anatomy_of(6))
    made = ("--cases", folder / "cases", "--per-case", per_case, "--amount", 0, "--output", folder / "set")
    rows = [moment for moment in followed("expand", "--model", model, *made) if moment.event["event"] == "progress"]
    print("\n| slices of a data set | seconds | memory, MiB |\n| ---: | ---: | ---: |")
    for moment in rows[::20]:
        print(f"| {moment.event['done'] * slices:,} | {moment.seconds:.0f} | {moment.memory_mib:.0f} |", flush=True)


def edits(folder: Path) -> None:
    """Asks the warm worker for a slice 500 times, each time of other labels."""
    model = model_of(folder / "m.ctstyle", anatomy_of(6))
    command = [sys.executable, "-m", "CTStyleGenCore", "serve", "--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "CTStyleGen")}
    seconds, memory = [], []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as worker:
        for number in range(EDITS):
            sitk.WriteImage(chest(slices=1, side=256, seed=number)[1], str(folder / "labels.nrrd"))
            paths = {"model": model, "segmentation": folder / "labels.nrrd", "output": folder / "out.nrrd"}
            start = time.monotonic()
            answer(worker, {"id": number, "request": "synthesize"} | {key: str(path) for key, path in paths.items()})
            seconds.append(time.monotonic() - start)
            memory.append(memory_mib(worker.pid)[0])
        assert worker.stdin
        worker.stdin.close()
    print("\n| edits | memory, MiB | ms an edit, median |\n| ---: | ---: | ---: |")
    for start in range(0, EDITS, 100):
        middle = 1000 * statistics.median(seconds[start : start + 100])
        print(f"| to {start + 100} | {memory[start + 99]:.0f} | {middle:.0f} |", flush=True)


def answer(worker: subprocess.Popen, request: dict[str, Any]) -> None:
    """Sends a request and waits until it is done. Raises RuntimeError for an error."""
    assert worker.stdin and worker.stdout
    worker.stdin.write(json.dumps(request).encode() + b"\n")
    worker.stdin.flush()
    event = {"event": ""}
    while event["event"] not in ("done", "error"):
        event = json.loads(worker.stdout.readline())
    if event["event"] == "error":
        raise RuntimeError(event["message"])


if __name__ == "__main__":
    main()
