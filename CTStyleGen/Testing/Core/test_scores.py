"""What the scoreboard measures: known values where they are known, and worse ones for images that are spoiled."""

import itertools

import numpy as np
import pytest
from CTStyleGenCore import scores
from scipy.ndimage import gaussian_filter

DISC = np.hypot(*np.mgrid[-1:1:96j, -1:1:96j]) < 0.8
ALL = np.ones((64, 64), bool)


def white(seed: int = 0, deviation: float = 30.0, mean: float = 40.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, deviation, DISC.shape)


def grainy(seed: int = 0, pixels: float = 1.5) -> np.ndarray:
    """Noise of a grain of some pixels, of the mean and deviation of `white`."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=DISC.shape), pixels)
    return 40 + 30 * noise / noise.std()


def textures_apart(a: np.ndarray, b: np.ndarray) -> float:
    return scores.texture_distance(scores.texture(a, DISC), scores.texture(b, DISC), scale())


def scale() -> np.ndarray:
    """The deviations of textures among some images as real ones."""
    return np.std([scores.texture(grainy(seed, 1 + seed / 8), DISC) for seed in range(8)], axis=0, ddof=1)


def spectra_apart(a: np.ndarray, b: np.ndarray) -> float:
    return scores.spectrum_distance(scores.noise_spectrum(a, DISC), scores.noise_spectrum(b, DISC))


# --- HU ---------------------------------------------------------------------------------------------------------------


def test_hu_distance_of_a_shift_is_the_shift() -> None:
    values = np.random.default_rng(0).normal(40, 20, 500)
    assert scores.hu_distance(values, values) == 0
    assert scores.hu_distance(values, values + 35) == pytest.approx(35)
    assert scores.hu_distance(np.array([0.0, 100.0]), np.array([50.0])) == 50  # sets of other sizes


def test_an_organ_of_a_wrong_gray_closes_no_gap() -> None:
    style, content = white(0, mean=120)[DISC], white(1, mean=40)[DISC]
    before = scores.hu_distance(content, style)
    right, wrong = (scores.hu_distance(white(2, mean=mean)[DISC], style) for mean in (118, -60))
    assert scores.gap_closed(before, right) > 0.95 and scores.gap_closed(before, wrong) < 0
    assert scores.gap_closed(80, 20) == 0.75 and scores.gap_closed(0, 5) == 0


# --- texture ----------------------------------------------------------------------------------------------------------


def test_texture_of_a_checkerboard() -> None:
    """Neighbors of a board of 0 and 100 HU differ by four levels, pixels two apart by none."""
    board = 100.0 * (np.indices((64, 64)).sum(0) % 2)
    contrast, homogeneity, energy, correlation, entropy = scores.texture(board, ALL).reshape(5, 3)
    straight, diagonal = 16.0, 0.0  # contrast by angle, at a distance of one pixel
    assert contrast == pytest.approx([(2 * straight + 2 * diagonal) / 4, 0, 0])
    assert homogeneity == pytest.approx([(2 / 17 + 2) / 4, 1, 1])
    assert correlation == pytest.approx([0, 1, 1], abs=1e-3)
    assert energy == pytest.approx([np.sqrt(0.5)] * 3, abs=1e-3) and entropy == pytest.approx([1] * 3, abs=1e-3)


def test_texture_knows_nothing_of_what_is_outside() -> None:
    inside = white()
    other = np.where(DISC, inside, 900.0)
    assert np.array_equal(scores.texture(inside, DISC), scores.texture(other, DISC))


@pytest.mark.parametrize(
    "spoil", [lambda hu: gaussian_filter(hu, 2), lambda hu: hu + white(7, 30, 0), lambda hu: 3 * hu]
)
def test_spoiled_texture_is_further_away(spoil) -> None:
    style, same = grainy(0), grainy(1)
    assert textures_apart(style, style) == 0
    assert textures_apart(style, spoil(same)) > 2 * textures_apart(style, same)


# --- noise ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", [np.ones_like(DISC), DISC, DISC & (np.indices(DISC.shape)[0] % 40 < 25)])
def test_white_noise_has_its_variance_in_the_upper_bands(inside: np.ndarray) -> None:
    spectra = [scores.noise_spectrum(white(seed), inside) for seed in range(6)]
    assert np.mean(spectra, axis=0)[3:] == pytest.approx(30**2, rel=0.1)


def test_noise_knows_nothing_of_the_organs_mean_and_of_what_is_outside() -> None:
    hu = white()
    moved = np.where(DISC, hu + 500, -1000.0)
    assert scores.noise_spectrum(moved, DISC) == pytest.approx(scores.noise_spectrum(hu, DISC))


def test_a_checkerboard_is_noise_of_the_last_band() -> None:
    board = grainy(0) + 20.0 * (-1) ** np.indices(DISC.shape).sum(0)
    apart = np.log10(scores.noise_spectrum(board, DISC) / scores.noise_spectrum(grainy(0), DISC))
    assert apart[-1] > 2 and np.abs(apart[:-1]).max() < 0.3
    assert spectra_apart(grainy(0), board) > 2 * spectra_apart(grainy(0), grainy(1))


def test_twice_the_noise_is_six_decibels() -> None:
    assert spectra_apart(white(0), white(0, 60)) == pytest.approx(20 * np.log10(2), abs=0.1)


@pytest.mark.parametrize("spoil", [lambda hu: gaussian_filter(hu, 1), lambda hu: hu + white(7, 40, 0)])
def test_spoiled_noise_is_further_away(spoil) -> None:
    assert spectra_apart(grainy(0), spoil(grainy(1))) > 3 * spectra_apart(grainy(0), grainy(1))


# --- realism ----------------------------------------------------------------------------------------------------------


def test_frechet_distance_of_known_distributions() -> None:
    """Normal distributions with means d apart and deviations s and t: d² + (s - t)² along each feature."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, (20000, 2)), rng.normal((3, 0), (1, 2), (20000, 2))
    assert scores.frechet_distance(a, b, np.ones(2)) == pytest.approx(9 + 1, rel=0.03)
    assert scores.frechet_distance(a, b, np.full(2, 2.0)) == pytest.approx(10 / 4, rel=0.03)
    assert scores.frechet_distance(a, a, np.ones(2)) == pytest.approx(0, abs=1e-8)


