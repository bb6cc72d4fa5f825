"""How much of an organ is fat: the map's to say rather than the style's, as it is in the CT that training sees.

A body whose skin is far from its ribs has fat between them, whoever's look it is given: over the training cases, the
share of an organ's pixels that are fat goes with how far, at the median, they are from other organs. So networks are
told of styles in the map's proportion, in training and in use. A style's HU are met all the same: where it has more or
less muscle than the map gives room for, muscle grows or shrinks at its edges, instead of being strewn over the fat.

Shapes: N images in a batch, S their side in pixels, O organs.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .anatomy import Anatomy
from .slices import HuRange
from .sorting import places_ascending
from .style_codes import LEVELS, interpolated
from .style_hu import blended, smoothed

FAT_BELOW = -30.0  # HU, as in the analysis of body composition by CT (Mitsiopoulos et al., J Appl Physiol 1998)
_MIXED = (0.2, 0.8)  # the mean share of fat of organs that are of both
_MIN_CASES = 4  # that make a line; of fewer, the mean is taken
_MIN_AREA = 16  # pixels; fewer have no share
_GRID = 128  # squares a side, by which distances are counted: 3 mm in a slice of 400 mm
_COARSE = 64  # squares a side, on which tissues are smoothed
_REACHES = (1, 2, 4, 8)  # of these squares, over which a pixel is near to a tissue


@dataclass(frozen=True)
class Composition:
    """What a map tells of its organs' fat: lines from depth to share, float32 [O, 4].

    A row: the share at depth 0, what it gains with the depth, the least and the greatest that training saw; NaN for
    organs that are all fat or have next to none.
    """

    lines: Tensor
    cut: float  # FAT_BELOW in [-1, 1]

    @classmethod
    def learned(cls, shares: Iterable[Tensor], fat: Tensor, cases: Sequence[str], cut: float) -> "Composition":
        """Of slices: each one's shares [1, O, S, S], fat [slices, O] and cases; every case counts once."""
        found, named = fat.double().numpy(), np.array(cases)
        inside = range(1, found.shape[1])
        depths = np.pad(torch.cat([depth(one, inside) for one in shares]).double().numpy(), ((0, 0), (1, 0)))
        rows = [[np.nan] * 4]  # the outside
        for organ in inside:
            own = [(named == case) & ~np.isnan(found[:, organ]) for case in dict.fromkeys(cases)]
            means = np.array([(depths[of, organ].mean(), found[of, organ].mean()) for of in own if of.any()])
            rows.append(_line(means))
        return cls(torch.tensor(np.array(rows), dtype=torch.float32), cut)

    @property
    def told(self) -> Tensor:
        """Of which organs, bool [O]."""
        return ~self.lines[:, 0].isnan()

    def fat(self, shares: Tensor) -> Tensor:
        """The share of each organ's pixels that should be fat, by maps [N, O, S, S]: [N, O]; NaN: not told."""
        organs = self.told.nonzero()[:, 0].tolist()
        start, slope, least, greatest = self.lines[organs].to(shares.device).unbind(1)
        found = shares.new_full(shares.shape[:2], torch.nan)
        found[:, organs] = (start + slope * depth(shares, organs)).maximum(least).minimum(greatest)
        return found

    def to_json(self, anatomy: Anatomy) -> dict[str, list[float]]:
        rows = zip(anatomy.organs, self.lines.tolist(), strict=True)
        return {organ.name: [round(v, 4) for v in row] for organ, row in rows if not np.isnan(row).any()}

    @classmethod
    def unknown(cls, organs: int) -> "Composition":
        """Tells nothing."""
        return cls(torch.full((organs, 4), torch.nan), 0.0)

    @classmethod
    def from_json(cls, card: Mapping[str, Any], anatomy: Anatomy, hu: HuRange) -> "Composition":
        """Raises ValueError, TypeError or AttributeError for what is none. Models of before tell nothing."""
        rows = [card.get(organ.name, [np.nan] * 4) for organ in anatomy.organs]
        if any(len(row) != 4 for row in rows):
            raise ValueError
        return cls(torch.tensor(rows, dtype=torch.float32), cut(hu))


