"""The scoreboard: how well models do what they promise, on patients that none of them has seen (docs/evaluation.md).

The map of every unseen slice is given styles, and each result is measured against the CT that the style is of:

    unseen    the styles of all other unseen patients; by models that take a style when they are used
    trained   the styles that the models with one look were trained for; by these, and by models that take any style
    own       for volumes: the case's own style, or the one that the model has

Beside a value stands what real CT has there: of distances to a style, that of the content's own CT, another patient's.
Values are means over slices, then over patients.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from . import __version__
from .cases import CaseFiles, find_cases
from .errors import InputError, Stopped
from .files import require_file_place, written_beside
from .label_check import Lacks
from .model_scores import METRICS, Made, Score, scored
from .perceptual import FeatureWeights
from .pictures import Picture, RealCase, Style
from .reporting import Report
from .rulers import Rulers, trained_segmenter
from .splits import read_splits
from .styles import has_style_bank
from .synthesis import Model
from .training_data import training_slices

FORMAT, FORMAT_VERSION = "ctstyle-evaluation", 1
_TRAIN_SLICES = 10  # of each training case


@dataclass(frozen=True)
class EvaluationOptions:
    """What to evaluate, on which cases, and where to write."""

    models: tuple[Path, ...]
    cases: Path  # of patients that no model has seen
    train_cases: Path
    json: Path
    html: Path | None = None
    splits: Path | None = None  # tells which cases are of one patient (`splits`)
    slices: int = 2  # of each unseen case
    segmenter_steps: int = 250  # of the training of the U-Net; 0: no label consistency
    features: FeatureWeights | None = None  # for the kernel distance; None: left out
    seed: int = 0
    device: str = "cpu"


@dataclass(frozen=True)
class Board:
    """All that came out: what the JSON says, and the images by the place of their model in it."""

    told: dict[str, Any]
    scores: tuple[tuple[Score, ...], ...]
    made: tuple[tuple[Made, ...], ...]


# --- the run ----------------------------------------------------------------------------------------------------------


def evaluate(options: EvaluationOptions, report: Report, stopping: Callable[[], bool]) -> Board:
    """Measures the models and writes JSON and HTML, whole or not at all.

    Raises InputError for models that can't stand side by side, fewer than two unseen patients, and a patient who is
    both unseen and in training; Stopped when ``stopping``, asked after each image, says so.
    """
    for path in filter(None, (options.json, options.html)):
        require_file_place(path)
    if options.slices < 1:
        raise InputError(f"{options.slices} slices of each case is not possible: ask for at least one.")
    if options.segmenter_steps < 0:
        raise InputError(f"{options.segmenter_steps} steps of the U-Net are not possible: 0 leaves that part out.")
    models = [Model(path, options.device) for path in options.models]
    _check_alike(models)
    first = models[0]
    unseen_files, train_files = find_cases(options.cases), find_cases(options.train_cases)
    patient = _patients(options, unseen_files, train_files, models)
    lacks = Lacks(first.anatomy)
    read = partial(_read, patient=patient, model=first, lacks=lacks)
    train = [read(files, count=_TRAIN_SLICES) for files in train_files]
    trained = {style.name: style for model in models if (style := _own_style(model, train))}
    unseen = [read(files, count=options.slices) for files in unseen_files]
    for sentence in lacks.sentences():
        report({"event": "notice", "message": sentence})
    pairs = [list(_pairs(model, unseen, trained)) for model in models]
    steps = options.segmenter_steps + sum(len(content.slices) for of in pairs for _, content, _ in of)
    progress = _Progress(report, stopping, steps)
    kernel = find = None
    if options.features:
        from .realism import KernelDistance

        kernel = KernelDistance(options.features, first.hu, options.device, options.seed)
    if options.segmenter_steps:
        organs = len(first.anatomy.organs)
        find = trained_segmenter(train, first.G.size, organs, options.segmenter_steps, options.seed, progress)
    rulers = Rulers(first.anatomy.organs[1:], unseen, train, kernel, find)
    made, found = [], []
    for model, of in zip(models, pairs, strict=True):
        images, numbers = scored(model, of, unseen, options.seed, rulers, progress)
        made.append(tuple(images))
        found.append(tuple(numbers))
    left_out = _left_out(options, list(trained.values()))
    board = Board(_told(options, models, unseen, train, found, left_out), tuple(found), tuple(made))
    _write(options, board)
    return board


def _write(options: EvaluationOptions, board: Board) -> None:
    from .evaluation_report import page

    texts = {options.json: json.dumps(board.told, indent=2, ensure_ascii=False, allow_nan=False) + "\n"}
    if options.html:
        texts[options.html] = page(board)
    for path, text in texts.items():
        with written_beside(path) as beside:
            beside.write_text(text, encoding="utf-8")


def _told(
    options: EvaluationOptions,
    models: Sequence[Model],
    unseen: Sequence[RealCase],
    train: Sequence[RealCase],
    found: Sequence[Sequence[Score]],
    left_out: list[str],
) -> dict[str, Any]:
    """The board as JSON-ready data."""
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "version": __version__,
        "size": models[0].G.size,
        "seed": options.seed,
        "unseen": {case.name: {"patient": case.patient, "slices": len(case.slices)} for case in unseen},
        "train": {case.name: {"patient": case.patient, "slices": len(case.slices)} for case in train},
        "left_out": left_out,
        "metrics": {name: asdict(metric) for name, metric in METRICS.items()},
        "models": [
            {
                "name": model.path.name,
                "sha256": model.digest,
                "preset": model.card["preset"]["name"],
                "steps": model.card.get("steps"),
                "styles": model.card["styles"],
                "any_style": has_style_bank(model.card),
                "scores": [asdict(score) for score in of],
            }
            for model, of in zip(models, found, strict=True)
        ],
    }


def _left_out(options: EvaluationOptions, trained: Sequence[Style]) -> list[str]:
    """What was not measured, and why."""
    lines = []
    if options.features is None:
        lines.append("The kernel distance (KID): no VGG weights were given (--feature-weights).")
    if not options.segmenter_steps:
        lines.append("Label consistency: no U-Net was trained (--segmenter-steps 0).")
    lines += [
        f"The Fréchet and kernel distances in the trained style {style.name}: it has one slice, which is no set."
        for style in trained
        if len(style.pictures) < 2
    ]
    return lines


class _Progress:
    """Counts steps of the U-Net's training, and slices in styles."""

    def __init__(self, report: Report, stopping: Callable[[], bool], total: int) -> None:
        self.report, self.stopping, self.total, self.done = report, stopping, total, 0

    def __call__(self) -> None:
        self.done += 1
        self.report({"event": "progress", "done": self.done, "total": self.total, "unit": "step"})
        if self.stopping():
            raise Stopped("Stopped; nothing was written.")


