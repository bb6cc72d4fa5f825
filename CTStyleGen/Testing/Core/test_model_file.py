"""The .ctstyle file: round trip, and every way of being no model."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from CTStyleGenCore.anatomy import load_anatomy
from CTStyleGenCore.errors import InputError
from CTStyleGenCore.model_file import read_card, read_weights, write_model
from CTStyleGenCore.networks import Generator
from CTStyleGenCore.presets import PRESETS
from CTStyleGenCore.synthesis import Model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


def card(**changes: Any) -> dict[str, Any]:
    return {
        "preset": PRESETS["paper"].card(),
        "anatomy": load_anatomy("thorax").to_json(),
        "styles": ["A"],
        "cases": ["B"],
        "size": 64,
        "hu_range": [-1000.0, 1000.0],
        "features": {"kind": "random"},
        "losses": {},
        "versions": {},
    } | changes


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model with ä space.ctstyle"
    write_model(path, Generator(64).state_dict(), card())
    return path


def test_card_and_weights_come_back(tmp_path: Path) -> None:
    weights = Generator(64).state_dict()
    write_model(tmp_path / "m.ctstyle", weights, card())
    back = read_card(tmp_path / "m.ctstyle")
    assert back["format"] == "ctstyle" and back["format_version"] == 1
    assert back["anatomy"] == load_anatomy("thorax").to_json()
    read = read_weights(tmp_path / "m.ctstyle")
    assert read.keys() == weights.keys() and all(torch.equal(read[name], weights[name]) for name in weights)
    assert [p.name for p in tmp_path.iterdir()] == ["m.ctstyle"]


def refused(path: Path) -> str:
    with pytest.raises(InputError) as error:
        read_card(path)
        Model(path, "cpu")
    assert "\n" not in str(error.value) and path.name in str(error.value)
    return str(error.value)


def test_missing_cut_and_foreign_files_are_refused(model: Path, tmp_path: Path) -> None:
    whole = model.read_bytes()
    assert "does not exist" in refused(tmp_path / "absent.ctstyle")
    for length in (0, 4, 8, 200, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.ctstyle").write_bytes(whole[:length])
        assert "cut short" in refused(tmp_path / "cut.ctstyle") or length <= 8
    (tmp_path / "text.ctstyle").write_text("just a text, long enough to be taken for a header's length")
    assert "not a CTStyleGen model" in refused(tmp_path / "text.ctstyle")
    (tmp_path / "folder.ctstyle").mkdir()
    refused(tmp_path / "folder.ctstyle")


def test_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "new.ctstyle"
    write_model(path, {}, card(format_version=2))
    assert "version 2" in refused(path)


@pytest.mark.parametrize("key", list(card()))
def test_a_card_that_lacks_something_is_refused(tmp_path: Path, key: str) -> None:
    path = tmp_path / "m.ctstyle"
    write_model(path, {}, card(**{key: None}))
    assert key in refused(path)


@pytest.mark.parametrize("changes", [{"size": 63}, {"size": 128}, {"preset": {}}])
def test_a_card_that_does_not_fit_the_weights_is_refused(tmp_path: Path, changes: dict) -> None:
    path = tmp_path / "m.ctstyle"
    write_model(path, Generator(64).state_dict(), card(**changes))
    assert "don't fit" in refused(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"hu_range": [1]},
        {"hu_range": [5, 1]},
        {"hu_range": ["a", 1]},
        {"styles": [1]},
        {"styles": []},
        {"cases": [" "]},
        {"size": True},
    ],
)
def test_a_card_with_values_that_cannot_be_is_refused(tmp_path: Path, changes: dict) -> None:
    path = tmp_path / "m.ctstyle"
    write_model(path, {}, card(**changes))
    assert f"lacks a valid {next(iter(changes))}" in refused(path)


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.ctstyle"
    write_model(path, Generator(64).state_dict() | {"noise.0.bias": torch.tensor([torch.nan])}, card())
    assert "no numbers" in refused(path)


def test_weights_that_draw_no_numbers_are_refused(tmp_path: Path) -> None:
    path, generator = tmp_path / "m.ctstyle", Generator(64)
    write_model(path, {name: torch.full_like(t, 1e38) for name, t in generator.state_dict().items()}, card())
    model = Model(path, "cpu")
    with pytest.raises(InputError, match=r"m\.ctstyle draw what is no CT"):
        model.synthesize(torch.zeros(1, 64, 64, dtype=torch.int64), model.noise_code(0, 0))


def test_a_size_that_the_weights_do_not_have_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "m.ctstyle"
    preset = PRESETS["paper"].card() | {"noise_size": 1 << 50}  # a petabyte's weights, were they made
    write_model(path, Generator(64).state_dict(), card(preset=preset))
    assert "don't fit" in refused(path)


def test_a_huge_header_is_refused_without_reading_it(tmp_path: Path) -> None:
    (tmp_path / "huge.ctstyle").write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    assert "not a CTStyleGen model" in refused(tmp_path / "huge.ctstyle")


def test_offsets_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, "4"]}}).encode()
    (tmp_path / "m.ctstyle").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    assert "not a CTStyleGen model" in refused(tmp_path / "m.ctstyle")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(header=st.binary(max_size=200) | st.builds(lambda v: json.dumps({"__metadata__": v}).encode(), json_values))
def test_no_header_does_worse_than_an_input_error(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "fuzz.ctstyle"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(InputError):
        read_card(path)