def _line(means: np.ndarray) -> list[float]:
    """A row of lines, of the cases' mean depths and shares of fat [cases, 2]."""
    if not len(means) or not _MIXED[0] <= means[:, 1].mean() <= _MIXED[1]:
        return [np.nan] * 4
    depths, fat = means.T
    few = len(means) < _MIN_CASES or np.ptp(depths) < 1 / _GRID
    slope, start = (0.0, fat.mean()) if few else np.polyfit(depths, fat, 1)
    return [start, slope, fat.min(), fat.max()]


def cut(hu: HuRange) -> float:
    """FAT_BELOW in [-1, 1]."""
    return float(hu.to_unit(torch.tensor(FAT_BELOW)))


def fat_of_slice(x: Tensor, labels: Tensor, organs: int, cut: float) -> Tensor:
    """The share of each organ's pixels that are fat, x and labels [S, S]: [O]; NaN where there are hardly any."""
    counts, fat = (torch.bincount(of, minlength=organs) for of in (labels.flatten(), labels[x < cut]))
    return (fat / counts).where(counts >= _MIN_AREA, torch.nan)


def fat_of_codes(codes: Tensor, cut: float) -> Tensor:
    """The share of fat that styles have, codes [..., CODE_SIZE]: [...]."""
    quantiles = codes[..., : len(LEVELS)]
    knots = torch.cat([quantiles[..., :1] - 1, quantiles, quantiles[..., -1:] + 1], dim=-1)
    levels = torch.tensor((0.0, *LEVELS, 1.0), device=codes.device).expand_as(knots)
    return interpolated(torch.full_like(codes[..., :1], cut), knots, levels)[..., 0]


def in_proportion(codes: Tensor, own: Tensor, wanted: Tensor) -> Tensor:
    """Codes [..., CODE_SIZE] with a share of fat [...] that is wanted instead of their own: both tissues' HU stay.

    Where either isn't known (NaN), or the style lacks one of the tissues, codes stay as they are.
    """
    levels = torch.tensor(LEVELS, device=codes.device)
    own, wanted = own[..., None], wanted[..., None]
    fat, rest = levels * own / wanted, own + (levels - wanted) * (1 - own) / (1 - wanted)
    quantiles = codes[..., : len(LEVELS)]
    moved = interpolated(torch.where(levels < wanted, fat, rest).nan_to_num(), levels, quantiles)
    both = (own > 0.02) & (own < 0.98) & (wanted > 0) & (wanted < 1)
    return torch.cat([torch.where(both, moved, quantiles), codes[..., len(LEVELS) :]], dim=-1)


def depth(shares: Tensor, organs: Sequence[int]) -> Tensor:
    """How far some organs' pixels are from any other organ, at the median, in sides of the slice: [N, those organs].

    shares [N, O, S, S]. By chessboard distance; 0 for organs that aren't there, or are alone.
    """
    squares = F.adaptive_avg_pool2d(shares, min(_GRID, shares.shape[-1]))
    own = squares[:, list(organs)]
    areas, reached = own.sum((2, 3)), squares[:, 1:].sum(1, keepdim=True) - own
    lonely = (areas == 0) | (reached.amax((2, 3)) < 1e-6)
    median, before = torch.zeros_like(areas), torch.zeros_like(areas)
    for step in range(own.shape[-1]):
        covered = (own * reached).sum((2, 3)) / areas.clamp(min=1e-6)
        if step:
            part = (0.5 - before) / (covered - before).clamp(min=1e-6)
            median += torch.where(before < 0.5, part.clamp(0, 1), 0)
        if (lonely | (covered >= 0.5)).all():
            break
        before, reached = covered, F.max_pool2d(reached, 3, stride=1, padding=1)
    return (median / own.shape[-1]).where(~lonely, 0)


