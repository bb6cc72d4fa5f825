"""The preset styles: that a run learns looks it can give at use, resumes, shares a batch, and what its model offers."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from CTStyleGenCore.__main__ import main
from CTStyleGenCore.anatomy import load_anatomy
from CTStyleGenCore.augmentation import varied
from CTStyleGenCore.checkpoint import checkpoint_path
from CTStyleGenCore.composition import fat_of_codes
from CTStyleGenCore.devices import Computing
from CTStyleGenCore.errors import InputError, Stopped
from CTStyleGenCore.losses import (
    coarse_loss,
    code_loss,
    hinge_discriminator_loss,
    moment_loss,
    organ_pixels,
)
from CTStyleGenCore.model_file import read_card, read_weights
from CTStyleGenCore.perceptual import random_weights
from CTStyleGenCore.presets import load_preset
from CTStyleGenCore.slices import HuRange, gray_map
from CTStyleGenCore.style_trainer import StyleTrainer
from CTStyleGenCore.synthesis import Model, synthesize_volume
from CTStyleGenCore.training import TrainingOptions, train
from CTStyleGenCore.training_data import TrainingData, TrainingSlice, load_training_data
from phantoms import HU, chest, write_case

# Shallow features: a step of a third of the time.
STYLES = replace(load_preset("styles"), style_layers=("relu1_1", "relu2_1"), judged_layers=("relu3_1",))
THORAX = load_anatomy("thorax")


@pytest.fixture(scope="module")
def data(cases: Path) -> TrainingData:
    return load_training_data(cases, (), THORAX, 64, 2, 2, HuRange(), every_style=True)


@pytest.fixture(scope="module")
def model(cases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of few steps: HU by organ are the style's from the first on."""
    path = tmp_path_factory.mktemp("models") / "m.ctstyle"
    run(cases, path, 10)
    return path


def run(cases: Path, output: Path, steps: int, stop_at: int | None = None, **options: object) -> None:
    counted = iter(range(1, steps + 1))
    told = TrainingOptions(**({"cases": cases, "styles": (), "output": output, "size": 64, "steps": steps} | options))  # type: ignore[arg-type]
    train(told, STYLES, random_weights(), lambda event: None, lambda: next(counted) == stop_at)


# --- losses ---------------------------------------------------------------------------------------------------------


def test_each_loss_is_0_for_what_it_asks_and_more_else() -> None:
    torch.manual_seed(0)
    R, labels = torch.rand(8, 16, 16), torch.randint(0, 2, (16, 16))
    r, whole = organ_pixels(labels, 2, 16, 16), organ_pixels(torch.zeros_like(labels), 2, 16, 16)
    assert moment_loss(R, r, R, r) == 0 and moment_loss(R, r, 2 * R, r) > 0.1
    assert moment_loss(R, whole, R.flip(1), whole) < 1e-6  # where things lie is no style
    x = R[:1, None]
    assert coarse_loss(x, x) == 0 and coarse_loss(x, x + 0.5).item() == pytest.approx(0.5)
    stripes = torch.tensor([0.1, -0.1]).repeat(8).expand(1, 1, 16, 16)
    assert coarse_loss(x, x + stripes, 4) < 1e-6  # texture is no layout
    codes = torch.tensor([[0.0, 1.0], [2.0, torch.nan]])
    assert code_loss(codes, codes) == 0 and code_loss(codes, codes + 1).item() == pytest.approx(3 / 2)


def test_hinge_asks_for_no_more_than_a_margin_of_one() -> None:
    logits = torch.tensor([[[[1.0, 5.0]]], [[[0.0, 1.0]]]])
    assert hinge_discriminator_loss(logits, -logits).item() == pytest.approx(0.5 + 0.5)


# --- training -------------------------------------------------------------------------------------------------------


def test_looks_are_varied_and_air_stays_air(data: TrainingData) -> None:
    one = data.contents[0]
    x = varied(one.x, one.labels, 6, np.random.default_rng(0))
    lungs, outside = one.labels == 2, one.labels == 0
    assert x.shape == one.x.shape and x.abs().max() <= 1
    assert (x - one.x)[0, 0][lungs].abs().mean() > 1e-3
    assert abs((x - one.x)[0, 0][outside].mean()) < 5e-3


