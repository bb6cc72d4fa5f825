"""Organ style codes: an organ's look as some hundred numbers in HU, measured on any CT with a segmentation.

A code says of an organ's gray values and texture what can be said without saying where in it they are: quantiles of its
HU, and its roughness, the mean difference of two of its pixels some steps apart (the madogram of geostatistics,
Matheron 1971). Quantiles mix well: their weighted mean is the Wasserstein barycenter of the HU distributions. Networks
are told twenty of these numbers. The last two, the grain, are the scanner's noise, which is added to what they draw.

A code is a row of CODE_SIZE numbers, NaN where the organ is missing; codes of an image are [organs, CODE_SIZE].
"""

from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor

from .anatomy import Anatomy
from .slices import HuRange
from .sorting import ascending
from .styles import BETWEEN, LEVELS, TOLD_LEVELS, quantiles_of

LAGS = (1, 2, 4, 8)  # pixels apart
GRAIN_LAGS = (1, 2)  # alike in white noise; the smoother its kernel makes a scanner's, the more it has of the second
GRAIN_BY = "squares"  # what it is measured by, as a card says; of before it isn't comparable
GRAIN = len(LEVELS) + len(LAGS)  # the place of the first of them in a code
CODE_SIZE = GRAIN + len(GRAIN_LAGS)
TOLD = len(TOLD_LEVELS) + len(LAGS)
_TOLD_PLACES = [*map(LEVELS.index, TOLD_LEVELS), *range(len(LEVELS), GRAIN)]
_MIN_AREA = 16  # pixels; fewer have no distribution
_QUARTILE = 0.25  # of the differences of differences, which tells the grain
_OF_WHITE_NOISE = 2 * NormalDist().inv_cdf(0.5 + _QUARTILE / 2)  # that quartile, in deviations of the noise


def measure_codes(x: Tensor, labels: Tensor, organs: int) -> Tensor:
    """The codes [organs, CODE_SIZE] of slices x [K, S, S], taken together, with labels int64 [K, S, S]; in x's unit."""
    seen = _measured(x, labels, organs, LEVELS)
    grains = torch.stack([grain(x, labels, organs, lag) for lag in GRAIN_LAGS], dim=1)
    return torch.cat([seen, grains.where(~seen[:, :1].isnan(), torch.nan)], dim=1)


def measure_told(x: Tensor, labels: Tensor, organs: int) -> Tensor:
    """What networks are told of these codes, [organs, TOLD]; differentiable with regard to x."""
    return _measured(x, labels, organs, TOLD_LEVELS)


def _measured(x: Tensor, labels: Tensor, organs: int, levels: Sequence[float]) -> Tensor:
    """The quantiles at levels, then the roughness at LAGS: [organs, both]."""
    at = torch.tensor(levels, device=x.device)
    shares = (labels[:, None] == torch.arange(organs, device=labels.device)[:, None, None]).to(x.dtype)
    rough = torch.stack([roughness(x, shares, lag) for lag in LAGS], dim=1)
    rows = []
    for organ in range(organs):
        values = x[labels == organ]
        if len(values) < _MIN_AREA:
            rows.append(x.new_full((len(levels) + len(LAGS),), torch.nan))
        else:
            rows.append(torch.cat([_quantiles(values, at), rough[organ]]))
    return torch.stack(rows)


def told(codes: Tensor) -> Tensor:
    """Of codes [..., CODE_SIZE] what networks are told: [..., TOLD]."""
    return codes[..., _TOLD_PLACES]


def from_told(numbers: Tensor) -> Tensor:
    """Codes [..., CODE_SIZE] of which no more is known than networks are told, [..., TOLD].

    Quantiles between are straight in normal scores; of the grain nothing is known: NaN.
    """
    quantiles, rough = numbers.split((len(TOLD_LEVELS), len(LAGS)), dim=-1)
    all_quantiles = quantiles @ torch.from_numpy(BETWEEN).to(numbers)
    unknown = torch.full_like(rough[..., : len(GRAIN_LAGS)], torch.nan)
    return torch.cat([all_quantiles, rough, unknown], dim=-1)


def interpolated(at: Tensor, knots: Tensor, values: Tensor) -> Tensor:
    """numpy.interp along the last dimension: straight between knots, which ascend, and flat beyond them.

    at [..., A], values [..., K], knots [K] or [..., K] -> [..., A]; the dimensions before the last are the same.
    """
    knots = knots.expand_as(values).contiguous()
    above = torch.searchsorted(knots, at.contiguous()).clamp(1, knots.shape[-1] - 1)
    low, high = knots.gather(-1, above - 1), knots.gather(-1, above)
    part = ((at - low) / (high - low).clamp(min=1e-9)).clamp(0, 1)
    return torch.lerp(values.gather(-1, above - 1), values.gather(-1, above), part)


def _quantiles(values: Tensor, levels: Tensor) -> Tensor:
    """torch.quantile, linear between values, without its limit on how many."""
    ordered, place = values.sort().values, levels * (len(values) - 1)
    below = place.long()
    return torch.lerp(ordered[below], ordered[(below + 1).clamp(max=len(values) - 1)], place - below)


