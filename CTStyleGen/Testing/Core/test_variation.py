"""New anatomy from old: what must hold for every variation, on drawn chests and, where there are any, on real ones."""

import csv
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import LEFT_HANDED, OBLIQUE, Refused
from CTStyleGenCore.__main__ import main
from CTStyleGenCore.anatomy import Anatomy
from CTStyleGenCore.cases import read_case
from CTStyleGenCore.deformation import Grid, exponential, grid_of, jacobian, pulled, smoothed
from CTStyleGenCore.errors import Stopped
from CTStyleGenCore.plausibility import Plausibility, Ranges, measure_ranges
from CTStyleGenCore.shape_model import ShapeModel
from CTStyleGenCore.variation import WAYS, Variations, Varied, Way
from CTStyleGenCore.variation_files import VaryOptions, vary
from CTStyleGenCore.volumes import axial, read_image, same_grid
from hypothesis import given, settings
from hypothesis import strategies as st
from phantoms import chest, write_cases
from scipy import ndimage

MOVING_WAYS = ("deform", "organs")


@pytest.fixture(scope="module")
def labels() -> sitk.Image:
    """A slice of a chest."""
    return chest(slices=1)[1]


@pytest.fixture(scope="module")
def others() -> list[sitk.Image]:
    return [chest(slices=2, seed=seed)[1] for seed in (1, 2, 5)]


@pytest.fixture(scope="module")
def variations(labels: sitk.Image, thorax: Anatomy, others: list[sitk.Image]) -> Variations:
    return Variations(labels, thorax, others)


def array(image: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(image)


def pieces(mask: np.ndarray) -> int:
    """The number of pieces of 30 mm2 (2 pixels) and more, counted by SciPy."""
    found, _ = ndimage.label(mask)
    return int(np.count_nonzero(np.bincount(found.ravel())[1:] * 16.0 >= 30))


# --- every variation ------------------------------------------------------------------------------------------------


@settings(max_examples=12, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32), amount=st.floats(0.5, 6), way=st.sampled_from(WAYS))
def test_every_variation_is_a_person(
    variations: Variations, thorax: Anatomy, seed: int, amount: float, way: Way
) -> None:
    """Each organ in as many pieces, in the body, in range; lungs within the ring of bone; the amount as asked for."""
    source = array(variations.draw(0, 0, 1).labels)
    varied = variations.draw(amount, seed, 1, way)
    result = array(varied.labels)
    assert result.dtype == np.uint8 and set(np.unique(result)) == set(np.unique(source))
    assert varied.smallest_jacobian > 0
    for organ in thorax.organs[2:]:
        assert pieces(result == organ.label) == pieces(source == organ.label), organ.name
        assert not np.any(ndimage.binary_dilation(result == organ.label) & (result == 0)), f"{organ.name} at the skin"
    assert pieces(result == 0) == 1, "a hole in the body"
    assert varied.amount_mm == pytest.approx(amount, rel=0.02) or (
        varied.way in ("interpolate", "shape") and varied.amount_mm < amount  # it is there already
    )
    assert np.any(result != source) or amount < 4  # a pixel's side


def test_amount_0_gives_the_source_back(variations: Variations, labels: sitk.Image) -> None:
    varied = variations.draw(0, seed=4, number=2)
    np.testing.assert_array_equal(array(varied.labels), array(labels))
    ct = chest(slices=1)[0]
    np.testing.assert_array_equal(array(varied.warp(ct)), array(ct))
    assert varied.amount_mm == 0


def test_seed_and_number_say_all(labels: sitk.Image, thorax: Anatomy, variations: Variations) -> None:
    def drawn(seed: int, number: int) -> np.ndarray:
        return array(variations.draw(5, seed, number, "deform").labels)

    again = Variations(labels, thorax).draw(5, 1, 1, "deform")
    np.testing.assert_array_equal(drawn(1, 1), drawn(1, 1))
    np.testing.assert_array_equal(drawn(1, 1), array(again.labels))
    assert np.any(drawn(1, 1) != drawn(2, 1)) and np.any(drawn(1, 1) != drawn(1, 2))


