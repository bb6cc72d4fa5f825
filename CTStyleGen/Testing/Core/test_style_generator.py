"""The generator for many styles: noise fields, organs apart, missing styles, every size."""

import pytest
import torch
from CTStyleGenCore.composition import Composition, cut
from CTStyleGenCore.networks import make_generator
from CTStyleGenCore.perceptual import Windows
from CTStyleGenCore.slices import HuRange
from CTStyleGenCore.style_codes import GRAIN, LEVELS, measure_codes
from CTStyleGenCore.style_discriminator import FeatureDiscriminator
from CTStyleGenCore.style_generator import OrganShares, StyleGenerator, Waves, surroundings
from style_samples import CODES, GRAYS, THORAX, codes_of, quarters, y_of


def generator(size: int = 64) -> StyleGenerator:
    torch.manual_seed(0)
    G = make_generator("styles", size, THORAX, 200)
    assert isinstance(G, StyleGenerator)
    return G.requires_grad_(False)


@pytest.mark.parametrize("size", [64, 128])
def test_every_organ_has_its_styles_hu_even_untrained(size: int) -> None:
    labels = quarters(size).expand(2, -1, -1)
    x = generator(size)(y_of(labels), torch.randn(2, 200), CODES.expand(2, -1, -1))
    assert x.shape == (2, 1, size, size)
    for organ in range(1, 5):
        low, high = CODES[0, organ, 0], CODES[0, organ, len(LEVELS) - 1]
        inside = x[:, 0][labels == organ]
        assert low <= inside.min() and inside.max() <= high


@pytest.mark.parametrize("size", [512, 1024])
def test_large_sizes_have_the_right_shape(size: int) -> None:
    y = y_of(quarters(size))
    assert generator(size)(y, torch.randn(1, 200), CODES).shape == y.shape


def test_no_block_knows_where_in_the_slice_a_pixel_is() -> None:
    """One organ all over and no noise: every pixel the same, but at the very edges."""
    x = generator().train()(y_of(torch.ones(1, 64, 64, dtype=torch.int64)), torch.zeros(1, 200), CODES)
    assert x[..., 4:-4, 4:-4].std() < 1e-6


@pytest.mark.parametrize(("pixels", "most"), [(16, 0.08), (8, 0.25)])
def test_what_is_drawn_moves_with_the_map(pixels: int, most: float) -> None:
    """By a square of the first block nearly all of it; by half of one, squares are hardly seen."""
    labels, G = torch.zeros(1, 128, 128, dtype=torch.int64), generator(128).train()
    labels[:, 40:88, 40:88], labels[:, 52:60, 56:72] = 1, 4
    here, there = (G(y_of(of), torch.zeros(1, 200), CODES) for of in (labels, labels.roll(pixels, 2)))
    inside = labels[0] == 1
    changed = (there.roll(-pixels, 3) - here)[0, 0, inside].abs().mean()
    assert changed < most * here[0, 0, inside].std()


def test_surroundings_say_which_organs_are_near() -> None:
    """Far from all borders the organ alone; on a border half of each."""
    around = surroundings(OrganShares(GRAYS)(y_of(quarters(128))))
    assert around.shape == (1, 6, 32, 32) and torch.allclose(around.sum(1), torch.ones(()))
    torch.testing.assert_close(around[0, :, 4, 4], torch.tensor([0.0, 1, 0, 0, 0, 0]))
    torch.testing.assert_close(around[0, :, 4, 15], torch.tensor([0.0, 0.6, 0, 0.4, 0, 0]))


# --- the other player -----------------------------------------------------------------------------------------------


def features(n: int = 2) -> dict[str, torch.Tensor]:
    return {"relu1_1": torch.rand(n, 8, 64, 64), "relu3_1": 100 * torch.rand(n, 32, 16, 16)}


def test_it_judges_every_place_of_every_layer_in_the_layers_own_unit() -> None:
    torch.manual_seed(0)
    D = FeatureDiscriminator(GRAYS, {"relu1_1": 8, "relu3_1": 32}).requires_grad_(False).eval()
    maps, y, codes = features(), y_of(quarters()).expand(2, -1, -1, -1), CODES.expand(2, -1, -1)
    D.learn(maps)
    logits = D(maps, y, codes)
    assert [one.shape for one in logits] == [(2, 1, 64, 64), (2, 1, 16, 16)]
    times_ten = {layer: 10 * of for layer, of in maps.items()}
    D.learn(times_ten)
    torch.testing.assert_close(D(times_ten, y, codes), logits)


