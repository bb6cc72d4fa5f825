"""The organ tables: what they hold, what they place where, and what they refuse."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Refused
from CTStyleGenCore.anatomy import Anatomy, load_anatomy
from hypothesis import given
from hypothesis import strategies as st

# Facts from TotalSegmentator's published class list (class name, SNOMED CT code of its type) and the organ they lie in.
TOTALSEGMENTATOR = [
    ("lung_upper_lobe_left", "45653009", "lungs"),
    ("lung_middle_lobe_right", "72481006", "lungs"),
    ("trachea", "44567001", "lungs"),
    ("heart", "80891009", "mediastinum"),
    ("heart_ventricle_left", "87878005", "mediastinum"),
    ("aorta", "15825003", "mediastinum"),
    ("pulmonary_vein", "122972007", "mediastinum"),
    ("superior_vena_cava", "48345005", "mediastinum"),
    ("brachiocephalic_vein_right", "8887007", "mediastinum"),
    ("rib_left_1", "48535007", "bone"),
    ("rib_right_12", "43993008", "bone"),
    ("vertebrae_T1", "64864005", "bone"),
    ("vertebrae_L5", "49668003", "bone"),
    ("sternum", "56873002", "bone"),
    ("scapula_left", "79601000", "bone"),
    ("clavicula_right", "51299004", "bone"),
    ("spinal_cord", "2748008", "spinal canal"),
    ("liver", "10200004", "body"),
    ("autochthon_left", "244849004", "body"),
    ("skeletal_muscle", "127954009", "body"),
    ("subcutaneous_fat", "67769002", "body"),
]

# As other tools, contouring standards (TG-263), public data sets and people write them.
OTHERS = {
    "bone": "vertebra_T4, Vertebra T12, Left rib 3, right_rib_4, clavicle_left, vertebral body, femur_left, skull,"
    "Ribs_L, Bone_Thorax, breast bone",
    "mediastinum": "left subclavian artery, left common carotid artery, right brachiocephalic vein, SVC, IVC,"
    "azygos vein, left pulmonary artery, pulmonary_arteries, pulmonary_veins, left atrium, Right Ventricle,"
    "Left Ventricle of heart, myocardium, left atrial appendage, GreatVes, A_Pulmonary, V_Venacava_S,"
    "postcava, mediastinal lymph nodes",
    "lungs": "left upper lobe, Left lung upper lobe, bronchi, airways, L Lung, Lung_L, lung_airways, lung_airways_wall,"
    "lung_arteries, lung_veins, Bronchus",
    "body": "Left kidney, right kidney, kidneys, Thyroid, diaphragm, gall bladder, Right Adrenal Gland, rib cartilage,"
    "costal cartilage, pectoralis_major_left, breast",
    "spinal canal": "SpinalCanal, SpinalCord, Spinal cord",
}


def test_thorax_is_the_papers_six_grays(thorax: Anatomy) -> None:
    assert [(organ.gray, organ.name) for organ in thorax.organs] == [
        (0, "outside"),
        (50, "body"),
        (100, "lungs"),
        (150, "mediastinum"),
        (200, "bone"),
        (230, "spinal canal"),
    ]
    assert [organ.label for organ in thorax.organs] == list(range(6))


@pytest.mark.parametrize("organ", OTHERS)
def test_names_that_others_give_are_placed(thorax: Anatomy, organ: str) -> None:
    placed = {name.strip(): thorax.place(name.strip()) for name in OTHERS[organ].split(",")}
    assert {name: found.name if found else None for name, found in placed.items()} == dict.fromkeys(placed, organ)


def test_lctsc_has_the_challenges_five_organs() -> None:
    names = [organ.name for organ in load_anatomy("lctsc").organs]
    assert names == ["outside", "body", "lung_l", "lung_r", "heart", "esophagus", "spinalcord"]


@pytest.mark.parametrize("name", ["thorax", "lctsc"])
def test_a_table_survives_json(name: str) -> None:
    anatomy = load_anatomy(name)
    assert Anatomy.from_json(json.loads(json.dumps(anatomy.to_json()))) == anatomy


def test_the_table_of_the_docs_is_one() -> None:
    text = (Path(__file__).parents[3] / "docs" / "organ_tables.md").read_text()
    table = Anatomy.from_json(json.loads(text.split("```json")[1].split("```")[0]))
    for name, organ in (("kidney_left", "kidneys"), ("vertebrae_L1", "bone"), ("Liver", "liver"), ("lung", None)):
        placed = table.place(name)
        assert (placed and placed.name) == organ


@pytest.mark.parametrize(("name", "code", "organ"), TOTALSEGMENTATOR)
def test_totalsegmentators_classes_are_placed_by_name_and_by_code(
    thorax: Anatomy, name: str, code: str, organ: str
) -> None:
    for placed in (thorax.place(name), thorax.place("no such name", code)):
        assert placed is not None and placed.name == organ


@pytest.mark.parametrize("name", ["Lung_L", "lung-left", "Left Lung", "  LEFT   lung ", "upper lobe of left lung"])
def test_spelling_does_not_matter(name: str) -> None:
    thorax, lctsc = load_anatomy("thorax"), load_anatomy("lctsc")
    placed, left = thorax.place(name), lctsc.place(name)
    assert placed and placed.name == "lungs"
    assert left and left.name == "lung_l"


def test_code_decides_before_name_and_an_unknown_code_leaves_it_to_the_name(thorax: Anatomy) -> None:
    by_code = thorax.place("heart", "39607008")
    by_name = thorax.place("heart", "19227008")
    assert by_code and by_code.name == "lungs"
    assert by_name and by_name.name == "mediastinum"


@pytest.mark.parametrize("code", ["85756007", "113343008", "123037004", "260787004", "", None])
def test_generic_codes_place_nothing(thorax: Anatomy, code: str | None) -> None:
    assert thorax.place("Segment_1", code) is None


@pytest.mark.parametrize("name", ["tumor", "overlapping sphere", "kidneystone", "ribbon", "", "heartless"])
def test_unknown_names_place_nothing(thorax: Anatomy, name: str) -> None:
    assert thorax.place(name) is None


def test_the_more_specific_organ_takes_what_two_patterns_fit(thorax: Anatomy) -> None:
    placed = thorax.place("heart muscle")
    assert placed and placed.name == "mediastinum"


@given(st.text(max_size=40), st.none() | st.text(max_size=12))
def test_any_name_and_code_can_be_asked(name: str, code: str | None) -> None:
    anatomy = load_anatomy("thorax")
    assert anatomy.place(name, code) in (None, *anatomy.organs)


def test_an_organ_that_is_not_there_is_refused_with_what_is(thorax: Anatomy, refused: Refused) -> None:
    assert "outside, body, lungs" in refused(thorax.organ, "spleen")
    assert thorax.organ("Spinal_Canal").gray == 230


@pytest.mark.parametrize(
    ("row", "key", "value"),
    [
        (1, "name", ""),
        (1, "name", "lungs"),
        (1, "label", 7),
        (1, "label", True),
        (2, "gray", 256),
        (2, "gray", 50),
        (2, "gray", 99.5),
        (3, "codes", "80891009"),
        (3, "codes", [80891009]),
        (3, "codes", ["39607008"]),
        (3, "aliases", None),
        (3, "aliases", ["LUNG"]),
        (4, "plausible_hu", [700, 100]),
        (4, "plausible_hu", [100]),
        (4, "plausible_hu", ["a", "b"]),
    ],
)
def test_a_malformed_row_is_refused(thorax: Anatomy, refused: Refused, row: int, key: str, value: object) -> None:
    data = copy.deepcopy(thorax.to_json())
    data["organs"][row][key] = value
    assert "thorax" in refused(Anatomy.from_json, data)
    del data["organs"][row][key]
    refused(Anatomy.from_json, data)


@pytest.mark.parametrize(
    "data", [None, [], {}, {"name": "x"}, {"name": "x", "organs": [1, 2]}, {"name": 3, "organs": []}]
)
def test_what_is_no_table_is_refused(refused: Refused, data: object) -> None:
    refused(Anatomy.from_json, data)


def test_a_users_own_table_is_read_and_a_broken_one_named(thorax: Anatomy, refused: Refused, tmp_path: Path) -> None:
    own = tmp_path / "own.json"
    own.write_text(json.dumps(thorax.to_json()), encoding="utf-8")
    assert load_anatomy(own) == thorax
    own.write_text("{", encoding="utf-8")
    assert str(own) in refused(load_anatomy, own)
    own.write_text('{"name": "x", "organs": []}', encoding="utf-8")
    assert str(own) in refused(load_anatomy, own)
    assert "lctsc, thorax" in refused(load_anatomy, "brain")
    assert "../errors" in refused(load_anatomy, "../errors")


def test_anatomy_and_cases_work_without_torch() -> None:
    code = "import sys, CTStyleGenCore.anatomy, CTStyleGenCore.cases; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
