"""The picture of a model: a drawn chest with every organ of any table, and nothing of a patient."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from CTStyleGenCore.anatomy import Anatomy, load_anatomy
from CTStyleGenCore.model_file import write_model
from CTStyleGenCore.networks import Generator
from CTStyleGenCore.preview import toy_chest, write_preview
from CTStyleGenCore.synthesis import Model
from PIL import Image
from test_model_file import card


def voxels(anatomy: Anatomy, size: int) -> np.ndarray:
    return sitk.GetArrayFromImage(toy_chest(anatomy, size))[0]


@pytest.mark.parametrize("size", [64, 512])
@pytest.mark.parametrize("name", ["thorax", "lctsc"])
def test_every_organ_is_in_the_chest(name: str, size: int) -> None:
    anatomy = load_anatomy(name)
    assert set(np.unique(voxels(anatomy, size))) == {organ.label for organ in anatomy.organs}


def test_organs_that_no_chest_has_are_drawn_too() -> None:
    rows = [
        {"name": name, "label": label, "gray": label, "codes": [], "aliases": [], "plausible_hu": [0, 1]}
        for label, name in enumerate(["outside", "body", "kidney", "bladder", "prostate"])
    ]
    labels = voxels(Anatomy.from_json({"name": "pelvis", "organs": rows}), 128)
    assert set(np.unique(labels)) == set(range(5))


def test_the_chest_stands_upright(thorax: Anatomy) -> None:
    """Radiological view: back below, and the heart to the image's right, which is the patient's left."""
    labels = voxels(thorax, 256)
    rows, columns = np.nonzero(labels == thorax.organ("spinal canal").label)
    assert rows.mean() > 160 and abs(columns.mean() - 127.5) < 1
    rows, columns = np.nonzero(labels == thorax.organ("mediastinum").label)
    assert rows.mean() < 127 and columns.mean() > 130


def test_the_picture_says_what_it_is(tmp_path: Path) -> None:
    write_model(tmp_path / "m.ctstyle", Generator(64).state_dict(), card())
    write_preview(Model(tmp_path / "m.ctstyle", "cpu"), tmp_path / "m.png")
    with Image.open(tmp_path / "m.png") as picture:
        assert picture.size == (256, 256) and picture.mode == "L"
        assert picture.text["Description"].startswith("Synthetic CT of a drawn segmentation")
        corner = np.asarray(picture)[222:250, 6:120]
    assert (corner > 200).sum() > 50 and (corner < 50).sum() > 100  # the word SYNTHETIC, white on black
