"""From scores to HU: quantiles and ranks of a style, borders, and the style's noise."""

import math

import numpy as np
import pytest
import torch
from CTStyleGenCore.style_codes import CODE_SIZE, GRAIN, LEVELS, measure_codes
from CTStyleGenCore.style_generator import OrganShares, Waves
from CTStyleGenCore.style_hu import (
    StyledOrgans,
    _powers,
    in_style,
    normal_scores,
    scattered,
    smoothed,
)
from style_samples import CODES, GRAYS, codes_of, quarters, y_of


def test_scores_at_the_levels_are_the_quantiles_and_straight_between() -> None:
    shares, codes = torch.ones(1, 1, 1, 4), torch.rand(1, 1, CODE_SIZE).sort().values
    knots, q = torch.special.ndtri(torch.tensor(LEVELS)), codes[0, 0]
    scores = torch.stack([knots[0] - 1, knots[4], 0.75 * knots[4] + 0.25 * knots[5], knots[-1] + 1]).view(1, 1, 1, 4)
    expected = torch.stack([q[0], q[4], 0.75 * q[4] + 0.25 * q[5], q[len(LEVELS) - 1]])
    torch.testing.assert_close(in_style(scores, shares, codes).flatten(), expected)


def test_normal_scores_have_every_style_by_its_quantiles() -> None:
    """Normal noise, whatever its mean and deviation in an organ, becomes an image with that organ's style."""
    torch.manual_seed(0)
    labels = quarters(128)
    shares = OrganShares(GRAYS)(y_of(labels))
    noise = torch.randn(1, 1, 128, 128) * (1 + labels[:, None]) + 10 * labels[:, None]
    scores = normal_scores(noise, shares)
    codes = measure_codes(torch.rand(1, 128, 128) ** 3, labels, 6)[None].nan_to_num()
    measured = measure_codes(in_style(scores, shares, codes)[0], labels, 6)[1:5, : len(LEVELS)]
    for organ in range(1, 5):
        inside = scores[0, 0][labels[0] == organ]
        assert inside.mean().abs() < 1e-3 and abs(inside.std() - 1) < 1e-2
    torch.testing.assert_close(measured, codes[0, 1:5, : len(LEVELS)], rtol=0, atol=0.03)


def test_by_rank_every_style_is_met_whatever_the_scores_are() -> None:
    torch.manual_seed(0)
    labels = quarters(128)
    labels[:, :8] = 0
    shares = OrganShares(GRAYS)(y_of(labels))
    skewed = normal_scores(torch.randn(1, 1, 128, 128).exp(), shares)
    codes = measure_codes(torch.rand(1, 128, 128) ** 3, labels, 6)[None].nan_to_num()
    x = StyledOrgans(shares, codes).by_rank(skewed)
    measured, before = (measure_codes(image[0], labels, 6) for image in (x, in_style(skewed, shares, codes)))
    close = (measured - codes[0])[1:5, : len(LEVELS)].abs().max(), (before - codes[0])[1:5, : len(LEVELS)].abs().max()
    assert close[0] < 0.002 < 0.1 < close[1]
    for label in range(1, 5):  # what was brighter stays so
        now, then = (image[0, 0][labels[0] == label].numpy() for image in (x, skewed))
        assert (np.diff(now[np.lexsort((now, then))]) >= 0).all()  # two may have been equally bright
    outside = labels[0] == 0
    assert torch.equal(x[0, 0][outside], skewed[0, 0][outside])


def test_organs_get_the_grain_of_their_style_and_keep_their_hu() -> None:
    torch.manual_seed(0)
    labels = quarters(128)
    shares, noise = OrganShares(GRAYS)(y_of(labels)), torch.randn(2, 1, 1, 128, 128)
    slope = torch.linspace(-1, 1, 128).expand(1, 1, 128, 128)
    rough = torch.where(labels[:, None] == 2, slope + 0.3 * noise[0], slope)  # the second organ alone
    codes = codes_of([-1.0, 0.0, -0.8, 0.05, 0.5, 0.02], roughness=0.02 * 2 / math.pi**0.5)  # white noise's
    codes[..., GRAIN] = torch.tensor([[0.02, 0.02, 0.02, torch.nan, 0.02, 0.02]])
    codes[:, :4, GRAIN + 1] = 0.02  # as far apart as near: white; of the fourth organ that isn't known
    organs = StyledOrgans(shares, codes)
    x = organs.by_rank(rough)
    grained = organs.with_grain(x, noise[1])
    before, measured = (measure_codes(image[0], labels, 6) for image in (x, grained))
    assert (before[[1, 3, 4], GRAIN] < 0.01).all() and before[2, GRAIN] > 0.025
    torch.testing.assert_close(measured[[1, 2, 4], GRAIN], torch.full((3,), 0.02), rtol=0.15, atol=0)
    torch.testing.assert_close(measured[1:5, : len(LEVELS)], before[1:5, : len(LEVELS)], rtol=0, atol=0.002)
    assert measured[[1, 4], GRAIN + 1].tolist() == pytest.approx([0.02, 0.02], rel=0.15)
    for organ in (0, 3):  # outside, and an organ of which no grain is known
        assert torch.allclose(grained[0, 0][labels[0] == organ], x[0, 0][labels[0] == organ], atol=1e-4)


