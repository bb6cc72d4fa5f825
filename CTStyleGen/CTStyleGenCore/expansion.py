"""Annotated data sets many times the size: new anatomy from each case's, its CT, and both as an nnU-Net raw data set.

The plan: image ``number`` of a case takes the styles in turn, in an order drawn for the case, or mixes them organ by
organ; its anatomy moves by between half of the amount and all of it; and one seed of its own draws the deformation (as
``vary --cases --seed``, variation 1) and the noise code (as ``synthesize --seed``). All of it depends on the plan's
seed, the case's id and the number alone, so that a data set can be gone on with, and be made by several processes.

    DATASET/imagesTr/A_001_0000.nii.gz   int16 HU                DATASET/dataset.json      as nnU-Net wants it
    DATASET/labelsTr/A_001.nii.gz        the labels it shows     DATASET/manifest.csv      where each image comes from
    DATASET/dicom/A_001/CT, SEG.dcm      on request              DATASET/contact_sheet.png
    DATASET/plan.json                    what was asked for

Every file is whole or absent; ``manifest.csv`` and ``dataset.json`` come last, when all images are there.
"""

import csv
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import SimpleITK as sitk

from . import __version__
from .airways import volume_with_airways
from .cases import CaseFiles, SourceLabel, find_cases
from .dicom_export import require_dicom, write_dicom
from .errors import InputError, Stopped
from .files import is_left_over, read_json, remove_left_over, require_place, written_beside
from .label_check import Lacks
from .plausibility import Ranges, measure_ranges
from .png import write_png
from .ranks import Ranks
from .splits import TRAIN, read_splits
from .styles import has_style_bank, style_mix, without_path
from .variation import Variations, check_amount
from .volumes import voxel_count, write_volume

if TYPE_CHECKING:  # torch is imported where images are made: Slicer's process asks for plans and sizes
    from .reporting import Report
    from .synthesis import Model

T = TypeVar("T")
LABELS = ("organs", "source")
_ENDING = ".nii.gz"
_FOLDERS = ("imagesTr", "labelsTr", "dicom", ".")  # of a data set
_BYTES, _DICOM_BYTES = 1.2, 2.7  # a voxel takes, in HU and labels, compressed; and as DICOM, which is not
_OTHERS = 50  # cases whose anatomies are at hand to vary one; of more, these, evenly spread
_WORDS = {  # for what a plan tells, where another one is asked for than was begun
    "per_case": "another number of images of each case",
    "amount_mm": "another amount",
    "seed": "another seed",
    "styles": "other styles",
    "codes": "another look of a style CT",
    "mix": "another mix of styles",
    "labels": "another kind of labels",
    "dicom": "another choice of DICOM",
    "cases": "other cases",
    "model": "another model",
    "version": "another version of CTStyleGen",
}
_NEAR_COPIES = (
    "The model draws near copies of its training slices (see its card): don't share the data set as anonymous."
)
_SHEET_IMAGES, _TILE = 24, 160  # of the contact sheet; pixels a side
_SHEET_COLUMNS = 4
_SHEET_WINDOW = (-1000.0, 500.0)  # HU that are black and white
_MANIFEST = (
    *("name", "image", "label", "split", "source_case", "number", "style", "amount_mm", "seed"),
    *("model", "model_sha256", "version"),
)


@dataclass(frozen=True)
class ExpansionOptions:
    """What an expansion is told."""

    cases: Path
    per_case: int
    output: Path
    amount_mm: float
    seed: int = 0
    styles: tuple[str, ...] = ()  # one look for all images, as `synthesize --style`; (): the model's styles in turn
    mix: bool = False  # instead, each organ of each image mixes two of the model's styles
    splits: Path | None = None
    labels: str = "organs"
    dicom: bool = False
    resume: bool = False


@dataclass(frozen=True)
class Item:
    """One image to make, and all that it is made by."""

    name: str
    case_id: str
    number: int  # of the case's images, from 1
    styles: tuple[str, ...]  # as `synthesize --style`
    amount_mm: float
    seed: int  # of the deformation and the noise code


