"""What the scoreboard measures: small functions of numpy arrays, without torch. docs/evaluation.md has the long form.

Images are axial slices, float [S, S] in HU; ``inside`` is an organ in one, bool [S, S]. A frequency is in cycles per
pixel: slices of one board have one size.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from scipy.ndimage import gaussian_filter, uniform_filter
from scipy.stats import kurtosis, skew, wasserstein_distance
from skimage.feature import graycomatrix, graycoprops

MIN_PIXELS = 30  # of an organ in a slice; fewer have no distribution and no texture
_LOW_HU, _HIGH_HU = -1000.0, 1000.0  # beyond which gray values are one
_BIN_HU = 25.0  # of gray levels (Image Biomarker Standardisation Initiative: a fixed bin size for CT)
_DISTANCES = (1, 2, 4)  # pixels
_ANGLES = (0.0, np.pi / 4, np.pi / 2, 3 * np.pi / 4)
_PROPERTIES = ("contrast", "homogeneity", "energy", "correlation")
_TREND_PIXELS = 3.0  # deviation of the Gaussian that the noise spectrum is taken without
_BANDS = 8  # of the noise spectrum, from 0 to 0.5 cycles per pixel
_QUIET = 1.0  # HU² x pixels, below any scanner's: two spectra of nothing are alike
_COARSE = 4  # pixels


def gap_closed(before: float, after: float) -> float:
    """The share of the distance ``before`` that is no more; 1: all of it, below 0: there is more."""
    return 1 - after / before if before > 0 else 0.0


def hu_distance(values: np.ndarray, target: np.ndarray) -> float:
    """Wasserstein-1 distance of two sets of HU values, of any sizes, in HU: how far gray values would have to move."""
    return float(wasserstein_distance(values, target))


# --- texture ----------------------------------------------------------------------------------------------------------


def texture(hu: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Haralick's contrast, homogeneity, energy, correlation and entropy of an organ's gray levels, [15].

    One gray level co-occurrence matrix for each of three distances, its angles averaged, over the pairs of pixels that
    both lie inside. R. M. Haralick et al., Textural Features for Image Classification, IEEE SMC 3(6), 1973.
    """
    rows, columns = (slice(places.min(), places.max() + 1) for places in np.nonzero(inside))
    levels = 1 + ((np.clip(hu, _LOW_HU, _HIGH_HU - 1) - _LOW_HU) // _BIN_HU).astype(np.uint8)
    levels = np.where(inside, levels, 0)[rows, columns]  # level 0 is what isn't inside: cut off below
    count = int((_HIGH_HU - _LOW_HU) / _BIN_HU)
    pairs = graycomatrix(levels, _DISTANCES, _ANGLES, levels=count + 1, symmetric=True)[1:, 1:].astype(float)
    shares = pairs / np.maximum(pairs.sum((0, 1)), 1)
    found = [graycoprops(shares, name).mean(1) for name in _PROPERTIES]
    logarithm = np.log2(shares, where=shares > 0, out=np.zeros_like(shares))
    return np.concatenate([*found, -(shares * logarithm).sum((0, 1)).mean(1)])


def texture_distance(a: np.ndarray, b: np.ndarray, scale: np.ndarray) -> float:
    """Mean |difference| of two textures in units of ``scale``, their deviation among real slices; all [15]."""
    return float(np.mean(np.abs(a - b) / np.maximum(scale, 1e-6)))


# --- noise ------------------------------------------------------------------------------------------------------------


def noise_spectrum(hu: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Power of what is finer than some pixels inside an organ, by radial frequency: [8], HU² x pixels.

    The trend, a Gaussian mean over the organ's own pixels, is taken off; white noise of variance v has v in the upper
    bands, whatever the organ's shape. After S. J. Riederer et al., Phys. Med. Biol. 23, 1978; ICRU Report 87, 2012.
    """
    trend = gaussian_filter(np.where(inside, hu, 0.0), _TREND_PIXELS)
    weight = gaussian_filter(inside.astype(float), _TREND_PIXELS)
    fine = np.where(inside, hu - trend / np.maximum(weight, 1e-6), 0.0)
    power = np.abs(np.fft.fft2(fine)) ** 2 / max(1, np.count_nonzero(inside))
    frequency = np.hypot(*np.meshgrid(*(np.fft.fftfreq(side) for side in hu.shape), indexing="ij"))
    band = np.minimum(frequency / 0.5 * _BANDS, _BANDS - 1).astype(int)  # the last has the corners: checkerboards
    return np.bincount(band.ravel(), power.ravel(), _BANDS) / np.bincount(band.ravel())


def spectrum_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Mean |difference| of two noise spectra [8] in decibels."""
    return float(np.mean(np.abs(10 * np.log10((a + _QUIET) / (b + _QUIET)))))


# --- realism ----------------------------------------------------------------------------------------------------------


def radiomics(hu: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """First-order statistics and texture of an organ, [13].

    Mean, deviation, skewness, kurtosis, 10th, 50th and 90th percentile and entropy of its HU; the five properties of
    `texture`, averaged over distances. (Not the features of pyradiomics: docs/evaluation.md says why.)
    """
    values = hu[inside]
    shares = np.histogram(values, np.arange(_LOW_HU, _HIGH_HU + _BIN_HU, _BIN_HU))[0] / len(values)
    entropy = -(shares[shares > 0] * np.log2(shares[shares > 0])).sum()
    flat = values.std() < 1e-6  # has no skewness
    shape = (0.0, 0.0) if flat else (skew(values), kurtosis(values))
    first = [values.mean(), values.std(), *shape, *np.percentile(values, (10, 50, 90)), entropy]
    return np.concatenate([first, texture(hu, inside).reshape(-1, len(_DISTANCES)).mean(1)])


def frechet_distance(a: np.ndarray, b: np.ndarray, scale: np.ndarray) -> float:
    """Fréchet distance of two sets of features [n, k] and [m, k], as of two normal distributions; n, m at least 2.

    Features in units of ``scale`` [k], their deviation among real slices. D. C. Dowson, B. V. Landau, J. Multivariate
    Anal. 12, 1982. The trace of (AB)^(1/2) is taken as the nuclear norm of the product of the centered sets (of their
    triangular factors: they can be long), which holds for singular covariances, too: there are fewer slices than
    features.
    """
    a, b = a / np.maximum(scale, 1e-6), b / np.maximum(scale, 1e-6)
    apart = np.square(a.mean(0) - b.mean(0)).sum()
    A, B = (np.asarray(np.linalg.qr((x - x.mean(0)) / np.sqrt(len(x) - 1), mode="r")) for x in (a, b))
    return float(apart + np.square(A).sum() + np.square(B).sum() - 2 * np.linalg.norm(A @ B.T, "nuc"))


# --- labels -----------------------------------------------------------------------------------------------------------


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    """Dice's coefficient of two sets of voxels, bool of any shape; 1: the same. L. R. Dice, Ecology 26, 1945."""
    both, sizes = int((found & truth).sum()), int(found.sum()) + int(truth.sum())
    return 2 * both / max(1, sizes)


# --- noise codes and styles -------------------------------------------------------------------------------------------


def diversity(images: Sequence[np.ndarray], inside: np.ndarray) -> float:
    """Mean |difference| inside an organ, in HU, over the pairs of images of one map by several noise codes."""
    return float(np.mean([np.abs(a - b)[inside].mean() for a, b in combinations(images, 2)]))


def coarse_diversity(images: Sequence[np.ndarray], inside: np.ndarray) -> float | None:
    """`diversity` of means over 4 x 4 pixels that lie wholly inside: of white noise a quarter remains, of forms more.

    None where there are no such 4 x 4 pixels.
    """
    whole = uniform_filter(inside.astype(float), _COARSE) > 1 - 1e-6
    return diversity([uniform_filter(image, _COARSE) for image in images], whole) if whole.any() else None


def separability(before: np.ndarray, after: np.ndarray, inside: np.ndarray, body: np.ndarray) -> tuple[float, float]:
    """Mean |change| in HU inside an organ and elsewhere in the body, when that organ alone was given another style."""
    change, elsewhere = np.abs(after - before), body & ~inside
    return float(change[inside].mean()), float(change[elsewhere].mean()) if elsewhere.any() else 0.0


# --- volumes ----------------------------------------------------------------------------------------------------------


def continuity(volume: np.ndarray, inside: np.ndarray) -> float | None:
    """Correlation of the HU of neighboring slices inside an organ: volume float, inside bool, both [K, S, S].

    Over the pairs of slices that share at least 30 of the organ's pixels; None where there are none, or no contrast.
    """
    found = []
    for one, other, shared in zip(volume, volume[1:], inside[:-1] & inside[1:], strict=False):
        a, b = one[shared], other[shared]
        if len(a) >= MIN_PIXELS and a.std() > 0 and b.std() > 0:
            found.append(np.corrcoef(a, b)[0, 1])
    return float(np.mean(found)) if found else None
