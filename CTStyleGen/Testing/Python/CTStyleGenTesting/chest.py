"""A crude chest to make CT for, and a real model that was trained on it."""

import importlib.util
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from CTStyleGenLib import jobs

SHAPE = (4, 40, 48)
CAN_TRAIN = importlib.util.find_spec("torch") is not None
CANT_TRAIN = "the Python of the child process has no PyTorch"


def chestMasks(shape: tuple[int, int, int] = SHAPE) -> dict[str, np.ndarray]:
    """Body, two lungs, heart; they overlap."""
    _k, j, i = np.indices(shape)
    y, x = j / shape[1] - 0.5, i / shape[2] - 0.5
    return {
        "body": x**2 / 0.2 + y**2 / 0.15 < 1,
        "lung": (np.abs(x) - 0.22) ** 2 / 0.015 + y**2 / 0.05 < 1,
        "heart": (x - 0.05) ** 2 + y**2 < 0.02,
    }


def chestLabels() -> np.ndarray:
    """The organ labels that the masks give."""
    masks = chestMasks()
    return np.select([masks["heart"], masks["lung"], masks["body"]], [3, 2, 1]).astype(np.uint8)


def chestCT() -> np.ndarray:
    """A CT of it, in HU."""
    return np.array([-1000, 40, -800, 60], np.int16)[chestLabels()]


@cache
def tinyModel(preset: str = "paper") -> Path:
    """A model for slices of 64 x 64, trained for two steps by a real child process; once for all tests of a session."""
    kept = tempfile.TemporaryDirectory(prefix="CTStyleGenTesting-")
    _folders.append(kept)
    folder = Path(kept.name)
    for case in (folder / "cases" / "A", folder / "cases" / "B"):
        case.mkdir(parents=True)
        sitk.WriteImage(sitk.GetImageFromArray(chestCT()), str(case / "ct.nrrd"))
        sitk.WriteImage(sitk.GetImageFromArray(chestLabels()), str(case / "labels.nrrd"))
    model = folder / "tiny.ctstyle"
    options = ["--size", "64", "--steps", "2", "--features", "random", "--device", "cpu", "--preset", preset]
    arguments = ["train", "--cases", str(folder / "cases"), "--style", "A", "--output", str(model), *options]
    jobs.Job(arguments, folder).wait()
    return model


_folders: list[tempfile.TemporaryDirectory] = []  # removed when the tests end
