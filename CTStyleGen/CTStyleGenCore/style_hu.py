"""From a generator's scores to the HU of a style: each organ's distribution, its borders, and its noise.

Scores say how bright each pixel is among those of its organ; HU come from style codes (`style_codes`). Shapes: N images
in a batch, S their side in pixels, O organs; shares [N, O, S, S] are 1 where an organ is, else 0.
"""

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .sorting import places_ascending
from .style_codes import GRAIN, GRAIN_LAGS, LAGS, LEVELS, grain, interpolated, roughness
from .styles import SCORES

_BORDER_SHARE = 0.25  # of an organ's pixels, at most, that lie at a border of it; more are thin all over
_SMOOTH_DEVIATION = 6 / 16  # of white noise that is binomially smoothed
_SMOOTH_GRAIN = (1 / 9, 25 / 36)  # at GRAIN_LAGS, squared, of a deviation of 1: (1 less the autocorrelation) squared


def normal_scores(h: Tensor, shares: Tensor) -> Tensor:
    """h [N, 1, S, S] with mean 0 and deviation 1 within every organ: which pixels of it are dark, which bright."""
    area = shares.sum((2, 3)).clamp(min=1)  # [N, O]

    def mean(values: Tensor) -> Tensor:
        """Of each organ, at every pixel of it: [N, 1, S, S]."""
        means = torch.einsum("nohw,nchw->no", shares, values) / area
        return torch.einsum("nohw,no->nhw", shares, means)[:, None]

    centered = h - mean(h)
    return centered * (mean(centered.square()) + 1e-4).rsqrt()


def in_style(scores: Tensor, shares: Tensor, codes: Tensor) -> Tensor:
    """Normal scores [N, 1, S, S] as quantiles of their organ's style, codes [N, O, CODE_SIZE] -> x [N, 1, S, S].

    The Gaussian anamorphosis of geostatistics (Journel and Huijbregts 1978): a pixel whose score has the probability p
    in the normal distribution gets the quantile of p; straight between the LEVELS' quantiles, flat beyond them.
    """
    quantiles = codes[..., : len(LEVELS)]
    knots = torch.tensor(SCORES, device=scores.device)
    above = torch.searchsorted(knots, scores.detach()).clamp(1, len(LEVELS) - 1)
    part = ((scores - knots[above - 1]) / (knots[above] - knots[above - 1])).clamp(0, 1)
    places = (labels_of(shares)[:, None] * len(LEVELS) + above).flatten(1)
    lower, upper = (quantiles.flatten(1).gather(1, at).view_as(scores) for at in (places - 1, places))
    return torch.lerp(lower, upper, part)