@pytest.mark.parametrize("way", MOVING_WAYS)
def test_ct_and_labels_move_together(thorax: Anatomy, way: Way) -> None:
    """The CT of flat organs, warped, is the flat CT of the warped labels, but for a pixel at edges."""
    _, labels = chest(slices=1, side=120)
    flat = sitk.Cast(labels, sitk.sitkInt16) * 100
    varied = Variations(labels, thorax).draw(6, 1, 1, way)
    warped, expected = array(varied.warp(flat)), array(varied.labels).astype(int) * 100
    inside = ~ndimage.binary_dilation(ndimage.morphological_gradient(array(varied.labels)[0], 3) > 0)
    assert warped.dtype == np.int16
    np.testing.assert_array_equal(warped[0][inside], expected[0][inside])
    np.testing.assert_array_equal(array(varied.warp(labels, labels=True)), array(varied.labels))


@pytest.mark.parametrize("direction", [OBLIQUE, LEFT_HANDED, (0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0)])
def test_geometry_is_kept_and_means_nothing(thorax: Anatomy, direction: tuple[float, ...]) -> None:
    """Stored in any orientation, the same chest is varied alike, in its own grid."""
    plain = chest(slices=4)[1]
    turned = sitk.DICOMOrient(plain, "PSL") if direction[0] == 0 else sitk.Image(plain)
    if direction[0]:
        turned.SetDirection(direction)
    varied = Variations(turned, thorax).draw(4, 1, 1, "deform").labels
    assert varied.GetDirection() == turned.GetDirection() and varied.GetOrigin() == turned.GetOrigin()
    assert same_grid(varied, turned) and varied.GetSpacing() == turned.GetSpacing()
    if direction == LEFT_HANDED:  # its first slice is the uppermost: another chest, above
        return
    np.testing.assert_array_equal(axial(varied), axial(Variations(plain, thorax).draw(4, 1, 1, "deform").labels))


def test_volumes_stay_smooth_through_their_slices(thorax: Anatomy) -> None:
    """One field moves all slices: from one to the next, outlines of a straight chest move by less than they moved."""
    varied = Variations(chest(slices=12)[1], thorax).draw(5, 3, 1, "deform")
    u, grid = varied.displacement, varied.grid
    assert u is not None and u.shape[0] > 4
    assert np.abs(np.diff(u, axis=0)).max() < 0.35 * np.abs(u).max()
    np.testing.assert_allclose(u[[0, -1], ..., 2], 0, atol=1e-6)  # nothing comes in from above or below
    result = array(varied.labels)
    shares = [np.mean(a != b) for a, b in itertools.pairwise(result)]
    assert max(shares) < 0.5 * np.mean(result != array(chest(slices=12)[1]))
    assert jacobian(u, grid).min() > 0


# --- the ways -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", MOVING_WAYS)
def test_tissue_grows_and_shrinks_by_three_times_at_most(variations: Variations, way: Way) -> None:
    """By 8 mm many draws would leave that; they are drawn again, and the reason is told."""
    drawn = [variations.draw(8, seed, 1, way) for seed in range(8)]
    body = variations._body
    scales = [jacobian(varied.displacement, varied.grid)[body] for varied in drawn if varied.displacement is not None]
    assert all(one.min() >= 1 / 3 and one.max() <= 3 for one in scales)
    if way == "organs":
        assert any("times" in fault for varied in drawn for fault in varied.rejected)


def test_organs_change_by_themselves(labels: sitk.Image, thorax: Anatomy) -> None:
    """Far from the surface of what grew, shrank or moved, nothing is displaced."""
    variations = Variations(labels, thorax)
    still = [np.mean(np.linalg.norm(_displacement(variations, seed, "organs"), axis=-1) < 1) for seed in range(4)]
    everywhere = [np.mean(np.linalg.norm(_displacement(variations, seed, "deform"), axis=-1) < 1) for seed in range(4)]
    assert np.median(still) > 2 * np.median(everywhere)