def grown(scores: Tensor, shares: Tensor, natural: Tensor, asked: Tensor) -> Tensor:
    """Scores [N, 1, S, S] whose ranks part fat and muscle where the style asks for it, [N, O], and as one piece.

    natural [N, O]: the share of fat by the map, at whose rank the scores part them by themselves. Between the two, the
    pixels nearest to the tissue that there is to be more of become such; those of that tissue that are at hand already
    say how bright they are in it.
    """
    result = scores.clone()
    for image, organs, by_map, by_style in zip(result[:, 0], shares, natural, asked, strict=True):
        for share, fat, wanted in zip(organs, by_map.tolist(), by_style.tolist(), strict=True):
            if 0 < wanted < 1 and 0 < fat < 1:  # both are known
                image[share > 0] = _grown(image, share > 0, fat, wanted)
    return result


def _grown(scores: Tensor, inside: Tensor, fat: float, wanted: float) -> Tensor:
    """The scores of an organ's pixels, [S, S] -> [pixels]."""
    place = inside.flatten().nonzero()[:, 0]
    values, count = scores.flatten()[place], len(place)
    moving = round(count * abs(wanted - fat))
    if not moving:
        return values
    ranks = torch.empty(count, device=scores.device)
    ranks[places_ascending(values)] = (torch.arange(count, device=scores.device) + 0.5) / count

    def image(values: Tensor) -> Tensor:
        """Of the organ's pixels, 0 elsewhere: [S, S]."""
        return scores.new_zeros(scores.numel()).scatter(0, place, values.to(scores)).view_as(scores)

    def around(values: Tensor) -> Tensor:
        """Means over 3 x 3 of the organ's pixels: [pixels]."""
        return smoothed(image(values)[None, None], inside.to(scores)[None, None]).flatten()[place]

    def smooth(values: Tensor, where: Tensor, *reaches: int) -> Tensor:
        """Means over the organ's pixels ``where`` that are so near, added up: [pixels]."""
        squares = F.adaptive_avg_pool2d(torch.stack([image(values * where), image(where)]), min(_COARSE, len(scores)))
        mean = (values * where).sum() / where.sum().clamp(min=1)  # where none is near
        means = torch.stack([_mean_around(squares, reach, mean) for reach in reaches]).sum(0)
        return F.interpolate(means[None, None], size=scores.shape, mode="bilinear").flatten()[place]

    muscle = ranks >= fat
    likely = muscle + 0.01 * ranks  # ranks decide where no muscle is near
    nearness = smooth(likely, torch.ones_like(muscle), *_REACHES)
    grows = wanted < fat  # muscle, else fat
    others = (muscle != grows).nonzero()[:, 0]
    nearest = others[places_ascending(-nearness[others] if grows else nearness[others])]
    becomes = muscle.clone()
    becomes[nearest[:moving]] = grows
    border = blended(inside.to(scores)[None, None]).flatten()[place] < 1
    partly, moved = around(becomes), around(becomes != muscle) > 0
    result = ranks + 4 * torch.where(moved, partly, becomes)  # new edges are soft, as those that were drawn are
    for tissue in (False, True):
        of_it, core = becomes == tissue, (becomes == tissue) & ~border  # borders are bright by what is beyond
        level = smooth(ranks, core & (muscle == tissue), 1) - smooth(ranks, core, 1)
        result = torch.where(of_it, result + level, result)
    return result


def _mean_around(squares: Tensor, reach: int, mean: Tensor) -> Tensor:
    """Sums over weights, squares [2, side, side], both smoothed by a tent: [side, side]."""
    at = torch.arange(squares.shape[-1], device=squares.device)
    tent = (2 * reach + 1 - (at[:, None] - at).abs()).clamp(min=0).to(squares)
    tent = tent / tent.sum(0)
    sums, weights = tent.T @ squares @ tent
    return (sums + 0.01 * mean) / (weights + 0.01)
