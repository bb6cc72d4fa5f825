"""Trachea and main bronchi in the labels of a real CT."""

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from CTStyleGenCore.airways import volume_with_airways
from CTStyleGenCore.anatomy import Anatomy, load_anatomy
from CTStyleGenCore.cases import Case
from CTStyleGenCore.label_check import fitting_slices
from CTStyleGenCore.slices import HuRange
from CTStyleGenCore.training_data import training_slices

BODY, LUNGS, MEDIASTINUM = 1, 2, 3


def disc(row: float, column: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[0:120, 0:160]
    return (rows - row) ** 2 + (columns - column) ** 2 < radius**2


BRONCHUS, TRACHEA, WALL = disc(75, 86, 4), disc(60, 70, 8), disc(60, 70, 9.5)


def chest(noise: float = 15.0) -> tuple[sitk.Image, sitk.Image, np.ndarray]:
    """CT and labels of a slice, 1 mm a pixel, and what its labels should be.

    The labels' mediastinum takes in a bronchus, and the lungs' the trachea and its wall, like a bay.
    """
    hu, labels = np.full((120, 160), -1000.0), np.zeros((120, 160), np.uint8)
    for organ, value, shape in (
        (BODY, 30, disc(60, 80, 58)),
        (LUNGS, -850, disc(60, 80, 50)),
        (MEDIASTINUM, 40, disc(65, 80, 22)),
        (MEDIASTINUM, 40, WALL),
        (LUNGS, -990, TRACHEA | BRONCHUS),
        (LUNGS, -850, disc(60, 57, 5) & ~WALL),  # lung that reaches to the trachea
    ):
        hu[shape], labels[shape] = value, organ
    given = labels.copy()
    given[BRONCHUS], given[WALL & ~disc(65, 86, 22)] = MEDIASTINUM, LUNGS
    hu += np.random.default_rng(0).normal(0, noise, hu.shape)
    return image(hu.round().astype(np.int16)), image(given), labels


def image(values: np.ndarray) -> sitk.Image:
    one = sitk.GetImageFromArray(np.stack([values, values]))
    one.SetSpacing((1, 1, 5))
    one.SetOrigin((3, -7, 40))
    return one


def test_air_in_the_mediastinum_is_an_airway_and_tissue_around_the_trachea_is_none(thorax: Anatomy) -> None:
    ct, given, wanted = chest()
    found = sitk.GetArrayFromImage(volume_with_airways(given, ct, thorax))
    assert np.mean(sitk.GetArrayFromImage(given)[0][WALL & ~TRACHEA] == LUNGS) > 0.3
    assert np.array_equal(found[0], wanted) and np.array_equal(found[1], wanted)


def test_lungs_stay_lungs(thorax: Anatomy) -> None:
    """Vessels, a piece of lung that vessels cut off, and tissue that is near no airway."""
    ct, given, _ = chest()
    hu, labels = sitk.GetArrayFromImage(ct), sitk.GetArrayFromImage(given)
    ring = disc(90, 60, 9) & ~disc(90, 60, 6)
    for values in hu:
        values[disc(60, 40, 3) | ring] = 40
    labels[:, ring | disc(90, 60, 6)] = LUNGS
    found = sitk.GetArrayFromImage(volume_with_airways(image(labels[0]), image(hu[0]), thorax))
    assert np.all(found[:, disc(60, 40, 3) | ring | disc(90, 60, 6)] == LUNGS)


@pytest.mark.parametrize(("orientation", "across", "down"), [("RAS", 1, 1), ("PIL", 2, 1), ("SLP", 1, 2)])
def test_neither_orientation_nor_pixels_that_are_no_squares_change_anything(
    thorax: Anatomy, orientation: str, across: int, down: int
) -> None:
    ct, given, wanted = chest()
    ct, given = (one[::across, ::down] for one in (ct, given))
    found = volume_with_airways(*(sitk.DICOMOrient(one, orientation) for one in (given, ct)), thorax)
    assert np.array_equal(sitk.GetArrayFromImage(sitk.DICOMOrient(found, "LPS"))[0], wanted[::down, ::across])
    assert found.GetDirection() == sitk.DICOMOrient(given, orientation).GetDirection()


def test_tables_decide(thorax: Anatomy) -> None:
    ct, given, _ = chest()
    lungs = replace(thorax.organ("lungs"), aliases=("lung",))
    trachea = replace(lungs, name="trachea", label=6, gray=250, codes=())
    own = Anatomy("own", (*(lungs if o.name == "lungs" else o for o in thorax.organs), trachea))
    found = sitk.GetArrayFromImage(volume_with_airways(given, ct, own))[0]
    assert np.array_equal(found == 6, BRONCHUS)  # a trachea that is labelled lungs is theirs who have a segment for it
    for table in (load_anatomy("lctsc"), Anatomy("no airways", own.organs[:-1])):
        found = sitk.GetArrayFromImage(volume_with_airways(given, ct, table))
        assert np.array_equal(found, sitk.GetArrayFromImage(given))


def test_networks_see_them_and_labels_stay_the_segmentations(thorax: Anatomy) -> None:
    ct, given, wanted = chest()
    case = Case("A", ct, given, ())
    before = sitk.GetArrayFromImage(given)
    (one,) = training_slices(case, thorax, 160, 1, HuRange())
    assert np.array_equal(one.labels.numpy()[20:140], wanted)
    assert np.array_equal(sitk.GetArrayFromImage(case.labels), before)


def test_a_trachea_that_is_labelled_mediastinum_is_no_misfit_and_lungs_are(thorax: Anatomy) -> None:
    ct, given, _ = chest()
    hu, labels = sitk.GetArrayFromImage(ct)[0], sitk.GetArrayFromImage(given)[0]
    neck = np.where(disc(60, 80, 20), MEDIASTINUM, BODY).astype(np.uint8)
    for air, doubted in ((disc(60, 80, 9), False), (disc(60, 80, 19), True)):
        case = Case("A", image(np.where(air, -990, 40).astype(np.int16)), image(neck), ())
        assert (fitting_slices(case, thorax).doubt is not None) == doubted
    assert fitting_slices(Case("A", image(hu), image(labels), ()), thorax).doubt is None