@dataclass(frozen=True)
class Looks:
    """What images look like: styles in turn, or mixed organ by organ."""

    in_turn: tuple[tuple[str, ...], ...]  # each as `synthesize --style`
    mixed_organs: tuple[str, ...] = ()  # organs that each mix two of ``in_turn``, all cases then; (): none does

    def of(self, number: int, order: np.ndarray, rng: np.random.Generator) -> tuple[str, ...]:
        """The look of a case's image, as `synthesize --style`. ``order``: of the looks, drawn for the case."""
        if not self.mixed_organs:
            return self.in_turn[order[(number - 1) % len(order)]]
        mix: list[str] = []
        for organ in self.mixed_organs:
            one, other = rng.choice(len(self.in_turn), 2, replace=False)
            percent = int(rng.integers(1, 100))
            mix += [f"{organ}={self.in_turn[one][0]}:{percent}", f"{organ}={self.in_turn[other][0]}:{100 - percent}"]
        return tuple(mix)


def plan(case_ids: Sequence[str], per_case: int, amount_mm: float, seed: int, looks: Looks) -> list[Item]:
    """The images to make, case by case."""
    numbers = range(1, per_case + 1)
    return [_item(case_id, number, amount_mm, seed, looks) for case_id in case_ids for number in numbers]


def _item(case_id: str, number: int, amount_mm: float, seed: int, looks: Looks) -> Item:
    case = int.from_bytes(hashlib.sha256(case_id.encode()).digest()[:8], "big")
    order = np.random.default_rng([seed, case]).permutation(len(looks.in_turn))
    rng = np.random.default_rng([seed, case, number])
    moves_mm, own_seed = round(float(amount_mm * rng.uniform(0.5, 1)), 3), int(rng.integers(2**31))
    return Item(f"{case_id}_{number:03d}", case_id, number, looks.of(number, order, rng), moves_mm, own_seed)


@dataclass(frozen=True)
class Estimate:
    """What an expansion will come to."""

    cases: int
    images: int
    size_bytes: int  # on the disk, roughly


def estimate(cases: Path, per_case: int, splits: Path | None = None, dicom: bool = False) -> Estimate:
    """What an expansion of these cases will come to, from their headers alone. InputError as `expand`."""
    found = find_cases(cases)
    chosen = read_splits(splits, [files.case_id for files in found]).chosen(found)
    voxels = sum(voxel_count(files.ct) for files in chosen)
    return Estimate(len(chosen), len(chosen) * per_case, size_in_bytes(voxels * per_case, dicom))


def size_in_bytes(voxels: int, dicom: bool) -> int:
    """How much room images of so many voxels and their labels take on the disk, roughly."""
    return round(voxels * (_BYTES + (_DICOM_BYTES if dicom else 0)))


def expand(
    options: ExpansionOptions,
    model: "Model",
    report: "Report",
    stopping: Callable[[], bool],
    ranks: Ranks | None = None,
) -> Path:
    """Makes the data set and returns its folder; the first of several ``ranks`` reports and ends it.

    All input is checked before anything is written. An image whose anatomy can't be varied plausibly is left out, and
    told. Raises InputError for bad input or a full disk, OutOfMemory, and Stopped, after which ``resume`` goes on.
    """
    from .memorisation import draws_near_copies

    ranks = ranks or Ranks()
    job = _Job(options, model)
    ranks.wait()  # nobody writes before all have checked
    mine = ranks.share(job.items)
    with ranks.together():
        job.begin(ranks.first)
        report({"event": "started", "images": len(job.items), "mine": len(mine), "cases": len(job.contents)})
        for sentence in job.lacks.sentences():
            report({"event": "notice", "message": sentence})
        if draws_near_copies(model.card):
            report({"event": "notice", "message": _NEAR_COPIES})
        job.make(mine, report, stopping)
    if ranks.first:
        job.end(report)
    ranks.wait()
    return options.output


@dataclass(frozen=True)
class _Content:
    """A case as images are made from it."""

    variations: Variations
    map: sitk.Image  # organ labels with airways, which images are drawn from
    source: sitk.Image | None  # its own segment values, where these are wanted


