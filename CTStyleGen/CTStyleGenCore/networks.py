"""The paper's networks (section 2.1): an encoder-decoder generator and a conditional discriminator.

Kernel 4 and stride 2 throughout, Convolution-BatchNorm-LeakyReLU after DCGAN (Radford et al., arXiv 1511.06434). What
the paper leaves open (widths, where the noise code enters, skip connections) follows the network it builds on (Zhao et
al., arXiv 1706.02185); docs/paper.md lists each choice.

Shapes: N images in a batch, S their side in pixels (a power of two from 64 to 1024).
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .anatomy import Anatomy
from .style_generator import StyleGenerator

GeneratorKind = Literal["paper", "organs", "styles"]
MIN_SIZE, MAX_SIZE = 64, 1024
_BOTTOM = 8  # side in pixels of the deepest feature map, where the noise code joins
_WIDTHS = (64, 128, 256, 512)
_MAX_WIDTH = 512


def is_valid_size(size: int) -> bool:
    """Whether the networks can be built for slices of ``size`` x ``size`` pixels."""
    return MIN_SIZE <= size <= MAX_SIZE and size & (size - 1) == 0


def _check_size(size: int) -> None:
    if not is_valid_size(size):
        raise ValueError(f"size must be a power of two from {MIN_SIZE} to {MAX_SIZE}, not {size}")


def _norm(channels: int) -> nn.Module:
    """Batch normalization at the paper's batch size of one, with batch statistics in training and in use.

    Over a batch of one, batch statistics are the image's own: this is instance normalization. Written so, an image's
    result depends neither on training or evaluation mode nor on the other images it is synthesized with.
    """
    return nn.InstanceNorm2d(channels, affine=True)


def _down(channels_in: int, channels_out: int, norm: bool = True) -> nn.Sequential:
    """Convolution, kernel 4, stride 2: halves the side."""
    conv = nn.Conv2d(channels_in, channels_out, 4, stride=2, padding=1, bias=not norm)
    return nn.Sequential(conv, *([_norm(channels_out)] if norm else []), nn.LeakyReLU(0.2))


def _up(channels_in: int, channels_out: int) -> nn.Sequential:
    """Transposed convolution, kernel 4, stride 2: doubles the side."""
    conv = nn.ConvTranspose2d(channels_in, channels_out, 4, stride=2, padding=1, bias=False)
    return nn.Sequential(conv, _norm(channels_out), nn.LeakyReLU(0.2))


def _init_weights(module: nn.Module) -> None:
    """DCGAN's initialization: normal weights of deviation 0.02, truncated at two deviations; zero biases."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02, a=-0.04, b=0.04)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class Generator(nn.Module):
    """G(y, z) -> x: a segmentation map and a noise code to a CT slice.

    The encoder halves the map down to 8 x 8; the noise code is fully connected to 4 x 4 x 64, brought to 8 x 8 and
    joined there; the decoder doubles back to the full side, joined at every scale by the encoder's map of that scale.
    """

    def __init__(self, size: int, noise_size: int = 200) -> None:
        super().__init__()
        _check_size(size)
        self.size, self.noise_size = size, noise_size
        levels = int(math.log2(size // _BOTTOM))
        widths = [min(_WIDTHS[0] << level, _MAX_WIDTH) for level in range(levels)]  # of the encoder, top to bottom

        self.encoder = nn.ModuleList([_down(1, widths[0], norm=False), *(_down(a, b) for a, b in pairwise(widths))])
        self.noise = nn.Sequential(nn.Linear(noise_size, 64 * 4 * 4), nn.LeakyReLU(0.2), nn.Unflatten(1, (64, 4, 4)))
        # Not normalized: that would give a fresh random map the same strength as the anatomy from the first step on.
        self.noise_up = nn.Sequential(nn.ConvTranspose2d(64, 128, 4, stride=2, padding=1), nn.LeakyReLU(0.2))

        decoder, channels = [], widths[-1] + 128
        for width, skip in zip(reversed([widths[0], *widths[:-1]]), reversed([0, *widths[:-1]]), strict=True):
            decoder.append(_up(channels, width) if skip else nn.ConvTranspose2d(channels, 1, 4, stride=2, padding=1))
            channels = width + skip
        self.decoder = nn.ModuleList(decoder)
        self.apply(_init_weights)

    def forward(self, y: Tensor, z: Tensor) -> Tensor:
        """y [N, 1, S, S] in [-1, 1], z [N, noise_size] -> x [N, 1, S, S] in [-1, 1]."""
        skips = []
        h = y
        for layer in self.encoder:
            h = layer(h)
            skips.append(h)
        h = torch.cat([h, self.noise_up(self.noise(z))], dim=1)
        for layer, skip in zip(self.decoder, [*reversed(skips[:-1]), None], strict=True):
            h = layer(h) if skip is None else torch.cat([layer(h), skip], dim=1)
        return torch.tanh(h)


class OrganGenerator(nn.Module):
    """G(y, z) -> x with every organ's own scale and shift at every resolution: borders are the map's at once.

    From 8 x 8 up: enlarge by two, convolve, normalize, scale and shift each pixel as its organ says, after
    class-adaptive normalization (Tan et al., arXiv 2012.04644); the noise code sets the scales and shifts. Enlarging
    before convolving leaves no checkerboard (Odena et al., Distill 2016).
    """

    def __init__(self, size: int, grays: Sequence[int], noise_size: int = 200) -> None:
        """grays: the organs' grays in the map, as in the organ table."""
        super().__init__()
        _check_size(size)
        self.size, self.noise_size = size, noise_size
        self.y_of_organ: Tensor
        y_of_organ = torch.tensor(grays).float().view(1, -1, 1, 1) / 127.5 - 1
        self.register_buffer("y_of_organ", y_of_organ, persistent=False)
        widths = [max(16, min(128, 4096 // side)) for side in _sides(size)]
        self.start = nn.Conv2d(len(grays), widths[0], 3, padding=1)
        self.blocks = nn.ModuleList(
            _OrganBlock(a, b, len(grays), noise_size) for a, b in zip([widths[0], *widths], widths, strict=False)
        )
        self.out = nn.Conv2d(widths[-1], 1, 3, padding=1)

    def forward(self, y: Tensor, z: Tensor) -> Tensor:
        """y [N, 1, S, S] in [-1, 1], z [N, noise_size] -> x [N, 1, S, S] in [-1, 1]."""
        organs = ((y - self.y_of_organ).abs() < 1e-3).to(z.dtype)  # [N, organs, S, S]
        shares = [F.adaptive_avg_pool2d(organs, side) for side in _sides(self.size)]
        h = self.start(shares[0])
        for block, share in zip(self.blocks, shares, strict=True):
            h = block(h, share, z)
        return torch.tanh(self.out(h))


class _OrganBlock(nn.Module):
    """Enlarge to the shares' side, then convolve and modulate by organ."""

    def __init__(self, channels_in: int, channels_out: int, organs: int, noise_size: int) -> None:
        super().__init__()
        self.organs = organs
        self.conv = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm = nn.InstanceNorm2d(channels_out)
        self.scales_and_shifts = nn.Linear(noise_size, organs * 2 * channels_out)
        with torch.no_grad():
            self.scales_and_shifts.weight.mul_(0.05)  # at first organs differ more than noise codes do
            self.scales_and_shifts.bias.normal_()

    def forward(self, h: Tensor, shares: Tensor, z: Tensor) -> Tensor:
        """h [N, C, s, s], shares of the organs in each pixel [N, organs, S, S], z [N, noise_size] -> [N, C', S, S]."""
        h = self.norm(self.conv(F.interpolate(h, size=shares.shape[-2:], mode="nearest")))
        by_organ = self.scales_and_shifts(z).unflatten(1, (self.organs, -1))  # [N, organs, 2 C']
        scale, shift = torch.einsum("nohw,noc->nchw", shares, by_organ).chunk(2, dim=1)
        return F.leaky_relu(h * (1 + scale) + shift, 0.2)


def _sides(size: int) -> list[int]:
    """8, 16, ... up to the size."""
    return [_BOTTOM << level for level in range(int(math.log2(size // _BOTTOM)) + 1)]


class Discriminator(nn.Module):
    """D(x, y) -> the logit of "x is the CT of map y"; its sigmoid is the paper's D."""

    def __init__(self, size: int) -> None:
        super().__init__()
        widths = [32, 64, 128, 256, 512]
        self.layers = nn.Sequential(_down(2, widths[0], norm=False), *(_down(a, b) for a, b in pairwise(widths)))
        side = size >> len(widths)
        self.logit = nn.Linear(widths[-1] * side * side, 1)
        self.apply(_init_weights)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """x, y [N, 1, S, S] in [-1, 1] -> logits [N]."""
        return self.logit(self.layers(torch.cat([x, y], dim=1)).flatten(1)).squeeze(1)


AnyGenerator = Generator | OrganGenerator | StyleGenerator


def make_generator(kind: GeneratorKind, size: int, anatomy: Anatomy, noise_size: int) -> AnyGenerator:
    """The untrained generator that a preset names. Raises ValueError for an unknown kind or an impossible size."""
    _check_size(size)
    if kind == "paper":
        return Generator(size, noise_size)
    if kind == "organs":
        return OrganGenerator(size, [organ.gray for organ in anatomy.organs], noise_size)
    if kind == "styles":
        return StyleGenerator(size, [organ.gray for organ in anatomy.organs], noise_size)
    raise ValueError(f"there is no generator {kind!r}")