def _displacement(variations: Variations, seed: int, way: Way) -> np.ndarray:
    u = variations.draw(6, seed, 1, way).displacement
    assert u is not None
    return u


def test_interpolation_goes_to_the_other_and_no_farther(thorax: Anatomy) -> None:
    """Between a small chest and a large one: half way it is in between, and at the end it is the large one."""
    small, large = chest(slices=1, seed=3)[1], chest(slices=1, seed=10)[1]
    variations = Variations(small, thorax, [large], widen=1)
    areas = [np.count_nonzero(array(small)), np.count_nonzero(array(large))]
    assert areas[1] > 1.3 * areas[0]
    half, whole = (np.count_nonzero(array(variations.draw(mm, 0, 1, "interpolate").labels)) for mm in (4, 50))
    assert areas[0] < half < whole
    assert whole == pytest.approx(areas[1], rel=0.06)


def test_the_shape_model_draws_people_between_the_patients(labels: sitk.Image, thorax: Anatomy) -> None:
    """Chests that differ in size alone span a line: a person drawn from them lies on it."""
    others = [chest(slices=1, seed=seed)[1] for seed in (1, 5, 8)]
    model = ShapeModel(axial(labels), grid_of(labels), others, thorax)
    first, second = (model.sample(np.random.default_rng(seed)) for seed in (1, 2))
    assert model.size == 3 and not np.allclose(first, second)
    body = grid_of(labels).at_nodes(_plain(labels), sitk.sitkNearestNeighbor) > 0
    directions = [model.toward_another(np.random.default_rng(seed))[body].ravel() for seed in range(4)]
    basis = np.linalg.svd(np.stack(directions), full_matrices=False)[2]
    for drawn in (first[body].ravel(), second[body].ravel()):
        assert np.linalg.norm(basis @ drawn) > 0.8 * np.linalg.norm(drawn)


def _plain(image: sitk.Image) -> sitk.Image:
    plain = sitk.GetImageFromArray(axial(image))
    plain.SetSpacing(image.GetSpacing())
    return plain


def test_others_of_another_level_are_no_match(labels: sitk.Image, thorax: Anatomy, refused: Refused) -> None:
    legs = sitk.Image(labels)
    legs = sitk.Cast(legs == 4, sitk.sitkUInt8)
    legs.CopyInformation(labels)
    variations = Variations(labels, thorax, [legs, labels], widen=1)  # no chest; the source itself
    assert "interpolate" in refused(variations.draw, 5, 0, 1, "interpolate")
    assert variations.draw(5, 0, 1, "mixed").way in MOVING_WAYS


def test_others_with_labels_in_some_slices_alone(labels: sitk.Image, thorax: Anatomy) -> None:
    """As those whom nobody has annotated throughout."""
    volume, other = chest(slices=9)[1], chest(slices=9, seed=2)[1]
    for hole in ([4], [0, 1, 2], [0, 1, 3, 5, 7, 8]):
        sparse = sitk.Image(other)
        for k in hole:
            sparse[:, :, k] = 0
        variations = Variations(volume, thorax, [sparse], widen=1)
        varied = variations.draw(3, 0, 1, "interpolate")
        assert varied.way == "interpolate" and varied.smallest_jacobian > 0
    empty = sitk.Image(other) * 0
    assert Variations(labels, thorax, [empty]).draw(3, 0, 1, "mixed").way in MOVING_WAYS