def test_features_that_hardly_show_in_real_slices_do_not_outweigh_all_others() -> None:
    D, maps = FeatureDiscriminator(GRAYS, {"relu1_1": 8}), features()
    maps["relu1_1"][:, 0] = 0
    D.learn(maps)
    unit = D.state_dict()["unit_relu1_1"].flatten()
    assert unit[0] == pytest.approx(0.1 * maps["relu1_1"].square().mean((0, 2, 3)).sqrt().mean().item())


def test_it_looks_at_the_map_and_at_the_style_asked_for() -> None:
    torch.manual_seed(0)
    D = FeatureDiscriminator(GRAYS, {"relu1_1": 8}).requires_grad_(False).eval()
    maps, y, other = features(1), y_of(quarters()), CODES.clone()
    other[:, 2] += 0.3
    (logits,), (of_other,), (of_flipped,) = D(maps, y, CODES), D(maps, y, other), D(maps, y.flip(2), CODES)
    changed = (of_other - logits).abs()[0, 0] > 0
    assert changed[34:, 2:30].all() and not changed[:30].any()  # organ 2 is the quarter at the lower left
    assert (of_flipped - logits).abs().max() > 1e-3


def test_in_use_hu_are_the_styles_exactly() -> None:
    G, labels = generator(), quarters()
    codes = measure_codes(torch.rand(1, *labels.shape[1:]), labels, 6)[None].nan_to_num()
    x = G.eval()(y_of(labels), torch.randn(1, 200), codes)
    measured = measure_codes(x[0], labels, 6)
    torch.testing.assert_close(measured[1:5, : len(LEVELS)], codes[0, 1:5, : len(LEVELS)], rtol=0, atol=0.04)


def test_hu_between_two_organs_lie_where_they_meet() -> None:
    """Lungs beside mediastinum, both with some HU toward the other's."""
    labels, G = torch.full((1, 64, 64), 2), generator().eval()
    labels[..., 32:] = 3
    codes = codes_of([-1.0, 0.0, -0.8, 0.05, 0.5, 0.02])
    codes[0, 2, len(LEVELS) - 4 : len(LEVELS)], codes[0, 3, :4] = -0.4, -0.3
    x = G(y_of(labels), torch.randn(1, 200), codes)[0, 0]
    assert x[:, 31].mean() > x[:, 28:31].mean() + 0.05 and x[:, 32].mean() < x[:, 33:36].mean() - 0.05


def test_waves_are_band_limited_noise_that_says_nothing_of_the_place() -> None:
    """Of waves spread evenly over a disk of frequencies of radius 2, pixels r apart correlate by 2 J1(2 r) / (2 r)."""
    torch.manual_seed(0)
    fields = Waves(4000)(torch.randn(400, 4000), 32)[:, 0]
    assert fields.mean(0).abs().max() < 0.25 and (fields.std(0) - 1).abs().max() < 0.25
    for apart, correlation in ((1, 0.577), (2, -0.033), (4, 0.059)):
        assert (fields[:, :, apart:] * fields[:, :, :-apart]).mean().item() == pytest.approx(correlation, abs=0.04)


def test_no_number_of_a_code_is_a_lattice() -> None:
    """Each is a mixture of many waves, none of which stands out."""
    torch.manual_seed(0)
    power = torch.fft.rfft2(Waves(200)(torch.eye(200)[:3], 128)[:, 0]).abs().square().flatten(1)
    assert (power.amax(1) < 0.05 * power.sum(1)).all()


def test_layout_is_the_maps_alone() -> None:
    """Blocks of up to 32 pixels a side draw the same whatever style and noise, those above don't."""
    G, seen = generator(), []
    for block in G.refined:
        block.register_forward_hook(lambda _block, _given, h: seen.append(h))
    for codes, z in ((CODES, torch.zeros(1, 200)), (codes_of([-1.0, 0.2, -0.7, 0.1, 0.6, 0.0]), torch.ones(1, 200))):
        G(y_of(quarters()), z, codes)
    assert [torch.equal(a, b) for a, b in zip(seen[:4], seen[4:], strict=True)] == [True, True, True, False]


@pytest.mark.parametrize(("size", "training", "noisy"), [(256, False, False), (256, True, True), (128, False, True)])
def test_where_pixels_are_small_the_last_block_leaves_noise_to_the_grain(
    size: int, training: bool, noisy: bool
) -> None:
    G, given = generator(size).train(training), []
    for block in (G.refined[-2], G.refined[-1]):
        block.register_forward_pre_hook(lambda _block, tensors: given.append(tensors[3]))
    G(y_of(quarters(size)), torch.randn(1, 200), CODES)
    assert isinstance(given[0], torch.Tensor) and isinstance(given[1], torch.Tensor) == noisy