def test_tables_become_air_and_bodies_stay(cases: Path) -> None:
    data = load_training_data(cases, (), THORAX, 256, 1, 1, HuRange(), every_style=True)
    one = data.contents[0]
    one.x[0, 0, -4:] = 0.2  # a table, below the body
    cleared = data.without_tables().contents[0]
    assert cleared.x[0, 0, -4:].max() <= -0.95
    assert torch.equal(cleared.x[0, 0][one.labels > 0], one.x[0, 0][one.labels > 0])
    beside = torch.zeros_like(one.labels, dtype=torch.bool)
    beside[:, 1:] = (one.labels[:, :-1] > 0) & (one.labels[:, 1:] == 0)
    assert torch.equal(cleared.x[0, 0][beside], one.x[0, 0][beside])


def test_every_second_draw_asks_for_the_contents_own_style(data: TrainingData) -> None:
    trainer = StyleTrainer(STYLES, THORAX, random_weights(), data, 64, 0, Computing())
    tasks = [trainer._task(data.draw(n, 0, 200)) for n in range(8)]
    assert [task.own_style for task in tasks] == [True, False] * 4
    assert all(t.content.case_id != t.style.case_id for t in tasks[1::2])
    again = trainer._task(data.draw(3, 0, 200))
    assert torch.equal(again.content.x, tasks[3].content.x)
    torch.testing.assert_close(again.codes, tasks[3].codes, rtol=0, atol=0, equal_nan=True)


def test_a_batch_is_the_sum_of_its_slices(data: TrainingData) -> None:
    """The discriminator's gradients of a step over two slices are those of the two slices added up."""
    batch = StyleTrainer(STYLES, THORAX, random_weights(), data, 64, 0, Computing(), batch=2)
    batch.train_step()
    gradients = []
    for n in range(2):
        one = StyleTrainer(STYLES, THORAX, random_weights(), data, 64, 0, Computing())
        one._draws = lambda n=n: [data.draw(n, 0, 200)]  # type: ignore[method-assign]
        one.train_step()
        gradients.append([p.grad for p in one.D.parameters()])
    for parameter, a, b in zip(batch.D.parameters(), *gradients, strict=True):
        assert (parameter.grad - (a + b)).norm() <= 1e-3 * parameter.grad.norm() + 1e-6


def test_other_cases_styles_are_asked_for_in_the_contents_proportion_of_fat(data: TrainingData) -> None:
    """Of bodies of fat and muscle; and the model's card tells what maps tell of them."""
    of_fat = {"A": 0.3, "B": 0.5, "C": 0.7}

    def with_fat(one: TrainingSlice) -> TrainingSlice:
        x, body = one.x.clone(), one.labels == THORAX.organ("body").label
        noise = 0.01 * torch.randn(int(body.sum()), generator=torch.Generator().manual_seed(0))
        x[0, 0][body] = noise + torch.where(torch.linspace(0, 1, len(noise)) < of_fat[one.case_id], -0.4, 0.4)
        return replace(one, x=x)

    trainer = StyleTrainer(STYLES, THORAX, random_weights(), data._changed(with_fat), 64, 0, Computing())
    cut = trainer.G.composition.cut
    for n in range(8):
        task = trainer._task(data.draw(n, 0, 200))
        if task.own_style:
            assert task.codes is task.style_codes
        else:
            assert fat_of_codes(task.codes, cut)[0, 1].item() == pytest.approx(of_fat[task.content.case_id], abs=0.02)
            assert fat_of_codes(task.style_codes, cut)[0, 1].item() == pytest.approx(
                of_fat[task.style.case_id], abs=0.02
            )
            torch.testing.assert_close(task.codes[:, 2:], task.style_codes[:, 2:], equal_nan=True)
    assert list(trainer.card("ABC")["fat"]) == ["body"]


