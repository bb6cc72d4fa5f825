"""Training: what a step draws, which slices are taken, that it learns, stops, resumes and refuses."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import plain
import pytest
import SimpleITK as sitk
import torch
from CTStyleGenCore.anatomy import load_anatomy
from CTStyleGenCore.checkpoint import checkpoint_path, read_checkpoint, write_checkpoint
from CTStyleGenCore.devices import Computing, choose_precision
from CTStyleGenCore.errors import InputError, Stopped, TrainingFailed
from CTStyleGenCore.model_file import read_card, read_weights
from CTStyleGenCore.perceptual import random_weights
from CTStyleGenCore.presets import Preset, load_preset
from CTStyleGenCore.slices import HuRange
from CTStyleGenCore.synthesis import Model, synthesize_volume
from CTStyleGenCore.tensorboard_logs import also_logged
from CTStyleGenCore.trainer import TERMS, Trainer
from CTStyleGenCore.training import TrainingOptions, train
from CTStyleGenCore.training_data import TrainingData, load_training_data
from phantoms import HU, chest, write_cases

PAPER = load_preset("paper")
THORAX = load_anatomy("thorax")


@pytest.fixture
def data(cases: Path) -> TrainingData:
    return load_training_data(cases, ("A",), THORAX, 64, 2, 1, HuRange())


def options(cases: Path, folder: Path, **changes: Any) -> TrainingOptions:
    return TrainingOptions(**({"cases": cases, "styles": ("A",), "output": folder / "m.ctstyle", "size": 64} | changes))


def run(options: TrainingOptions, stop_at: int | None = None, preset: Preset = PAPER) -> list[dict]:
    """Trains with random features and returns the events; asks to stop after ``stop_at`` steps."""
    events: list[dict] = []
    steps = 0

    def stopping() -> bool:
        nonlocal steps
        steps += 1
        return steps == stop_at

    train(options, preset, random_weights(), events.append, stopping)
    return events


def mistake(folder: Path, slices: slice) -> None:
    """Labels the mediastinum of a case as lungs in some of its slices."""
    path = folder / "labels.nrrd"
    labels = sitk.ReadImage(str(path))
    lungs, mediastinum = (THORAX.organ(name).label for name in ("lungs", "mediastinum"))
    values = sitk.GetArrayFromImage(labels)
    part = values[slices]
    part[part == mediastinum] = lungs
    mistaken = sitk.GetImageFromArray(values)
    mistaken.CopyInformation(labels)
    sitk.WriteImage(mistaken, str(path))


def test_a_case_whose_labels_dont_fit_its_ct_is_told_of_before_the_first_step(tmp_path: Path) -> None:
    folder = write_cases(tmp_path / "cases")
    mistake(folder / "C", slice(None))
    events = run(options(folder, tmp_path, steps=1))
    notices = [event["message"] for event in events if event["event"] == "notice"]
    assert len(notices) == 1 and "of C, a tenth or more of lungs has HU that can't be" in notices[0]
    assert "leave the case out" in notices[0] and events[0]["event"] == "notice"


def test_slices_whose_labels_dont_fit_their_ct_are_left_out(tmp_path: Path) -> None:
    folder = write_cases(tmp_path / "cases")

    def heights() -> list[float]:
        """How bright the lungs are, slice by slice, of those that a training would take."""
        data = load_training_data(folder, ("A",), THORAX, 64, 9, 1, HuRange())
        lungs = THORAX.organ("lungs").label
        return [one.x[0, 0][one.labels == lungs].max().item() for one in data.contents if one.case_id == "C"]

    before = heights()
    mistake(folder / "C", slice(0, 2))
    assert len(heights()) == len(before) - 2 and max(heights()) == max(before[2:])
    events = run(options(folder, tmp_path, steps=1))
    notices = [event["message"] for event in events if event["event"] == "notice"]
    assert len(notices) == 1
    assert notices[0].startswith(f"2 of {len(before)} slices of C are left out, as a tenth or more of lungs has HU")


# --- data -----------------------------------------------------------------------------------------------------------


def test_content_and_style_are_of_different_cases(data: TrainingData) -> None:
    assert {one.case_id for one in data.styles} == {"A"} and {one.case_id for one in data.contents} == {"B", "C"}
    assert len(data.styles) == 1 and len(data.contents) == 4
    assert data.contents[0].x.shape == data.contents[0].y.shape == (1, 1, 64, 64)


def test_several_styles_never_meet_their_own_case(cases: Path) -> None:
    data = load_training_data(cases, ("A", "B"), THORAX, 64, 2, 1, HuRange())
    draws = [data.draw(step, 0, 4) for step in range(60)]
    assert all(data.contents[d.content].case_id != data.styles[d.style].case_id for d in draws)
    assert {d.style for d in draws} == {0, 1} and {d.content for d in draws} == set(range(6))


def test_an_epoch_visits_every_slice_once_and_draws_repeat(data: TrainingData) -> None:
    draws = [data.draw(step, 7, 200) for step in range(8)]
    assert sorted(d.content for d in draws[:4]) == sorted(d.content for d in draws[4:]) == [0, 1, 2, 3]
    again = data.draw(5, 7, 200)
    assert again.content == draws[5].content and torch.equal(again.z, draws[5].z)
    assert not torch.equal(draws[4].z, draws[5].z) and draws[0].z.shape == (1, 200)


def test_unknown_style_and_lone_case_are_refused(cases: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no case 'X'"):
        load_training_data(cases, ("X",), THORAX, 64, 2, 1, HuRange())
    with pytest.raises(InputError, match="another patient"):
        load_training_data(write_cases(tmp_path / "one", 1), ("A",), THORAX, 64, 2, 1, HuRange())


# --- a step ---------------------------------------------------------------------------------------------------------


def test_calibration_gives_gradients_the_presets_proportion(data: TrainingData) -> None:
    trainer = Trainer(PAPER, THORAX, random_weights(), data, 64, 0, Computing())
    norms = trainer.calibrate()
    weighted = np.array([norms[name] * w for name, w in zip(TERMS, trainer.loss_weights, strict=True)])
    np.testing.assert_allclose(weighted / weighted[0], PAPER.gradient_ratio, rtol=1e-6)
    assert trainer.loss_weights[0] == 1


def test_every_loss_is_told_at_a_step_that_has_no_turn_of_the_discriminators(cases: Path, tmp_path: Path) -> None:
    assert PAPER.generator_updates_per_discriminator_update == 2  # the second step is without
    told = [event["losses"] for event in run(options(cases, tmp_path, steps=2)) if event["event"] == "progress"]
    assert set(told[-1]) == {*TERMS, "discriminator"}


def test_the_styles_weight_grows_as_the_preset_says(data: TrainingData) -> None:
    """Half way to sixteen times as much, geometrically: four times as much, in the generator's gradients."""
    growing = replace(PAPER, style_growth=(16.0, 4))
    grown, four_times = (Trainer(p, THORAX, random_weights(), data, 64, 0, Computing()) for p in (growing, PAPER))
    four_times.loss_weights = (1.0, 4.0, 1.0, 1.0)
    for trainer in (grown, four_times):
        trainer.step = 2
        trainer.train_step()
    for a, b in zip(grown.G.parameters(), four_times.G.parameters(), strict=True):
        assert a.grad is not None and b.grad is not None and torch.equal(a.grad, b.grad)


