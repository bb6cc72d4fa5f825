"""What the Core's tests share: the organ table, real cases where the checkout has them, small images, bad input."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from CTStyleGenCore.anatomy import Anatomy, load_anatomy
from CTStyleGenCore.errors import InputError
from phantoms import write_cases

Refused = Callable[..., str]  # what the fixture `refused` gives
OBLIQUE = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0)  # turned about the body's axis
LEFT_HANDED = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, -1.0)  # slices run downwards


@pytest.fixture(scope="session")
def thorax() -> Anatomy:
    return load_anatomy("thorax")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real CT beside the project; tests that need it are skipped where it is absent."""
    folder = Path(__file__).parents[4] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: no real cases here")
    return folder


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small cases, A, B and C, for a file's tests."""
    return write_cases(tmp_path_factory.mktemp("cases"))


@pytest.fixture(scope="session")
def refused() -> Refused:
    """Calls a function that must raise InputError with one line of text, and gives that line."""

    def call(function: Callable, *arguments: object) -> str:
        with pytest.raises(InputError) as caught:
            function(*arguments)
        message = str(caught.value)
        assert message and "\n" not in message and "sitk::" not in message and "itk" not in message.lower()
        return message

    return call


def image(
    values: np.ndarray,
    spacing: tuple[float, ...] = (0.7, 0.9, 2.5),
    origin: tuple[float, ...] = (-20.0, 30.0, -100.5),
    direction: tuple[float, ...] | None = None,
) -> sitk.Image:
    """An image of (k, j, i) values with an anisotropic grid away from the origin."""
    made = sitk.GetImageFromArray(values)
    made.SetSpacing(spacing)
    made.SetOrigin(origin)
    if direction:
        made.SetDirection(direction)
    return made


def noise(shape: tuple[int, ...] = (5, 9, 8), low: int = -1000, high: int = 1500) -> np.ndarray:
    """Random HU, int16."""
    return np.random.default_rng(1).integers(low, high, shape).astype(np.int16)