def test_more_layers_are_judged_than_are_measured(data: TrainingData) -> None:
    trainer = StyleTrainer(STYLES, THORAX, random_weights(), data, 64, 0, Computing())
    assert list(trainer.D.heads) == [*STYLES.style_layers, *STYLES.judged_layers] == ["relu1_1", "relu2_1", "relu3_1"]
    losses = trainer.train_step()
    assert all(loss.isfinite() for loss in losses.values())
    judged = [p.grad.norm() for p in trainer.D.heads["relu3_1"].parameters() if p.grad is not None]
    assert max(judged) > 0


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_step_in_parts_is_the_step(data: TrainingData, at_once: int) -> None:
    """Gradients of both players and losses are those of all slices at once, up to the order of sums."""

    def stepped(computing: Computing) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
        trainer = StyleTrainer(STYLES, THORAX, random_weights(), data, 64, 0, computing, batch=3)
        losses = trainer.train_step()
        return losses, [p.grad for player in (trainer.G, trainer.D) for p in player.parameters()]

    (losses, gradients), (expected, its) = stepped(Computing(at_once=at_once)), stepped(Computing())
    assert losses.keys() == expected.keys()
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(expected[name].item(), rel=1e-3), name
    for gradient, one in zip(gradients, its, strict=True):
        assert (gradient - one).norm() <= 5e-3 * one.norm() + 1e-5  # slopes change where a score meets a quantile


def test_training_grows_from_small_slices_to_the_models_own(cases: Path) -> None:
    """Three of five steps at 128 pixels; what the networks know of codes, and what they draw, is of the step's side."""
    data = load_training_data(cases, (), THORAX, 256, 1, 1, HuRange(), every_style=True)
    trainer = StyleTrainer(STYLES, THORAX, random_weights(), data, 256, 0, Computing(), steps=5)
    sides, roughness = [], []
    for _ in range(5):
        sides.append(trainer.side)
        trainer.train_step()
        roughness.append(trainer.G_average.normalized.mean[2, -1].item())
        assert torch.equal(trainer.G.normalized.mean, trainer.G_average.normalized.mean)
    assert sides == [128, 128, 128, 256, 256]
    assert [trainer.work(n) / 128**2 for n in (0, 1, 3, 4, 5)] == [0, 1, 3, 7, 11]
    assert roughness[0] == roughness[2] != roughness[3] == roughness[4]
    assert trainer.drawn(data.contents[0], torch.zeros(1, 200), data.contents[0]).shape == (1, 1, 256, 256)
    trainer.step = 0
    small = trainer.drawn(data.contents[0], torch.zeros(1, 200), data.contents[0])
    assert torch.equal(small[..., ::2, ::2], small[..., 1::2, 1::2])


def test_a_mirrored_slice_is_the_slice(data: TrainingData) -> None:
    one, mirrored = data.contents[0], data.contents[0].mirrored()
    assert mirrored.side_mm == one.side_mm and not torch.equal(mirrored.labels, one.labels)
    assert all(torch.equal(getattr(mirrored.mirrored(), name), getattr(one, name)) for name in ("x", "y", "labels"))
    assert torch.equal(mirrored.y[0, 0], gray_map(mirrored.labels, THORAX))


def test_a_small_slice_is_the_slice(data: TrainingData) -> None:
    one = data.contents[0]
    small = one.smaller(32, THORAX)
    assert small.x.shape == small.y.shape == (1, 1, 32, 32) and small.side_mm == one.side_mm
    assert small.x.mean() == pytest.approx(one.x.mean().item(), abs=1e-5)
    whole = torch.stack([(one.labels == small.labels.repeat_interleave(2, 0).repeat_interleave(2, 1))])
    assert whole.float().mean() > 0.9
    assert one.smaller(64, THORAX) is one


