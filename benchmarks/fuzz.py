"""Readers, guided by coverage to files that reach new code: python -m benchmarks.fuzz [--seconds 300] [--targets ...]

Needs atheris (pip install atheris; Linux). Prints Markdown: a row for each target. What counts as a fault is said in
Testing/Core/hostile.py, as for `make soak`; a file that makes one is kept as fault-TARGET-..., and the exit code is 1.
"""

import argparse
import json
import random
import re
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def _header(whole: bytes) -> bytes:
    return whole[8 : 8 + struct.unpack("<Q", whole[:8])[0]]


def _card(whole: bytes) -> bytes:
    return json.loads(_header(whole))["__metadata__"]["card"].encode()


def _with_card(text: bytes) -> bytes:
    return _with_header(json.dumps({"__metadata__": {"card": text.decode(errors="replace")}}).encode())


def _with_header(header: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header


def _last_line(whole: bytes) -> bytes:
    return whole.splitlines()[-1]


def _same(data: bytes) -> bytes:
    return data


Change = Callable[[bytes], bytes]
TARGETS: dict[str, tuple[str, int, Change, Change]] = {  # reader, which of its files, what is changed in it, and back
    "model file": ("card", 0, lambda whole: _with_header(_header(whole)), _same),
    "model card": ("card", 0, _card, _with_card),
    "segmentation header": ("labels", 0, _same, _same),
    "organ table": ("table", 0, _same, _same),
    "worker's lines": ("request", 0, _last_line, _same),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=int, default=300, help="for each target (default: %(default)s)")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--child", choices=TARGETS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        fuzz(options.child, options.seconds)
        return
    print("| target | files | edges of code reached | kept, as they reached new ones | fault |")
    print("| --- | ---: | ---: | ---: | --- |", flush=True)
    sys.exit(1 if [target for target in options.targets if not row(target, options.seconds)] else 0)


def row(target: str, seconds: int) -> bool:
    """Fuzzes a target in a process of its own, prints its row, and returns whether there was no fault."""
    command = [sys.executable, "-m", "benchmarks.fuzz", "--child", target, "--seconds", str(seconds)]
    child = subprocess.run(command, stderr=subprocess.PIPE, check=False)
    told = child.stderr.decode(errors="replace")
    counts = re.findall(r"^#(\d+)\s.*cov: (\d+) ft: \d+ corp: (\d+)/", told, re.MULTILINE)
    files, edges, kept = counts[-1] if counts else ("0", "0", "0")
    if child.returncode:
        print(told[-5000:], file=sys.stderr)
    fault = f"exit code {child.returncode}" if child.returncode else "none"
    print(f"| {target} | {int(files):,} | {edges} | {kept} | {fault} |", flush=True)
    return not child.returncode


def fuzz(target: str, seconds: int) -> None:
    """Gives a target's reader one file after the other, and ends the process."""
    import atheris

    with atheris.instrument_imports(include=["CTStyleGenCore"]):
        import CTStyleGenCore.cases
        import CTStyleGenCore.model_file
        import CTStyleGenCore.styles
        import CTStyleGenCore.worker  # noqa: F401
    from hostile import MEMORY, READERS, limit_memory, one_sentence, whole_files

    reader, number, inside, around = TARGETS[target]
    with tempfile.TemporaryDirectory(dir=MEMORY) as made:
        (Path(made) / "corpus").mkdir()
        file = whole_files(reader, Path(made))[number]
        (Path(made) / "corpus" / "whole").write_bytes(inside(file.read_bytes()))

        def read(data: bytes) -> None:
            file.write_bytes(around(data))
            with one_sentence():
                READERS[reader](file)

        READERS[reader](file)  # loads the libraries, whose memory isn't counted
        limit_memory()
        limits = ["-timeout=10", "-rss_limit_mb=0", "-max_len=65536", f"-max_total_time={seconds}"]
        kept = f"-artifact_prefix=fault-{target.replace(' ', '-')}-"
        atheris.Setup([sys.argv[0], f"{made}/corpus", kept, *limits], read, custom_mutator=mutated)
        atheris.Fuzz()


def mutated(data: bytes, most: int, seed: int) -> bytes:
    """The data, at most so long, changed: some of its bytes or, where it is JSON, a value in it."""
    import atheris

    rng = random.Random(seed)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return atheris.Mutate(data, most)
    return json.dumps(_odd(value, rng)).encode()[:most] if rng.random() < 0.8 else atheris.Mutate(data, most)


def _odd(value: Any, rng: random.Random) -> Any:
    """The value with a part of it missing, or something else."""
    from hostile import ODD

    if not isinstance(value, dict | list) or not value or rng.random() < 0.1:
        return rng.choice(ODD)
    changed = value.copy()
    key = rng.choice([*value] if isinstance(value, dict) else range(len(value)))
    if rng.random() < 0.1:
        del changed[key]
    else:
        changed[key] = _odd(value[key], rng)
    return changed


if __name__ == "__main__":
    main()
