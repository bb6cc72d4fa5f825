"""VGG features: exactness of the gray convolution, where layers end, and which weight files are taken."""

from pathlib import Path

import pytest
import torch
import torchvision
from CTStyleGenCore.errors import InputError
from CTStyleGenCore.perceptual import Features, load_weights, random_weights, read_weights
from safetensors.torch import save_file

PAPER_LAYERS = ["relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu4_2", "relu5_1"]


def test_features_are_torchvisions_vgg19_of_a_gray_rgb_image() -> None:
    weights = random_weights()
    vgg = torchvision.models.vgg19().features.eval()
    vgg.load_state_dict(weights.state)
    x = torch.rand(1, 1, 32, 32) * 2 - 1
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (weights.mean, weights.std))
    h = ((x + 1) / 2 - mean) / std
    expected = {}
    # torchvision's own numbering: the ReLU after each convolution, by its place in VGG-19.
    names = {1: "relu1_1", 6: "relu2_1", 11: "relu3_1", 20: "relu4_1", 22: "relu4_2", 29: "relu5_1"}
    with torch.no_grad():
        for index, module in enumerate(vgg):
            h = module(h)
            if index in names:
                expected[names[index]] = h.clone()
        ours = Features(weights, PAPER_LAYERS)(x)
    assert list(ours) == PAPER_LAYERS
    for name in PAPER_LAYERS:
        torch.testing.assert_close(ours[name], expected[name], rtol=1e-4, atol=1e-5)


def test_nothing_is_computed_beyond_the_deepest_layer() -> None:
    assert len(Features(random_weights(), ["relu1_1", "relu3_1"]).features) == 12  # conv3_1 and its ReLU are 10 and 11


def test_features_are_frozen_but_pass_gradients_on() -> None:
    phi = Features(random_weights(), ["relu2_1"])
    x = torch.rand(1, 1, 16, 16, requires_grad=True)
    phi(x)["relu2_1"].sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in phi.parameters())


def test_random_filters_are_the_same_every_time_and_keep_their_scale() -> None:
    one, two = random_weights(), random_weights()
    assert all(torch.equal(one.state[name], two.state[name]) for name in one.state)
    x = torch.rand(1, 1, 64, 64) * 2 - 1
    deviations = [h.std().item() for h in Features(one, PAPER_LAYERS)(x).values()]
    assert all(0.3 < deviation < 3 for deviation in deviations)


def test_safetensors_and_pth_give_the_same_weights(tmp_path: Path) -> None:
    state = {f"features.{name}": t for name, t in random_weights().state.items()}
    save_file(state, tmp_path / "w.safetensors", {"mean": "0.1,0.2,0.3", "std": "1,1,1"})
    torch.save(state, tmp_path / "w.pth")
    one, two = (read_weights("vgg19", tmp_path / name) for name in ("w.safetensors", "w.pth"))
    assert all(torch.equal(one.state[name], two.state[name]) for name in one.state)
    assert one.mean == (0.1, 0.2, 0.3) and two.mean == (0.485, 0.456, 0.406)
    assert one.sha256 is not None and one.sha256 != two.sha256 and len(one.sha256) == 64


class _Evil:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("pickle-was-executed"),))


def test_bad_weight_files_are_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    state = {f"features.{name}": t for name, t in random_weights().state.items()}
    early = {name: t for name, t in state.items() if int(name.split(".")[1]) < 17}
    save_file(early, tmp_path / "early.safetensors")
    save_file(state | {"features.0.weight": torch.zeros(64, 1, 3, 3)}, tmp_path / "shape.safetensors")
    save_file(state, tmp_path / "mean.safetensors", {"mean": "a,b,c"})
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "shape.safetensors").read_bytes()[:5000])
    (tmp_path / "text.pth").write_text("no weights")
    torch.save({"features.0.weight": _Evil()}, tmp_path / "evil.pth")
    for name in ("absent.pth", "shape.safetensors", "mean.safetensors", "cut.safetensors", "text.pth", "evil.pth"):
        with pytest.raises(InputError) as error:
            read_weights("vgg19", tmp_path / name)
        assert name in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "pickle-was-executed").exists()
    with pytest.raises(InputError, match="end before layer relu5_1"):
        Features(read_weights("vgg19", tmp_path / "early.safetensors"), PAPER_LAYERS)


def test_absent_published_weights_are_told_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(InputError, match="--feature-weights FILE"):
        load_weights("vgg19")


def test_the_files_beside_the_project(shared: Path) -> None:
    """Real ImageNet weights: smooth images give small features where noise gives large ones."""
    weights = read_weights("vgg16", shared.parent / "weights" / "vgg16_imagenet_caffe.safetensors")
    phi = Features(weights, ["relu2_1"])
    noise = torch.rand(1, 1, 64, 64) * 2 - 1
    smooth = torch.nn.functional.avg_pool2d(noise, 9, 1, 4)
    assert phi(noise)["relu2_1"].std() > 2 * phi(smooth)["relu2_1"].std()
    early = read_weights("vgg19", shared.parent / "weights" / "vgg19_imagenet_caffe_conv1-3.safetensors")
    with pytest.raises(InputError, match="end before"):
        Features(early, PAPER_LAYERS)
