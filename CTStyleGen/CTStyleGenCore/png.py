"""Pictures as PNG that say in their header what they show."""

import io
from pathlib import Path

import numpy as np

from .files import written_beside


def write_png(path: Path, grays: np.ndarray, description: str) -> None:
    """Writes grays, uint8 [row, column], with the description as PNG's text "Description"; whole or not at all."""
    with written_beside(path) as beside:
        beside.write_bytes(png(grays, description))


def png(grays: np.ndarray, description: str) -> bytes:
    """Grays, uint8 [row, column], as a PNG with that "Description"."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    header, file = PngInfo(), io.BytesIO()
    header.add_text("Description", description)
    Image.fromarray(grays).save(file, "PNG", pnginfo=header)
    return file.getvalue()