def test_in_use_blocks_have_less_noise_than_in_training_and_grain_has_all() -> None:
    G, codes = generator(128).train(), []
    for waves in G.waves.values():
        waves.register_forward_hook(lambda _waves, told, _field: codes.append(told[0]))
    y, z = y_of(quarters(128)), torch.randn(1, 200)
    G(y, z, CODES)
    assert len(codes) == 2 and all(torch.equal(one, z) for one in codes)
    codes.clear()
    G.eval()(y, z, CODES)
    *blocks, grain = codes
    assert len(blocks) == 2 and all(torch.allclose(one, 0.5 * z) for one in blocks)
    assert torch.equal(grain, z.flip(1))


def test_noise_codes_move_no_border() -> None:
    """Noise changes every organ, and each organ stays within its own HU."""
    G, labels = generator(), quarters()
    a, b = (G(y_of(labels), torch.randn(1, 200), CODES) for _ in range(2))
    for organ in range(1, 5):
        assert (a - b)[0, 0][labels[0] == organ].abs().mean() > 0
        for x in (a, b):
            assert (x[0, 0][labels[0] == organ] - CODES[0, organ, : len(LEVELS)].mean()).abs().max() <= 0.1001


def test_an_organs_style_changes_that_organ() -> None:
    G, labels, z = generator(), quarters(), torch.randn(1, 200)
    other = CODES.clone()
    other[:, 2] += 0.3
    change = (G(y_of(labels), z, other) - G(y_of(labels), z, CODES))[0, 0].abs()
    assert change[labels[0] == 2].mean() > 10 * change[labels[0] != 2].mean()


def test_hu_are_the_styles_whatever_fat_the_map_has_room_for() -> None:
    """Bodies of fat and muscle: what the map tells moves them, and changes neither HU nor other organs."""
    G, labels, z = generator().eval(), quarters(), torch.randn(1, 200)
    fat = torch.where(torch.rand(labels.shape) < 0.4, -0.1, 0.05) + 0.01 * torch.randn(labels.shape)
    codes = measure_codes(torch.where(labels == 1, fat, 0.5), labels, 6)[None]
    plain = G(y_of(labels), z, codes)
    lines = torch.full((6, 4), torch.nan)
    lines[1] = torch.tensor([0.7, 0.0, 0.7, 0.7])
    G.composition = Composition(lines, cut(HuRange()))
    by_map = G(y_of(labels), z, codes)
    measured = measure_codes(by_map[0], labels, 6)
    torch.testing.assert_close(measured[1, : len(LEVELS)], codes[0, 1, : len(LEVELS)], rtol=0, atol=0.02)
    change = (by_map - plain)[0, 0].abs()
    assert change[labels[0] == 1].mean() > 100 * change[labels[0] > 1].mean()


def test_a_missing_style_is_the_mean_one() -> None:
    G, labels, z = generator(), quarters(), torch.randn(1, 200)
    G.normalized.learn(torch.cat([CODES - 0.1, CODES + 0.1]))
    missing = CODES.clone()
    missing[:, 3] = torch.nan
    torch.testing.assert_close(G(y_of(labels), z, missing), G(y_of(labels), z, CODES))


def test_a_missing_organ_has_the_noise_of_the_others() -> None:
    G, codes, labels = generator(256).eval(), CODES.clone(), quarters(256)
    G.normalized.learn(torch.cat([CODES - 0.1, CODES + 0.1]))
    codes[..., GRAIN:] = 0.02
    codes[0, 3] = torch.nan
    code = measure_codes(G(y_of(labels), torch.randn(1, 200), codes)[0], labels, 6)[3]
    assert code[GRAIN].item() == pytest.approx(0.02, rel=0.3)


def test_an_image_does_not_depend_on_its_batch() -> None:
    G, labels, z = generator(), torch.randint(0, 6, (3, 64, 64)), torch.randn(3, 200)
    codes = CODES + 0.1 * torch.randn(3, 6, 1)
    together = G(y_of(labels), z, codes)
    alone = torch.cat([G(y_of(labels[i : i + 1]), z[i : i + 1], codes[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_windows_are_the_radiologists() -> None:
    hu = torch.tensor([-1350.0, -600.0, 150.0, -160.0, 40.0, 240.0, -500.0, 400.0])
    shown = Windows(HuRange(-2000, 2000))(HuRange(-2000, 2000).to_unit(hu).view(1, 1, 1, -1))[0, :, 0]
    torch.testing.assert_close(shown[0, :3], torch.tensor([0.0, 0.5, 1.0]))
    torch.testing.assert_close(shown[1, 3:6], torch.tensor([0.0, 0.5, 1.0]))
    torch.testing.assert_close(shown[2, 6:], torch.tensor([0.0, 0.5]))