def test_organs_too_thin_to_vary_by_themselves(thorax: Anatomy, refused: Refused) -> None:
    """A stray pixel, a line, and a body that fills the image: other organs are varied, or all of it."""
    whole = array(chest(slices=1, side=160)[1])
    stray, line = whole.copy(), whole.copy()
    stray[stray == 5], line[line == 5] = 1, 1
    stray[0, 81, 81], line[0, 70:90, 81] = 5, 5

    def of(values: np.ndarray) -> Variations:
        image = sitk.GetImageFromArray(values)
        image.SetSpacing((2, 2, 5))
        return Variations(image, thorax, widen=1)

    for values in (stray, line):
        for number in range(6):
            assert of(values).draw(2, 0, number, "organs").smallest_jacobian > 0
    filled = of(np.ones((1, 160, 160), np.uint8))
    assert filled.draw(2, 0, 1, "mixed").way == "deform"
    assert "way 'deform'" in refused(filled.draw, 2, 0, 1, "organs")
    alone = np.zeros((1, 160, 160), np.uint8)
    alone[0, 81, 81] = 1
    assert "too thin" in refused(of(alone).draw, 2, 0, 1, "mixed")


# --- deformations ---------------------------------------------------------------------------------------------------


def test_the_exponential_can_be_undone() -> None:
    grid = Grid((1, 120, 140), (5.0, 2.0, 2.0))
    velocity = smoothed(np.random.default_rng(0).standard_normal((*grid.shape, 3)), grid, 30.0)
    velocity *= np.array([8, 8, 0]) / np.abs(velocity).max()
    there, back = exponential(velocity, grid), exponential(-velocity, grid)
    both = (there + pulled(back, there, grid))[:, 8:-8, 8:-8]
    assert np.abs(both).max() < 0.2 and np.abs(there).max() > 5
    assert 0 < jacobian(there, grid).min() < 1


def test_a_constant_velocity_is_a_shift() -> None:
    grid = Grid((3, 20, 30), (5.0, 2.0, 2.0))
    velocity = np.broadcast_to(np.array([3.0, -2.0, 1.0]), (*grid.shape, 3)).copy()
    np.testing.assert_allclose(exponential(velocity, grid), velocity, atol=1e-9)
    np.testing.assert_allclose(jacobian(velocity, grid), 1, rtol=1e-6)


# --- the checks -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def judge(labels: sitk.Image, thorax: Anatomy) -> Plausibility:
    return Plausibility(axial(labels), (5.0, 4.0, 4.0), thorax, measure_ranges([labels], thorax), 0.2)


def test_the_source_has_no_faults(judge: Plausibility, labels: sitk.Image) -> None:
    assert judge.faults(axial(labels)) == []


@pytest.mark.parametrize(
    ("where", "value", "fault"),
    [
        ((slice(None), slice(None), slice(18, 20)), 1, "lungs has other pieces"),  # a lung cut in two
        ((slice(36, 42), slice(20, 27), None), 1, "lungs has other holes"),
        ((slice(25, 50), slice(9, 14), None), 2, "lungs reaches the outside"),
        ((slice(0, 80), slice(0, 80), 5), 4, "spinal canal is gone"),
        ((slice(0, 22), slice(30, 50), None), 1, "body is cut off by the image's border"),
        ((slice(36, 44), slice(34, 46), None), 2, "the area of mediastinum is out of range"),
        ((slice(52, 55), slice(37, 43), None), 1, "spinal canal leaves the bone"),
    ],
)
def test_faults_are_found(judge: Plausibility, labels: sitk.Image, where: tuple, value: int, fault: str) -> None:
    """Painted over by hand, the chest is no person's any more."""
    broken = axial(labels).copy()
    rows, columns, organ = where
    if isinstance(organ, slice):  # lungs in these columns only
        broken[0][:, organ][broken[0][:, organ] == 2] = value
    elif organ is not None:
        broken[broken == organ] = value
    else:
        broken[0, rows, columns] = value
    assert fault in judge.faults(broken), judge.faults(broken)