def test_the_discriminator_learns_every_second_step(data: TrainingData) -> None:
    trainer = Trainer(PAPER, THORAX, random_weights(), data, 64, 0, Computing())
    assert ["discriminator" in trainer.train_step() for _ in range(4)] == [True, False, True, False]


def test_the_generator_step_leaves_discriminator_and_features_alone(data: TrainingData) -> None:
    trainer = Trainer(PAPER, THORAX, random_weights(), data, 64, 0, Computing())
    trainer.train_step()
    before = [p.clone() for net in (trainer.D, trainer.phi) for p in net.parameters()]
    trainer.train_step()  # the second: the generator's alone
    after = [p for net in (trainer.D, trainer.phi) for p in net.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_step_is_the_plain_implementations(data: TrainingData) -> None:
    """Losses to 1e-5 in float32; gradients to 2 %: rounding decides on which side of a ReLU's corner flat areas are."""
    ours, its = (Trainer(PAPER, THORAX, random_weights(), data, 64, 0, Computing()) for _ in range(2))
    ours.calibrate()
    its.calibrate()
    losses = ours.train_step()
    expected, gradients = plain.step(its, random_weights())
    assert losses.keys() == expected.keys()
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(expected[name].item(), rel=1e-5), name
    for parameter, gradient in zip(ours.G.parameters(), gradients, strict=True):
        assert (parameter.grad - gradient).norm() <= 0.02 * gradient.norm()


def test_a_batch_is_the_sum_of_its_slices(data: TrainingData) -> None:
    """Gradients of a step over two slices are those of the two slices added up; losses are told as means."""
    batch = Trainer(PAPER, THORAX, random_weights(), data, 64, 0, Computing(), batch=2)
    losses, gradients, told = batch.train_step(), [], []
    for n in range(2):
        one = Trainer(PAPER, THORAX, random_weights(), data, 64, 0, Computing())
        one._draws = lambda n=n: [data.draw(n, 0, PAPER.noise_size)]  # type: ignore[method-assign]
        told.append(one.train_step())
        gradients.append([p.grad for p in one.D.parameters()])
    for name in ("discriminator", "style", "content", "total_variation"):  # D, and so its verdict, has learned more
        assert losses[name].item() == pytest.approx((told[0][name] + told[1][name]).item() / 2, rel=1e-4), name
    for parameter, a, b in zip(batch.D.parameters(), *gradients, strict=True):
        assert (parameter.grad - (a + b)).norm() <= 1e-4 * parameter.grad.norm()


def test_bfloat16_passes_give_nearly_the_same_step(data: TrainingData) -> None:
    """Slow where the hardware has no such instructions, but the same code path."""
    exact = Trainer(PAPER, THORAX, random_weights(), data, 64, 0, Computing()).train_step()
    rough = Trainer(PAPER, THORAX, random_weights(), data, 64, 0, Computing("cpu", "bfloat16")).train_step()
    for name, loss in exact.items():
        assert rough[name].dtype == torch.float32 and rough[name] != loss
        assert rough[name].item() == pytest.approx(loss.item(), rel=0.1), name


def test_precisions_are_chosen_by_name() -> None:
    assert choose_precision("float32", "cpu") == "float32" and choose_precision("bfloat16", "cpu") == "bfloat16"
    assert choose_precision("auto", "cpu") in ("float32", "bfloat16")
    with pytest.raises(InputError, match="no precision 'half'"):
        choose_precision("half", "cpu")


def test_it_learns_the_organs_grays(cases: Path, tmp_path: Path) -> None:
    """After 120 steps on phantoms an unseen anatomy has the style's grays: those of case A, 150 HU above the others."""
    run(options(cases, tmp_path, steps=120), preset=load_preset("quick"))
    _, labels = chest(slices=1, seed=99)
    model = Model(tmp_path / "m.ctstyle", "cpu")
    hu = sitk.GetArrayFromImage(synthesize_volume(model, labels, 0))
    organs = sitk.GetArrayFromImage(labels)
    for organ in (1, 2, 3, 4):
        assert abs(hu[organs == organ].mean() - (HU[organ] + 150)) < 150
    assert hu[organs == 0].mean() < -900


# --- a run ----------------------------------------------------------------------------------------------------------


def test_a_run_leaves_a_model_with_its_card_and_no_checkpoint(cases: Path, tmp_path: Path) -> None:
    events = run(options(cases, tmp_path, epochs=2, slices_per_case=1))
    assert [p.name for p in tmp_path.iterdir()] == ["m.ctstyle"]
    card = read_card(tmp_path / "m.ctstyle")
    assert (card["styles"], card["cases"], card["size"], card["steps"]) == (["A"], ["B", "C"], 64, 4)
    assert card["features"]["kind"] == "random" and set(card["losses"]["weights"]) == set(TERMS)
    assert events[0]["event"] == "calibrated" and events[-1]["event"] == "memorisation"
    assert events[-2]["done"] == events[-2]["total"] == 4


def test_a_preview_shows_map_synthetic_and_real(cases: Path, tmp_path: Path) -> None:
    events = run(options(cases, tmp_path, steps=3, checkpoint_seconds=0.0, preview=tmp_path / "preview.png"))
    told = [event["event"] for event in events if event["event"] != "progress"]
    assert told == ["calibrated", *["checkpoint", "preview"] * 2, "memorisation"]
    image = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "preview.png")))
    assert image.shape == (64, 3 * 64) and set(np.unique(image[:, :64])) == {0, 50, 100, 150, 200, 230}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.ctstyle", "preview.png"]