@pytest.mark.parametrize("ratio", [1.0, 1.6, 2.3])
def test_noise_is_as_coarse_as_the_styles(ratio: float) -> None:
    """White noise changes as much at both lags, smooth noise 2.5 times as much at the second."""
    torch.manual_seed(0)
    labels = quarters(128)
    shares, codes = OrganShares(GRAYS)(y_of(labels)), CODES.clone()
    codes[..., GRAIN], codes[..., GRAIN + 1] = 0.01, 0.01 * ratio
    organs = StyledOrgans(shares, codes)
    x = organs.by_rank(torch.linspace(-1, 1, 128).expand(1, 1, 128, 128))
    white = scattered(Waves(200)(torch.randn(1, 200), 64), 128)
    near, far = measure_codes(organs.with_grain(x, white)[0], labels, 6)[1:5, GRAIN:].T
    assert near.mean().item() == pytest.approx(0.01, rel=0.15)
    assert (far / near).mean().item() == pytest.approx(ratio, abs=0.08)


def test_organs_too_small_to_tell_their_grain_get_no_more_than_that(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    labels = torch.ones(1, 64, 64, dtype=torch.int64)
    labels[0, 30:34, 30:34] = 2
    codes = CODES.clone()
    codes[..., GRAIN:] = 0.01
    organs = StyledOrgans(OrganShares(GRAYS)(y_of(labels)), codes)
    monkeypatch.setattr(organs, "by_rank", lambda x: x)  # what is added alone
    x = torch.linspace(-1, 1, 64).expand(1, 1, 64, 64)
    added = torch.stack([organs.with_grain(x, torch.randn(1, 1, 64, 64)) - x for _ in range(20)])[:, 0, 0]
    assert added[:, labels[0] == 2].std().item() == pytest.approx(0.01, rel=0.15)


def test_an_organ_whose_noise_is_all_smooth_spoils_no_other() -> None:
    """What rounding leaves of white noise then may be less than nothing, which has no square root."""
    near = torch.rand(1, 1000) * 1e-3
    for far in (2 * near, 7 * near, torch.full_like(near, torch.nan)):
        powers = _powers(near, far)
        assert (powers >= 0).all() and torch.allclose(powers[0] + powers[1] / 9, near)
    assert torch.equal(powers[0], near)  # white alone, where no more is known
    assert (_powers(near, 7 * near)[0] < 1e-6).all()


def test_scattered_waves_are_white_noise_that_follows_its_code() -> None:
    torch.manual_seed(0)
    waves, codes = Waves(200), torch.randn(2, 200)
    white = scattered(waves(codes, 64), 128)[:, 0]
    assert (white.std((1, 2)) - 1).abs().max() < 0.2  # as that of the waves
    power = torch.fft.rfft2(white[0])[1:64, 1:64].abs().square()
    assert power[:32, :32].mean() / power[32:, 32:].mean() == pytest.approx(1.0, abs=0.15)
    between = scattered(waves(codes.sum(0, keepdim=True) / 2**0.5, 64), 128)[0]
    torch.testing.assert_close(between[0], white.sum(0) / 2**0.5, rtol=0, atol=1e-4)


def test_an_organ_is_smoothed_by_its_own_pixels_alone() -> None:
    shares = torch.zeros(1, 2, 8, 8)
    shares[0, 0, :, :4], shares[0, 1, :, 4:] = 1, 1
    x = torch.where(shares[:, :1] > 0, -0.8, 0.1)
    torch.testing.assert_close(smoothed(x, shares), x)
    speck = x.clone()
    speck[0, 0, 4, 6] = 0.9
    assert smoothed(speck, shares)[0, 0, 4, 6].item() == pytest.approx(0.1 + 0.8 / 4)


def test_pixels_at_a_border_have_some_of_both_organs_but_those_of_thin_organs() -> None:
    """Two organs, and in the second a rib two pixels wide."""
    shares = torch.zeros(1, 3, 32, 32)
    shares[0, 1, :, :16], shares[0, 2, :, 16:] = 1, 1
    shares[0, 0, 8:10, 24:28], shares[0, 2, 8:10, 24:28] = 1, 0
    x = torch.where(shares[:, 1:2] > 0, -0.8, 0.2)
    x[..., 8:10, 24:28] = 0.9
    blended = StyledOrgans(shares, torch.zeros(1, 3, CODE_SIZE)).with_borders(x)
    torch.testing.assert_close(blended[0, 0, :, 14:18], torch.tensor([-0.8, -0.55, -0.05, 0.2]).expand(32, -1))
    assert torch.equal(blended[..., 8:10, 24:28], x[..., 8:10, 24:28])
    assert blended[0, 0, 8, 23].item() == pytest.approx(0.2 + 0.7 * 3 / 16)  # beside the rib's corner
    assert torch.equal(blended[..., :14], x[..., :14]) and torch.equal(blended[..., 29:], x[..., 29:])