def roughness(x: Tensor, shares: Tensor, lag: int) -> Tensor:
    """Mean |x(p) - x(p + lag)| over the pairs along rows and columns that lie in the same organ: [organs].

    x [K, S, S], shares [K, organs, S, S]; in the unit of x; 0 where an organ has no pair.
    """
    total, pairs = shares.new_zeros((2, shares.shape[1]))
    for axis in (-2, -1):
        (a, b), (of_a, of_b) = _apart(x, axis, lag), _apart(shares, axis, lag)
        both = of_a * of_b
        total, pairs = total + torch.einsum("kohw,khw->o", both, (a - b).abs()), pairs + both.sum((0, 2, 3))
    return total / pairs.clamp(min=1)


def grain(x: Tensor, labels: Tensor, organs: int, lag: int) -> Tensor:
    """The deviation of white noise that changes as much from row to row, ``lag`` apart, and column to column: [organs].

    x [K, S, S], labels int64 [K, S, S]; in the unit of x; 0 of the outside, and of an organ of few squares. Of a
    square's corners the difference of the differences: a slope has none, so that a small organ's edges don't pass for
    noise. By their lower quartile: few are at other edges, as of muscle and fat, but these are large, and would pass
    for noise in a mean (a robust estimate of noise, as the median of Donoho 1995 is one).
    """
    (a, b), (of_a, of_b) = _apart(x, -1, lag), _apart(labels, -1, lag)
    (c, d), (of_c, of_d) = _apart(a - b, -2, lag), _apart(torch.where(of_a == of_b, of_a, 0), -2, lag)
    apart, shared = (c - d).abs().flatten(), torch.where(of_c == of_d, of_c, 0).flatten()
    found = x.new_zeros(organs)
    for organ in range(1, organs):
        differences = apart[shared == organ]
        if len(differences) >= _MIN_AREA:
            found[organ] = ascending(differences)[int(_QUARTILE * len(differences)) - 1] / _OF_WHITE_NOISE
    return found


def _apart(image: Tensor, axis: int, lag: int) -> tuple[Tensor, Tensor]:
    """All pixels that have one ``lag`` further along the axis, and those."""
    count = image.shape[axis] - lag
    return image.narrow(axis, 0, count), image.narrow(axis, lag, count)


def mixed(codes: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The weighted mean of codes [CODE_SIZE] of one organ; the missing have no say, and of none it is missing too."""
    present = [(code, weight) for code, weight in zip(codes, weights, strict=True) if not code[:GRAIN].isnan().any()]
    if not present:
        return torch.full((CODE_SIZE,), torch.nan)
    return sum((code * weight for code, weight in present), torch.zeros(CODE_SIZE)) / sum(w for _, w in present)


# --- codes in a model card, in HU -----------------------------------------------------------------------------------


def codes_to_json(codes: Tensor, anatomy: Anatomy, hu: HuRange) -> dict[str, list[float]]:
    """Codes [organs, CODE_SIZE] of slices in [-1, 1] as numbers in HU by the organ's name; missing organs left out."""
    quantiles, texture = codes.double().split((len(LEVELS), CODE_SIZE - len(LEVELS)), dim=1)
    in_hu = torch.cat([hu.to_hu(quantiles), texture * (hu.high - hu.low) / 2], dim=1)
    rows = zip(anatomy.organs, in_hu, strict=True)
    return {organ.name: [round(v, 2) for v in row.tolist()] for organ, row in rows if not row.isnan().any()}


def codes_from_json(card: Mapping[str, Any], anatomy: Anatomy, hu: HuRange, grain_by: str | None = GRAIN_BY) -> Tensor:
    """The inverse of `codes_to_json`, float32. Raises ValueError, TypeError or AttributeError for what is no code.

    Codes of before had only what networks are told, or no grain, or one by another measure: NaN, as it isn't known.
    """
    rows = torch.stack([_row(card.get(organ.name)) for organ in anatomy.organs])
    if grain_by != GRAIN_BY:
        rows[:, GRAIN:] = torch.nan
    quantiles, texture = rows.split((len(LEVELS), CODE_SIZE - len(LEVELS)), dim=1)
    span = (hu.high - hu.low) / 2
    return torch.cat([(quantiles - hu.low) / span - 1, texture / span], dim=1).float()


def _row(numbers: Sequence[float] | None) -> Tensor:
    """A card's numbers as a code, in HU: [CODE_SIZE]."""
    if numbers is None:
        return torch.full((CODE_SIZE,), torch.nan, dtype=torch.float64)
    if len(numbers) not in (TOLD, TOLD + 1, CODE_SIZE - 1, CODE_SIZE):
        raise ValueError
    texture = numbers[len(LEVELS if len(numbers) >= CODE_SIZE - 1 else TOLD_LEVELS) :]
    return torch.tensor([*quantiles_of(numbers), *texture, torch.nan, torch.nan][:CODE_SIZE], dtype=torch.float64)
