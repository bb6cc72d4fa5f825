"""Pictures as PNG that say in their header what they show."""

from pathlib import Path

import numpy as np

from .files import written_beside


def write_png(path: Path, grays: np.ndarray, description: str) -> None:
    """Writes grays, uint8 [row, column], with the description as PNG's text "Description"; whole or not at all."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    header = PngInfo()
    header.add_text("Description", description)
    with written_beside(path) as beside:
        Image.fromarray(grays).save(beside, format="PNG", pnginfo=header)
