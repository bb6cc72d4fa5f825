"""A segmentation file in, a folder of new ones out: the command ``vary``.

DIR/labels-001.nrrd   uint8 organ labels, in exactly the source's grid (or the reference's, where one is given)
DIR/ct-001.nrrd       the reference CT moved alike, int16 HU, on request
DIR/along-001.nrrd    any other label map in that grid moved alike, values kept, on request
DIR/labels.json       what the values of labels-*.nrrd mean
DIR/manifest.csv      how each variation was made
"""

import csv
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from . import __version__
from .anatomy import Anatomy, load_anatomy
from .cases import find_cases, read_labels
from .errors import InputError, Stopped
from .files import require_place, sha256, written_beside
from .label_check import lacking
from .labelling import with_body
from .reporting import Report
from .variation import WIDEN, Variations, Varied, Way
from .volumes import read_ct, read_image, same_grid, without_metadata, write_volume

MOST = 10_000
_COLUMNS = (
    "number",
    "seed",
    "way",
    "amount_mm",
    "moved_mm",
    "tries",
    "checks",
    "rejected",
    "smallest_jacobian",
    "labels",
)


@dataclass(frozen=True)
class VaryOptions:
    """What `vary` is asked for."""

    segmentation: Path  # .seg.nrrd or a label map
    output: Path  # a folder that isn't there yet
    count: int
    amount_mm: float
    seed: int = 0
    way: Way = "mixed"
    reference: Path | None = None  # a CT, whose grid the results get
    warp_reference: bool = False  # write it, moved as the labels
    along: Path | None = None  # labels of any values and layers in the same grid, to be moved as well
    cases: Path | None = None  # other patients: for ranges, and for ways that need others
    widen: float = WIDEN
    anatomy: str = "thorax"  # organ table: name or file


def vary(options: VaryOptions, report: Report, stopping: Callable[[], bool]) -> Path:
    """Makes ``count`` variations, numbers from 1, and returns their folder, which is whole or absent.

    Raises InputError for bad input and where a variation can't be a person's, Stopped when ``stopping``, asked after
    each variation, says so.
    """
    _check(options)
    anatomy = load_anatomy(options.anatomy)
    reference = read_ct(options.reference) if options.reference else None
    labels, segments = read_labels(options.segmentation, anatomy, reference)
    labels, body_found = with_body(labels, anatomy, reference)
    along = _read_along(options.along, labels) if options.along else None
    body = anatomy.place("body")  # with one, others are compared with it, without one without
    has_body = body is not None and bool(np.any(sitk.GetArrayViewFromImage(labels) == body.label))
    found = find_cases(options.cases) if options.cases else []
    others = [case.read(anatomy, find_body=has_body).labels for case in found]
    variations = Variations(labels, anatomy, others, widen=options.widen)
    report({"event": "started", "segments": [vars(segment) for segment in segments]})
    for what in lacking(segments, anatomy, body_found):
        report({"event": "notice", "message": f"{options.segmentation}: {what}"})
    provenance = {
        "Synthetic": "YES",
        "Derived": "anatomy varied",
        "Source": f"sha256:{sha256(options.segmentation)}",
        "Labels": ", ".join(f"{organ.label} {organ.name}" for organ in anatomy.organs),
        "Version": __version__,
    }
    with written_beside(options.output) as folder:
        folder.mkdir()
        rows = []
        for number in range(1, options.count + 1):
            report({"event": "progress", "done": number - 1, "total": options.count, "unit": "variation"})
            if stopping():
                raise Stopped("Stopped; nothing was written.")
            varied = variations.draw(options.amount_mm, options.seed, number, options.way)
            told = provenance | {"Way": varied.way, "Amount": f"{varied.amount_mm:.2f} mm"}
            told["Seed"] = f"{options.seed}, variation {number}"
            _write(varied.labels, told, folder / f"labels-{number:03}.nrrd")
            if reference is not None and options.warp_reference:
                _write(varied.warp(reference), told, folder / f"ct-{number:03}.nrrd")
            if along is not None:
                _write(varied.warp(along, labels=True), told, folder / f"along-{number:03}.nrrd")
            rows.append(_row(number, options, varied))
        _write_card(folder / "labels.json", anatomy)
        with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([_COLUMNS, *rows])
    report({"event": "progress", "done": options.count, "total": options.count, "unit": "variation"})
    return options.output


def _check(options: VaryOptions) -> None:
    """InputError for options that aren't possible, before anything is read."""
    if not 1 <= options.count <= MOST:
        raise InputError(f"{options.count} variations are not possible: ask for 1 to {MOST}.")
    if options.output.exists():
        raise InputError(f"{options.output} exists already: choose a folder that isn't there yet.")
    require_place(options.output)
    if options.warp_reference and options.reference is None:
        raise InputError("There is no CT to warp: give it with --reference, or leave --warp-reference out.")


def _read_along(path: Path, labels: sitk.Image) -> sitk.Image:
    """Labels of any values and layers in the grid of the organ labels; InputError for another grid."""
    along = without_metadata(read_image(path))
    if not same_grid(along, labels):
        raise InputError(f"{path} doesn't lie in the grid of the segmentation: give labels with the same voxels.")
    along.CopyInformation(labels)
    return along


def _write(image: sitk.Image, told: dict[str, str], path: Path) -> None:
    image = without_metadata(image)
    for key, value in told.items():
        image.SetMetaData(f"CTStyleGen.{key}", value)
    write_volume(image, path)


def _row(number: int, options: VaryOptions, varied: Varied) -> tuple[Any, ...]:
    rejected = "; ".join(f"{fault} ({count} x)" for fault, count in Counter(varied.rejected).most_common())
    return (
        number,
        options.seed,
        varied.way,
        f"{options.amount_mm:g}",
        f"{varied.amount_mm:.2f}",
        varied.tries,
        "passed",
        rejected,
        f"{varied.smallest_jacobian:.3f}",
        f"labels-{number:03}.nrrd",
    )


def _write_card(path: Path, anatomy: Anatomy) -> None:
    card = {
        "about": "Synthetic segmentations: a person's anatomy, varied. For research use only, not for diagnosis.",
        "anatomy": anatomy.name,
        "labels": {organ.name: organ.label for organ in anatomy.organs},
        "version": __version__,
    }
    path.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
