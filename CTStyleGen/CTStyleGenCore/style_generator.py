"""One generator for many styles: every organ's look comes from a style code, given when the generator is used.

From 8 x 8 up, each block enlarges by two, is told which organs are near, convolves, adds noise, and scales and shifts
every pixel as the style of its organ says: modulation by region as in SEAN (Zhu et al., arXiv 1911.12861) and CLADE
(Tan et al., arXiv 2012.04644), noise with a gain per organ, scale and channel after StyleGAN (Karras et al., arXiv
1812.04948). The first blocks know the map alone: where fat and muscle or the heart's chambers lie is the anatomy's, not
the style's to say, nor chance. Each block adds to a score of how bright each pixel is among those of its organ (output
skips: Karras et al., arXiv 1912.04958), so the blocks up to a smaller side draw a slice of that side. A pixel's HU is
its style's quantile of the score. So HU are the style's by construction, also for a style never seen, and what is
learned is where in an organ the bright and the dark lie. In use, a score is the pixel's rank in its organ, and the HU
are the style's exactly; muscle has grown or shrunk to the style's share of it (`composition`), HU between two organs'
lie where they meet, and organs get their style's grain. Ranks have no useful derivative: in training, scores have the
mean and the deviation of normal ones alone. And noise is weaker in use than in training, as in the truncation trick
(Brock et al., arXiv 1809.11096): what is drawn is more what the map makes likely, and less what chance makes of it.

Shapes: N images in a batch, S their side in pixels, O organs.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .composition import Composition, fat_of_codes, grown, in_proportion
from .style_codes import GRAIN, TOLD, from_told, told
from .style_hu import StyledOrgans, in_style, normal_scores, scattered

_BOTTOM = 8  # side in pixels of the first block
_LAYOUT = 32  # side of the last block that knows neither style nor noise: 12 mm a pixel in a slice of 400 mm
_STYLE_WIDTH = 64
_WAVES = 1024
_CALMED = 0.5  # of the noise that blocks are given in use, its deviation: in training it is 1
_SCANNERS = 256  # side from which pixels are so small that the last block's noise is a scanner's, not vessels
_SCATTERED = 64  # side of the noise field whose values become white noise, for the grain
_SURROUNDINGS = 32  # squares a side, over some of which organs count as near: 12 mm each in a slice of 400 mm


class OrganShares(nn.Module):
    """The map y [N, 1, S, S] as one channel an organ [N, O, S, S]: 1 where the organ is, else 0."""

    def __init__(self, grays: Sequence[int]) -> None:
        super().__init__()
        self.y_of_organ: Tensor
        self.register_buffer("y_of_organ", torch.tensor(grays).float().view(1, -1, 1, 1) / 127.5 - 1, persistent=False)

    def forward(self, y: Tensor) -> Tensor:
        return ((y - self.y_of_organ).abs() < 1e-3).float()


class NormalizedCodes(nn.Module):
    """What networks are told of codes [N, O, CODE_SIZE]: less their organ's mean over the training slices, over the
    deviation: [N, O, TOLD]; missing ones are 0.

    Beyond three deviations codes are cut off: a style unlike all training data is taken for the most extreme of them.
    """

    def __init__(self, organs: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.zeros(organs, TOLD))
        self.register_buffer("deviation", torch.ones(organs, TOLD))

    def learn(self, codes: Tensor) -> None:
        """Takes mean and deviation of the codes [slices, O, CODE_SIZE], those missing left out."""
        numbers = told(codes)
        self.mean = numbers.nanmean(0).nan_to_num()
        self.deviation = (numbers - self.mean).square().nanmean(0).sqrt().nan_to_num().clamp(min=0.01)

    def filled(self, codes: Tensor) -> Tensor:
        """Codes [N, O, CODE_SIZE] as they are, the missing ones with the mean, their grain the median organ's."""
        known = torch.where(codes.isnan(), from_told(self.mean), codes)
        grains = known[..., GRAIN:]
        median = grains[:, 1:].nanmedian(1, keepdim=True).values
        return torch.cat([known[..., :GRAIN], torch.where(grains.isnan(), median, grains)], dim=2)

    def forward(self, codes: Tensor) -> Tensor:
        return ((told(codes) - self.mean) / self.deviation).nan_to_num().clamp(-3, 3)