def test_frechet_distance_agrees_with_the_formula() -> None:
    from scipy.linalg import sqrtm

    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(9, 4)) @ rng.normal(size=(4, 4)), rng.normal(1, 2, (7, 4))
    root = sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    plain = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root)
    assert scores.frechet_distance(a, b, np.ones(4)) == pytest.approx(plain)


@pytest.mark.parametrize(
    "spoil", [lambda hu: gaussian_filter(hu, 2), lambda hu: hu + white(7, 60, 0), lambda hu: hu + 200]
)
def test_spoiled_slices_are_less_real(spoil) -> None:
    def features(seeds: range, change=lambda hu: hu) -> np.ndarray:
        return np.array([scores.radiomics(change(grainy(seed, 1 + seed % 5 / 8)), DISC) for seed in seeds])

    real, other = features(range(10)), features(range(10, 20))
    deviations = real.std(axis=0, ddof=1)
    spoiled = scores.frechet_distance(features(range(10, 20), spoil), real, deviations)
    assert spoiled > 3 * scores.frechet_distance(other, real, deviations)


def test_radiomics_of_a_flat_organ_are_numbers() -> None:
    found = scores.radiomics(np.full(DISC.shape, 40.0), DISC)
    assert found.shape == (13,) and np.isfinite(found).all()
    assert found[[0, 1, 4, 5, 6, 7]] == pytest.approx([40, 0, 40, 40, 40, 0])


# --- labels, noise codes, styles --------------------------------------------------------------------------------------


def test_dice() -> None:
    a, b = np.array([True, True, False, False]), np.array([True, False, True, True])
    assert scores.dice(a, a) == 1 and scores.dice(a, b) == pytest.approx(2 / 5)
    assert scores.dice(a, ~a) == 0 and scores.dice(a & ~a, a & ~a) == 0


def test_diversity_of_shifts_and_of_the_same_image() -> None:
    hu = white()
    images = [hu, hu + 10, hu - 10]
    assert scores.diversity(images, DISC) == pytest.approx((10 + 10 + 20) / 3)
    assert scores.coarse_diversity(images, DISC) == pytest.approx((10 + 10 + 20) / 3)
    assert scores.diversity([hu, hu], DISC) == 0


def test_coarse_diversity_sees_forms_and_hardly_noise() -> None:
    noise, forms = ([kind(seed) for seed in range(3)] for kind in (white, lambda seed: grainy(seed, 6)))
    shares = [scores.coarse_diversity(images, DISC) / scores.diversity(images, DISC) for images in (noise, forms)]
    assert shares[0] == pytest.approx(1 / 4, abs=0.05) and shares[1] > 0.9
    assert scores.coarse_diversity(noise, np.zeros_like(DISC)) is None


def test_separability() -> None:
    before, organ = white(), DISC & (np.indices(DISC.shape)[1] < 40)
    after = before + 50.0 * organ + 2.0 * ~organ
    assert scores.separability(before, after, organ, DISC) == pytest.approx((50, 2))
    assert scores.separability(before, after, DISC, DISC)[1] == 0  # there is no elsewhere


# --- volumes ----------------------------------------------------------------------------------------------------------


def test_continuity_of_what_is_known() -> None:
    volume = np.stack([white(seed) for seed in range(6)])
    inside = np.broadcast_to(DISC, volume.shape)
    assert scores.continuity(volume, inside) == pytest.approx(0, abs=0.05)  # nothing in common
    assert scores.continuity(np.stack([white()] * 6), inside) == pytest.approx(1)  # the same slice again and again
    shared = volume + white(9)  # one half of each slice's variance is common to all
    assert scores.continuity(shared, inside) == pytest.approx(0.5, abs=0.05)


def test_continuity_needs_neighbors_with_some_contrast() -> None:
    volume = np.stack([white(seed) for seed in range(2)])
    apart = np.stack([DISC, ~DISC])
    assert scores.continuity(volume, apart) is None
    assert scores.continuity(volume[:1], apart[:1]) is None
    assert scores.continuity(np.zeros_like(volume), np.broadcast_to(DISC, volume.shape)) is None


def test_all_is_finite_for_the_smallest_organs() -> None:
    few = np.zeros_like(DISC)
    few.flat[np.flatnonzero(DISC)[: scores.MIN_PIXELS]] = True
    for hu, measure in itertools.product(
        (white(), np.full(DISC.shape, 2000.0)), (scores.texture, scores.noise_spectrum, scores.radiomics)
    ):
        assert np.isfinite(measure(hu, few)).all()
