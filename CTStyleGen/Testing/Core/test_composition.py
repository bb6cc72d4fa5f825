"""The fat of organs: foretold by maps, put into styles, and grown where a style has more or less of it."""

import pytest
import torch
from CTStyleGenCore.anatomy import load_anatomy
from CTStyleGenCore.composition import (
    Composition,
    cut,
    depth,
    fat_of_codes,
    fat_of_slice,
    grown,
    in_proportion,
)
from CTStyleGenCore.slices import HuRange
from CTStyleGenCore.style_codes import CODE_SIZE, LEVELS, measure_codes

THORAX = load_anatomy("thorax")
CUT = cut(HuRange())


def ring(width: int, size: int = 128) -> torch.Tensor:
    """Shares [1, 3, size, size]: outside, a square ring of that width in pixels, and what is in it."""
    labels = torch.zeros(size, size, dtype=torch.int64)
    labels[size // 8 : -size // 8, size // 8 : -size // 8] = 1
    edge = size // 8 + width
    labels[edge:-edge, edge:-edge] = 2
    return shares_of(labels, 3)


def shares_of(labels: torch.Tensor, organs: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(labels, organs).permute(2, 0, 1)[None].float()


def tissues(fat: float, generator: torch.Generator) -> torch.Tensor:
    """x [1, 64, 64]: fat of -100 HU and muscle of 50, of which so much is fat, each with noise."""
    hu = torch.where(torch.arange(64 * 64) < fat * 64 * 64, -100.0, 50.0)
    hu += torch.where(hu < 0, 8.0, 15.0) * torch.randn(64 * 64, generator=generator)
    return HuRange().to_unit(hu[torch.randperm(64 * 64, generator=generator)]).view(1, 64, 64)


def codes(fat: float) -> torch.Tensor:
    """[1, CODE_SIZE], of one organ."""
    x = tissues(fat, torch.Generator().manual_seed(0))
    return measure_codes(x, torch.zeros(1, 64, 64, dtype=torch.int64), 1)


# --- what a map tells ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "size"), [(8, 128), (16, 128), (32, 256), (24, 64)])
def test_depth_is_the_median_distance_from_other_organs(width: int, size: int) -> None:
    shares = ring(width, size)
    inside = (shares[0, 1] > 0).nonzero().double()
    others = (shares[0, 2] > 0).nonzero().double()
    if not len(others):
        assert depth(shares, [1]) == 0
        return
    expected = torch.cdist(inside, others, p=float("inf")).min(1).values.median() / size
    assert depth(shares, [1]).item() == pytest.approx(expected.item(), abs=1.5 / min(size, 128))


def test_a_missing_organ_and_one_alone_have_no_depth() -> None:
    shares = shares_of(torch.ones(64, 64, dtype=torch.int64), 3)
    assert depth(shares, [1, 2]).tolist() == [[0, 0]]


def test_maps_tell_the_fat_that_goes_with_their_depth() -> None:
    widths = [4, 8, 12, 16, 20]
    shares = [ring(width) for width in widths]
    fat = torch.tensor([[torch.nan, 0.3 + 0.02 * width, 0.99] for width in widths])
    learned = Composition.learned(shares, fat, list("ABCDE"), CUT)
    assert learned.told.tolist() == [False, True, False]
    for width in (6, 10, 18):
        assert learned.fat(ring(width))[0, 1].item() == pytest.approx(0.3 + 0.02 * width, abs=0.03)
    assert learned.fat(ring(30))[0, 1].item() == pytest.approx(0.7)  # no more than was ever seen
    assert learned.fat(ring(8))[0, [0, 2]].isnan().all()


def test_every_case_counts_once_and_of_few_the_mean_is_taken() -> None:
    shares = [ring(width) for width in (4, 4, 4, 16)]
    fat = torch.tensor([[torch.nan, share, torch.nan] for share in (0.3, 0.4, 0.5, 0.6)])
    learned = Composition.learned(shares, fat, ["A", "A", "A", "B"], CUT)
    assert learned.fat(ring(10))[0, 1].item() == pytest.approx(0.5)


def test_a_card_gives_back_what_was_learned() -> None:
    lines = torch.full((6, 4), torch.nan)
    lines[1] = torch.tensor([0.25, 8.5, 0.375, 0.8])
    learned = Composition(lines, CUT)
    card = learned.to_json(THORAX)
    assert card == {"body": [0.25, 8.5, 0.375, 0.8]}
    torch.testing.assert_close(Composition.from_json(card, THORAX, HuRange()).lines, lines, equal_nan=True)
    assert not Composition.from_json({}, THORAX, HuRange()).told.any()
    with pytest.raises(ValueError):
        Composition.from_json({"body": [0.25]}, THORAX, HuRange())


# --- styles in proportion --------------------------------------------------------------------------------------------


def test_fat_is_what_is_darker_than_the_cut() -> None:
    x = tissues(0.7, torch.Generator().manual_seed(0))
    labels = torch.zeros(64, 64, dtype=torch.int64)
    assert fat_of_slice(x[0], labels, 2, CUT)[0].item() == pytest.approx(0.7, abs=0.001)
    assert fat_of_slice(x[0], labels, 2, CUT)[1].isnan()
    assert fat_of_codes(codes(0.7), CUT).item() == pytest.approx(0.7, abs=0.01)
    assert fat_of_codes(torch.full((1, CODE_SIZE), torch.nan), CUT).isnan()
    assert [round(fat_of_codes(codes(0.7), at).item(), 2) for at in (-1.0, 1.0)] == [0, 1]


@pytest.mark.parametrize("wanted", [0.4, 0.7, 0.9])
def test_a_style_in_another_proportion_is_that_of_the_same_tissues(wanted: float) -> None:
    changed, expected = in_proportion(codes(0.6), torch.tensor([0.6]), torch.tensor([wanted])), codes(wanted)
    apart = (changed - expected)[0, : len(LEVELS)].abs()
    assert apart.median() < 0.003 and apart.mean() < 0.01  # a level at the jump itself may be on either side
    assert torch.equal(changed[0, len(LEVELS) :], codes(0.6)[0, len(LEVELS) :])


def test_a_style_of_one_tissue_or_in_no_known_proportion_stays() -> None:
    style = codes(0.6)
    for own, wanted in ((0.6, torch.nan), (torch.nan, 0.6), (1.0, 0.5), (0.0, 0.5)):
        assert torch.equal(in_proportion(style, torch.tensor([own]), torch.tensor([wanted])), style)


# --- muscle that grows -----------------------------------------------------------------------------------------------


def scattered() -> tuple[torch.Tensor, torch.Tensor]:
    """Scores and shares [1, 1, 64, 64] of one organ: muscle in the left 24 columns, then fat, both with noise."""
    noise = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    return ((torch.arange(64) < 24) * 10 + noise)[None, None], torch.ones(1, 1, 64, 64)


@pytest.mark.parametrize(("asked", "edge"), [(0.625, 24), (0.375, 40), (0.8125, 12)])
def test_muscle_grows_and_shrinks_as_one_piece(asked: float, edge: int) -> None:
    scores, shares = scattered()
    natural = torch.tensor([[40 / 64]])
    result = grown(scores, shares, natural, torch.tensor([[asked]]))[0, 0]
    muscle = result >= result.flatten().sort().values[round(asked * 64 * 64)]
    right = torch.arange(64).expand(64, 64)
    assert muscle[right < edge - 2].all() and not muscle[right >= edge + 2].any()
    plain = scores[0, 0] >= scores.flatten().sort().values[round(asked * 64 * 64)]
    assert (asked == 0.625) == (plain[right < edge].all().item() and not plain[right >= edge].any().item())


def test_a_new_edge_is_as_soft_as_a_scanners() -> None:
    """A pixel on each side of it is of both tissues, in the order of their shares."""
    scores, shares = scattered()
    result = grown(scores, shares, torch.tensor([[40 / 64]]), torch.tensor([[0.375]]))[0, 0].mean(0)
    fat, muscle = result[44:60].mean(), result[4:20].mean()
    across = (result[36:44] - fat) / (muscle - fat)
    assert ((across > 0.15) & (across < 0.85)).sum() >= 2 and (across.diff() < 0.05).all()


def test_new_muscle_is_as_bright_as_that_beside_it() -> None:
    scores, shares = scattered()
    result = grown(scores, shares, torch.tensor([[40 / 64]]), torch.tensor([[0.375]]))[0, 0]
    old, new = result[:, :20].mean(), result[:, 26:38].mean()
    assert abs(new - old) < 0.15 and result[:, :20].std() > 0.05


def test_where_nothing_is_known_or_nothing_is_to_change_the_order_stays() -> None:
    scores, shares = scattered()
    for natural, asked in ((torch.nan, 0.5), (0.5, torch.nan), (0.625, 0.625)):
        result = grown(scores, shares, torch.tensor([[natural]]), torch.tensor([[asked]]))
        assert torch.equal(result.flatten().argsort(stable=True), scores.flatten().argsort(stable=True))


@pytest.mark.parametrize("pixels", [0, 1, 3])
def test_organs_of_hardly_any_pixels_are_no_harm(pixels: int) -> None:
    scores, shares = scattered()
    few = torch.zeros_like(shares)
    few[..., 0, :pixels] = 1
    both = torch.cat([few, shares - few], dim=1)
    result = grown(scores, both, torch.tensor([[0.5, torch.nan]]), torch.tensor([[0.2, 0.5]]))
    assert result.isfinite().all() and torch.equal(result[both[:, 1:] > 0], scores[both[:, 1:] > 0])
    assert depth(both, [0, 1]).isfinite().all()
