"""The scoreboard on drawn chests: what it writes, what it refuses, and that its numbers are those of the images."""

import base64
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from conftest import Refused
from CTStyleGenCore.__main__ import main
from CTStyleGenCore.anatomy import load_anatomy
from CTStyleGenCore.cases import CaseFiles
from CTStyleGenCore.errors import Stopped
from CTStyleGenCore.evaluation import EvaluationOptions, evaluate
from CTStyleGenCore.evaluation_report import _cells
from CTStyleGenCore.model_scores import METRICS, Made, Score, _of_sets
from CTStyleGenCore.perceptual import random_weights
from CTStyleGenCore.pictures import Picture, RealCase, Style
from CTStyleGenCore.realism import KernelDistance
from CTStyleGenCore.rulers import Rulers, trained_segmenter
from CTStyleGenCore.scores import dice
from CTStyleGenCore.slices import HuRange
from CTStyleGenCore.styles import LEVELS
from CTStyleGenCore.synthesis import Look, Model
from phantoms import chest, write_case
from PIL import Image
from scipy.ndimage import gaussian_filter
from test_commands import command

ORGANS = ("body", "lungs", "mediastinum", "bone")  # with enough pixels at 64


def quiet(event: dict) -> None:
    pass


def running() -> bool:
    return False


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Training cases A, B, C; unseen X-1 and X-2 of one patient, and Y."""
    folder = tmp_path_factory.mktemp("board")
    for number, name in enumerate("ABC"):
        write_case(folder / "train" / name, seed=number, slices=3, shift_hu=60.0 * number)
    for number, name in enumerate(("X-1", "X-2", "Y")):
        write_case(folder / "unseen" / name, seed=10 + number, slices=1 + number, shift_hu=90.0 * number)
    (folder / "splits.json").write_text('{"train": ["A"], "patients": {"X-1": "X", "X-2": "X"}}')
    return folder


def trained(folders: Path, name: str, preset: str, *more: str) -> Path:
    path = folders / f"{name}.ctstyle"
    arguments = ["--cases", str(folders / "train"), "--preset", preset, "--features", "random", "--size", "64"]
    assert main(["train", *arguments, "--steps", "2", "--device", "cpu", "--output", str(path), *more]) == 0
    return path


@pytest.fixture(scope="module")
def paper(folders: Path) -> Path:
    return trained(folders, "paper", "paper", "--style", "A")


@pytest.fixture(scope="module")
def styles(folders: Path) -> Path:
    return trained(folders, "styles", "styles")


@pytest.fixture(scope="module")
def options(folders: Path, paper: Path, styles: Path) -> EvaluationOptions:
    return EvaluationOptions(
        models=(paper, styles),
        cases=folders / "unseen",
        train_cases=folders / "train",
        json=folders / "r.json",
        html=folders / "r.html",
        splits=folders / "splits.json",
        segmenter_steps=3,
        features=random_weights(),
    )


@pytest.fixture(scope="module")
def told(options: EvaluationOptions) -> dict:
    """What a run of both models wrote."""
    events: list[dict] = []
    evaluate(options, events.append, running)
    assert [event["done"] for event in events] == list(range(1, events[-1]["total"] + 1))
    return json.loads(options.json.read_text())


def scores_of(told: dict, name: str) -> dict[tuple[str, str, str], dict]:
    (model,) = (model for model in told["models"] if model["name"] == name)
    return {(score["styles"], score["metric"], score["organ"]): score for score in model["scores"]}


def test_both_models_have_all_scores_that_they_can_have(told: dict) -> None:
    paper, styles = (scores_of(told, f"{name}.ctstyle") for name in ("paper", "styles"))
    assert {key[0] for key in paper} == {"trained", "own"} and {key[0] for key in styles} == {
        "trained",
        "unseen",
        "own",
    }
    assert {key[1] for key in styles} == set(METRICS) and {key[1] for key in paper} == set(METRICS) - {"separability"}
    for of in (paper, styles):
        assert {organ for _, metric, organ in of if metric == "hu"} == set(ORGANS)
    assert told["left_out"] == [] and told["unseen"]["X-2"] == {"patient": "X", "slices": 2}


def test_real_values_are_those_of_real_ct(told: dict) -> None:
    """The phantoms differ by 90 HU from one to the next: X-1 and Y by 180, X-2 and Y by 90."""
    hu = scores_of(told, "styles.ctstyle")["unseen", "hu", "mediastinum"]
    assert hu["real"] == pytest.approx((135 + 135) / 2, abs=6)  # by patients: X (180 and 90), Y (180 and 90)
    gap = scores_of(told, "styles.ctstyle")["unseen", "gap", "mediastinum"]
    assert gap["value"] == pytest.approx(1 - hu["value"] / hu["real"])
    paper = scores_of(told, "paper.ctstyle")["trained", "hu", "mediastinum"]
    assert paper["real"] == pytest.approx(np.mean([(0 + 90 + 90) / 3, 180]), abs=10)  # borders mix


def test_the_board_is_the_same_again(options: EvaluationOptions, told: dict, tmp_path: Path) -> None:
    again = replace(options, models=options.models[:1], json=tmp_path / "again.json", html=None)
    evaluate(again, quiet, running)
    assert json.loads(again.json.read_text()) == told | {"models": told["models"][:1]}


def test_the_page_is_self_contained_and_shows_the_worst(options: EvaluationOptions, told: dict) -> None:
    text = options.html.read_text()
    assert "Worst: anatomy of" in text and "Best: anatomy of" in text and "synthetic" in text
    assert not re.search(r"<script|<link|https?:|src='(?!data:image/png)", text) and str(options.cases) not in text
    images = [Image.open(io.BytesIO(base64.b64decode(data))) for data in re.findall(r"base64,([^']+)'", text)]
    assert len(images) == (4 + 5) * 2 * 4 and {image.size for image in images} == {(64, 64)}
    value = scores_of(told, "paper.ctstyle")["trained", "hu", "lungs"]["value"]
    assert f"{value:.3g}" in text
    assert re.search(r"paper\.ctstyle is better than styles\.ctstyle in \d+ of \d+ rows", text)


def painted(model: Model, labels: torch.Tensor, z: torch.Tensor, look: Look) -> torch.Tensor:
    """In place of a model's synthesis: each organ in the style's gray, and white noise of 10 HU from the code."""
    assert look.codes is not None
    grays = model.hu.to_hu(look.codes[0, :, LEVELS.index(0.45)]).nan_to_num()  # at 64 the canal is too small for one
    generator = torch.Generator().manual_seed(int(1e6 * z[0, 0].abs()))
    return grays[labels] + 10 * torch.randn(labels.shape, generator=generator)


def test_a_model_that_does_what_it_says_closes_the_gap(
    options: EvaluationOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Model, "synthesize", painted)
    styles = options.models[1]
    alone = replace(options, models=(styles,), json=tmp_path / "r.json", html=None, segmenter_steps=0, features=None)
    board = evaluate(alone, quiet, running)
    found = {(score.metric, score.organ): score.value for score in board.scores[0] if score.styles == "unseen"}
    for organ in ("mediastinum", "lungs"):
        assert found["gap", organ] > 0.7  # borders mix in real slices, so not all of it
        assert found["diversity", organ] == pytest.approx(10 * 2 / np.sqrt(np.pi), rel=0.05)
        assert found["coarse", organ] == pytest.approx(found["diversity", organ] / 4, rel=0.25)
        assert found["separability", organ] > 1000  # the noise is the same, the other organs' gray too
    assert len(board.told["left_out"]) == 2 and not {"kid", "dice"} & {metric for metric, _ in found}


def test_what_is_further_away_than_real_is_red_and_the_best_is_bold() -> None:
    far, near = (Score("unseen", "texture", "lungs", value, 1.5) for value in (1.7, 1.2))
    cells = _cells([far, None, near])
    assert "class='worse'" in cells[0] and cells[1] == "" and "class='best'" in cells[2]
    assert all("(1.5)" in cell for cell in (cells[0], cells[2]))
    assert "best" not in _cells([near])[0]  # of one


# --- what it measures with ----------------------------------------------------------------------------------------


def phantom(seed: int, shift_hu: float = 0.0, side: int = 64) -> Picture:
    hu, labels = (sitk.GetArrayFromImage(image)[0] for image in chest(1, side, seed, shift_hu))
    return Picture(hu.astype(float), labels)


def test_kernel_distance_of_spoiled_slices_is_larger() -> None:
    kernel = KernelDistance(random_weights(), HuRange(), "cpu", seed=0)
    real, other = (kernel.features([phantom(seed).hu for seed in seeds]) for seeds in (range(6), range(6, 12)))
    scale = real.square().mean().sqrt()
    same = kernel.between(other / scale, real / scale)
    for spoil in (
        lambda hu: gaussian_filter(hu, 1.5),
        lambda hu: hu + np.random.default_rng(0).normal(0, 100, hu.shape),
        lambda hu: np.where(hu < -500, 40, hu),  # lungs in a wrong gray
    ):
        spoiled = kernel.features([spoil(phantom(seed).hu) for seed in range(6, 12)])
        assert kernel.between(spoiled / scale, real / scale) > 3 * abs(same)
    assert kernel.between(real / scale, real / scale) <= 0  # unbiased: of the same set not above 0


def test_the_u_net_finds_organs_unless_they_are_spoiled() -> None:
    """Trained on phantoms, it finds the organs of others; less so in a wrong gray, or beside the map."""
    train = [RealCase(None, "", (), (phantom(seed),)) for seed in range(4)]  # type: ignore[arg-type] # no case is read
    find = trained_segmenter(train, 64, 6, 40, 0, lambda: None)

    def found(pictures: list[Picture], label: int) -> float:
        pairs = zip(find(pictures), pictures, strict=True)
        return float(np.mean([dice(labels == label, picture.labels == label) for labels, picture in pairs]))

    others = [phantom(seed) for seed in range(10, 14)]
    swapped = [Picture(np.where(one.labels == 2, 40.0, one.hu), one.labels) for one in others]  # lungs as soft tissue
    moved = [Picture(np.roll(one.hu, 12, 1), one.labels) for one in others]
    assert found(others, 2) > 0.8
    assert found(swapped, 2) < found(others, 2) - 0.15 and found(moved, 2) < found(others, 2) - 0.1


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_a_patient_in_both_folders_is_refused(
    options: EvaluationOptions, folders: Path, tmp_path: Path, refused: Refused
) -> None:
    def run(**changes: object) -> str:
        return refused(evaluate, replace(options, json=tmp_path / "r.json", html=None, **changes), quiet, running)

    assert "patient A " in run(cases=folders / "train") and str(folders / "train") in run(cases=folders / "train")
    splits = tmp_path / "splits.json"
    splits.write_text('{"train": ["A"], "patients": {"X-1": "P", "B": "P"}}')
    assert "The patient P is in" in run(splits=splits) and "(case B)" in run(splits=splits)
    for name in ("U", "V"):  # training cases under other folders: the model card tells
        write_case(tmp_path / "other" / name, seed=1)
    write_case(tmp_path / "known" / "C", seed=5)
    write_case(tmp_path / "known" / "D", seed=6)
    told = run(cases=tmp_path / "known", train_cases=tmp_path / "other", splits=None)
    assert "patient C" in told and "the training of paper.ctstyle" in told
    assert not (tmp_path / "r.json").exists()


def test_what_cannot_be_compared_is_refused(
    options: EvaluationOptions, folders: Path, tmp_path: Path, refused: Refused
) -> None:
    def run(**changes: object) -> str:
        return refused(evaluate, replace(options, html=None, **changes), quiet, running)

    splits = tmp_path / "splits.json"
    splits.write_text('{"train": ["A"], "patients": {"X-1": "X", "X-2": "X", "Y": "X"}}')
    assert "one patient alone" in run(splits=splits)
    write_case(tmp_path / "train" / "B", seed=1)
    assert "style A, which is not among the training cases" in run(train_cases=tmp_path / "train", splits=None)
    assert "does not exist" in run(json=tmp_path / "nowhere" / "r.json")
    assert "is a folder" in run(json=tmp_path)
    assert "0 slices" in run(slices=0)
    assert "-5 steps" in run(segmenter_steps=-5)
    other = tmp_path / "large.ctstyle"
    arguments = ["--preset", "paper", "--features", "random", "--size", "128", "--steps", "1", "--style", "A"]
    assert main(["train", "--cases", str(folders / "train"), *arguments, "--output", str(other)]) == 0
    assert "differ in their size" in run(models=(options.models[0], other))


def test_stopped_in_good_order(options: EvaluationOptions, tmp_path: Path) -> None:
    asked = replace(options, json=tmp_path / "r.json", html=tmp_path / "r.html", segmenter_steps=0)
    with pytest.raises(Stopped):
        evaluate(asked, quiet, lambda: True)
    assert not list(tmp_path.iterdir())


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command(folders: Path, styles: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    paths = ("--json", tmp_path / "r.json", "--html", tmp_path / "r.html", "--splits", folders / "splits.json")
    given = ("evaluate", "--model", styles, "--train-cases", folders / "train", *paths, "--segmenter-steps", 0)
    ran = command(*given, "--cases", folders / "unseen", "--slices", 1)
    assert ran.returncode == 0, ran.stderr
    assert json.loads((tmp_path / "r.json").read_text())["format"] == "ctstyle-evaluation"
    assert main([*map(str, given), "--cases", str(folders / "train")]) == 2
    assert "patient" in capsys.readouterr().err


def test_what_is_lacking_is_named(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(options: object, report: object) -> None:
        raise ImportError("No module named 'monai'", name="monai.losses")

    monkeypatch.setattr("CTStyleGenCore.__main__._evaluate", absent)
    given = ["--model", "m", "--cases", "c", "--train-cases", "t", "--json", "r.json"]
    assert main(["evaluate", *given]) == 2
    told = capsys.readouterr().err
    assert "MONAI is missing" in told and "ctstylegen[evaluate]" in told and "--segmenter-steps 0" in told


def test_a_set_in_a_trained_look_is_set_against_that_look() -> None:
    """Slices that are the very ones of their style: not apart from it, but from the unseen; one slice is no set."""

    def case(name: str, shift_hu: float, seeds: range) -> RealCase:
        files = CaseFiles(name, Path(), Path())
        return RealCase(files, name, (), tuple(phantom(seed, shift_hu) for seed in seeds))

    bright, single, others = case("A", 100, range(4)), case("B", 100, range(1)), case("C", 0, range(4, 8))
    unseen = case("X", 0, range(8, 12))
    rulers = Rulers(load_anatomy("thorax").organs[1:3], [unseen], [bright, single, others], None, None)

    def distance(styles: str, of: RealCase, rulers: Rulers = rulers) -> Score | None:
        pairs = zip(unseen.pictures, bright.pictures, strict=True)
        made = [Made(styles, unseen, real, Style((of,)), picture, (), 0.0) for real, picture in pairs]
        found = {(one.metric, one.organ): one for one in _of_sets(made, rulers)}
        return found.get(("frechet", "body"))

    alone = Rulers(rulers.organs, [unseen], [bright], None, None)
    like, unlike = distance("trained", bright), distance("unseen", bright)
    assert like and like.real and like.value == pytest.approx(0, abs=1e-6) and like.real > 10
    assert unlike and unlike.value > 10
    assert distance("trained", single) is None
    without_others = distance("trained", bright, alone)
    assert without_others and without_others.real is None


def test_which_score_is_better() -> None:
    def score(metric: str, value: float, real: float | None = None) -> Score:
        return Score("unseen", metric, "lungs", value, real)

    assert score("hu", 1).beats(score("hu", 2)) and not score("hu", 2).beats(score("hu", 2))
    assert score("gap", 0.9).beats(score("gap", 0.5))
    assert score("continuity", 0.7, 0.8).beats(score("continuity", 0.99, 0.8))