class _Job:
    """An expansion, checked: what it makes, and how it is written."""

    def __init__(self, options: ExpansionOptions, model: "Model") -> None:
        """Reads and checks all input; writes nothing. Raises InputError."""
        self.options, self.model, self.anatomy = options, model, model.anatomy
        _check(options)
        found = find_cases(options.cases)
        splits = read_splits(options.splits, [files.case_id for files in found])
        self.contents = {files.case_id: files for files in splits.chosen(found)}
        splits.check_unused([*model.card["cases"], *model.card["styles"]], f"The model {model.path.name} has learned")
        mix = style_mix(model.card, options.styles)
        splits.check_unused({Path(case).name for shares in mix.values() for case in shares}, "The style takes")
        looks = _looks(model, options)
        self.lacks = Lacks(self.anatomy)
        self.table, self.ranges, self.others = self._read_all()
        self.items = plan(list(self.contents), options.per_case, options.amount_mm, options.seed, looks)
        self.numbers = {item.name: number for number, item in enumerate(self.items, 1)}
        self.told = {
            "per_case": options.per_case,
            "amount_mm": options.amount_mm,
            "seed": options.seed,
            "styles": [self._told(styles) for styles in looks.in_turn],
            "codes": self._codes(),
            "mix": options.mix,
            "labels": options.labels,
            "dicom": options.dicom,
            "cases": list(self.contents),
            "model": {"name": model.path.name, "sha256": model.digest},
            "version": __version__,
        }
        self._check_output()

    def _told(self, styles: Sequence[str]) -> list[str]:
        """Styles as files of the data set tell them: without paths, which are this computer's own."""
        return [without_path(style, self.model.card) for style in styles]

    def _codes(self) -> str | None:
        """A digest of the look's numbers, where it is taken from a folder, which may change."""
        from .style_codes import codes_to_json

        styles, look = self.options.styles, self.model.look(self.options.styles)
        if look.codes is None or self._told(styles) == list(styles):
            return None
        numbers = codes_to_json(look.codes[0], self.anatomy, self.model.hu)
        return hashlib.sha256(json.dumps(numbers).encode()).hexdigest()

    def _read_all(self) -> tuple[list[SourceLabel], Ranges, list[sitk.Image]]:
        """Reads every case once, so that a bad one is told of now.

        Returns the labels to write, the ranges of anatomy, and the anatomies of _OTHERS cases.
        """
        ranges, tables, others = Ranges({}), [], []
        kept = _spread(list(self.contents), _OTHERS)
        for files in self.contents.values():
            case = files.read(self.anatomy)
            self.lacks.add(case)
            if case.case_id in kept:
                others.append(case.labels)
            ranges = ranges.including(measure_ranges([case.labels], self.anatomy))
            if self.options.labels == "source":
                tables.append((files, files.read_source(self.anatomy, case.ct)[1]))
        if self.options.labels == "source":
            return _one_table(tables), ranges, others
        organs = self.anatomy.organs[1:]
        table = [SourceLabel(o.label, o.name, o.codes[0] if o.codes else None, o.name) for o in organs]
        return table, ranges, others

    def _check_output(self) -> None:
        output, resume = self.options.output, self.options.resume
        require_place(output)
        if output.is_file() or (output.is_dir() and not resume and _holds_files(output)):
            raise InputError(f"{output} exists already: choose another output, or go on with it by --resume.")
        if not resume:
            return
        begun = read_plan(output)
        if differing := [key for key, value in self.told.items() if begun.get(key) != value]:
            raise InputError(
                f"{output} was begun with {_WORDS[differing[0]]}: go on with what it was begun with, or choose another "
                "output."
            )

    def begin(self, first: bool) -> None:
        """Makes the folders; the first process writes the plan. Raises InputError where that isn't possible."""
        try:
            for folder in ("imagesTr", "labelsTr", *(["dicom"] if self.options.dicom else [])):
                (self.options.output / folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.options.output} can't be written: {error.strerror}.") from error
        if first and not self.options.resume:
            _write_text(self.options.output / "plan.json", json.dumps(self.told, indent=2) + "\n")

    def _remove_folders(self) -> None:
        """Undoes `begin`, where no image was made."""
        (self.options.output / "plan.json").unlink()
        for folder in _FOLDERS:
            with suppress(OSError):  # not there, or not empty
                (self.options.output / folder).rmdir()

    def make(self, items: Sequence[Item], report: "Report", stopping: Callable[[], bool]) -> None:
        """Makes the images that are not there yet."""
        open_items = [item for item in items if not self._is_whole(item)]
        kept, start = len(items) - len(open_items), time.monotonic()
        content: tuple[str, _Content] | None = None
        report({"event": "progress", "done": kept, "total": len(items), "unit": "image"})
        for done, item in enumerate(open_items, 1):
            if content is None or content[0] != item.case_id:
                content = item.case_id, self._content(item.case_id)
            if stopping() or not self._make(item, content[1], report, stopping):
                raise Stopped(f"Stopped at image {kept + done - 1} of {len(items)}: go on with --resume.")
            left = (time.monotonic() - start) / done * (len(open_items) - done)
            progress = {"done": kept + done, "total": len(items), "unit": "image", "seconds_left": left}
            report({"event": "progress"} | progress)

    def _content(self, case_id: str) -> _Content:
        files = self.contents[case_id]
        case = files.read(self.anatomy)
        source = files.read_source(self.anatomy, case.ct)[0] if self.options.labels == "source" else None
        drawn_from = volume_with_airways(case.labels, case.ct, self.anatomy)
        return _Content(Variations(case.labels, self.anatomy, self.others, self.ranges), drawn_from, source)

    def _make(self, item: Item, content: _Content, report: "Report", stopping: Callable[[], bool]) -> bool:
        """Makes and writes an image, or tells why its anatomy can't be; False when it was stopped on the way."""
        from .synthesis import mark_synthetic, synthesize_volume

        try:
            varied = content.variations.draw(item.amount_mm, item.seed, 1)
        except InputError as error:
            report({"event": "notice", "message": f"{item.name} is left out: {error}"})
            return True

        def go_on(slices: int) -> None:
            if stopping():
                raise Stopped

        look = self.model.look(item.styles)
        try:
            drawn_from = varied.warp(content.map, labels=True)
            ct = synthesize_volume(self.model, drawn_from, item.seed, 0, go_on, look)
        except Stopped:
            return False
        labels = varied.labels if content.source is None else varied.warp(content.source, labels=True)
        for image in (ct, labels):
            mark_synthetic(image, self.model, item.seed, 0, look)
        if self.options.dicom and not self._dicom(item).exists():
            with written_beside(self._dicom(item)) as folder:
                folder.mkdir()
                made_by = f"CTStyleGen {__version__}, model sha256:{self.model.digest}, seed {item.seed}"
                write_dicom(folder, ct, labels, self.table, self.numbers[item.name], made_by)
        write_volume(ct, self._image(item))
        write_volume(labels, self._label(item))
        return True

    def end(self, report: "Report") -> None:
        """Writes what describes the whole data set. Raises InputError when no image could be made."""
        made = [item for item in self.items if self._is_whole(item)]
        for folder in _FOLDERS:
            remove_left_over(self.options.output / folder)  # by one that was killed a moment ago
        if not made:
            self._remove_folders()
            raise InputError(
                f"No image could be made: the anatomy of no case can be moved plausibly by {self.options.amount_mm:g} "
                "mm; give a smaller --amount."
            )
        if left_out := len(self.items) - len(made):
            report({"event": "notice", "message": f"{left_out} of {len(self.items)} images were left out."})
        output = self.options.output
        write_contact_sheet(
            output / "contact_sheet.png", [(self._image(i), self._label(i)) for i in _spread(made, _SHEET_IMAGES)]
        )
        with written_beside(output / "manifest.csv") as beside, beside.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(_MANIFEST)
            writer.writerows(self._row(item) for item in made)
        _write_text(output / "dataset.json", json.dumps(self._dataset(len(made)), indent=2, ensure_ascii=False) + "\n")

    def _row(self, item: Item) -> list[Any]:
        paths = [path.relative_to(self.options.output).as_posix() for path in (self._image(item), self._label(item))]
        made = [item.number, "; ".join(self._told(item.styles) or self.model.card["styles"]), item.amount_mm, item.seed]
        model = [self.model.path.name, self.model.digest, __version__]
        return [item.name, *paths, TRAIN, item.case_id, *made, *model]

    def _dataset(self, count: int) -> dict[str, Any]:
        return {
            "channel_names": {"0": "CT"},
            "labels": {"background": 0} | {row.name: row.value for row in self.table},
            "numTraining": count,
            "file_ending": _ENDING,
            "name": self.options.output.name,
            "description": f"SYNTHETIC images by CTStyleGen {__version__}. For research use only, not for diagnosis.",
        }

    def _is_whole(self, item: Item) -> bool:
        """Whether an image and what belongs to it are there; labels are written last."""
        return self._label(item).is_file() and self._image(item).is_file()

    def _image(self, item: Item) -> Path:
        return self.options.output / "imagesTr" / f"{item.name}_0000{_ENDING}"

    def _label(self, item: Item) -> Path:
        return self.options.output / "labelsTr" / f"{item.name}{_ENDING}"

    def _dicom(self, item: Item) -> Path:
        return self.options.output / "dicom" / item.name


