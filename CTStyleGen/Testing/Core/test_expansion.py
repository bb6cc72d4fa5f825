"""Data sets from cases: what is in them, where it comes from, and that one can stop, share out and go on.

Anatomy that is not to move (--amount 0) is quick; it does where only files matter.
"""

import csv
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import LEFT_HANDED, Refused
from CTStyleGenCore.__main__ import main
from CTStyleGenCore.anatomy import Anatomy
from CTStyleGenCore.cases import read_cases
from CTStyleGenCore.errors import InputError, Stopped
from CTStyleGenCore.expansion import _WORDS, ExpansionOptions, Looks, estimate, expand, plan
from CTStyleGenCore.files import sha256
from CTStyleGenCore.plausibility import Ranges, measure_ranges
from CTStyleGenCore.splits import read_splits
from CTStyleGenCore.synthesis import Model, synthesize_volume
from CTStyleGenCore.variation import Variations
from CTStyleGenCore.volumes import same_grid
from hypothesis import given, settings
from hypothesis import strategies as st
from phantoms import chest, write_cases
from test_worker import documented, shapes

STILL = ("--amount", 0, "--per-case", 6)


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cases A, B and C; C's slices run downwards."""
    folder = write_cases(tmp_path_factory.mktemp("cases"))
    for path in (folder / "C").iterdir():
        image = sitk.ReadImage(str(path))
        image.SetDirection(LEFT_HANDED)
        sitk.WriteImage(image, str(path))
    return folder


