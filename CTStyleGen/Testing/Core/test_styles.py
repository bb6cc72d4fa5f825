"""What --style asks for: shares by organ, and one clear sentence for what it can't mean."""

from pathlib import Path

import pytest
from conftest import Refused
from CTStyleGenCore.anatomy import load_anatomy
from CTStyleGenCore.styles import has_style_bank, style_mix, told

THORAX = load_anatomy("thorax")
BANK = {"anatomy": THORAX.to_json(), "styles": ["A", "B", "C:1"], "style_codes": {}}
ONE_LOOK = {"anatomy": THORAX.to_json(), "styles": ["A"]}


def test_without_styles_all_have_an_equal_share() -> None:
    mix = style_mix(BANK, ())
    assert list(mix) == [organ.name for organ in THORAX.organs]
    assert all(shares == pytest.approx({"A": 1 / 3, "B": 1 / 3, "C:1": 1 / 3}) for shares in mix.values())


@pytest.mark.parametrize(
    ("styles", "lungs", "bone"),
    [
        (["A"], {"A": 1.0}, {"A": 1.0}),
        (["C:1"], {"C:1": 1.0}, {"C:1": 1.0}),  # an id with a colon is no weight
        (["A:0.3", "B:0.7"], {"A": 0.3, "B": 0.7}, {"A": 0.3, "B": 0.7}),
        (["A:1", "B:3"], {"A": 0.25, "B": 0.75}, {"A": 0.25, "B": 0.75}),
        (["A", "lungs=B"], {"B": 1.0}, {"A": 1.0}),
        (["A", "Lungs=B:2", "lungs=C:1:2"], {"B": 0.5, "C:1": 0.5}, {"A": 1.0}),
        (["A", "A"], {"A": 1.0}, {"A": 1.0}),
    ],
)
def test_shares_by_organ(styles: list[str], lungs: dict, bone: dict) -> None:
    mix = style_mix(BANK, styles)
    assert mix["lungs"] == pytest.approx(lungs) and mix["bone"] == pytest.approx(bone)


def test_a_folder_is_a_style_and_is_told_by_its_name_alone(tmp_path: Path) -> None:
    folder = tmp_path / "patient: x=1"
    folder.mkdir()
    mix = style_mix(BANK, ["A:0.5", f"bone={folder}:0.5", "bone=B:0.5"])
    assert mix["bone"] == pytest.approx({str(folder): 0.5, "B": 0.5})
    assert "patient: x=1 0.5 + B 0.5" in told(mix) and str(tmp_path) not in told(mix)
    assert told(style_mix(BANK, ["A:0.25", "B:0.75"])) == "A 0.25 + B 0.75"


@pytest.mark.parametrize(
    ("style", "words"),
    [
        ("X", "no style 'X': the model has A, B, C:1"),
        ("X:0.5", "no style 'X'"),
        ("spleen=A", "has no 'spleen'; it knows outside, body, lungs"),
        ("lungs=", "no style ''"),
        ("A:0", "'0' of the style 'A:0' is not possible"),
        ("A:-1", "above 0"),
        ("A:nan", "above 0"),
        ("A:inf", "above 0"),
        ("lungs=A:much", "'much'"),
    ],
)
def test_what_can_not_be_meant_is_refused(style: str, words: str, refused: Refused) -> None:
    assert words in refused(style_mix, BANK, [style])


def test_a_model_of_one_look_has_its_own_alone(refused: Refused) -> None:
    assert not has_style_bank(ONE_LOOK) and style_mix(ONE_LOOK, ["A"]) == style_mix(ONE_LOOK, []) == {}
    for style in ("B", "lungs=A", "A:0.5"):
        assert f"no style '{style}': it was trained for A" in refused(style_mix, ONE_LOOK, [style])