class Waves(nn.Module):
    """A noise code as a random field: plane waves, whose amplitudes are fixed mixtures of the code's numbers.

    There are more waves than numbers: of few, a convolution that is tuned to some frequencies lets a handful through,
    which make a lattice. A field is normal with deviation 1 and the same everywhere, white up to 0.32 periods a pixel
    (beyond, waves and pixels beat: a grid to the eye); it says nothing of where in the image a pixel is. Without a
    random number drawn: the same on every device, smooth in the code.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.waves: Tensor  # frequency along rows and along columns in radians a pixel, phase: [3, _WAVES]
        frequency, direction, phase = 2.0 * torch.rand(_WAVES).sqrt(), *(2 * math.pi * torch.rand(2, _WAVES))
        self.register_buffer("waves", torch.stack([frequency * direction.cos(), frequency * direction.sin(), phase]))
        self.mixture: Tensor
        self.register_buffer("mixture", torch.randn(count, _WAVES) * math.sqrt(2 / (count * _WAVES)))

    def forward(self, z: Tensor, side: int) -> Tensor:
        """z [N, count] -> [N, 1, side, side]."""
        place = torch.arange(side, device=z.device)
        down, across = self.waves[0, :, None] * place + self.waves[2, :, None], self.waves[1, :, None] * place
        amplitudes = z @ self.mixture
        even = torch.einsum("nk,ki,kj->nij", amplitudes, down.cos(), across.cos())
        odd = torch.einsum("nk,ki,kj->nij", amplitudes, down.sin(), across.sin())
        return (even - odd)[:, None]


def _padding(side: int) -> Literal["replicate", "zeros"]:
    """Zeros around a slice say how far a pixel is from its edges; where blocks have few pixels, that is a place."""
    return "replicate" if side <= _LAYOUT else "zeros"


class _Modulated(nn.Module):
    """Convolve, add noise, normalize each pixel, then scale and shift it as its organ's style says."""

    def __init__(self, channels_in: int, channels_out: int, side: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, padding=1, padding_mode=_padding(side))
        self.by_style = nn.Linear(_STYLE_WIDTH, 3 * channels_out)  # scale, shift, gain of the noise

    def forward(self, h: Tensor, shares: Tensor, styles: Tensor, noise: Tensor | None) -> Tensor:
        """h [N, C, s, s], shares [N, O, s, s], styles [N, O, W], noise [N, 1, s, s] or none -> [N, C', s, s]."""
        h = self.conv(h)
        told = self.by_style(styles)[..., : (2 if noise is None else 3) * h.shape[1]]
        scale, shift, *gain = torch.einsum("nohw,noc->nchw", shares, told).split(h.shape[1], dim=1)
        if noise is not None:
            h = h + gain[0] * noise
        h = h * (h.square().mean(1, keepdim=True) + 1e-6).rsqrt()  # of the pixel alone: organs don't touch each other
        return F.leaky_relu(h * (1 + scale) + shift, 0.2)