def read_plan(output: Path) -> dict[str, Any]:
    """What a data set was begun with. Raises InputError where that isn't told."""
    try:
        return dict(read_json(output / "plan.json"))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{output} has no plan.json to go on from: leave --resume out.") from error


def _holds_files(folder: Path) -> bool:
    """Whether there is more in a folder than an expansion that was killed before it wrote its plan has left."""
    return any(path.is_file() and not is_left_over(path.relative_to(folder)) for path in folder.rglob("*"))


def _check(options: ExpansionOptions) -> None:
    if options.per_case < 1:
        raise InputError(f"{options.per_case} images of each case is not possible: ask for at least one.")
    check_amount(options.amount_mm)
    if options.labels not in LABELS:
        raise InputError(f"There are no labels {options.labels!r}: choose from {', '.join(LABELS)}.")
    if options.dicom:
        require_dicom()


def _looks(model: "Model", options: ExpansionOptions) -> Looks:
    """What the user asks for, or the model's styles in turn or mixed; () is a model's own look."""
    model.look(options.styles)
    cases, bank = model.card["styles"], has_style_bank(model.card)
    if options.mix and (options.styles or not bank or len(cases) < 2):
        raise InputError("Styles can't be mixed here: that needs a model with several styles, and no --style.")
    if options.styles or not bank:
        return Looks((options.styles,))
    return Looks(tuple((case,) for case in cases), tuple(o.name for o in model.anatomy.organs) if options.mix else ())