def test_resumed_is_bit_for_bit_uninterrupted(cases: Path, tmp_path: Path) -> None:
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    run(cases, tmp_path / "whole" / "m.ctstyle", 6)
    with pytest.raises(Stopped, match="step 3 of 6"):
        run(cases, tmp_path / "parts" / "m.ctstyle", 6, stop_at=3)
    assert checkpoint_path(tmp_path / "parts" / "m.ctstyle").exists()
    run(cases, tmp_path / "parts" / "m.ctstyle", 6, resume=True)
    whole, parts = (read_weights(tmp_path / name / "m.ctstyle") for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_the_bank_has_the_cases_asked_for_or_all(cases: Path, model: Path, tmp_path: Path) -> None:
    card = read_card(model)
    assert card["styles"] == card["cases"] == list(card["style_codes"]) == ["A", "B", "C"]
    assert card["style_codes"]["B"]["lungs"][50] == pytest.approx(HU[2], abs=10)
    run(cases, tmp_path / "two.ctstyle", 1, styles=("C", "A"))
    card = read_card(tmp_path / "two.ctstyle")
    assert card["styles"] == list(card["style_codes"]) == ["C", "A"] and card["cases"] == ["A", "B", "C"]


def test_unknown_styles_and_a_preset_of_one_look_without_style_are_refused(cases: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no case 'X'"):
        run(cases, tmp_path / "m.ctstyle", 1, styles=("X",))
    told = TrainingOptions(cases=cases, styles=(), output=tmp_path / "m.ctstyle", size=64, steps=1)
    with pytest.raises(InputError, match="give --style"):
        train(told, load_preset("paper"), random_weights(), lambda event: None, lambda: False)


# --- use ------------------------------------------------------------------------------------------------------------


def organ_medians(model: Path, folder: Path, *styles: str) -> dict[str, float]:
    """Medians in HU of the CT that synthesize writes for an unseen anatomy."""
    _, labels = chest(slices=2, seed=9)
    sitk.WriteImage(labels, str(folder / "labels.nrrd"))
    asked = [text for style in styles for text in ("--style", style)]
    arguments = ["synthesize", "--model", model, "--segmentation", folder / "labels.nrrd", *asked, "--device", "cpu"]
    assert main([*map(str, arguments), "--output", str(folder / "ct.nrrd")]) == 0
    ct, organs = sitk.ReadImage(str(folder / "ct.nrrd")), sitk.GetArrayFromImage(labels)
    hu = sitk.GetArrayFromImage(ct)
    return {organ.name: float(np.median(hu[organs == organ.label])) for organ in THORAX.organs} | {
        "told": ct.GetMetaData("CTStyleGen.Style")  # type: ignore[dict-item]
    }


def test_styles_of_the_bank_are_given_and_mixed_organ_by_organ(model: Path, tmp_path: Path) -> None:
    """A is 150 HU above B in every organ."""
    a, b = (organ_medians(model, tmp_path, style) for style in "AB")
    mixed = organ_medians(model, tmp_path, "A:1", "B:3", "lungs=A")
    for organ in ("body", "mediastinum", "bone"):
        assert b[organ] == pytest.approx(HU[THORAX.organ(organ).label], abs=80)
        assert a[organ] - b[organ] == pytest.approx(150, abs=30)
        assert mixed[organ] - b[organ] == pytest.approx(150 / 4, abs=20)
    assert mixed["lungs"] == pytest.approx(a["lungs"], abs=15)
    assert mixed["told"].startswith("outside: A 0.25 + B 0.75; ") and "lungs: A;" in mixed["told"]


def test_the_style_of_a_ct_never_seen_is_taken_from_its_folder(model: Path, tmp_path: Path) -> None:
    write_case(tmp_path / "new patient", seed=7, shift_hu=70.0)
    means = organ_medians(model, tmp_path, "B", f"bone={tmp_path / 'new patient'}", f"lungs={tmp_path / 'new patient'}")
    b = organ_medians(model, tmp_path, "B")
    assert means["bone"] - b["bone"] == pytest.approx(70, abs=30) and means["body"] == pytest.approx(b["body"], abs=5)
    assert means["lungs"] - b["lungs"] == pytest.approx(70, abs=30)
    assert "bone: new patient" in means["told"] and str(tmp_path) not in means["told"]


def test_a_changed_case_folder_is_measured_anew(model: Path, tmp_path: Path) -> None:
    folder = write_case(tmp_path / "case", seed=7)
    loaded = Model(model, "cpu")
    before = loaded.look([str(folder)])
    assert loaded.look([str(folder)]).codes is not None and loaded._measured.cache_info().misses == 1
    ct = sitk.ReadImage(str(folder / "ct.nrrd")) + 100
    sitk.WriteImage(ct, str(folder / "ct.nrrd"))
    after = loaded.look([str(folder)])
    assert before.codes is not None and after.codes is not None
    assert (after.codes - before.codes)[0, 4, 8].item() == pytest.approx(0.1, abs=0.01)


def test_the_same_seed_gives_the_same_volume_and_another_sample_another(model: Path) -> None:
    loaded = Model(model, "cpu")
    labels = torch.from_numpy(sitk.GetArrayFromImage(chest(slices=1, side=64)[1])).long()
    a, again, other = (loaded.synthesize(labels, loaded.noise_code(3, sample)) for sample in (0, 0, 1))
    assert torch.equal(a, again) and (a - other)[labels == 2].abs().mean() > 1


def test_noise_changes_from_slice_to_slice_as_it_does_within_one(model: Path) -> None:
    loaded = Model(model, "cpu")
    codes = loaded.noise_code(3, 0, [0.0, 1.0, 5.0, 100.0]).numpy()
    assert np.array_equal(codes[:1], loaded.noise_code(3, 0).numpy())
    alike = np.corrcoef(codes)[0]
    assert alike[1] > 0.95 and 0.4 < alike[2] < 0.8 and abs(alike[3]) < 0.3  # a Gaussian of 5 mm
    assert np.abs(codes.std(axis=1) - 1).max() < 0.2


def test_a_slice_cut_out_has_the_noise_that_it_has_in_the_volume(model: Path) -> None:
    loaded, (_, labels) = Model(model, "cpu"), chest(slices=4, side=64)
    labels.SetDirection(sitk.Euler3DTransform((0, 0, 0), 0.3, -0.2, 0.1).GetMatrix())  # oblique
    volume = synthesize_volume(loaded, labels, 5)
    assert sitk.GetArrayFromImage(volume).std(axis=0)[sitk.GetArrayFromImage(labels)[0] == 2].mean() > 1
    for turned in (labels, sitk.Flip(labels, (False, False, True))):
        for k in range(4):
            alone = synthesize_volume(loaded, turned[:, :, k : k + 1], 5)
            place = volume.TransformPhysicalPointToIndex(alone.GetOrigin())[2]
            difference = sitk.GetArrayFromImage(alone)[0] - sitk.GetArrayFromImage(volume)[place]
            assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("style", ["X", "spleen=A", "A:0"])
def test_styles_that_can_not_be_are_refused_in_one_line(
    model: Path, tmp_path: Path, style: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, labels = chest(slices=1)
    sitk.WriteImage(labels, str(tmp_path / "labels.nrrd"))
    arguments = ["synthesize", "--model", model, "--segmentation", tmp_path / "labels.nrrd", "--style", style]
    assert main([*map(str, arguments), "--output", str(tmp_path / "ct.nrrd")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (tmp_path / "ct.nrrd").exists()


def test_a_damaged_bank_is_told(model: Path, tmp_path: Path, refused) -> None:
    from CTStyleGenCore.model_file import write_model

    damages: list[Callable[[dict], object]] = [
        lambda card: card.update(fat={"body": [0.5]}),
        lambda card: card.update(fat=["body"]),
        lambda card: card["style_codes"]["A"].update(lungs=[1, 2]),
        lambda card: card["style_codes"]["A"]["lungs"].insert(0, 10**400),
        lambda card: card["style_codes"].pop("A"),
    ]
    for damage in damages:
        card = json.loads(json.dumps(read_card(model)))
        damage(card)
        write_model(tmp_path / "bad.ctstyle", read_weights(model), card)
        assert "damaged" in refused(Model, tmp_path / "bad.ctstyle", "cpu")
