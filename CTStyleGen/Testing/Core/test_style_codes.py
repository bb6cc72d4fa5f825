"""Organ style codes: measured where the truth is known, mixed, and through a model card."""

import json

import numpy as np
import pytest
import torch
from CTStyleGenCore.anatomy import load_anatomy
from CTStyleGenCore.slices import HuRange
from CTStyleGenCore.style_codes import (
    CODE_SIZE,
    GRAIN,
    GRAIN_LAGS,
    LAGS,
    LEVELS,
    TOLD,
    codes_from_json,
    codes_to_json,
    from_told,
    grain,
    interpolated,
    measure_codes,
    measure_told,
    mixed,
    told,
)
from CTStyleGenCore.styles import TOLD_LEVELS

THORAX = load_anatomy("thorax")


def halves() -> torch.Tensor:
    """Labels [2, 32, 32]: left 1, right 2."""
    labels = torch.ones(2, 32, 32, dtype=torch.int64)
    labels[:, :, 16:] = 2
    return labels


def test_quantiles_are_torchs_own_of_each_organs_pixels() -> None:
    x, labels = torch.randn(2, 32, 32), halves()
    codes = measure_codes(x, labels, 3)
    for organ in (1, 2):
        expected = x[labels == organ].quantile(torch.tensor(LEVELS))
        torch.testing.assert_close(codes[organ, : len(LEVELS)], expected)
    assert codes[0].isnan().all() and codes.shape == (3, CODE_SIZE)


def test_roughness_of_a_ramp_grows_with_the_lag_and_stops_at_the_border() -> None:
    """A ramp differs by its slope times the lag along columns, not along rows; the step between organs is no one's."""
    column = torch.arange(32.0).expand(2, 32, 32)
    x = torch.where(halves() == 1, 0.01 * column, 5 + 0.03 * column)
    for organ, slope in ((1, 0.01), (2, 0.03)):
        for number, lag in enumerate(LAGS):
            across, down = (16 - lag) * 32, 16 * (32 - lag)  # pairs in a slice
            expected = slope * lag * across / (across + down)
            assert measure_codes(x, halves(), 3)[organ, len(LEVELS) + number].item() == pytest.approx(
                expected, rel=1e-4
            )


def test_white_noise_is_as_rough_at_every_lag() -> None:
    """E |a - b| of independent normal values is 2 / sqrt(pi) deviations."""
    x = 0.1 * torch.randn(8, 64, 64, generator=torch.Generator().manual_seed(0))
    roughness = measure_codes(x, torch.ones(8, 64, 64, dtype=torch.int64), 2)[1, len(LEVELS) : GRAIN]
    torch.testing.assert_close(roughness, torch.full((len(LAGS),), 0.1128), rtol=0.02, atol=0)


def test_grain_is_the_deviation_of_white_noise_and_edges_are_none() -> None:
    noise = 0.1 * torch.randn(2, 32, 32, generator=torch.Generator().manual_seed(0))
    stripes = (torch.arange(32) % 8 < 4).float().expand(2, 32, 32)  # as muscle in fat
    slope = torch.linspace(0, 9, 32)
    for x in (noise, noise + stripes, noise + 3 * halves(), noise + slope + 2 * slope[:, None]):
        assert grain(x, halves(), 3, 1).tolist() == [0.0, *(pytest.approx(0.1, rel=0.2),) * 2]
    rough, smoother = (measure_codes(x, halves(), 3)[1, len(LEVELS)] for x in (noise + stripes, noise))
    assert rough > 1.5 * smoother  # which takes edges for noise
    for number, lag in enumerate(GRAIN_LAGS):
        of_code = measure_codes(noise, halves(), 3)[1:, GRAIN + number]
        assert torch.equal(of_code, grain(noise, halves(), 3, lag)[1:])


def test_codes_pass_gradients_back() -> None:
    x = torch.randn(1, 32, 32, requires_grad=True)
    measure_told(x, halves()[:1], 3)[1:].sum().backward()
    assert x.grad is not None and (x.grad != 0).float().mean() > 0.5