def _one_table(tables: Sequence[tuple[CaseFiles, Sequence[SourceLabel]]]) -> list[SourceLabel]:
    """The segments of all cases, by value. Raises InputError where a name has two values, or a value two names."""
    rows: dict[int, SourceLabel] = {}
    values: dict[str, int] = {"background": 0}
    for files, table in tables:
        for row in table:
            other = rows.setdefault(row.value, row)
            if other.name != row.name or values.setdefault(row.name, row.value) != row.value:
                raise InputError(
                    f"{files.labels} calls the value {row.value} '{row.name}', which another case or segment has in "
                    "another way: number the segments alike in all cases, or take --labels organs."
                )
    return [rows[value] for value in sorted(rows)]


def _write_text(path: Path, text: str) -> None:
    with written_beside(path) as beside:
        beside.write_text(text, encoding="utf-8")


def _spread(items: Sequence[T], count: int) -> list[T]:
    """At most ``count`` of the items, evenly from first to last."""
    places = np.linspace(0, len(items) - 1, min(count, len(items)))
    return [items[round(place)] for place in places]


def write_contact_sheet(path: Path, pairs: Sequence[tuple[Path, Path]]) -> None:
    """A PNG of images and, on the right of each, its labels."""
    tiles = [np.concatenate(list(_tiles(image, label)), axis=1) for image, label in pairs]
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % _SHEET_COLUMNS if len(tiles) > _SHEET_COLUMNS else 0)
    columns = min(_SHEET_COLUMNS, len(tiles))
    rows = [np.concatenate(tiles[at : at + columns], axis=1) for at in range(0, len(tiles), columns)]
    told = f"Synthetic CT by CTStyleGen {__version__}, each with its labels on the right. For research use only."
    write_png(path, np.concatenate(rows), told)


def _tiles(image: Path, label: Path) -> Iterator[np.ndarray]:
    """The slice of a volume with most of it labelled, as grays, uint8, and that of its labels, _TILE x _TILE each."""
    hu, labels = (sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS") for path in (image, label))
    values = sitk.GetArrayViewFromImage(labels)
    k = int(np.argmax(np.count_nonzero(values, axis=(1, 2))))
    yield _grays(hu[:, :, k], *_SHEET_WINDOW, sitk.sitkLinear)
    yield _grays(labels[:, :, k], 0.0, max(1.0, float(values.max())), sitk.sitkNearestNeighbor)


def _grays(slice_: sitk.Image, low: float, high: float, interpolator: int) -> np.ndarray:
    """A slice in the middle of a square of _TILE pixels, values from low to high as black to white, uint8."""
    extent = [size * mm for size, mm in zip(slice_.GetSize(), slice_.GetSpacing(), strict=True)]
    straight = sitk.Cast(slice_, sitk.sitkFloat32)
    straight.SetDirection((1.0, 0.0, 0.0, 1.0))
    straight.SetOrigin([-(side - mm) / 2 for side, mm in zip(extent, slice_.GetSpacing(), strict=True)])
    mm = max(extent) / _TILE
    corner = [-(max(extent) - mm) / 2] * 2
    axes = straight.GetDirection()
    square = sitk.Resample(straight, (_TILE, _TILE), sitk.Transform(), interpolator, corner, (mm, mm), axes, low)
    return np.clip((sitk.GetArrayFromImage(square) - low) / (high - low) * 255, 0, 255).astype(np.uint8)
