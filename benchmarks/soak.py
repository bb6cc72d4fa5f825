"""How much the readers and the warm worker bear: python -m benchmarks.soak [--inputs 10000] [--edits 500]

Prints Markdown: every reader with so many broken and hostile files (see Testing/Core/hostile.py for what counts as a
fault), and the worker's memory while a segmentation is edited again and again. Exit code 1 after a fault. Linux alone.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import SimpleITK as sitk
import torch
from CTStyleGenCore.model_file import write_model
from CTStyleGenCore.presets import load_preset
from hostile import BOUND_BYTES, MEMORY, READERS, Watched, check, whole_files

from .phantoms import anatomy_of, labels_of

ROOT = Path(__file__).parents[1]

_SIZE = 128  # pixels, of the worker's model and slices


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--inputs", type=int, default=10_000, help="files a reader (default: %(default)s)")
    parser.add_argument("--readers", nargs="+", choices=READERS, default=list(READERS))
    parser.add_argument("--edits", type=int, default=500, help="slices that the worker makes (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="readers at a time (default: %(default)s)")
    options = parser.parse_args()
    print(f"Readers, within {BOUND_BYTES >> 20} MiB each beyond their libraries:\n")
    print("| reader | files | taken | refused | seconds | fault |\n| --- | ---: | ---: | ---: | ---: | --- |")
    with ThreadPoolExecutor(options.jobs) as pool:
        whole = [pool.submit(soak, name, options.inputs) for name in options.readers]
        faults = [name for name, each in zip(options.readers, whole, strict=True) if each.result()]
    if options.edits:
        print(f"\nThe warm worker, {options.edits} edits of a slice of {_SIZE} x {_SIZE}:\n")
        edits(options.edits)
    sys.exit(f"Faults in {', '.join(faults)}" if faults else 0)


def soak(name: str, inputs: int) -> str:
    """Gives a reader so many files; prints a row, and returns the fault, "" for none."""
    start, fault, answers = time.monotonic(), "", {"taken": 0, "refused": 0}
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        files = whole_files(name, Path(folder))
        with Watched({name: files}) as readers:
            try:
                answers |= check(readers, name, files, inputs)
            except AssertionError as error:
                fault = str(error)
                print(fault, *getattr(error, "__notes__", ()), sep="\n", file=sys.stderr)
    count, seconds = sum(answers.values()), time.monotonic() - start
    told = fault.strip().splitlines()[-1] if fault else "none"
    print(
        f"| {name} | {count:,} | {answers['taken']:,} | {answers['refused']:,} | {seconds:.0f} | {told} |", flush=True
    )
    return fault


def edits(count: int) -> None:
    """Asks a worker for a slice so many times, each time of other labels; prints its memory and times by hundreds."""
    from CTStyleGenCore.networks import make_generator

    preset, anatomy = load_preset("quick"), anatomy_of(6)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        generator = make_generator(preset.generator, _SIZE, anatomy, preset.noise_size)
        told = {"preset": preset.card(), "anatomy": anatomy.to_json(), "styles": ["A"], "cases": ["A"], "size": _SIZE}
        told |= {"hu_range": [-1000.0, 1000.0], "features": {}, "losses": {}, "versions": {}}
        write_model(folder / "m.ctstyle", generator.state_dict(), told)
        command = [sys.executable, "-m", "CTStyleGenCore", "serve", "--device", "cpu"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "CTStyleGen")}
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as worker:
            assert worker.stdin and worker.stdout
            seconds, memory = [], []
            for number in range(count):
                labels = labels_of(_SIZE, 6, number)[None].to(torch.uint8)
                sitk.WriteImage(sitk.GetImageFromArray(labels.numpy()), str(folder / "labels.nrrd"))
                paths = {"model": "m.ctstyle", "segmentation": "labels.nrrd", "output": "out.nrrd"}
                asked = {key: str(folder / name) for key, name in paths.items()}
                start = time.monotonic()
                worker.stdin.write(json.dumps({"id": number, "request": "synthesize", **asked}).encode() + b"\n")
                worker.stdin.flush()
                event = {"event": ""}
                while event["event"] not in ("done", "error"):
                    event = json.loads(worker.stdout.readline())
                if event["event"] == "error":
                    raise RuntimeError(event["message"])
                seconds.append(time.monotonic() - start)
                pages = int(Path(f"/proc/{worker.pid}/statm").read_text().split()[1])
                memory.append(pages * resource.getpagesize() / 2**20)
            worker.stdin.close()
    print("| edits | memory, MiB | ms an edit, median |\n| --- | ---: | ---: |")
    for start in range(0, count, 100):
        end = min(start + 100, count)
        print(f"| to {end} | {memory[end - 1]:.0f} | {1000 * statistics.median(seconds[start:end]):.0f} |")


if __name__ == "__main__":
    main()