@pytest.mark.parametrize(("share", "steps"), [(1e9, [2, 4]), (1e-9, [2])])
def test_checkpoints_come_after_epochs_as_far_as_they_take_little_time(
    cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float, steps: list[int]
) -> None:
    monkeypatch.setattr("CTStyleGenCore.training._SAVING_SHARE", share)
    events = run(options(cases, tmp_path, epochs=3, slices_per_case=1, checkpoint_seconds=1e6))
    assert [event["step"] for event in events if event["event"] == "checkpoint"] == steps


def test_losses_go_to_tensorboard(cases: Path, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events: list[dict] = []
    report = also_logged(events.append, tmp_path / "logs")
    train(options(cases, tmp_path, steps=2), PAPER, random_weights(), report, lambda: False)
    logs = accumulator.EventAccumulator(str(tmp_path / "logs"))
    logs.Reload()
    last = logs.Scalars("losses/style")[-1]
    assert last.step == 2 and last.value == pytest.approx(events[-2]["losses"]["style"])


def test_a_missing_tensorboard_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    with pytest.raises(InputError, match="pip install tensorboard"):
        also_logged(print, tmp_path)


def test_resumed_is_bit_for_bit_uninterrupted(cases: Path, tmp_path: Path) -> None:
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    run(options(cases, tmp_path / "whole", steps=9))
    with pytest.raises(Stopped, match="step 5 of 9"):
        run(options(cases, tmp_path / "parts", steps=9), stop_at=5)
    assert checkpoint_path(tmp_path / "parts" / "m.ctstyle").exists()
    run(options(cases, tmp_path / "parts", steps=9, resume=True))
    whole, parts = (read_weights(tmp_path / name / "m.ctstyle") for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_resume_refuses_other_options_and_broken_checkpoints(cases: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no checkpoint"):
        run(options(cases, tmp_path, resume=True))
    with pytest.raises(Stopped):
        run(options(cases, tmp_path, steps=9), stop_at=2)
    with pytest.raises(InputError, match="another seed"):
        run(options(cases, tmp_path, steps=9, resume=True, seed=1))
    with pytest.raises(InputError, match="made with another number of slices: go on"):
        run(options(cases, tmp_path, steps=9, resume=True, slices_per_case=1))
    path = checkpoint_path(tmp_path / "m.ctstyle")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="can't be read"):
        run(options(cases, tmp_path, steps=9, resume=True))


def own_table(folder: Path, **changes: Any) -> str:
    """A table file: the thorax's organs, the mediastinum called heart."""
    table = THORAX.to_json() | {"name": "mine"}
    table["organs"][3] |= {"name": "heart", "codes": [], "aliases": ["mediastinum"]} | changes
    path = folder / "mine.json"
    path.write_text(json.dumps(table))
    return str(path)


def test_a_table_of_the_users_own_is_learned_and_kept(cases: Path, tmp_path: Path) -> None:
    given = options(cases, tmp_path, steps=9, anatomy=own_table(tmp_path))
    with pytest.raises(Stopped):
        run(given, stop_at=2)
    with pytest.raises(InputError, match="made with another organ table: go on"):
        run(replace(given, resume=True, anatomy=None))
    own_table(tmp_path, gray=151)
    with pytest.raises(InputError, match="another organ table"):
        run(replace(given, resume=True))
    own_table(tmp_path, aliases=["mediastinum", "pericardium"])  # by which segments are recognized, not what is learned
    run(replace(given, resume=True))
    card = read_card(given.output)
    assert card["preset"]["anatomy"] == card["anatomy"]["name"] == "mine"
    assert card["anatomy"]["organs"][3]["name"] == "heart"
    assert Model(given.output, "cpu").anatomy.organ("heart").label == 3
    with pytest.raises(InputError, match="no organ table 'abdomen'"):
        run(replace(given, anatomy="abdomen"))


def test_a_checkpoint_of_before_there_was_a_choice_of_tables_is_gone_on_with(cases: Path, tmp_path: Path) -> None:
    given = options(cases, tmp_path, steps=3)
    with pytest.raises(Stopped):
        run(given, stop_at=2)
    path = checkpoint_path(given.output)
    state, told = read_checkpoint(path)
    del told["anatomy"]
    write_checkpoint(path, state, told)
    with pytest.raises(InputError, match="another organ table"):
        run(replace(given, resume=True, anatomy=own_table(tmp_path)))
    run(replace(given, resume=True))
    assert read_card(given.output)["anatomy"] == THORAX.to_json()


def test_a_loss_that_is_no_number_ends_the_run(cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_step: Callable = Trainer.train_step

    def poisoned(self: Trainer) -> dict:
        if self.step == 2:
            with torch.no_grad():
                next(self.G.parameters()).fill_(float("nan"))
        return real_step(self)

    monkeypatch.setattr(Trainer, "train_step", poisoned)
    with pytest.raises(TrainingFailed, match="no number"):
        run(options(cases, tmp_path, steps=4))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "changes",
    [{"size": 100}, {"steps": 0}, {"epochs": -1}, {"slices_per_case": 0}, {"batch": 0}, {"checkpoint_seconds": -1.0}],
)
def test_impossible_options_are_refused_before_reading(tmp_path: Path, changes: dict) -> None:
    with pytest.raises(InputError, match="not possible"):
        run(options(tmp_path / "absent", tmp_path, **changes))


def test_the_run_and_its_card_are_json(cases: Path, tmp_path: Path) -> None:
    assert json.loads(json.dumps(run(options(cases, tmp_path, steps=1))))
