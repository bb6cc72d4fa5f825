"""The demo's data: the content needs no network; the style says in one sentence when it can't be had."""

import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import Refused
from CTStyleGenCore.anatomy import Anatomy
from CTStyleGenCore.cases import read_case

sys.path.insert(0, str(Path(__file__).parents[3]))
from tools.demo_data import content_case, main, style_case


def test_the_content_is_a_case_with_every_organ(thorax: Anatomy, tmp_path: Path) -> None:
    case = read_case(content_case(tmp_path / "content"), thorax)
    assert case.ct.GetSize() == (128, 128, 34)
    assert all(segment.organ for segment in case.segments)
    ct, labels = sitk.GetArrayFromImage(case.ct), sitk.GetArrayFromImage(case.labels)
    for organ in thorax.organs[1:]:
        inside = ct[labels == organ.label]
        assert inside.size > 400 and organ.plausible_hu[0] < inside.mean() < organ.plausible_hu[1], organ.name
    assert np.mean(labels[12:24] == thorax.organ("mediastinum").label) > 0.02


def test_writing_the_content_again_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    content_case(tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert "slicerio" in capsys.readouterr().out
    content_case(tmp_path)
    assert capsys.readouterr().out == ""
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_without_a_network_the_style_is_refused_in_one_sentence(
    tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for name, value in (("PIP_NO_INDEX", "1"), ("PIP_FIND_LINKS", str(tmp_path)), ("PIP_CONFIG_FILE", "/dev/null")):
        monkeypatch.setenv(name, value)
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "totalsegmentator-2.18.0.tar.gz").write_bytes(b"cut short")
    assert "go online" in refused(style_case, tmp_path / "style", cache)
    assert not (tmp_path / "style").exists()
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