# --- what is compared -------------------------------------------------------------------------------------------------


def _check_alike(models: Sequence[Model]) -> None:
    first = models[0]
    for model in models[1:]:
        for what, a, b in (
            ("size", first.G.size, model.G.size),
            ("HU range", first.hu, model.hu),
            ("organ table", _organs(first), _organs(model)),
        ):
            if a != b:
                raise InputError(
                    f"{first.path.name} and {model.path.name} differ in their {what}, so they can't stand side by side:"
                    " evaluate them one by one."
                )


def _organs(model: Model) -> list[tuple[str, int]]:
    """What a model's maps are made of; which segments are taken for it matters to cases alone."""
    return [(organ.name, organ.gray) for organ in model.anatomy.organs]


def _patients(
    options: EvaluationOptions, unseen: Sequence[CaseFiles], train: Sequence[CaseFiles], models: Sequence[Model]
) -> Callable[[str], str]:
    """Case id -> patient. Raises InputError where a patient is both unseen and in training, or one alone is unseen."""
    known = read_splits(options.splits, [files.case_id for files in (*unseen, *train)]).patients

    def patient(case_id: str) -> str:
        return known.get(case_id, case_id)

    held_out = {patient(files.case_id): files.case_id for files in unseen}
    seen = [(str(options.train_cases), files.case_id) for files in train]
    for model in models:
        seen += [(f"the training of {model.path.name}", c) for c in (*model.card["cases"], *model.card["styles"])]
    for where, case in seen:
        if same := held_out.get(patient(case)):
            raise InputError(
                f"The patient {patient(case)} is in {options.cases} (case {same}) and in {where} (case {case}): "
                "evaluate on patients that no model has seen."
            )
    if len(held_out) < 2:
        raise InputError(f"{options.cases} has cases of one patient alone: real against real needs two or more.")
    return patient


def _read(files: CaseFiles, patient: Callable[[str], str], model: Model, lacks: Lacks, count: int) -> RealCase:
    case = files.read(model.anatomy)
    lacks.add(case)
    slices = training_slices(case, model.anatomy, model.G.size, count, model.hu)
    pictures = [Picture(model.hu.to_hu(one.x[0, 0]).numpy(), one.labels.numpy()) for one in slices]
    return RealCase(files, patient(files.case_id), tuple(slices), tuple(pictures))


def _own_style(model: Model, train: Sequence[RealCase]) -> Style | None:
    """What a model with one look was trained for; None for a model that takes any style. InputError: it isn't there."""
    if has_style_bank(model.card):
        return None
    cases = {case.name: case for case in train}
    for name in model.card["styles"]:
        if name not in cases:
            raise InputError(
                f"{model.path.name} was trained for the style {name}, which is not among the training cases: give the "
                "folder that it was trained with as --train-cases."
            )
    return Style(tuple(cases[name] for name in model.card["styles"]))


def _pairs(
    model: Model, unseen: Sequence[RealCase], trained: dict[str, Style]
) -> Iterator[tuple[str, RealCase, Style]]:
    """Which contents the model draws in which styles."""
    bank = has_style_bank(model.card)
    own = ", ".join(model.card["styles"])
    for content in unseen:
        for other in unseen:
            if bank and other.patient != content.patient:
                yield "unseen", content, Style((other,))
        for name, style in trained.items():
            if bank or name == own:
                yield "trained", content, style