def test_lungs_through_ribs_are_found(thorax: Anatomy) -> None:
    """Ribs as dots around the lungs: a lung that bulges out between two of them, without touching the skin."""
    row, column = np.mgrid[-1:1:120j, -1:1:120j]
    radius, angle = np.hypot(row, column), np.arctan2(row, column)
    caged = np.where(radius < 0.8, 1, 0).astype(np.uint8)
    caged[radius < 0.5] = 2
    caged[(radius > 0.5) & (radius < 0.56) & (np.sin(8 * angle) > 0.5)] = 4
    through = caged.copy()
    through[(radius > 0.5) & (radius < 0.7) & (np.abs(angle) < 0.35) & (caged == 1)] = 2
    ranges = measure_ranges([sitk.GetImageFromArray(one[None] * 1) for one in (caged, through)], thorax)
    judge = Plausibility(caged[None], (5.0, 3.0, 3.0), thorax, _scaled(ranges, 9.0), 0.2)
    assert judge.faults(caged[None]) == []
    assert "the lungs reach through the ribs" in judge.faults(through[None])


def _scaled(ranges: Ranges, area: float) -> Ranges:
    """Ranges measured on pixels of 1 mm, for pixels of another area in mm2."""
    factors = {"area": area, "width": area**0.5, "depth": area**0.5}
    return Ranges(
        {
            name: {m: (low * factors.get(m, 1), high * factors.get(m, 1)) for m, (low, high) in spans.items()}
            for name, spans in ranges.spans.items()
        }
    )


def test_ranges_of_the_cases_bound_the_variations(labels: sitk.Image, thorax: Anatomy, refused: Refused) -> None:
    """Without any widening, areas can't grow beyond the source's own; among others' they may."""
    narrow = Variations(labels, thorax, widen=0)
    assert "is out of range" in refused(narrow.draw, 6, 0, 1, "deform")
    wide = measure_ranges([chest(slices=1, seed=seed)[1] for seed in range(9)], thorax)
    assert Variations(labels, thorax, ranges=wide, widen=0.5).draw(4, 0, 1, "deform").amount_mm > 3.9


def test_ranges_measure_areas_and_places(labels: sitk.Image, thorax: Anatomy) -> None:
    spans = measure_ranges([labels], thorax).spans
    lungs = np.argwhere(axial(labels)[0] == 2)
    assert spans["lungs"]["area"] == pytest.approx((len(lungs) * 16.0,) * 2)
    assert spans["spinal canal"]["back"][0] > 0.1 > abs(spans["spinal canal"]["left"][0])


# --- what can't be --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((-1, 0, 1), "-1 mm"),
        ((51, 0, 1), "51 mm"),
        ((float("nan"), 0, 1), "nan mm"),
        ((5, -1, 1), "0 or more"),
        ((5, 0, 1, "wobble"), "wobble"),
        ((50, 0, 1, "deform"), "smaller amount"),
    ],
)
def test_what_cannot_be_is_refused(variations: Variations, refused: Refused, arguments: tuple, told: str) -> None:
    assert told in refused(variations.draw, *arguments)


def test_impossible_widening_and_nothing_to_vary_are_refused(
    labels: sitk.Image, thorax: Anatomy, refused: Refused
) -> None:
    assert "widened" in refused(Variations, labels, thorax, (), None, -0.1)
    assert "no labelled voxel" in refused(Variations, labels * 0, thorax)


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cases(tmp_path_factory.mktemp("vary") / "cases")


def run(cases: Path, output: Path, *more: str) -> int:
    case = cases / "A"
    given = ["--segmentation", case / "labels.nrrd", "--reference", case / "ct.nrrd", "--output", output]
    return main(["vary", *map(str, given), "--count", "2", "--amount", "4", *more])


