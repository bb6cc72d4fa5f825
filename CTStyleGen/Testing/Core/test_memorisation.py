"""What counts as learned by heart: the detail that a map doesn't tell, found again; told in the card and by `train`."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from CTStyleGenCore.anatomy import load_anatomy
from CTStyleGenCore.augmentation import Pose
from CTStyleGenCore.devices import Computing
from CTStyleGenCore.expansion import ExpansionOptions, expand
from CTStyleGenCore.memorisation import (
    NEAR,
    Memorisation,
    detail,
    distances,
    draws_near_copies,
    measured,
    near_copies,
    samples,
)
from CTStyleGenCore.model_file import read_card
from CTStyleGenCore.perceptual import random_weights
from CTStyleGenCore.presets import load_preset
from CTStyleGenCore.slices import HuRange, gray_map
from CTStyleGenCore.synthesis import Model
from CTStyleGenCore.trainer import Trainer
from CTStyleGenCore.training import TrainingOptions, train
from CTStyleGenCore.training_data import TrainingData, TrainingSlice
from CTStyleGenCore.training_metrics import style_distances
from phantoms import HU, chest, write_cases
from scipy.ndimage import gaussian_filter
from SimpleITK import GetArrayFromImage
from torch import Tensor

THORAX, SIDE = load_anatomy("thorax"), 128
MEANS = torch.tensor(HU, dtype=torch.float32)


def blobs(seed: int) -> np.ndarray:
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(SIDE, SIDE)), 3)
    return 300 * noise / noise.std()


def person(seed: int, blobs_of: int | None = None) -> TrainingSlice:
    """A chest with blobs of its own in the phantom's organs; with somebody's blobs, that one, scanned again."""
    ct, labels = (GetArrayFromImage(one)[0] for one in chest(slices=1, side=SIDE, seed=seed))
    hu = torch.from_numpy(ct + (labels > 0) * blobs(seed if blobs_of is None else blobs_of))[None, None].float()
    organs = torch.from_numpy(labels).long()
    return TrainingSlice(f"person-{seed}", HuRange().to_unit(hu), gray_map(organs, THORAX)[None, None], organs, 400.0)


@pytest.fixture(scope="module")
def people() -> list[TrainingSlice]:
    return [person(seed) for seed in range(12)]


def seen(slices: list[TrainingSlice]) -> Tensor:
    return torch.stack([detail(HuRange().to_hu(one.x[0, 0]), one.labels) for one in slices])


# --- the metric -------------------------------------------------------------------------------------------------------


def test_copies_are_found_also_shifted_mirrored_and_noisy(people: list[TrainingSlice]) -> None:
    known, others = seen(people[:6]), people[6:]
    assert near_copies(distances(seen(others), known).amin(1)) == 0
    copies = distances(seen(people[:6]), known)
    torch.testing.assert_close(copies.diagonal(), torch.zeros(6), atol=1e-5, rtol=0)
    moved = Pose(False, 0.0, (1.0, 1.0), (0.06, -0.04))

    def noisy(one: TrainingSlice) -> TrainingSlice:
        return replace(one, x=one.x + torch.from_numpy(np.random.default_rng(3).normal(0, 0.06, one.x.shape)).float())

    spoilt: tuple[Callable[[TrainingSlice], TrainingSlice], ...] = (
        lambda one: one.posed(moved, THORAX),
        lambda one: one.posed(replace(moved, mirrored=True), THORAX),
        noisy,
    )
    for spoil in spoilt:
        assert near_copies(distances(seen([spoil(one) for one in people[:6]]), known).amin(1)) == 1


def test_a_persons_outlines_alone_are_no_copy(people: list[TrainingSlice]) -> None:
    """Whole slices of the same map are alike, whatever is in the organs."""
    noise = torch.randn(len(people), 8, generator=torch.Generator().manual_seed(0))
    made = [replace(one, x=of_its_own(one, z[None], one)) for one, z in zip(people, noise, strict=True)]
    for one, other in zip(people, made, strict=True):
        assert np.corrcoef(one.x.flatten(), other.x.flatten())[0, 1] > 0.8
    assert distances(seen(made), seen(people)).min() > NEAR


def test_flat_organs_have_no_detail(people: list[TrainingSlice]) -> None:
    assert detail(MEANS[people[0].labels], people[0].labels).abs().max() < 1e-3


# --- at the end of a training -----------------------------------------------------------------------------------------


def found(slices: list[TrainingSlice], draw: Callable[[TrainingSlice, Tensor, TrainingSlice], Tensor]) -> Memorisation:
    data = TrainingData(tuple(slices), tuple(slices))
    return measured(samples(data, draw, THORAX, 8, 0), data)


def by_heart(one: TrainingSlice, z: Tensor, style: TrainingSlice) -> Tensor:
    """A generator that gives back the training slice, warped as the map is warped."""
    return one.x


def of_its_own(one: TrainingSlice, z: Tensor, style: TrainingSlice) -> Tensor:
    """A generator that knows organs' HU, and makes detail of its noise code."""
    inside = torch.from_numpy(blobs(int(1e6 * abs(z[0, 0]))))
    return HuRange().to_unit(MEANS[one.labels] + (one.labels > 0) * inside).float()[None, None]


def test_a_generator_that_gives_back_its_training_is_told_of(people: list[TrainingSlice]) -> None:
    told = found(people, by_heart)
    assert told.copies == 1 and told.distance < 0.2 < NEAR < told.real_distance and told.real_copies == 0
    assert "near copies of training slices (16 of 16" in told.told and "don't share" in told.told