class StyleGenerator(nn.Module):
    """G(y, z, codes) -> x: a segmentation map, a noise code and a style code for every organ to a CT slice."""

    def __init__(self, size: int, grays: Sequence[int], noise_size: int) -> None:
        """grays: the organs' grays in the map, as in the organ table."""
        super().__init__()
        self.size, self.noise_size = size, noise_size
        organs = len(grays)
        self.composition = Composition.unknown(organs)
        self.shares, self.normalized = OrganShares(grays), NormalizedCodes(organs)
        self.organ = nn.Parameter(torch.randn(organs, _STYLE_WIDTH))
        self.style = nn.Sequential(
            *(nn.Linear(TOLD + _STYLE_WIDTH, 2 * _STYLE_WIDTH), nn.LeakyReLU(0.2)),
            *(nn.Linear(2 * _STYLE_WIDTH, _STYLE_WIDTH), nn.LeakyReLU(0.2)),
        )
        self.sides = [_BOTTOM << level for level in range(int(math.log2(size // _BOTTOM)) + 1)]
        widths = [max(24, min(128, 4096 // side)) for side in self.sides]
        self.start = nn.Conv2d(organs, widths[0], 3, padding=1, padding_mode=_padding(_BOTTOM))
        self.waves = nn.ModuleDict({str(side): Waves(noise_size) for side in self.sides if side > _LAYOUT})
        blocks = list(zip([widths[0], *widths], widths, self.sides, strict=False))
        self.enlarged = nn.ModuleList(_Modulated(before + organs, width, side) for before, width, side in blocks)
        self.refined = nn.ModuleList(_Modulated(width, width, side) for _, width, side in blocks)
        self.scores = nn.ModuleList(
            nn.Conv2d(width, 1, 3, padding=1, padding_mode=_padding(side)) for _, width, side in blocks
        )

    def forward(self, y: Tensor, z: Tensor, codes: Tensor) -> Tensor:
        """y [N, 1, S, S] in [-1, 1], z [N, noise_size], codes [N, O, CODE_SIZE], NaN: missing -> x [N, 1, S, S]."""
        shares = self.shares(y)
        by_organ = self.organ.expand(len(y), -1, -1)
        drawn, strength = codes, 1.0
        if not self.training:
            strength = _CALMED
            fat_by_map, fat_by_style = self.composition.fat(shares), fat_of_codes(codes, self.composition.cut)
            drawn = in_proportion(codes, fat_by_style, fat_by_map)
        styles = self.style(torch.cat([self.normalized(drawn), by_organ], dim=2))
        at_side = pyramid(shares, self.sides[0])
        h, around = self.start(at_side[self.sides[0]]), surroundings(at_side[_SURROUNDINGS])
        score = h.new_zeros(len(y), 1, 1, 1).float()
        for side, enlarged, refined, scored in zip(self.sides, self.enlarged, self.refined, self.scores, strict=True):
            if side > y.shape[-1]:
                break
            here = at_side[side]
            known = styles if side > _LAYOUT else by_organ
            noise = self.waves[str(side)](strength * z, side) if self._draws_noise(side, y.shape[-1]) else None
            near = F.interpolate(around, size=(side, side), mode="bilinear", antialias=True)
            h = torch.cat([F.interpolate(h, size=(side, side), mode="bilinear"), near], dim=1)
            h = enlarged(h, here, known, noise)
            h = refined(h, here, known, noise)
            score = F.interpolate(score, size=(side, side), mode="bilinear") + scored(h).float()
        with torch.autocast(y.device.type, enabled=False):  # HU would be rounded to steps of eight
            scores, codes = normal_scores(score, shares), self.normalized.filled(codes)
            if self.training:
                return in_style(scores, shares, codes)
            scores = grown(scores, shares, fat_by_map, fat_by_style)
            x = torch.where(shares[:, :1] > 0, in_style(scores, shares, codes), scores)
            organs = StyledOrgans(shares, codes)
            x = organs.by_rank(organs.with_borders(organs.by_rank(x)))
            field = self.waves[str(self.size)](z.flip(1), _SCATTERED)  # another than blocks have seen
            return organs.with_grain(x, scattered(field, y.shape[-1]))

    def _draws_noise(self, side: int, last: int) -> bool:
        """Whether the block of a side has noise, in slices with ``last`` pixels a side.

        In training the last one needs it to be as rough as the style asks; in use, from _SCANNERS pixels on, grain adds
        noise of the style's own kind instead.
        """
        return side > _LAYOUT and (self.training or side < max(last, _SCANNERS))


def pyramid(shares: Tensor, least: int) -> dict[int, Tensor]:
    """Shares [N, O, S, S] at S, S / 2, ..., ``least`` squares a side, by the side: each square's mean."""
    levels = {shares.shape[-1]: shares}
    while (side := min(levels)) > least:
        levels[side // 2] = F.avg_pool2d(levels[side], 2)
    return levels


def surroundings(shares: Tensor) -> Tensor:
    """How much there is of each organ around each of 32 x 32 squares, shares [N, O, S, S] -> [N, O, 32, 32].

    Skin and ribs near or far tell fat from muscle. Known by every block, so that it need not be learned through all.
    """
    squares = F.adaptive_avg_pool2d(shares, _SURROUNDINGS)
    return F.avg_pool2d(F.pad(squares, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