def test_the_command_writes_a_folder_of_variations(cases: Path, tmp_path: Path) -> None:
    case, output = cases / "A", tmp_path / "new"
    along = ["--along", str(case / "labels.nrrd")]
    assert run(cases, output, "--cases", str(cases), "--warp-reference", "--seed", "5", *along) == 0
    expected = {f"{what}-{n:03}.nrrd" for what in ("labels", "ct", "along") for n in (1, 2)}
    assert {file.name for file in output.iterdir()} == expected | {"manifest.csv", "labels.json"}
    with (output / "manifest.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["number"], row["seed"], row["checks"]) for row in rows] == [("1", "5", "passed"), ("2", "5", "passed")]
    reference = read_image(case / "ct.nrrd")
    for number, row in enumerate(rows, 1):
        labels, ct = (read_image(output / f"{what}-{number:03}.nrrd") for what in ("labels", "ct"))
        assert same_grid(labels, reference) and same_grid(ct, reference)
        assert (labels.GetPixelID(), ct.GetPixelID()) == (sitk.sitkUInt8, sitk.sitkInt16)
        assert labels.GetMetaData("CTStyleGen.Synthetic") == ct.GetMetaData("CTStyleGen.Synthetic") == "YES"
        assert row["way"] in WAYS and float(row["moved_mm"]) <= 4.01 and row["labels"] == f"labels-{number:03}.nrrd"
        np.testing.assert_array_equal(array(labels), array(read_image(output / f"along-{number:03}.nrrd")))
    assert json.loads((output / "labels.json").read_text())["labels"]["lungs"] == 2
    assert not any(str(cases) in file.read_bytes().decode("latin-1") for file in output.iterdir())


def test_the_command_gives_the_same_again(cases: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert run(cases, tmp_path / name, "--way", "deform") == 0
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), file.name


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--count", "0"], "0 variations"),
        (["--amount", "50"], "smaller amount"),
        (["--way", "wobble"], "wobble"),
        (["--way", "shape"], "needs slices of the same level"),
        (["--cases", "absent"], "absent"),
        (["--anatomy", "absent"], "absent"),
        (["--along", "absent.nrrd"], "absent.nrrd"),
        (["--seed", "-1"], "seed"),
        (["--widen", "-1"], "widened"),
        (["--segmentation", "absent.nrrd"], "absent.nrrd"),
        (["--output", "absent/new"], "absent"),
        (["--cases", "a" * 300], "File name too long: check path and permission"),
    ],
)
def test_the_command_refuses_in_one_line_and_leaves_nothing(
    cases: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], more: list[str], told: str
) -> None:
    assert run(cases, tmp_path / "new", *more) == 2
    error = capfd.readouterr().err.strip()
    assert told in error and "\n" not in error
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_not_touched(cases: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert run(cases, tmp_path) == 2
    assert "exists already" in capfd.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_a_stop_leaves_nothing(cases: Path, tmp_path: Path) -> None:
    answers = iter([False, True])
    options = VaryOptions(cases / "A" / "labels.nrrd", tmp_path / "new", count=3, amount_mm=3)
    with pytest.raises(Stopped):
        vary(options, lambda event: None, lambda: next(answers))
    assert not list(tmp_path.iterdir())


# --- real chests ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["TCGA-17-Z011", "A056642-1"])
def test_real_slices_vary_plausibly(shared: Path, thorax: Anatomy, name: str) -> None:
    """By 6 mm, in every way, within a handful of draws; bones come to no harm."""
    folder = shared / "cases"
    case = read_case(folder / name, thorax)
    others = [read_case(folder / other, thorax).labels for other in ("TCGA-17-Z021", "TCGA-17-Z039", "TCGA-17-Z034")]
    variations = Variations(case.labels, thorax, others)
    drawn: list[Varied] = [variations.draw(6, 0, 1, way) for way in WAYS[1:]]
    for varied in drawn:
        source, result = axial(case.labels), axial(varied.labels)
        assert varied.tries <= 10
        assert abs(np.count_nonzero(result == 4) / np.count_nonzero(source == 4) - 1) < 0.35
        assert ndimage.label(result == 2)[1] >= 1 and np.mean(result != source) > 0.01