def test_mixed_codes_are_weighted_means_of_those_present() -> None:
    a, b, missing = torch.zeros(CODE_SIZE), torch.ones(CODE_SIZE), torch.full((CODE_SIZE,), torch.nan)
    assert mixed([a, b], [0.3, 0.7]).unique().item() == pytest.approx(0.7)
    assert torch.equal(mixed([missing, b], [0.3, 0.7]), b) and mixed([missing], [1.0]).isnan().all()
    b[GRAIN] = torch.nan  # of a card of before
    assert mixed([a, b], [0.3, 0.7])[:GRAIN].unique().item() == pytest.approx(0.7)


def test_a_card_tells_codes_in_hu_and_gives_them_back() -> None:
    hu = HuRange()
    x = hu.to_unit(torch.full((1, 32, 32), -850.0) + 50 * torch.randn(1, 32, 32))
    codes = measure_codes(x, torch.full((1, 32, 32), 2), 6)
    card = json.loads(json.dumps(codes_to_json(codes, THORAX, hu)))
    assert list(card) == ["lungs"] and card["lungs"][len(LEVELS) // 2] == pytest.approx(-850, abs=20)
    torch.testing.assert_close(codes_from_json(card, THORAX, hu), codes, rtol=0, atol=1e-5, equal_nan=True)
    for wrong in (2, TOLD - 1, CODE_SIZE + 1):
        with pytest.raises(ValueError):
            codes_from_json({"lungs": [1.0] * wrong}, THORAX, hu)


@pytest.mark.parametrize("numbers", [TOLD, TOLD + 1, CODE_SIZE - 1, CODE_SIZE])
def test_cards_of_before_told_less_and_no_grain_of_now(numbers: int) -> None:
    hu, x = HuRange(), torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(0))
    now = measure_codes(x, torch.full((1, 32, 32), 2), 6)
    of_now = codes_to_json(now, THORAX, hu)["lungs"]
    of_before = [of_now[LEVELS.index(level)] for level in TOLD_LEVELS] + of_now[len(LEVELS) :]
    before = of_before[:numbers] if numbers <= TOLD + 1 else of_now[:numbers]
    code = codes_from_json({"lungs": before}, THORAX, hu, None)
    torch.testing.assert_close(told(code), told(now), rtol=0, atol=1e-5, equal_nan=True)
    assert (code[2, : len(LEVELS)] - now[2, : len(LEVELS)]).abs().max() < 0.05 and code.shape == now.shape
    assert code[:, GRAIN:].isnan().all()


@pytest.mark.parametrize("rows", [(), (3,)])
def test_interpolation_is_numpys(rows: tuple[int, ...]) -> None:
    knots, values = torch.rand(*rows, 9).sort().values, torch.rand(*rows, 9)
    at = torch.cat([1.4 * torch.rand(*rows, 20) - 0.2, knots], dim=-1)
    found, several = interpolated(at, knots, values), (t.view(-1, t.shape[-1]) for t in (at, knots, values))
    expected = [np.interp(*one) for one in zip(*several, strict=True)]
    np.testing.assert_allclose(found.view(-1, 29), expected, atol=1e-4)


def test_what_networks_are_told_is_measured_as_in_codes_and_can_be_spread() -> None:
    x, labels = torch.randn(2, 32, 32), halves()
    codes = measure_codes(x, labels, 3)
    torch.testing.assert_close(measure_told(x, labels, 3), told(codes), equal_nan=True)
    torch.testing.assert_close(told(from_told(told(codes))), told(codes), equal_nan=True)
    spread = from_told(torch.cat([torch.special.ndtri(torch.tensor(TOLD_LEVELS)), torch.zeros(len(LAGS))]))
    normal = torch.special.ndtri(torch.tensor(LEVELS))  # straight in normal scores, so that these are met everywhere
    torch.testing.assert_close(spread[: len(LEVELS)], normal, rtol=0, atol=1e-5)
