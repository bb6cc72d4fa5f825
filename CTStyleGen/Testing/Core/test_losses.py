"""The losses against literal, loop-written references, against numerical gradients, and by identities."""

import itertools

import pytest
import torch
from CTStyleGenCore import losses
from torch import Tensor

ORGANS = 4
SIDE = 6


@pytest.fixture
def maps() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Two feature maps [3, 6, 6] with their organs [6, 6], float64; organ 3 is in the second only."""
    rng = torch.Generator().manual_seed(1)
    r, s = (torch.randn(3, SIDE, SIDE, dtype=torch.float64, generator=rng) for _ in range(2))
    y_r = torch.randint(0, ORGANS - 1, (SIDE, SIDE), generator=rng)
    y_s = torch.randint(0, ORGANS, (SIDE, SIDE), generator=rng)
    return r, s, y_r, y_s


def pixels(labels: Tensor) -> losses.OrganPixels:
    return losses.organ_pixels(labels, ORGANS, *labels.shape)


# --- literal references ---------------------------------------------------------------------------------------------


def literal_gram(features: Tensor, mask: Tensor) -> Tensor:
    """Equation (3) of the features multiplied by a mask, as loops."""
    n, height, width = features.shape
    out = torch.zeros(n, n, dtype=features.dtype)
    for i, j in itertools.product(range(n), repeat=2):
        for h, w in itertools.product(range(height), range(width)):
            if mask[h, w]:
                out[i, j] += features[i, h, w] * features[j, h, w]
    return out


def literal_content(r: Tensor, o: Tensor, mask: Tensor) -> Tensor:
    """Equation (2) of masked features, as loops."""
    n, height, width = r.shape
    total = torch.zeros((), dtype=r.dtype)
    for i, h, w in itertools.product(range(n), range(height), range(width)):
        if mask[h, w]:
            total += abs(r[i, h, w] - o[i, h, w]) ** 2
    return total / (2 * n * height * width)


def literal_style(r: Tensor, s: Tensor, y_r: Tensor, y_s: Tensor, norm: str) -> Tensor:
    """Equation (6) at one layer, as loops, with each of the normalizations written out."""
    n, m = r.shape[0], r[0].numel()
    total = torch.zeros((), dtype=r.dtype)
    for organ in range(ORGANS):
        area_r, area_s = int((y_r == organ).sum()), int((y_s == organ).sum())
        if min(area_r, area_s) < 4:
            continue
        gram_r, gram_s = literal_gram(r, y_r == organ), literal_gram(s, y_s == organ)
        if norm == "area":
            gram_r, gram_s, m_used = gram_r / area_r, gram_s / area_s, 1
        elif norm == "matched":
            gram_s, m_used = gram_s * area_r / area_s, m
        elif norm == "relative":
            gram_r, gram_s = gram_r / area_r, gram_s / area_s
            m_used = (gram_r.square().sum() + gram_s.square().sum()).sqrt() / (2 * n)
        else:
            m_used = m
        for i, j in itertools.product(range(n), repeat=2):
            total += (gram_r[i, j] - gram_s[i, j]) ** 2 / (4 * n**2 * m_used**2)
    return total


EVERYWHERE = torch.ones(SIDE, SIDE, dtype=torch.bool)


def test_gram_is_equation_3(maps: tuple[Tensor, ...]) -> None:
    torch.testing.assert_close(losses.gram(maps[0].flatten(1)), literal_gram(maps[0], EVERYWHERE), rtol=0, atol=1e-10)


def test_content_is_equation_2(maps: tuple[Tensor, ...]) -> None:
    r, o, *_ = maps
    torch.testing.assert_close(losses.content_loss(r, o), literal_content(r, o, EVERYWHERE), rtol=0, atol=1e-10)


def test_style_is_equation_4(maps: tuple[Tensor, ...]) -> None:
    r, s, *_ = maps
    everywhere = torch.zeros(SIDE, SIDE, dtype=torch.int64)
    expected = literal_style(r, s, everywhere, everywhere, "paper")
    torch.testing.assert_close(losses.style_loss(r, s), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("norm", ["paper", "area", "matched", "relative"])
def test_masked_style_is_equation_6(maps: tuple[Tensor, ...], norm: losses.GramNorm) -> None:
    r, s, y_r, y_s = maps
    ours = losses.masked_style_loss(losses.organ_grams(r, pixels(y_r)), losses.organ_grams(s, pixels(y_s)), norm)
    torch.testing.assert_close(ours, literal_style(r, s, y_r, y_s, norm), rtol=0, atol=1e-10)


def test_masked_content_is_equation_7(maps: tuple[Tensor, ...]) -> None:
    r, o, y, _ = maps
    expected = sum(literal_content(r, o, y == organ) for organ in range(ORGANS))
    torch.testing.assert_close(losses.masked_content_loss(r, o, pixels(y)), expected, rtol=0, atol=1e-10)


def test_total_variation_is_equation_5_in_both_directions() -> None:
    x = torch.randn(5, 7, dtype=torch.float64)
    expected = torch.zeros((), dtype=torch.float64)
    for h, w in itertools.product(range(5), range(7)):
        if w + 1 < 7:
            expected += (x[h, w + 1] - x[h, w]) ** 2
        if h + 1 < 5:
            expected += (x[h + 1, w] - x[h, w]) ** 2
    torch.testing.assert_close(losses.total_variation_loss(x), expected, rtol=0, atol=1e-10)


def test_the_game_is_equations_8_and_9() -> None:
    real, fake = torch.randn(2, 3, dtype=torch.float64)
    d_real, d_fake = 1 / (1 + (-real).exp()), 1 / (1 + (-fake).exp())
    expected_d = -sum(d_real[i].log() + (1 - d_fake[i]).log() for i in range(3))
    torch.testing.assert_close(losses.discriminator_loss(real, fake), expected_d, rtol=0, atol=1e-10)
    adversarial = -sum(d_fake[i].log() for i in range(3))
    torch.testing.assert_close(losses.adversarial_loss(fake), adversarial, rtol=0, atol=1e-10)
    terms = [adversarial, *torch.rand(3, dtype=torch.float64)]
    expected_g = terms[0] + 10 * terms[1] + 2 * terms[2] + 0.5 * terms[3]
    torch.testing.assert_close(losses.generator_loss(terms, (1, 10, 2, 0.5)), expected_g, rtol=0, atol=1e-10)


def test_the_game_stays_finite_where_the_sigmoid_is_0_or_1() -> None:
    logits = torch.tensor([-1000.0, 1000.0], requires_grad=True)
    loss = losses.discriminator_loss(logits, logits) + losses.adversarial_loss(logits)
    loss.backward()
    assert loss.isfinite() and logits.grad is not None and logits.grad.isfinite().all()


# --- gradients ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["paper", "area", "matched", "relative"])
def test_gradients_of_perceptual_losses(maps: tuple[Tensor, ...], norm: losses.GramNorm) -> None:
    r, s, y_r, y_s = maps
    own, target = pixels(y_r), losses.organ_grams(s, pixels(y_s))

    def loss(features: Tensor) -> Tensor:
        style = losses.masked_style_loss(losses.organ_grams(features, own), target, norm)
        return style + losses.masked_content_loss(features, s, own) + losses.total_variation_loss(features)

    assert torch.autograd.gradcheck(loss, (r.requires_grad_(),))


def test_gradients_of_pixels_that_two_organs_share_or_none_owns() -> None:
    labels = torch.tensor([[0, 1, 2, 2], [0, 1, 2, 2], [3, 1, 0, 0], [0, 2, 0, 0]])
    own = losses.organ_pixels(labels, ORGANS, 2, 2)
    assert len(own.again) == 1 and (own.place == len(own.index)).sum() == 1  # half 0, half 1; four organs
    features, target = torch.randn(2, 3, 2, 2, dtype=torch.float64)
    features.requires_grad_()
    assert torch.autograd.gradcheck(lambda f: losses.organ_grams(f, own).grams, (features,))
    assert torch.autograd.gradcheck(lambda f: losses.masked_content_loss(f, target, own), (features,))


def test_gradients_of_the_game() -> None:
    logits = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: losses.discriminator_loss(v[0], v[1]), (logits,))
    assert torch.autograd.gradcheck(losses.adversarial_loss, (logits[0],))


# --- identities -----------------------------------------------------------------------------------------------------


def test_masked_content_over_a_partition_is_the_plain_one(maps: tuple[Tensor, ...]) -> None:
    r, o, y, _ = maps
    torch.testing.assert_close(losses.masked_content_loss(r, o, pixels(y)), losses.content_loss(r, o))


@pytest.mark.parametrize("norm", ["paper", "area", "matched", "relative"])
def test_a_style_against_itself_is_zero(maps: tuple[Tensor, ...], norm: losses.GramNorm) -> None:
    own = losses.organ_grams(maps[0], pixels(maps[2]))
    assert losses.masked_style_loss(own, own, norm) == 0


def test_permuting_pixels_within_an_organ_leaves_its_gram(maps: tuple[Tensor, ...]) -> None:
    r, _, y, _ = maps
    permuted = r.flatten(1).clone()
    for organ in range(ORGANS):
        where = (y.flatten() == organ).nonzero()[:, 0]
        permuted[:, where] = permuted[:, where[torch.randperm(len(where))]]
    before, after = (losses.organ_grams(f, pixels(y)).grams for f in (r, permuted.view_as(r)))
    assert not torch.equal(r.flatten(1), permuted)
    torch.testing.assert_close(before, after)


@pytest.mark.parametrize("norm", ["area", "matched", "relative"])
def test_the_same_texture_over_another_area_is_the_same_style(norm: losses.GramNorm) -> None:
    """Twice the pixels of the same texture: no style loss, but for the printed norm, which takes area for style."""
    texture = torch.randn(3, 4, 4, dtype=torch.float64)
    twice = torch.cat([texture, texture], dim=2)
    small = losses.organ_grams(texture, pixels(torch.zeros(4, 4, dtype=torch.int64)))
    # In a map of the same size as the small one's, so that both layers have M = 32.
    large = losses.organ_grams(twice, pixels(torch.zeros(4, 8, dtype=torch.int64)))
    small = losses.OrganGrams(small.grams, small.area, large.pixels)
    assert losses.masked_style_loss(small, large, norm) < 1e-25
    assert losses.masked_style_loss(small, large, "paper") > 1e-3


def test_the_relative_norm_is_bounded_by_the_organs(maps: tuple[Tensor, ...]) -> None:
    r, s, y_r, y_s = maps
    style = losses.organ_grams(s, pixels(y_s))
    for strength in (1.0, 1e3, 1e6):
        loss = losses.masked_style_loss(losses.organ_grams(strength * r, pixels(y_r)), style, "relative")
        assert 0 < loss <= ORGANS


@pytest.mark.parametrize("norm", ["paper", "area", "matched", "relative"])
def test_organs_absent_or_too_small_are_left_out(maps: tuple[Tensor, ...], norm: losses.GramNorm) -> None:
    r, s, _, y_s = maps
    only_0 = torch.zeros(SIDE, SIDE, dtype=torch.int64)
    only_0[0, :3] = 1  # three pixels: below the least area of four
    result = losses.organ_grams(r.requires_grad_(), pixels(only_0))
    style = losses.organ_grams(s, pixels(y_s))
    loss = losses.masked_style_loss(result, style, norm)
    loss.backward()
    assert loss.isfinite() and r.grad is not None and r.grad.isfinite().all()
    assert r.grad[:, 0, :3].abs().sum() == 0  # the three pixels feel nothing
    nothing_shared = losses.organ_grams(r, pixels(torch.full((SIDE, SIDE), 3)))
    assert losses.masked_style_loss(nothing_shared, losses.organ_grams(s, pixels(only_0)), norm) == 0


def test_a_pixel_is_owned_from_one_half_on() -> None:
    labels = torch.tensor([[0, 0, 1, 1], [0, 0, 2, 2], [0, 1, 3, 3], [0, 0, 3, 2]])
    owned = losses.organ_pixels(labels, 4, 2, 2)
    by_organ = [part.tolist() for part in owned.index.split(owned.areas)]
    # Of the four pixels: all 0; half 1 and half 2; three quarters 0; three quarters 3.
    assert by_organ == [[0, 2], [1], [1], [3]] and owned.pixels == 4


def test_gathered_grams_are_the_grams_of_masked_features(maps: tuple[Tensor, ...]) -> None:
    r, _, y, _ = maps
    grams = losses.organ_grams(r, pixels(y)).grams
    for organ in range(ORGANS):
        torch.testing.assert_close(grams[organ], literal_gram(r, y == organ), rtol=0, atol=1e-10)
