"""How long a training will take and how much memory, before it begins: guesses from measurements of docs/speed.md.

What a step computes is known. How fast this computer multiplies matrices is measured here, in some hundredths of a
second. How much of that speed a step reaches was measured on one computer; on others it will be another share.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from .presets import Preset

# What a step multiplies and adds, in GFLOP, and the memory of the process at its peak, in GB; by size.
_PAPER = {64: (7.7, 1.1), 128: (32.9, 1.2), 256: (138, 1.6), 512: (550, 2.7)}
_QUICK = {64: (6.3, 1.0), 128: (18.1, 1.1), 256: (59.5, 1.3), 512: (221, 1.9)}
_STYLES = {64: (16.5, 1.0), 128: (53.0, 1.1), 256: (193, 1.5), 512: (748, 2.6)}
_COST = {"paper": _PAPER, "paper-relative": _PAPER, "quick": _QUICK, "styles": _STYLES}
_SHARE = 0.8  # of the speed of matrix multiplication: 0.69 to 0.84 were measured
_START_SECONDS = 15.0  # to start Python and PyTorch and to read some cases


@dataclass(frozen=True)
class Estimate:
    """What a training is expected to need; None where nothing comparable has been measured."""

    steps: int
    seconds: float | None
    memory_bytes: int | None


def estimate(preset: Preset, size: int, steps: int, device: str) -> Estimate:
    """The expected needs of ``steps`` steps. No GPU has been measured: there only the memory is told, as on a CPU."""
    cost = _COST.get(preset.name, {}).get(size)
    if cost is None:
        return Estimate(steps, None, None)
    _, gigabytes = cost
    giga_operations = sum(_COST[preset.name][side][0] * count for side, count in preset.stages(size, steps))
    on_cpu = device == "cpu"
    seconds = _START_SECONDS + giga_operations / (_SHARE * giga_operations_per_second()) if on_cpu else None
    return Estimate(steps, seconds, int(gigabytes * 1e9))


def steps_of(preset: Preset, slices: Sequence[int], epochs: int | None, one_style: bool) -> int:
    """The steps of a training with cases of so many slices each; epochs: None for the preset's length.

    Where ``one_style`` is learned, the slices of its case are none to learn from; it is taken for an average case.
    """
    used = [min(count, preset.slices_per_case) for count in slices]
    contents = sum(used) * (len(used) - 1) / len(used) if one_style else sum(used)
    return preset.steps(contents, epochs)


@cache
def giga_operations_per_second() -> float:
    """How fast this computer multiplies matrices of float32, in GFLOP/s."""
    a = np.ones((1024, 1024), np.float32)
    a @ a
    times = []
    for _ in range(3):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    return 2 * 1024**3 / min(times) / 1e9
