"""What the organs of a volume look like in HU, against scipy and numpy on the voxels themselves."""

import numpy as np
import pytest
from CTStyleGenCore.anatomy import Anatomy
from CTStyleGenCore.organ_report import hu_distances, organ_reports, style_quantiles
from CTStyleGenCore.styles import LEVELS, TOLD_LEVELS
from scipy.stats import wasserstein_distance


@pytest.fixture(scope="module")
def volume() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """HU, content's HU, labels: body, lungs and mediastinum in layers, of noise that differs."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.array([0, 1, 2, 3], np.uint8), 5)[:, None, None] * np.ones((1, 30, 30), np.uint8)
    grays = np.array([-1000, 20, -850, 40])[labels]
    hu = np.rint(grays + rng.normal(0, 30, labels.shape)).astype(np.int16)
    content = np.rint(grays + 15 + rng.normal(0, 60, labels.shape)).astype(np.int16)
    return hu, content, labels


def test_numbers_are_those_of_the_voxels(volume: tuple[np.ndarray, ...], thorax: Anatomy) -> None:
    hu, content, labels = volume
    reports = organ_reports(hu, labels, thorax, content)
    assert [report.organ for report in reports] == ["body", "lungs", "mediastinum"]
    for report in reports:
        inside = labels == thorax.organ(report.organ).label
        assert report.voxels == inside.sum() and report.to_style is None
        assert report.mean == pytest.approx(hu[inside].mean()) and report.deviation == pytest.approx(hu[inside].std())
        assert report.to_content == pytest.approx(wasserstein_distance(hu[inside], content[inside]))
    apart = hu_distances(hu, labels, content[:8], labels[:8], thorax)  # the first layers have body alone
    assert list(apart) == ["body"]
    body = hu[labels == 1], content[:8][labels[:8] == 1]
    assert apart["body"] == pytest.approx(wasserstein_distance(*body))


def test_a_style_of_known_quantiles(volume: tuple[np.ndarray, ...], thorax: Anatomy) -> None:
    hu, _, labels = volume
    quantiles = np.quantile(hu[labels == 2], LEVELS)
    (report,) = (r for r in organ_reports(hu, labels, thorax, style={"lungs": quantiles + 40}) if r.organ == "lungs")
    assert report.to_style == pytest.approx(40, abs=1) and report.to_content is None
    same = organ_reports(hu, labels, thorax, style={"lungs": quantiles})[1]
    assert same.to_style == pytest.approx(0, abs=1)


def test_a_wrong_gray_is_further_from_the_style(volume: tuple[np.ndarray, ...], thorax: Anatomy) -> None:
    hu, content, labels = volume
    style = {"lungs": np.quantile(hu[labels == 2], LEVELS)}
    spoiled = np.where(labels == 2, hu + 200, hu)
    distances = [organ_reports(image, labels, thorax, style=style)[1].to_style for image in (hu, content, spoiled)]
    assert distances == sorted(distances) and distances[2] == pytest.approx(200, abs=2)


def test_values_beyond_any_ct_are_counted_at_the_ends(thorax: Anatomy) -> None:
    (report,) = organ_reports(np.full((1, 2, 2), 20000.0), np.ones((1, 2, 2), np.uint8), thorax)
    assert report.mean == 4095 and report.deviation == 0


def test_styles_are_mixed_as_the_generator_mixes_them() -> None:
    texture = [5.0] * 4

    def flat(hu: float) -> list[float]:
        return [hu] * len(LEVELS) + texture

    before = [7.0] * len(TOLD_LEVELS) + texture  # as cards told it once
    codes = {"A": {"lungs": flat(0.0)}, "B": {"lungs": flat(100.0), "bone": before}}
    mix = {"lungs": {"A": 0.25, "B": 0.75}, "bone": {"A": 0.5, "B": 0.5}, "heart": {"A": 1.0}}
    found = style_quantiles({"style_codes": codes}, mix)
    assert list(found) == ["lungs", "bone"]
    assert found["lungs"] == pytest.approx([75.0] * len(LEVELS)) and found["bone"] == pytest.approx([7.0] * len(LEVELS))
