"""The paper's networks: sizes, kernels, the noise code, and batch statistics at a batch of one."""

import pytest
import torch
from CTStyleGenCore.anatomy import load_anatomy
from CTStyleGenCore.networks import Discriminator, Generator, is_valid_size, make_generator
from CTStyleGenCore.slices import gray_map
from torch import nn


@pytest.mark.parametrize("size", [64, 128, 256])
def test_generator_and_discriminator_at_every_size(size: int) -> None:
    G, D = Generator(size), Discriminator(size)
    y, z = torch.zeros(2, 1, size, size), torch.randn(2, 200)
    x = G(y, z)
    assert x.shape == (2, 1, size, size) and x.abs().max() <= 1
    assert D(x, y).shape == (2,)


@pytest.mark.parametrize("size", [512, 1024])
def test_large_sizes_have_the_right_shape(size: int) -> None:
    with torch.device("meta"):  # shapes without the memory
        x = Generator(size)(torch.zeros(1, 1, size, size), torch.zeros(1, 200))
        logit = Discriminator(size)(x, x)
    assert x.shape == (1, 1, size, size) and logit.shape == (1,)


@pytest.mark.parametrize("size", [0, 32, 96, 500, 2048])
def test_other_sizes_are_refused(size: int) -> None:
    assert not is_valid_size(size)
    with pytest.raises(ValueError, match="power of two"):
        Generator(size)


def test_kernel_4_and_stride_2_throughout() -> None:
    modules = [*Generator(128).modules(), *Discriminator(128).modules()]
    convolutions = [m for m in modules if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert len(convolutions) == 4 + 1 + 4 + 5  # encoder, noise, decoder, discriminator
    assert {(m.kernel_size, m.stride) for m in convolutions} == {((4, 4), (2, 2))}


def test_training_and_use_give_the_same_image() -> None:
    G = Generator(64)
    y, z = torch.randn(1, 1, 64, 64), torch.randn(1, 200)
    assert torch.equal(G.train()(y, z), G.eval()(y, z))


def test_an_image_does_not_depend_on_its_batch() -> None:
    G = Generator(64)
    y, z = torch.randn(3, 1, 64, 64), torch.randn(3, 200)
    together = G(y, z)
    alone = torch.cat([G(y[i : i + 1], z[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_normalization_is_batch_norm_of_a_batch_of_one() -> None:
    """The outside truth: torch's own batch norm with batch statistics, over one image."""
    from CTStyleGenCore.networks import _norm

    x = torch.randn(1, 5, 8, 8)
    torch.testing.assert_close(_norm(5)(x), nn.BatchNorm2d(5, track_running_stats=False)(x))


def test_the_noise_code_reaches_the_image() -> None:
    G = Generator(64)
    y = torch.randn(1, 1, 64, 64)
    z = torch.randn(1, 200, requires_grad=True)
    G(y, z).sum().backward()
    assert z.grad is not None and (z.grad != 0).all()


# --- the generator of presets that go beyond the paper --------------------------------------------------------------


def organ_generator(size: int = 64) -> nn.Module:
    return make_generator("organs", size, load_anatomy("thorax"), 200)


@pytest.mark.parametrize("size", [64, 128])
def test_organ_generator_takes_the_papers_map(size: int) -> None:
    labels = torch.randint(0, 6, (2, size, size))
    x = organ_generator(size)(gray_map(labels, load_anatomy("thorax"))[:, None], torch.randn(2, 200))
    assert x.shape == (2, 1, size, size) and x.abs().max() <= 1


def test_organ_generator_sees_borders_in_every_pixel() -> None:
    """Moving a border by one pixel changes the image there by more than elsewhere, even untrained."""
    labels = torch.zeros(1, 64, 64, dtype=torch.int64)
    labels[:, :, 32:] = 4
    moved = labels.clone()
    moved[:, :, 32] = 0
    G, z, anatomy = organ_generator(), torch.zeros(1, 200), load_anatomy("thorax")
    with torch.no_grad():
        difference = (G(gray_map(labels, anatomy)[:, None], z) - G(gray_map(moved, anatomy)[:, None], z))[0, 0].abs()
    assert difference[:, 32].mean() > 2 * difference[:, :24].mean()


def test_an_unknown_generator_is_refused() -> None:
    with pytest.raises(ValueError, match="no generator"):
        make_generator("other", 64, load_anatomy("thorax"), 200)  # type: ignore[arg-type]
