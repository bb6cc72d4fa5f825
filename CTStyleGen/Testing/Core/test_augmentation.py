"""Moved slices: CT and map stay together, poses repeat, and nothing but air and outside comes in."""

import numpy as np
import torch
from CTStyleGenCore.augmentation import Pose, draw_pose, posed

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


def test_poses_repeat_and_stay_within_bounds() -> None:
    assert draw_pose(np.random.default_rng(3)) == draw_pose(np.random.default_rng(3))
    for seed in range(100):
        pose = draw_pose(np.random.default_rng(seed))
        assert abs(pose.angle) < 0.21 and all(0.85 <= s <= 1.15 for s in pose.scale)
        assert all(abs(s) <= 0.2 for s in pose.shift)
