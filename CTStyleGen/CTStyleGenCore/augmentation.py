"""New poses of a training slice: CT and map moved together, so that the map stays the CT's.

With the slices of few patients a generator learns where organs usually lie instead of what its map says; moved slices
take that shortcut away. Warped ones have outlines like those of varied anatomy (`variation`) in the training, too.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .deformation import Grid, exponential, smoothed, within

_WARP_NODES, _WARP_MM = 33, 30.0  # nodes of a warp along a side; the width of its bends


@dataclass(frozen=True)
class Pose:
    """How a slice is moved: a small record, drawn apart from being applied."""

    mirrored: bool  # left for right
    angle: float  # radians
    scale: tuple[float, float]  # rows, columns
    shift: tuple[float, float]  # rows, columns, in half sides of the slice
    warp: int = 0  # the seed of its warp, where slices are warped


def draw_pose(rng: np.random.Generator) -> Pose:
    """Mirrored or not, up to 12 degrees, 15 % in size, 10 % of the side in place: still a chest on a table."""
    angle, *rest = rng.uniform(-1, 1, 5).tolist()
    scale, shift = (1 + 0.15 * rest[0], 1 + 0.15 * rest[1]), (0.2 * rest[2], 0.2 * rest[3])
    return Pose(bool(rng.random() < 0.5), math.radians(12) * angle, scale, shift, int(rng.integers(2**32)))


def posed(x: Tensor, labels: Tensor, pose: Pose, warp_mm: float = 0, side_mm: float = 0) -> tuple[Tensor, Tensor]:
    """A CT slice x [1, 1, S, S] in [-1, 1] and its labels [S, S], ``side_mm`` a side, in another pose.

    With ``warp_mm`` it is warped, too, by up to so much (root mean square). The CT is interpolated, labels are taken
    from the nearest pixel; where there was no slice there is air, outside. Computed where the slice is.
    """
    cosine, sine = math.cos(pose.angle), math.sin(pose.angle)
    side = -1.0 if pose.mirrored else 1.0
    # Where in the slice a pixel of the result comes from: along columns, along rows, both from -1 to 1.
    from_where = [
        [side * cosine / pose.scale[1], -sine / pose.scale[0], pose.shift[1]],
        [side * sine / pose.scale[1], cosine / pose.scale[0], pose.shift[0]],
    ]
    grid = F.affine_grid(torch.tensor([from_where]).to(x), list(x.shape), align_corners=False)
    if warp_mm:
        bent = _bent(pose.warp, warp_mm, side_mm).to(x)
        grid = grid + F.interpolate(bent, x.shape[2:], mode="bilinear", align_corners=True).permute(0, 2, 3, 1)
    moved = F.grid_sample(x + 1, grid, mode="bilinear", align_corners=False) - 1  # 0 beyond the border, then -1: air
    moved_labels = F.grid_sample(labels[None, None].float(), grid, mode="nearest", align_corners=False)
    return moved, moved_labels[0, 0].long()


def _bent(seed: int, warp_mm: float, side_mm: float) -> Tensor:
    """A smooth random displacement that folds nothing, in half sides [1, (columns, rows), nodes, nodes]."""
    rng = np.random.default_rng(seed)
    step = side_mm / (_WARP_NODES - 1)
    grid = Grid((1, _WARP_NODES, _WARP_NODES), (1.0, step, step))
    velocity = within(smoothed(rng.standard_normal((*grid.shape, 3)), grid, _WARP_MM), grid)
    velocity *= rng.uniform(0, warp_mm) / np.sqrt((velocity**2).sum(-1).mean())
    u = exponential(velocity, grid)[0, ..., :2] / (side_mm / 2)
    return torch.from_numpy(u).permute(2, 0, 1)[None]


def varied(x: Tensor, labels: Tensor, organs: int, rng: np.random.Generator) -> Tensor:
    """A CT slice x [1, 1, S, S] in [-1, 1] in another look: smoother or sharper, organs brighter and of more contrast.

    With a few patients' styles alone, a network learns these by heart instead of what a style code says.
    """
    sharpness = rng.uniform(-0.7, 0.5)
    x = x + sharpness * (x - F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1))
    inside = F.one_hot(labels, organs).permute(2, 0, 1).to(x.dtype)  # [organs, S, S]
    mean = (inside * x[0]).sum((1, 2)) / inside.sum((1, 2)).clamp(min=1)
    drawn = torch.from_numpy(rng.uniform(-1, 1, (2, organs)).astype(np.float32)) * torch.tensor([[0.2], [0.04]])
    gain, shift = drawn.to(x.device)
    gain[0] = shift[0] = 0  # air stays air
    brighter = torch.einsum("ohw,o->hw", inside, shift - gain * mean) + x * torch.einsum("ohw,o->hw", inside, 1 + gain)
    return brighter.clamp(-1, 1)
