"""The way between a volume and the networks' square slices, and back, exactly.

A volume is turned so that its array is [slice, row, column] = [inferior to superior, anterior to posterior, right to
left] (LPS), whatever way it was stored; each axial slice is scaled to the network's side and padded to a square. The
way back undoes this in reverse order and ends on the reference's own voxel grid.
"""

from dataclasses import dataclass

import SimpleITK as sitk
import torch
import torch.nn.functional as F
from torch import Tensor

from .anatomy import Anatomy
from .volumes import axial, from_axial

__all__ = ["HuRange", "Square", "axial", "from_axial", "gray_map"]


@dataclass(frozen=True)
class HuRange:
    """The HU that the networks' -1 and 1 stand for; values beyond are clipped."""

    low: float = -1000.0
    high: float = 1000.0

    def to_unit(self, hu: Tensor) -> Tensor:
        """HU -> [-1, 1]."""
        return (2 * (hu - self.low) / (self.high - self.low) - 1).clamp(-1, 1)

    def to_hu(self, x: Tensor) -> Tensor:
        """[-1, 1] -> HU."""
        return (x + 1) / 2 * (self.high - self.low) + self.low


@dataclass(frozen=True)
class Square:
    """How slices of ``height`` x ``width`` pixels lie in a square of ``size`` pixels: scaled to fit, centered.

    The square's pixels are square, whatever the slices' are: nobody is squashed.
    """

    height: int
    width: int
    size: int
    aspect: float = 1.0  # a pixel's height over its width

    @classmethod
    def of(cls, image: sitk.Image, size: int) -> "Square":
        """That of a volume's axial slices."""
        turned = sitk.DICOMOrient(image, "LPS")
        (width, height, _), (across, down, _) = turned.GetSize(), turned.GetSpacing()
        return cls(height, width, size, down / across)

    @property
    def inner(self) -> tuple[int, int]:
        """Height and width of the slice within the square, in pixels of the square."""
        height, width = self.height * self.aspect, self.width
        longest = max(height, width)
        return max(1, round(height * self.size / longest)), max(1, round(width * self.size / longest))

    @property
    def _padding(self) -> tuple[int, int, int, int]:
        height, width = self.inner
        top, left = (self.size - height) // 2, (self.size - width) // 2
        return left, self.size - width - left, top, self.size - height - top

    def of_values(self, slices: Tensor, fill: float) -> Tensor:
        """slices [K, height, width], float -> [K, size, size]: averaged when shrunk, bilinear when enlarged."""
        return F.pad(_resized(slices, self.inner), self._padding, value=fill)

    def of_labels(self, slices: Tensor, organs: int) -> Tensor:
        """slices [K, height, width], organ labels -> int64 [K, size, size]; never a label between two labels.

        Shrunk, a pixel takes the label that covers most of it; enlarged, that of the nearest pixel.
        """
        if self.inner == (self.height, self.width):
            labels = slices.long()
        elif self.inner[0] >= self.height and self.inner[1] >= self.width:
            labels = F.interpolate(slices[:, None].float(), self.inner, mode="nearest-exact")[:, 0].long()
        else:  # slice by slice: a share per organ is `organs` times the memory
            labels = torch.stack([_majority(one.long(), organs, self.inner) for one in slices])
        return F.pad(labels, self._padding, value=0)

    def back(self, squares: Tensor) -> Tensor:
        """The inverse of ``of_values``: [K, size, size] -> [K, height, width]."""
        height, width = self.inner
        left, _, top, _ = self._padding
        return _resized(squares[:, top : top + height, left : left + width], (self.height, self.width))


def _resized(slices: Tensor, shape: tuple[int, int]) -> Tensor:
    if slices.shape[1:] == shape:
        return slices
    return F.interpolate(slices[:, None], shape, mode="bilinear", antialias=True, align_corners=False)[:, 0]


def _majority(labels: Tensor, organs: int, shape: tuple[int, int]) -> Tensor:
    shares = F.one_hot(labels, organs).permute(2, 0, 1)[None].float()
    return F.interpolate(shares, shape, mode="bilinear", antialias=True, align_corners=False)[0].argmax(0)


def gray_map(labels: Tensor, anatomy: Anatomy) -> Tensor:
    """The paper's segmentation map as the generator takes it: each organ's gray y, as y / 127.5 - 1.

    labels: int64 [..., H, W] -> float32 of the same shape in [-1, 1].
    """
    grays = torch.tensor([organ.gray for organ in anatomy.organs], dtype=torch.float32, device=labels.device)
    return grays[labels] / 127.5 - 1