@pytest.fixture(scope="module")
def model(cases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "m.ctstyle"
    train = ("train", "--cases", cases, "--style", "A", "--features", "random", "--size", 64, "--steps", 2)
    assert main([*map(str, (*train, "--preset", "quick", "--device", "cpu", "--output", path, "--json"))]) == 0
    return path


def arguments(model: Path, cases: Path, output: Path, *more: object) -> list[str]:
    made = ("expand", "--model", model, "--cases", cases, "--output", output, "--device", "cpu", "--json")
    return [*map(str, (*made, "--per-case", 2, *more))]


@pytest.fixture(scope="module")
def data_set(model: Path, cases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images of each case."""
    output = tmp_path_factory.mktemp("sets") / "Dataset001_Chest"
    assert main(arguments(model, cases, output, "--seed", 7)) == 0
    return output


@pytest.fixture(scope="module")
def still_set(model: Path, cases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images of each case, whose anatomy is the case's own."""
    output = tmp_path_factory.mktemp("sets") / "still"
    assert main(arguments(model, cases, output, *STILL)) == 0
    return output


def manifest(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def arrays(folder: Path) -> dict[str, np.ndarray]:
    paths = sorted(folder.glob("*Tr/*.nii.gz"))
    return {p.relative_to(folder).as_posix(): sitk.GetArrayFromImage(sitk.ReadImage(str(p))) for p in paths}


def same_arrays(one: Path, other: Path) -> bool:
    first, second = arrays(one), arrays(other)
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def test_it_is_an_nnunet_raw_data_set(data_set: Path, cases: Path, thorax: Anatomy) -> None:
    told = json.loads((data_set / "dataset.json").read_text(encoding="utf-8"))
    assert told["channel_names"] == {"0": "CT"} and told["file_ending"] == ".nii.gz" and told["numTraining"] == 6
    assert told["labels"] == {"background": 0} | {organ.name: organ.label for organ in thorax.organs[1:]}
    assert "SYNTHETIC" in told["description"]
    assert sorted(p.name for p in data_set.iterdir()) == sorted(
        ("imagesTr", "labelsTr", "dataset.json", "manifest.csv", "contact_sheet.png", "plan.json")
    )
    for row in manifest(data_set):
        image, labels = (sitk.ReadImage(str(data_set / row[key])) for key in ("image", "label"))
        source = sitk.ReadImage(str(cases / row["source_case"] / "ct.nrrd"))
        assert image.GetPixelID() == sitk.sitkInt16 and same_grid(image, source) and same_grid(labels, source)
        assert image.GetMetaData("descrip").startswith("SYNTHETIC CTStyleGen")
        assert set(np.unique(sitk.GetArrayFromImage(labels))) == set(range(6))
    assert len({values.tobytes() for values in arrays(data_set).values()}) == 12  # none twice


def test_it_can_be_read_as_cases(data_set: Path, thorax: Anatomy) -> None:
    read = read_cases(data_set, thorax)
    assert [case.case_id for case in read] == [row["name"] for row in manifest(data_set)]


def test_the_manifest_tells_how_to_make_each_image_again(
    data_set: Path, model: Path, cases: Path, thorax: Anatomy, tmp_path: Path
) -> None:
    ranges, sources = Ranges({}), {}
    for case in read_cases(cases, thorax):
        sources[case.case_id] = case.labels
        ranges = ranges.including(measure_ranges([case.labels], thorax))
    rows = manifest(data_set)
    assert [row["name"] for row in rows] == ["A_001", "A_002", "B_001", "B_002", "C_001", "C_002"]
    for row in rows[::5]:
        assert row["model_sha256"] == sha256(model) and row["style"] == "A" and row["split"] == "train"
        assert 3 <= float(row["amount_mm"]) <= 6
        variations = Variations(sources[row["source_case"]], thorax, list(sources.values()), ranges)
        varied = variations.draw(float(row["amount_mm"]), int(row["seed"]), 1)
        labels = sitk.ReadImage(str(data_set / row["label"]))
        assert np.array_equal(sitk.GetArrayFromImage(varied.labels), sitk.GetArrayFromImage(labels))
        out = tmp_path / f"{row['name']}.nrrd"
        by_hand = ("synthesize", "--model", model, "--segmentation", data_set / row["label"], "--output", out)
        assert main([*map(str, (*by_hand, "--seed", row["seed"], "--device", "cpu", "--json"))]) == 0
        made, image = sitk.ReadImage(str(out)), sitk.ReadImage(str(data_set / row["image"]))
        assert np.array_equal(sitk.GetArrayFromImage(made), sitk.GetArrayFromImage(image))


def test_the_contact_sheet_shows_every_image_beside_its_labels(data_set: Path) -> None:
    sheet = sitk.GetArrayFromImage(sitk.ReadImage(str(data_set / "contact_sheet.png")))
    assert sheet.dtype == np.uint8 and sheet.shape == (2 * 160, 4 * 2 * 160)
    tiles = sheet.reshape(2, 160, 4, 320).swapaxes(1, 2).reshape(8, 160, 320)
    labelled = [len(np.unique(tile[:, 160:])) for tile in tiles]
    assert labelled == [6] * 6 + [1] * 2  # six organs; two places are empty


@settings(max_examples=25)
@given(st.integers(0, 2**40), st.integers(1, 9), st.floats(0, 50), st.integers(1, 4))
def test_an_image_depends_on_seed_case_and_number_alone(seed: int, count: int, amount: float, looks: int) -> None:
    styles = tuple((f"S{n}",) for n in range(looks))
    whole = plan(["A", "B", "C"], count, amount, seed, Looks(styles))
    of_c = [item for item in whole if item.case_id == "C"]
    assert plan(["C"], 1, amount, seed, Looks(styles)) == of_c[:1]
    assert len({item.name for item in whole}) == len({item.seed for item in whole}) == 3 * count
    assert all(amount / 2 - 1e-3 <= item.amount_mm <= amount + 1e-3 for item in whole)
    for case in "ABC":  # looks take turns
        taken = [item.styles for item in whole if item.case_id == case]
        assert max(map(taken.count, styles)) - min(map(taken.count, styles)) <= 1
    if looks > 1:
        mixed = plan(["C"], count, amount, seed, Looks(styles, ("lungs", "bone")))
        assert [replace(item, styles=()) for item in mixed] == [replace(item, styles=()) for item in of_c]
        for item in mixed:
            parts = [re.fullmatch(r"(lungs|bone)=(S\d):(\d+)", style) for style in item.styles]
            assert [part and part[1] for part in parts] == ["lungs", "lungs", "bone", "bone"]
            for one, other in (parts[:2], parts[2:]):
                assert one and other and one[2] != other[2] and int(one[3]) + int(other[3]) == 100


@pytest.fixture(scope="module")
def bank(cases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of many styles."""
    path = tmp_path_factory.mktemp("models") / "bank.ctstyle"
    train = ("train", "--cases", cases, "--preset", "styles", "--features", "random", "--size", 64, "--steps", 1)
    assert main([*map(str, (*train, "--device", "cpu", "--output", path, "--json"))]) == 0
    return path


def test_styles_take_turns_or_mix(bank: Path, cases: Path, tmp_path: Path) -> None:
    for more in ((), ("--mix",), ("--style", "A", "--style", "lungs=B")):
        output = tmp_path / f"set{len(more)}"
        assert main(arguments(bank, cases, output, "--amount", 0, "--per-case", 3, *more)) == 0
        told = [row["style"] for row in manifest(output)]
        if more == ():
            assert sorted(told[:3]) == sorted(told[3:6]) == ["A", "B", "C"]
        elif more == ("--mix",):
            assert len(set(told)) == 9 and all(style.count("lungs=") == 2 for style in told)
        else:
            assert set(told) == {"A; lungs=B"}
        row = manifest(output)[-1]
        look = [option for style in row["style"].split("; ") for option in ("--style", style)]
        by_hand = ("synthesize", "--model", bank, "--segmentation", output / row["label"], "--seed", row["seed"], *look)
        assert main([*map(str, (*by_hand, "--output", tmp_path / "x.nrrd", "--device", "cpu", "--json"))]) == 0
        made, image = sitk.ReadImage(str(tmp_path / "x.nrrd")), sitk.ReadImage(str(output / row["image"]))
        assert np.array_equal(sitk.GetArrayFromImage(made), sitk.GetArrayFromImage(image))


def test_a_style_on_disk_is_told_by_its_name(
    bank: Path, cases: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    """Paths are this computer's own, and may be a temporary folder's; a changed style is noticed all the same."""
    folder, output = tmp_path / "private" / "Mine", tmp_path / "set"
    shutil.copytree(cases / "A", folder)
    asked = ("--amount", 0, "--per-case", 1, "--style", folder, "--style", "lungs=B")
    assert main(arguments(bank, cases, output, *asked)) == 0
    assert {row["style"] for row in manifest(output)} == {"Mine; lungs=B"}
    assert not [file for file in output.glob("*.*") if b"private" in file.read_bytes()]
    (folder.parent).rename(tmp_path / "moved")
    moved = tmp_path / "moved" / "Mine"
    again = arguments(bank, cases, output, "--resume", *(moved if one == folder else one for one in asked))
    assert main(again) == 0
    ct = next(moved.glob("ct.*"))
    sitk.WriteImage(sitk.ReadImage(str(ct)) + 20, str(ct))
    assert main(again) == 2
    assert "was begun with another look of a style CT" in capfd.readouterr().err


def test_its_events_are_those_of_the_docs(
    model: Path, cases: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    assert main(arguments(model, cases, tmp_path / "set", "--amount", 0)) == 0
    assert main(arguments(model, cases, tmp_path / "set", "--amount", 0)) == 2  # it is there
    events = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    examples = documented("expand", tmp_path)
    assert shapes(events) | {shape for shape in shapes(examples) if shape.startswith("notice")} == shapes(examples)
    assert next(e for e in events if e["event"] == "started") == next(e for e in examples if e["event"] == "started")


def test_images_have_the_airways_of_the_ct_and_labels_stay_the_segmentations(
    model: Path, cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, maps = tmp_path / "cases", []
    shutil.copytree(cases / "A", folder / "A")
    labels = sitk.ReadImage(str(folder / "A" / "labels.nrrd"))
    bronchus = sitk.GetArrayFromImage(labels) == 3
    bronchus[:, :35], bronchus[:, 38:], bronchus[..., :39], bronchus[..., 42:] = (False,) * 4
    values = sitk.GetArrayFromImage(ct := sitk.ReadImage(str(folder / "A" / "ct.nrrd")))
    with_air = sitk.GetImageFromArray(np.where(bronchus, np.int16(-990), values))
    with_air.CopyInformation(ct)
    sitk.WriteImage(with_air, str(folder / "A" / "ct.nrrd"))

    def noted(model: Model, drawn_from: sitk.Image, *more: object) -> sitk.Image:
        maps.append(sitk.GetArrayFromImage(drawn_from))
        return synthesize_volume(model, drawn_from, *more)

    monkeypatch.setattr("CTStyleGenCore.synthesis.synthesize_volume", noted)
    assert main(arguments(model, folder, tmp_path / "set", "--amount", 0, "--per-case", 1)) == 0
    (drawn_from,) = maps
    assert bronchus.any() and np.array_equal((drawn_from == 2) & (sitk.GetArrayFromImage(labels) == 3), bronchus)
    written = arrays(tmp_path / "set")["labelsTr/A_001.nii.gz"]
    assert np.array_equal(written, sitk.GetArrayFromImage(labels))


# --- stopped, killed, shared out --------------------------------------------------------------------------------------


def test_a_stopped_expansion_goes_on(data_set: Path, model: Path, cases: Path, tmp_path: Path) -> None:
    output, asked = tmp_path / "set", iter(range(100))
    options = ExpansionOptions(cases, 2, output, 6.0, seed=7)
    with pytest.raises(Stopped, match="--resume"):
        expand(options, Model(model, "cpu"), lambda event: None, lambda: next(asked) > 8)
    before = {path: path.stat().st_mtime_ns for path in output.glob("labelsTr/*")}
    assert 0 < len(before) < 6 and not (output / "dataset.json").exists() and not (output / "manifest.csv").exists()
    assert main(arguments(model, cases, output, "--seed", 7, "--resume")) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert same_arrays(output, data_set) and manifest(output) == manifest(data_set)


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_killed_expansion_goes_on(
    still_set: Path, model: Path, cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "set"
    command = [sys.executable, "-m", "CTStyleGenCore", *arguments(model, cases, output, *STILL)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if '"done": 1' in line)
        process.send_signal(signal.SIGKILL)
    assert not (output / "dataset.json").exists() and all(values.size for values in arrays(output).values())
    monkeypatch.setattr("CTStyleGenCore.files._FRESH_SECONDS", math.inf)  # as one that was killed a moment ago
    for folder in (output, output / "imagesTr", output / "labelsTr"):
        (folder / ".ctstylegen-killed").mkdir(exist_ok=True)
    assert main(arguments(model, cases, output, *STILL, "--resume")) == 0
    assert not list(output.rglob(".ctstylegen-*"))
    assert same_arrays(output, still_set) and manifest(output) == manifest(still_set)


def test_two_processes_make_what_one_makes(still_set: Path, model: Path, cases: Path, tmp_path: Path) -> None:
    output = tmp_path / "set"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [*launch, "-m", "CTStyleGenCore", *arguments(model, cases, output, *STILL)]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stderr
    events = [json.loads(line) for line in ran.stdout.splitlines()]
    assert events[0] == {"event": "started", "images": 18, "mine": 9, "cases": 3} and events[-1]["event"] == "done"
    assert manifest(output) == manifest(still_set) and arrays(output).keys() == arrays(still_set).keys()
    for name, values in arrays(output).items():
        np.testing.assert_allclose(values, arrays(still_set)[name], atol=1)  # sums in another order


def test_resume_refuses_another_plan(data_set: Path, model: Path, cases: Path, capfd: pytest.CaptureFixture) -> None:
    assert main(arguments(model, cases, data_set, "--seed", 8, "--resume")) == 2
    assert "was begun with another seed: go on with what it was begun with" in capfd.readouterr().err
    assert main(arguments(model, cases, data_set, "--seed", 7)) == 2
    assert "exists already" in capfd.readouterr().err


def test_each_part_of_a_plan_has_a_name_that_users_know(data_set: Path) -> None:
    told = json.loads((data_set / "plan.json").read_text(encoding="utf-8"))
    assert list(told) == list(_WORDS) and not any("_" in words for words in _WORDS.values())


# --- labels, sizes, DICOM ---------------------------------------------------------------------------------------------


def test_labels_can_be_the_users_own(model: Path, thorax: Anatomy, tmp_path: Path) -> None:
    """An nnU-Net data set with two lungs, and numbers of its own."""
    names = {"background": 0, "spinal cord": 1, "left lung": 2, "right lung": 3, "heart": 4, "bone": 5, "body": 6}
    own = np.array([0, 6, 0, 4, 5, 1], np.uint8)  # by organ label
    cases = tmp_path / "own"
    for folder in ("imagesTr", "labelsTr"):
        (cases / folder).mkdir(parents=True)
    (cases / "dataset.json").write_text(json.dumps({"labels": names, "file_ending": ".nii.gz"}))
    ct, labels = chest()
    values = sitk.GetArrayFromImage(labels)
    sides = np.where(np.arange(values.shape[2]) < values.shape[2] / 2, 3, 2).astype(np.uint8)
    image = sitk.GetImageFromArray(np.where(values == 2, sides, own[values]).astype(np.uint8))
    image.CopyInformation(labels)
    sitk.WriteImage(ct, str(cases / "imagesTr" / "P_0000.nii.gz"))
    sitk.WriteImage(image, str(cases / "labelsTr" / "P.nii.gz"))

    for kind in ("organs", "source"):
        assert main(arguments(model, cases, tmp_path / kind, "--labels", kind)) == 0
    assert json.loads((tmp_path / "source" / "dataset.json").read_text())["labels"] == names
    organs, source = (arrays(tmp_path / kind) for kind in ("organs", "source"))
    place = np.array([thorax.place(name).label if thorax.place(name) else 0 for name in names])  # type: ignore[union-attr]
    for name in organs:
        if name.startswith("labelsTr"):
            assert np.array_equal(place[source[name]], organs[name]) and {2, 3} <= set(np.unique(source[name]))
        else:
            assert np.array_equal(source[name], organs[name])


def test_cases_that_number_segments_differently_are_refused(
    model: Path, cases: Path, tmp_path: Path, thorax: Anatomy, capfd: pytest.CaptureFixture
) -> None:
    mixed = tmp_path / "mixed"
    for name in ("A", "B"):
        (mixed / name).mkdir(parents=True)
        (mixed / name / "ct.nrrd").symlink_to(cases / name / "ct.nrrd")
    (mixed / "A" / "labels.nrrd").symlink_to(cases / "A" / "labels.nrrd")
    labels = sitk.ReadImage(str(cases / "B" / "labels.nrrd"))
    grays = np.array([organ.gray for organ in thorax.organs], np.uint8)[sitk.GetArrayFromImage(labels)]
    image = sitk.GetImageFromArray(grays)
    image.CopyInformation(labels)
    sitk.WriteImage(image, str(mixed / "B" / "labels.nrrd"))
    assert main(arguments(model, mixed, tmp_path / "set", "--labels", "source")) == 2
    assert "number the segments alike" in capfd.readouterr().err and not (tmp_path / "set").exists()


def test_dicom_beside_it(model: Path, cases: Path, tmp_path: Path) -> None:
    output = tmp_path / "set"
    assert main(arguments(model, cases, output, "--dicom", "--amount", 0)) == 0
    for row in manifest(output):
        folder = output / "dicom" / row["name"]
        series = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder / "CT")))
        image = sitk.DICOMOrient(sitk.ReadImage(str(output / row["image"])), "LPS")
        assert np.array_equal(*map(sitk.GetArrayFromImage, (series, image))) and same_grid(series, image)
        assert (folder / "SEG.dcm").is_file()


def test_the_size_is_told_beforehand(cases: Path, shared: Path, tmp_path: Path) -> None:
    told = estimate(cases, 4)
    assert (told.cases, told.images, told.size_bytes) == (3, 12, round(1.2 * 12 * 3 * 80 * 80))
    assert estimate(cases, 4, dicom=True).size_bytes > 2 * told.size_bytes
    from_dicom = tmp_path / "cases"
    (from_dicom / "L").mkdir(parents=True)
    for file in (shared / "dicom" / "LIDC-IDRI-0001").iterdir():
        (from_dicom / "L" / file.name).symlink_to(file)
    (from_dicom / "L" / "labels.seg.nrrd").symlink_to(shared / "cases" / "LIDC-IDRI-0001" / "segmentation.seg.nrrd")
    (from_dicom / "L" / "labels.seg.nrrd").rename(from_dicom / "L" / "segmentation.seg.nrrd")
    assert estimate(from_dicom, 1).size_bytes == round(1.2 * 16 * 512 * 512)


# --- splits, and bad input --------------------------------------------------------------------------------------------


def splits_file(folder: Path, **told: object) -> Path:
    (folder / "splits.json").write_text(json.dumps(told))
    return folder / "splits.json"


def test_only_training_cases_are_used(model: Path, cases: Path, tmp_path: Path, thorax: Anatomy) -> None:
    """A model whose training knew A and B; C, whose patient is told to be D, is held out."""
    known = tmp_path / "known"
    known.mkdir()
    for name in ("A", "B"):
        (known / name).symlink_to(cases / name)
    of_two = tmp_path / "two.ctstyle"
    train = ("train", "--cases", known, "--style", "A", "--features", "random", "--size", 64, "--steps", 1)
    assert main([*map(str, (*train, "--preset", "quick", "--device", "cpu", "--output", of_two, "--json"))]) == 0
    splits = splits_file(tmp_path, train=["A", "B"], test=["C"], patients={"C": "D"})
    assert main(arguments(of_two, cases, tmp_path / "set", "--splits", splits, "--amount", 0)) == 0
    assert {row["source_case"] for row in manifest(tmp_path / "set")} == {"A", "B"}
    assert estimate(cases, 5, splits).images == 10


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"train": ["B"], "test": ["C"]}, "has learned the case C"),
        ({"train": ["B", "C"], "test": ["A"]}, "has learned the case A"),
        ({"train": ["A", "B"], "test": ["C"], "patients": {"B": "P", "C": "P"}}, "patient P in 'train' and in 'test'"),
        ({"train": ["A", "B"], "val": ["B"]}, "patient B"),
        ({"train": ["A", "Z"]}, "case Z, which isn't there"),
        ({"train": []}, "no cases in a split 'train'"),
        ({"test": ["A"]}, "no cases in a split 'train'"),
        ({"train": "A"}, "no file of splits"),
        (["A"], "no file of splits"),
    ],
)
def test_patients_never_leak(
    model: Path, cases: Path, tmp_path: Path, capfd: pytest.CaptureFixture, told: object, words: str
) -> None:
    (tmp_path / "splits.json").write_text(json.dumps(told))
    assert main(arguments(model, cases, tmp_path / "set", "--splits", tmp_path / "splits.json")) == 2
    assert words in capfd.readouterr().err and not (tmp_path / "set").exists()


def test_a_style_from_a_held_out_folder_is_refused(tmp_path: Path, refused: Refused) -> None:
    path = splits_file(tmp_path, train=["A"], test=["B"], patients={"B": "P", "elsewhere": "P"})
    splits = read_splits(path, ["A", "B"])
    splits.check_unused(["A", "unheard of"], "The style takes")
    assert "The style takes the case elsewhere" in refused(splits.check_unused, ["elsewhere"], "The style takes")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--per-case", 0), "at least one"),
        (("--amount", 100), "100"),
        (("--amount", -1), "-1"),
        (("--amount", "nan"), "nan"),
        (("--labels", "mine"), "no labels 'mine'"),
        (("--style", "B"), "'B'"),
        (("--mix",), "can't be mixed"),
        (("--splits", "nowhere.json"), "no file of splits"),
        (("--model", "nowhere.ctstyle"), "does not exist"),
        (("--cases", "nowhere"), "doesn't exist"),
        (("--output", "nowhere/set"), "does not exist"),
        (("--seed", -1), "0 or more"),
        (("--resume",), "no plan.json"),
    ],
)
def test_bad_input_is_told_in_a_line_and_leaves_nothing(
    model: Path, cases: Path, tmp_path: Path, capfd: pytest.CaptureFixture, more: tuple[object, ...], words: str
) -> None:
    assert main(arguments(model, cases, tmp_path / "set", *more)) == 2
    told = capfd.readouterr().err
    assert words in told and len(told.strip().splitlines()) == 1 and not list(tmp_path.iterdir())


def test_a_bad_case_is_told_before_anything_is_made(
    model: Path, cases: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    (tmp_path / "cases" / "Z").mkdir(parents=True)
    (tmp_path / "cases" / "A").symlink_to(cases / "A")
    (tmp_path / "cases" / "Z" / "ct.nrrd").symlink_to(cases / "B" / "ct.nrrd")
    (tmp_path / "cases" / "Z" / "labels.nrrd").write_text("x")
    assert main(arguments(model, tmp_path / "cases", tmp_path / "set")) == 2
    assert "Z" in capfd.readouterr().err and not (tmp_path / "set").exists()


def test_a_data_set_without_images_is_none(
    model: Path, cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(self: Variations, *more: object) -> object:
        raise InputError("No variation.")

    monkeypatch.setattr(Variations, "draw", never)
    events: list[dict] = []
    with pytest.raises(InputError, match="No image could be made"):
        options = ExpansionOptions(cases, 1, tmp_path / "set", 50.0)
        expand(options, Model(model, "cpu"), events.append, lambda: False)
    assert sum("is left out: No variation." in event.get("message", "") for event in events) == 3
    assert not (tmp_path / "set").exists()


def test_what_is_left_out_is_missing_in_all_lists(
    model: Path, cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw: Callable = Variations.draw

    def seldom(self: Variations, amount: float, seed: int, *more: object) -> object:
        if seed % 2:
            raise InputError("No variation.")
        return draw(self, amount, seed, *more)

    monkeypatch.setattr(Variations, "draw", seldom)
    events: list[dict] = []
    expand(ExpansionOptions(cases, 2, tmp_path / "set", 6.0), Model(model, "cpu"), events.append, lambda: False)
    rows = manifest(tmp_path / "set")
    assert 0 < len(rows) < 6 and all(int(row["seed"]) % 2 == 0 for row in rows)
    assert json.loads((tmp_path / "set" / "dataset.json").read_text())["numTraining"] == len(rows)
    assert len(arrays(tmp_path / "set")) == 2 * len(rows)
    assert any(f"{6 - len(rows)} of 6 images" in event.get("message", "") for event in events)
