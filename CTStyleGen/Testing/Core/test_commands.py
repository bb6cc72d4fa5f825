"""The commands as a user runs them: real processes, exit codes, what they print and what they leave behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from CTStyleGenCore.__main__ import main
from CTStyleGenCore.model_file import read_card
from phantoms import chest, write_cases


def command(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess:
    """Runs ctstylegen and returns what it printed."""
    return subprocess.run(
        [sys.executable, "-m", "CTStyleGenCore", *map(str, arguments)], capture_output=True, text=True, cwd=cwd
    )


def in_process(capfd: pytest.CaptureFixture[str], *arguments: object) -> subprocess.CompletedProcess:
    """What `command` gives, without the seconds that a process takes to begin."""
    capfd.readouterr()
    code = main(list(map(str, arguments)))
    printed = capfd.readouterr()
    return subprocess.CompletedProcess(arguments, code, printed.out, printed.err)


def train_arguments(cases: Path, output: Path, *more: object) -> list[object]:
    return [
        *("train", "--cases", cases, "--style", "A", "--features", "random", "--size", 64, "--device", "cpu"),
        *("--output", output, *more),
    ]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cases(tmp_path_factory.mktemp("cases with ü"))


@pytest.fixture(scope="module")
def model(cases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "m.ctstyle"
    ran = command(*train_arguments(cases, path, "--preset", "paper", "--steps", 3, "--json"))
    assert ran.returncode == 0, ran.stderr
    events = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [e["event"] for e in events if e["event"] != "progress"] == ["calibrated", "memorisation", "done"]
    assert events[-1]["outputs"] == [str(path)]
    return path


def refused(ran: subprocess.CompletedProcess) -> str:
    """The one sentence of a command that ended for bad input."""
    assert ran.returncode == 2, (ran.returncode, ran.stderr)
    assert len(ran.stderr.strip().splitlines()) == 1 and "Traceback" not in ran.stderr
    return ran.stderr.strip()


def test_info_prints_the_card(model: Path) -> None:
    ran = command("info", model)
    assert ran.returncode == 0 and json.loads(ran.stdout) == read_card(model)
    assert '"hu_range": [-1000.0, 1000.0],\n' in ran.stdout  # numbers in a line, of which style codes have many


def oblique_left_handed(image: sitk.Image) -> sitk.Image:
    turn = np.array(sitk.Euler3DTransform((0, 0, 0), 0.1, 0.2, 0.3).GetMatrix()).reshape(3, 3)
    image.SetDirection((turn @ np.diag([1, 1, -1])).ravel().tolist())
    return image


@pytest.mark.parametrize("place", [lambda image: image, oblique_left_handed])
@pytest.mark.parametrize("suffix", [".nrrd", ".nii.gz"])
def test_synthesize_writes_int16_hu_in_the_references_grid(model: Path, tmp_path: Path, place, suffix: str) -> None:
    ct, labels = (place(image) for image in chest(slices=4, side=70, seed=5))
    sitk.WriteImage(ct, str(tmp_path / "ct.nrrd"))
    sitk.WriteImage(labels, str(tmp_path / "labels.nrrd"))
    out = tmp_path / f"out{suffix}"
    ran = command(
        *("synthesize", "--model", model, "--segmentation", tmp_path / "labels.nrrd"),
        *("--reference", tmp_path / "ct.nrrd", "--output", out),
    )
    assert ran.returncode == 0, ran.stderr
    result = sitk.ReadImage(str(out))
    assert result.GetPixelID() == sitk.sitkInt16 and result.GetSize() == ct.GetSize()
    for get in ("GetOrigin", "GetSpacing", "GetDirection"):
        tolerance = 1e-6 if suffix == ".nrrd" else 1e-4  # NIfTI keeps single precision
        np.testing.assert_allclose(getattr(result, get)(), getattr(ct, get)(), atol=tolerance)
    hu = sitk.GetArrayFromImage(result)
    assert hu.min() >= -1000 and hu.max() <= 1000 and hu.std() > 0
    if suffix == ".nrrd":
        assert result.GetMetaData("CTStyleGen.Synthetic") == "YES"
        assert "sha256" in result.GetMetaData("CTStyleGen.Model")
    else:
        assert result.GetMetaData("descrip").startswith("SYNTHETIC")


def test_samples_differ_and_seeds_repeat(model: Path, cases: Path, tmp_path: Path) -> None:
    segmentation = cases / "B" / "labels.nrrd"
    for name in ("one", "two"):
        ran = command(
            *("synthesize", "--model", model, "--segmentation", segmentation, "--samples", 2, "--seed", 5),
            *("--output", tmp_path / f"{name}.nrrd", "--json"),
        )
        assert ran.returncode == 0, ran.stderr
    events = [json.loads(line) for line in ran.stdout.splitlines()]
    assert events[0]["event"] == "started" and events[0]["segments"][0]["organ"] == "body"
    assert events[-1]["outputs"] == [str(tmp_path / f"two-{n}.nrrd") for n in (1, 2)]
    read = {p.name: sitk.GetArrayFromImage(sitk.ReadImage(str(p))) for p in tmp_path.glob("*.nrrd")}
    assert np.array_equal(read["one-1.nrrd"], read["two-1.nrrd"])
    assert not np.array_equal(read["one-1.nrrd"], read["one-2.nrrd"])


def test_without_vgg_weights_it_says_that_it_uses_random_filters(
    cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    arguments = train_arguments(cases, tmp_path / "m.ctstyle", "--steps", 1, "--features", "auto")
    ran = command(*arguments)
    assert ran.returncode == 0 and "No VGG-19 weights on this machine" in ran.stderr
    assert read_card(tmp_path / "m.ctstyle")["features"]["kind"] == "random"
    assert "--feature-weights FILE" in refused(command(*arguments, "--features", "vgg19"))


def test_real_ct_at_512(shared: Path, tmp_path: Path) -> None:
    """The same way on real cases, where they are: two steps at 512 x 512, then another case's segmentation."""
    for name in ("TCGA-17-Z039", "TCGA-17-Z011", "TCGA-17-Z013"):
        (tmp_path / "cases").mkdir(exist_ok=True)
        (tmp_path / "cases" / name).symlink_to(shared / "cases" / name)
    model, out, case = tmp_path / "m.ctstyle", tmp_path / "out.nrrd", shared / "cases" / "LIDC-IDRI-0002"
    ran = command(
        *("train", "--cases", tmp_path / "cases", "--style", "TCGA-17-Z039", "--preset", "paper", "--size", 512),
        *("--steps", 2, "--features", "random", "--device", "cpu", "--output", model),
    )
    assert ran.returncode == 0, ran.stderr
    ran = command(
        *("synthesize", "--model", model, "--segmentation", case / "segmentation.seg.nrrd"),
        *("--reference", case / "ct.nrrd", "--device", "cpu", "--output", out),
    )
    assert ran.returncode == 0, ran.stderr
    result, reference = sitk.ReadImage(str(out)), sitk.ReadImage(str(case / "ct.nrrd"))
    assert result.GetPixelID() == sitk.sitkInt16 and result.GetSize() == reference.GetSize()
    for get in ("GetOrigin", "GetSpacing", "GetDirection"):
        np.testing.assert_allclose(getattr(result, get)(), getattr(reference, get)(), atol=1e-6)