def test_one_that_makes_its_own_detail_is_not(people: list[TrainingSlice]) -> None:
    told = found(people, of_its_own)
    assert told.copies == 0 and told.distance > NEAR
    assert told.told == "None of 16 images drawn from training maps is a near copy of a training slice."


def test_images_nearer_than_real_slices_are_told() -> None:
    """Half known by heart is no near copy, but not nothing."""
    told = Memorisation(16, 3, 0.62, 0.77, 0.0, 0.0)
    assert told.finding == "nearer than real slices" and "nearer to them (0.62)" in told.told
    assert replace(told, distance=0.75).finding == "none"
    assert replace(told, copies=0.1).finding == "near copies"


def test_some_copies_among_many_are_told(people: list[TrainingSlice]) -> None:
    """One person alone is known by heart."""

    def one_by_heart(one: TrainingSlice, z: Tensor, style: TrainingSlice) -> Tensor:
        return (by_heart if one.case_id == "person-3" else of_its_own)(one, z, style)

    told = found(people, one_by_heart)
    assert 0 < told.copies < 0.5 and "near copies" in told.told


def test_a_patient_in_two_cases_hides_nothing(people: list[TrainingSlice]) -> None:
    """Real slices are near copies then; what the model draws is judged by the same bar."""
    twice = [*people[:2], person(50, blobs_of=0), person(51, blobs_of=1)]
    assert found(twice, by_heart).copies == 1 and found(twice, of_its_own).copies == 0
    assert found(twice, of_its_own).real_copies == 1


def test_half_of_the_maps_are_warped_in_the_look_of_another_case(people: list[TrainingSlice]) -> None:
    asked = []

    def noted(one: TrainingSlice, z: Tensor, style: TrainingSlice) -> Tensor:
        asked.append((one, z, style))
        return one.x

    found(people, noted)
    maps = [one.y for one in people]
    known = [any(torch.equal(one.y, y) for y in maps) for one, _z, _style in asked]
    assert all(known[::2]) and sum(known[1::2]) < 4  # some are hardly warped
    assert [one.case_id == style.case_id for one, _z, style in asked] == [True, False] * 8
    assert len({z[0, 0].item() for _one, z, _style in asked}) == 16


def test_two_slices_are_enough(people: list[TrainingSlice]) -> None:
    data = TrainingData((people[0],), (people[1],))  # one content, one style
    told = measured(samples(data, by_heart, THORAX, 8, 0), data)
    assert json.loads(json.dumps(told.card()))["real_distance"] > NEAR


# --- by train ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cases(tmp_path_factory.mktemp("cases") / "cases")


def test_metrics_are_of_the_looks_of_others(people: list[TrainingSlice]) -> None:
    """By heart, all are as far from the style as their content is; painted in the style's HU, they are near it."""

    def in_style(one: TrainingSlice, z: Tensor, style: TrainingSlice) -> Tensor:
        means = torch.stack([style.x[0, 0][style.labels == organ].mean() for organ in range(len(THORAX.organs))])
        return means.nan_to_num()[one.labels][None, None]

    bright = [replace(one, x=one.x + 0.1 * number) for number, one in enumerate(people)]
    data = TrainingData(tuple(bright), tuple(bright))
    for draw, is_near in ((by_heart, False), (in_style, True)):
        told = style_distances(samples(data, draw, THORAX, 8, 0), THORAX, HuRange())
        after, before = told["hu_to_style"]["lungs"], told["hu_of_content_to_style"]["lungs"]
        assert before > 100 and (after < 0.5 * before if is_near else after > 0.9 * before)


def trained(cases: Path, folder: Path, preset: str) -> tuple[dict, dict]:
    """The card's finding, and the event's."""
    styles = () if preset == "styles" else ("A",)
    options = TrainingOptions(
        cases, styles, folder / "m.ctstyle", 64, steps=1, slices_per_case=1, computing=Computing()
    )
    events: list[dict] = []
    train(options, load_preset(preset), random_weights(), events.append, lambda: False)
    return read_card(folder / "m.ctstyle")["memorisation"], events[-1]


@pytest.mark.parametrize("preset", ["paper", "quick", "styles"])
def test_train_tells_what_it_found(cases: Path, tmp_path: Path, preset: str) -> None:
    card, event = trained(cases, tmp_path, preset)
    assert card["copies"] == 0 and card["distance"] > NEAR and "None of 16" in card["told"]
    metrics = read_card(tmp_path / "m.ctstyle")["metrics"]
    assert set(metrics) == {"hu_to_style", "hu_of_content_to_style"} and metrics["hu_to_style"]["lungs"] > 0
    assert event == {"event": "memorisation", **card, "message": card["told"]}
    if preset == "quick":
        assert of_a_data_set(cases, tmp_path) == []


def test_train_tells_of_near_copies(cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "drawn", lambda trainer, *asked: by_heart(*asked))
    card, event = trained(cases, tmp_path, "paper")
    assert card["copies"] >= 0.5  # where warped, noise is interpolated away
    assert "don't share" in card["told"] and event["message"] == card["told"]
    assert sum("near copies" in message for message in of_a_data_set(cases, tmp_path)) == 1


def of_a_data_set(cases: Path, folder: Path) -> list[str]:
    """What `expand` says of one made by the model."""
    events: list[dict] = []
    model = Model(folder / "m.ctstyle", "cpu")
    expand(ExpansionOptions(cases, 1, folder / "set", 0.0), model, events.append, lambda: False)
    return [event["message"] for event in events if event["event"] == "notice"]


@pytest.mark.parametrize("told", [None, [], {}, "near copies", {"finding": None}, {"finding": "none"}])
def test_a_card_that_tells_of_no_near_copies(told: object) -> None:
    assert not draws_near_copies({}) and not draws_near_copies({"memorisation": told})