class StyledOrgans:
    """The organs of N maps with the styles that they are to have: what is done to images of them in use."""

    def __init__(self, shares: Tensor, codes: Tensor) -> None:
        """shares [N, O, S, S], codes [N, O, CODE_SIZE]."""
        self.shares, self.codes, self.labels = shares, codes, labels_of(shares)
        levels = torch.tensor(LEVELS, device=shares.device)
        self._hu = []  # of each organ but the outside: its image, its pixels, and their HU in ascending order
        for image, organs in enumerate(shares.flatten(2)):
            for share, quantiles in zip(organs[1:], codes[image, 1:, : len(LEVELS)], strict=True):
                pixels = (share > 0).nonzero()[:, 0]
                at = (torch.arange(len(pixels), device=shares.device) + 0.5) / max(len(pixels), 1)
                self._hu.append((image, pixels, interpolated(at, levels, quantiles)))

    def by_rank(self, x: Tensor) -> Tensor:
        """x [N, 1, S, S] with its organs' HU as their styles have them: the quantiles, in x's order.

        Outside, the first organ, x stays: how much of it is the body's edge isn't the style's to say.
        """
        result = x.clone()
        flat = result.flatten(1)
        for image, pixels, ascending in self._hu:
            flat[image, pixels[places_ascending(flat[image, pixels])]] = ascending
        return result

    def with_borders(self, x: Tensor) -> Tensor:
        """x [N, 1, S, S], in every pixel that has one of another organ beside it some of both, as in a scanner's.

        Every organ has HU between its own and its neighbors'. Ranks then put them there; left to the generator, which
        can't know in which of two pixels across a border they are, they would seam it with dots. Organs that are mostly
        border, such as ribs, would grow thin, and stay as they are.
        """
        border = self.shares * (blended(self.shares) < 1)  # [N, O, S, S]
        thick = border.sum((2, 3), keepdim=True) <= _BORDER_SHARE * self.shares.sum((2, 3), keepdim=True)
        return torch.where((border * thick).sum(1, keepdim=True) > 0, blended(x), x)

    def with_grain(self, x: Tensor, white: Tensor) -> Tensor:
        """x [N, 1, S, S], which has its styles' HU, with their grain as well; white noise [N, 1, S, S].

        A scanner's noise is white but for its kernel, which no network need learn: organs that have less grain than
        their style get noise, of white and of smooth so much that it is at both lags the style's; none where it isn't
        known (NaN). Others that are rougher than the style are smoothed. Both in HU, and then organs are given back
        their distribution by ranks: fat and muscle stay apart. The outside stays as it is.
        """
        outside, smooth = self.shares[:, :1] > 0, smoothed(x, self.shares)
        smooth_noise = blended(scattered(white, white.shape[-1])) / _SMOOTH_DEVIATION

        def changed(added: Tensor, part: Tensor) -> Tensor:
            """White and smooth noise of powers [2, N, O] added to each organ, and a part of each [N, O] smoothed."""
            by_organ = torch.stack([*added.sqrt(), part])
            by_white, by_smooth, less = torch.einsum("nohw,kno->knhw", self.shares, by_organ)[:, :, None]
            noisy = torch.lerp(x, smooth, less) + by_white * white + by_smooth * smooth_noise
            return self.by_rank(torch.where(outside, x, noisy))

        grains = torch.stack([self._grain(x, lag) for lag in GRAIN_LAGS], dim=-1).square()
        near, far = (self.codes[..., GRAIN:].square() - grains).unbind(-1)  # what noise has to add
        rough, wanted = self._roughness(x), self.codes[..., len(LEVELS)]
        missing = near.nan_to_num().clamp(min=0)
        added = _powers(missing, far)
        rougher = ((rough > wanted) & (missing == 0)).to(x.dtype)
        tried = changed(added, rougher)
        reached = self._grain(tried, GRAIN_LAGS[0]).square()  # 0 of organs that are too small to tell
        reached = (reached - grains[..., 0]).where(reached > 0, missing).clamp(min=1e-9)  # ranks undo some of it
        part = rougher * ((rough - wanted) / (rough - self._roughness(tried)).clamp(min=1e-6)).clamp(max=1)
        return changed(added * (missing / reached).clamp(0.25, 4), part)

    def _grain(self, x: Tensor, lag: int) -> Tensor:
        """Of each organ: [N, O]."""
        organs = self.shares.shape[1]
        return torch.stack([grain(one, at[None], organs, lag) for one, at in zip(x, self.labels, strict=True)])

    def _roughness(self, x: Tensor) -> Tensor:
        """Of each organ, at the first lag: [N, O]."""
        return torch.stack([roughness(one, at[None], LAGS[0]) for one, at in zip(x, self.shares, strict=True)])


def _powers(near: Tensor, far: Tensor) -> Tensor:
    """Of white and of smooth noise, [2, N, O], that add ``near`` and ``far``, [N, O], at the two lags of the grain.

    As near to ``far`` as there is noise for; white alone where that isn't known (NaN).
    """
    of_near, of_far = _SMOOTH_GRAIN
    smooth = ((far - near) / (of_far - of_near)).nan_to_num().clamp(min=0).minimum(near / of_near)
    return torch.stack([(near - of_near * smooth).clamp(min=0), smooth])  # rounding may leave less than nothing


def scattered(field: Tensor, side: int) -> Tensor:
    """A field's values [N, 1, s, s] in another order, always the same, each as often as needed: [N, 1, side, side].

    White noise, whatever the field's spectrum is, and as smooth in a noise code as the field.
    """
    places = _scattering(side**2).to(field.device) % field[0].numel()
    return field.flatten(2)[..., places].view(-1, 1, side, side)


@cache
def _scattering(pixels: int) -> Tensor:
    return torch.from_numpy(np.random.RandomState(0).permutation(pixels))  # a stream that NumPy keeps for ever


def smoothed(x: Tensor, shares: Tensor) -> Tensor:
    """x [N, 1, S, S], each pixel the mean of the 3 x 3 around it that are in its organ, binomial weights."""
    sums, areas = _binomial(shares * x), _binomial(shares)
    return (shares * sums / areas.clamp(min=1e-6)).sum(1, keepdim=True)


def blended(x: Tensor) -> Tensor:
    """x [N, C, S, S], each pixel the binomial mean of the 3 x 3 around it; beyond the edges it is as at them.

    Weights are powers of two: of ones it is 1, not nearly.
    """
    return _binomial(F.pad(x, (1, 1, 1, 1), mode="replicate"))[..., 1:-1, 1:-1]


def _binomial(x: Tensor) -> Tensor:
    """x [N, C, S, S] averaged over 3 x 3 pixels, those in the middle weighing more; 0 beyond the edges."""
    weights = torch.tensor([0.25, 0.5, 0.25], device=x.device)
    kernel = (weights[:, None] * weights).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(x, kernel, padding=1, groups=x.shape[1])


def labels_of(shares: Tensor) -> Tensor:
    """[N, O, S, S], 1 where an organ is, else 0 -> int64 [N, S, S]; a tenth of the time of argmax."""
    return torch.einsum("nohw,o->nhw", shares, torch.arange(shares.shape[1], device=shares.device).to(shares)).long()
