"""How much the readers and the commands bear: python -m benchmarks.soak [--inputs 10000] [--kills 100]

Prints Markdown: every reader with so many broken and hostile files (Testing/Core/hostile.py says what a fault is), and
syntheses and data sets whose processes are killed again and again. Exit code 1 after a fault. Linux alone.
"""

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from hostile import BOUND_BYTES, MEMORY, READERS, Watched, check, whole_files
from phantoms import write_cases
from test_faults import chest_labels, kill_expansion, kill_synthesis, small_model

_AT_ONCE = 500  # files: hypothesis keeps what it has drawn, of models some MB each


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--inputs", type=int, default=10_000, help="files a reader (default: %(default)s)")
    parser.add_argument("--readers", nargs="*", choices=READERS, default=list(READERS))
    parser.add_argument("--kills", type=int, default=100, help="of each command (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="readers at a time (default: %(default)s)")
    options = parser.parse_args()
    print(f"Readers, within {BOUND_BYTES >> 20} MiB each beyond their libraries:\n")
    print("| reader | files | taken | refused | seconds | fault |\n| --- | ---: | ---: | ---: | ---: | --- |")
    with ThreadPoolExecutor(options.jobs) as pool:
        done = list(pool.map(lambda name: soak(name, options.inputs), options.readers))
    faults = [name for name, fault in zip(options.readers, done, strict=True) if fault]
    if options.kills:
        kills(options.kills)  # AssertionError: a fault
    sys.exit(f"Faults in {', '.join(faults)}" if faults else 0)


def soak(name: str, inputs: int) -> str:
    """Gives a reader so many files; prints a row, and returns the fault, "" for none."""
    start, fault, answers = time.monotonic(), "", Counter[str]()
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        files = whole_files(name, Path(folder))
        with Watched({name: files}) as readers:
            try:
                for part, first in enumerate(range(0, inputs, _AT_ONCE)):
                    answers += check(readers, name, files, min(_AT_ONCE, inputs - first), part)
            except AssertionError as error:
                fault = str(error)
                print(fault, *getattr(error, "__notes__", ()), sep="\n", file=sys.stderr)
    count, seconds = sum(answers.values()), time.monotonic() - start
    told = fault.strip().splitlines()[-1] if fault else "none"
    print(
        f"| {name} | {count:,} | {answers['taken']:,} | {answers['refused']:,} | {seconds:.0f} | {told} |", flush=True
    )
    return fault


def kills(count: int) -> None:
    """Kills syntheses and data sets; prints how many left some of their files. AssertionError unless all are whole."""
    torch.set_num_threads(1)
    print("\n| killed | times | left some files, each whole | seconds |\n| --- | ---: | ---: | ---: |", flush=True)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        model, cases = small_model(folder / "m.ctstyle"), write_cases(folder / "cases")
        segmentation = chest_labels(folder / "labels.nrrd")
        for name, kill, source in (("synthesize", kill_synthesis, segmentation), ("expand", kill_expansion, cases)):
            start = time.monotonic()
            with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
                partial = kill(model, source, folder / name, count)
            print(f"| {name} | {count} | {partial} | {time.monotonic() - start:.0f} |", flush=True)


if __name__ == "__main__":
    main()
