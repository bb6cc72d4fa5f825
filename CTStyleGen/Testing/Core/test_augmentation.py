"""Moved slices: CT and map stay together, poses repeat, and nothing but air and outside comes in."""

from dataclasses import replace

import numpy as np
import torch
from CTStyleGenCore.anatomy import Anatomy
from CTStyleGenCore.augmentation import Pose, draw_pose, posed, varied
from CTStyleGenCore.cases import Case
from CTStyleGenCore.slices import HuRange, gray_map
from CTStyleGenCore.training_data import training_slices
from phantoms import chest
from scipy import ndimage

STILL = Pose(mirrored=False, angle=0.0, scale=(1.0, 1.0), shift=(0.0, 0.0))


def slice_and_labels() -> tuple[torch.Tensor, torch.Tensor]:
    """A CT whose gray tells its label: wherever it goes, the two must agree."""
    labels = torch.zeros(64, 64, dtype=torch.int64)
    labels[16:48, 20:40] = 3
    labels[24:40, 24:30] = 5
    return (labels / 5 * 2 - 1)[None, None], labels


def test_no_move_changes_nothing() -> None:
    x, labels = slice_and_labels()
    same_x, same_labels = posed(x, labels, STILL)
    torch.testing.assert_close(same_x, x)
    assert torch.equal(same_labels, labels)


def test_mirroring_mirrors() -> None:
    x, labels = slice_and_labels()
    _, mirrored = posed(x, labels, Pose(True, 0.0, (1.0, 1.0), (0.0, 0.0)))
    assert torch.equal(mirrored, labels.flip(1))


def test_a_shift_is_in_half_sides_and_brings_in_air_and_outside() -> None:
    x, labels = slice_and_labels()
    moved_x, moved = posed(x, labels + 1, Pose(False, 0.0, (1.0, 1.0), (0.25, 0.0)))  # up by 8 of 64 pixels
    assert torch.equal(moved[:56], labels[8:] + 1) and (moved[56:] == 0).all()
    torch.testing.assert_close(moved_x[0, 0, :56], x[0, 0, 8:])
    assert (moved_x[0, 0, 56:] == -1).all()


def test_ct_and_labels_move_together() -> None:
    x, labels = slice_and_labels()
    for seed in range(20):
        moved_x, moved = posed(x, labels, draw_pose(np.random.default_rng(seed)))
        assert set(moved.unique().tolist()) <= {0, 3, 5}
        agrees = ((moved_x[0, 0] + 1) * 2.5 - moved).abs() < 0.5
        assert agrees.float().mean() > 0.9  # all but the interpolated borders


def test_a_warp_bends_ct_and_labels_together() -> None:
    """By seed alone, smoothly, as far as it says: with the outlines somewhere else, and nothing torn."""
    x, labels = slice_and_labels()
    for seed in range(5):
        bent_x, bent = posed(x, labels, replace(STILL, warp=seed), warp_mm=12, side_mm=400)
        again_x, again = posed(x, labels, replace(STILL, warp=seed), warp_mm=12, side_mm=400)
        assert torch.equal(bent_x, again_x) and torch.equal(bent, again)
        assert (bent != labels).any() and set(bent.unique().tolist()) == {0, 3, 5}
        assert (((bent_x[0, 0] + 1) * 2.5 - bent).abs() < 0.5).float().mean() > 0.9
        for organ in (3, 5):
            assert ndimage.label((bent >= organ).numpy())[1] == 1
    others = [posed(x, labels, replace(STILL, warp=seed), 12, 400)[1] for seed in (1, 2)]
    assert not torch.equal(*others)


def test_a_warp_is_in_mm() -> None:
    """A ramp along the columns tells how far its pixels came from: up to 12 mm of 400, root mean square, or less."""
    ramp = torch.linspace(-0.9, 0.9, 64).expand(1, 1, 64, 64)
    moved_mm = []
    for seed in range(40):
        bent, _ = posed(ramp, torch.zeros(64, 64, dtype=torch.int64), replace(STILL, warp=seed), 12, 400)
        mm = (bent - ramp)[0, 0, 8:-8, 8:-8] / 1.8 * 400
        moved_mm.append(mm.square().mean().sqrt().item())
    assert 6 < max(moved_mm) * 2**0.5 < 20 and min(moved_mm) < 3  # columns are half of it; the border bends less


def test_poses_repeat_and_stay_within_bounds() -> None:
    assert draw_pose(np.random.default_rng(3)) == draw_pose(np.random.default_rng(3))
    for seed in range(100):
        pose = draw_pose(np.random.default_rng(seed))
        assert abs(pose.angle) < 0.21 and all(0.85 <= s <= 1.15 for s in pose.scale)
        assert all(abs(s) <= 0.2 for s in pose.shift)


def test_a_training_slice_knows_its_side_and_is_warped_with_its_map(thorax: Anatomy) -> None:
    ct, labels = chest(slices=1, side=80)  # of 4 mm
    one = training_slices(Case("A", ct, labels, ()), thorax, 64, 1, HuRange())[0]
    assert one.side_mm == 320
    warped, same = (one.posed(replace(STILL, warp=1), thorax, warp_mm) for warp_mm in (8.0, 0.0))
    assert torch.equal(same.labels, one.labels) and not torch.equal(warped.labels, one.labels)
    torch.testing.assert_close(warped.y, gray_map(warped.labels, thorax)[None, None])
    lungs = warped.x[0, 0][warped.labels == 2]
    assert lungs.median() < -0.8 < 0 < warped.x[0, 0][warped.labels == 4].median()  # the CT went along


def test_a_slice_is_moved_and_varied_on_its_device(thorax: Anatomy) -> None:
    """The device "meta" computes nothing, and refuses what is elsewhere, as a GPU does."""
    ct, labels = chest(slices=1)
    one = training_slices(Case("A", ct, labels, ()), thorax, 64, 1, HuRange())[0].on("meta")
    pose = draw_pose(np.random.default_rng(0))
    moved = one.posed(pose, thorax, 6.0)
    x = varied(moved.x, moved.labels, len(thorax.organs), np.random.default_rng(0))
    assert {part.device.type for part in (moved.x, moved.y, moved.labels, x)} == {"meta"}