# --- bad input ------------------------------------------------------------------------------------------------------


def test_bad_input_to_synthesize(model: Path, cases: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    labels = cases / "B" / "labels.nrrd"
    far = sitk.ReadImage(str(cases / "B" / "ct.nrrd"))
    far.SetOrigin((5000, 5000, 5000))
    sitk.WriteImage(far, str(tmp_path / "far.nrrd"))
    (tmp_path / "cut.ctstyle").write_bytes(model.read_bytes()[:-1000])
    (tmp_path / "text.nrrd").write_text("no image")
    out = tmp_path / "out.nrrd"
    good = {"--model": model, "--segmentation": labels, "--output": out}
    for changes, expected in (
        ({"--segmentation": tmp_path / "absent.nrrd"}, "absent.nrrd"),
        ({"--segmentation": tmp_path / "text.nrrd"}, "text.nrrd"),
        ({"--reference": tmp_path / "absent.nrrd"}, "absent.nrrd"),
        ({"--reference": tmp_path / "far.nrrd"}, "labels.nrrd"),
        ({"--model": tmp_path / "cut.ctstyle"}, "cut short"),
        ({"--output": tmp_path / "absent" / "out.nrrd"}, "absent"),
        ({"--output": tmp_path / "out.png"}, "out.png"),
        ({"--output": cases / "B"}, "B"),
        ({"--model": tmp_path / ("a" * 300)}, "File name too long"),
        ({"--seed": 2**64}, "below 2^53"),
        ({"--style": "Z"}, "'Z'"),
        ({"--samples": 0}, "0 samples"),
        ({"--seed": -1}, "seed"),
        ({"--device": "tpu"}, "tpu"),
    ):
        arguments = [word for pair in (good | changes).items() for word in pair]
        assert expected in refused(in_process(capfd, "synthesize", *arguments))
    assert "'Z'" in refused(command("synthesize", *(word for pair in good.items() for word in pair), "--style", "Z"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cut.ctstyle", "far.nrrd", "text.nrrd"]


def test_bad_input_to_train(cases: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken cases"
    shutil.copytree(cases, broken)
    (broken / "B" / "ct.nrrd").write_bytes((broken / "B" / "ct.nrrd").read_bytes()[:300])
    out = tmp_path / "m.ctstyle"
    for arguments, expected in (
        (train_arguments(tmp_path / "absent", out), "absent"),
        (train_arguments(broken, out), "ct.nrrd"),
        (train_arguments(cases, out, "--preset", "Z"), "'Z'"),
        (train_arguments(cases, out, "--style", "Z"), "'Z'"),
        (train_arguments(cases, out, "--size", 100), "100"),
        (train_arguments(cases, out, "--features", "vgg16", "--feature-weights", tmp_path / "no.pth"), "no.pth"),
        (train_arguments(cases, out, "--resume"), "checkpoint"),
        (train_arguments(cases, tmp_path / "absent" / "m.ctstyle"), "absent"),
        (train_arguments(cases, tmp_path), "is a folder"),
        (train_arguments(cases, "."), "is a folder"),
        (train_arguments(cases, out, "--preview", tmp_path / "absent" / "p.png"), "absent"),
    ):
        assert expected in refused(in_process(capfd, *arguments))
    assert "absent" in refused(command(*train_arguments(tmp_path / "absent", out)))
    assert [p.name for p in tmp_path.iterdir()] == ["broken cases"]


def test_a_wrong_option_is_told(model: Path) -> None:
    ran = command("synthesize", "--model", model)
    assert "--segmentation" in refused(ran) and "--help" in ran.stderr


# --- stopping -------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_in_good_order_and_resume_goes_on(cases: Path, tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "m.ctstyle"
    endless = train_arguments(cases, out, "--steps", 100000, "--json")
    arguments = [sys.executable, "-m", "CTStyleGenCore", *map(str, endless)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["event"] == "progress":
                break
        sent = time.monotonic()
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and errors.startswith("Stopped at step")
    assert time.monotonic() - sent < 20
    assert json.loads(output.splitlines()[-1])["kind"] == "stopped"
    assert [p.name for p in tmp_path.iterdir()] == ["m.ctstyle.checkpoint"]
    step = next(json.loads(line)["step"] for line in output.splitlines() if '"checkpoint"' in line)
    resumed = command(*train_arguments(cases, out, "--steps", step + 2, "--resume"))
    assert resumed.returncode == 0, resumed.stderr
    assert read_card(out)["steps"] == step + 2 and [p.name for p in tmp_path.iterdir()] == ["m.ctstyle"]
