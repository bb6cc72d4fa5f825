"""The way from a volume to the networks' squares and back: exact for every orientation, size and shape."""

import itertools

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from CTStyleGenCore.anatomy import load_anatomy
from CTStyleGenCore.slices import HuRange, Square, axial, from_axial, gray_map

ORIENTATIONS = ["LPS", "RAS", "LAS", "LPI", "PIR", "ASL", "SRA"]


def marked_volume(direction: tuple[float, ...]) -> sitk.Image:
    """A volume whose voxels all differ, in this direction."""
    image = sitk.GetImageFromArray(np.arange(3 * 4 * 5, dtype=np.int16).reshape(3, 4, 5))
    image.SetDirection(direction)
    image.SetSpacing((0.7, 0.9, 2.5))
    image.SetOrigin((-100.5, 20.25, 1234.125))
    return image


def directions() -> list[tuple[float, ...]]:
    """Right- and left-handed ones, and each of them turned obliquely."""
    oblique = sitk.Euler3DTransform((0, 0, 0), 0.2, -0.15, 0.1).GetMatrix()
    turn = np.array(oblique).reshape(3, 3)
    plain = [sitk.DICOMOrientImageFilter.GetDirectionCosinesFromOrientation(name) for name in ORIENTATIONS]
    return plain + [tuple((turn @ np.array(d).reshape(3, 3)).ravel()) for d in plain]


@pytest.mark.parametrize("direction", directions())
def test_back_from_axial_gives_the_volume_back(direction: tuple[float, ...]) -> None:
    image = marked_volume(direction)
    back = from_axial(axial(image), image)
    assert np.array_equal(sitk.GetArrayFromImage(back), sitk.GetArrayFromImage(image))
    assert back.GetOrigin() == image.GetOrigin()
    assert back.GetSpacing() == image.GetSpacing()
    assert back.GetDirection() == image.GetDirection()


@pytest.mark.parametrize("direction", directions())
def test_axial_slices_ascend_and_face_the_viewer(direction: tuple[float, ...]) -> None:
    """Along each axis of the array the patient position rises: superior, posterior, left (checked voxel by voxel)."""
    image = marked_volume(direction)
    indices = itertools.product(*map(range, image.GetSize()))
    where = {int(image[at]): image.TransformIndexToPhysicalPoint(at) for at in indices}
    values = axial(image)
    for axis, coordinate in ((0, 2), (1, 1), (2, 0)):
        first, last = values.take(0, axis).ravel(), values.take(-1, axis).ravel()
        assert all(where[int(b)][coordinate] > where[int(a)][coordinate] for a, b in zip(first, last, strict=True))


@pytest.mark.parametrize("shape", [(64, 64), (64, 32), (37, 64), (50, 50), (200, 123), (24, 128)])
def test_squares_and_back_keep_place_and_value(shape: tuple[int, int]) -> None:
    """A smooth ramp survives the way there and back, at every size and shape."""
    height, width = shape
    ramp = torch.linspace(0, 1, height)[:, None] + torch.linspace(0, 2, width)[None]
    square = Square(height, width, 64)
    there = square.of_values(ramp[None], fill=-5)
    assert there.shape == (1, 64, 64)
    back = square.back(there)
    assert back.shape == (1, height, width)
    assert (back[0] - ramp).abs().max() < 0.1


@pytest.mark.parametrize("spacing", [(0.7, 5.0), (5.0, 0.7), (1.0, 1.1)])
def test_nobody_is_squashed(spacing: tuple[float, float]) -> None:
    """A disk stays one, and where it was, in slices whose pixels aren't square; the way back ends in the slice."""
    (across, down), shape = spacing, (round(300 / spacing[1]), round(360 / spacing[0]))
    image = sitk.Image(shape[1], shape[0], 1, sitk.sitkUInt8)
    image.SetSpacing((across, down, 3))
    square = Square.of(sitk.DICOMOrient(image, "RAI"), 128)
    assert square == Square.of(image, 128)
    y, x = (np.arange(n) * mm for n, mm in zip(shape, (down, across), strict=True))
    disk = torch.from_numpy(np.hypot(y[:, None] - 150, x[None] - 180) < 100)[None].long()
    there = square.of_labels(disk, 2)
    rows, columns = np.nonzero(there[0].numpy())
    pixel_mm = 360 / 128
    for places in (rows, columns):
        assert (np.ptp(places) + 1) * pixel_mm == pytest.approx(200, abs=max(spacing) + 2 * pixel_mm)
        assert places.mean() == pytest.approx(63.5, abs=1.5)
    back = square.back(there.float())
    assert back.shape == (1, *shape)
    assert ((back > 0.5) == disk).float().mean() > 0.97


def test_a_slice_of_the_networks_size_is_untouched() -> None:
    values, labels = torch.randn(2, 64, 64), torch.randint(0, 6, (2, 64, 64))
    square = Square(64, 64, 64)
    assert torch.equal(square.of_values(values, 0), values)
    assert torch.equal(square.of_labels(labels, 6), labels)
    assert torch.equal(square.back(values), values)


@pytest.mark.parametrize("shape", [(40, 64), (150, 90), (33, 20)])
def test_labels_stay_labels(shape: tuple[int, int]) -> None:
    """No label between two labels, and padding is outside."""
    labels = torch.zeros((1, *shape), dtype=torch.int64)
    labels[:, shape[0] // 4 : shape[0] // 2, :] = 5
    squares = Square(*shape, 64).of_labels(labels, 6)
    assert set(squares.unique().tolist()) == {0, 5}
    share, expected = ((y == 5).float().mean().item() for y in (squares, labels))
    inner = Square(*shape, 64).inner
    assert share * 64 * 64 / (inner[0] * inner[1]) == pytest.approx(expected, abs=0.05)


def test_shrinking_takes_the_majority() -> None:
    labels = torch.zeros(1, 128, 128, dtype=torch.int64)
    labels[0, :, 3::4] = 2  # a quarter of each pixel: the minority
    assert Square(128, 128, 64).of_labels(labels, 3)[0, :, 1:-1].eq(0).all()


def test_hu_and_back_within_the_range_and_clipped_beyond() -> None:
    hu = torch.tensor([-3024.0, -1000.0, -512.0, 0.0, 40.0, 1000.0, 30000.0])
    x = HuRange().to_unit(hu)
    assert x.abs().max() <= 1
    torch.testing.assert_close(HuRange().to_hu(x), hu.clamp(-1000, 1000), atol=0.01, rtol=0)


def test_gray_map_is_the_papers_palette() -> None:
    grays = (gray_map(torch.arange(6)[None], load_anatomy("thorax")) + 1) * 127.5
    torch.testing.assert_close(grays, torch.tensor([[0.0, 50, 100, 150, 200, 230]]))
