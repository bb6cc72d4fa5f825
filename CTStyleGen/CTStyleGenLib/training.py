"""Training a model from Slicer: what is asked for, checked, and begun. What becomes of it is in `training_run`."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from CTStyleGenCore import background
from CTStyleGenCore.anatomy import Anatomy, load_anatomy
from CTStyleGenCore.errors import InputError
from CTStyleGenCore.estimates import Estimate, estimate, steps_of
from CTStyleGenCore.presets import DEFAULT, Preset, load_preset
from slicer.i18n import tr as _

from .models import featureWeights, modelPath, trainingsFolder
from .training_cases import (
    CaseChecks,
    TrainingCase,
    casesIn,
    exportCases,
    requireCases,
    requireLearnable,
    sliceCounts,
    styleNames,
)
from .training_run import Training

SIZES = (64, 128, 256, 512, 1024)  # pixels of a slice's side
_CHECKPOINT_SECONDS = 10.0  # with each a new preview
_TABLE_FILE = "organs.json"  # a copy of the organ table, for a training that goes on when the user's file has changed


@dataclass(frozen=True)
class TrainingCheck:
    """What `check` found."""

    problems: tuple[str, ...]  # a sentence for everything that isn't as it should be
    estimate: Estimate | None  # what it would need; None where it can't start

    @property
    def ready(self) -> bool:
        """Whether it would start."""
        return self.estimate is not None


@dataclass(frozen=True)
class TrainingOptions:
    """What a training is asked for, besides its cases; None: as the preset has it, or the command's default."""

    name: str  # of the model
    styles: Sequence[Any]  # names of cases, or CT nodes of cases
    preset: str = DEFAULT
    size: int = 256  # pixels, of a slice's side
    epochs: int | None = None
    steps: int | None = None  # instead of epochs
    device: str = "auto"
    features: str = "auto"
    featureWeights: str | Path | None = None
    download: bool = False
    seed: int = 0
    outlives: bool = False  # whether it goes on when Slicer ends
    anatomy: str | Path | None = None  # organ table: name or file; None: the preset's


def trainings() -> list[Training]:
    """All trainings of the models folder, the one that was started last first, whether at work or not."""
    return Training.allIn(trainingsFolder())


def check(cases: list[TrainingCase] | Path, options: TrainingOptions, checks: CaseChecks) -> TrainingCheck:
    """Whether `start` would work with these, what it would need, and what it would leave out. Changes nothing."""
    try:
        preset, pairs, names = _require(cases, options)
        anatomy = _table(options, preset)
        problems = [problem for case in pairs for problem in checks.problems(case, anatomy)]
    except InputError as error:
        return TrainingCheck((str(error),), None)
    slices = list(sliceCounts(pairs)) or [preset.slices_per_case] * len(names)
    hasOneStyle = len(options.styles) == 1 and not preset.style_bank
    steps = options.steps or steps_of(preset, slices, options.epochs, hasOneStyle)
    return TrainingCheck(tuple(problems), estimate(preset, options.size, steps, options.device))


def start(cases: list[TrainingCase] | Path, options: TrainingOptions) -> Training:
    """Starts a training and returns it at once; the model will be NAME.ctstyle in the models folder.

    Raises InputError for what `check` finds wrong, and JobError when no process can be started; then nothing is left.
    """
    preset, pairs, _names = _require(cases, options)
    anatomy = _table(options, preset)
    model = modelPath(options.name)
    folder = _folderOf(model)
    folder.parent.mkdir(exist_ok=True)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError as error:  # another Slicer's, since it was looked for
        raise _taken(model) from error
    try:
        caseFolder = cases if isinstance(cases, Path) else folder / background.CASES
        if pairs:
            caseFolder.mkdir(mode=0o700)
            exportCases(pairs, caseFolder, anatomy)
        styles = styleNames(options.styles, pairs)
        table = folder / _TABLE_FILE
        table.write_text(json.dumps(anatomy.to_json()), encoding="utf-8")
        return Training.begin(folder, model, _trainOptions(caseFolder, table, styles, options), options.outlives)
    except BaseException:
        shutil.rmtree(folder)
        raise


def _require(
    cases: list[TrainingCase] | Path, options: TrainingOptions
) -> tuple[Preset, list[TrainingCase], list[str]]:
    """The preset, the pairs (none for a folder) and the names of the cases; InputError for what can't work."""
    preset = load_preset(options.preset)
    pairs = [] if isinstance(cases, Path) else cases
    requireCases(pairs)
    names = [one.case_id for one in casesIn(cases)] if isinstance(cases, Path) else [case.name for case in pairs]
    requireLearnable(pairs, names, styleNames(options.styles, pairs), preset)
    _requireOptions(options)
    _requireFree(modelPath(options.name))
    return preset, pairs, names


def _table(options: TrainingOptions, preset: Preset) -> Anatomy:
    """The organ table asked for. Raises InputError when there is none, or its file is none."""
    if options.anatomy == Path():
        raise InputError(_("No organ table is chosen: choose its file."))
    return load_anatomy(options.anatomy or preset.anatomy)


def _requireOptions(options: TrainingOptions) -> None:
    if options.size not in SIZES:
        text = _("The size {size} is not possible: choose {sizes}.")
        raise InputError(text.format(size=options.size, sizes=", ".join(map(str, SIZES))))
    for value, what in ((options.epochs, _("number of epochs")), (options.steps, _("number of steps"))):
        if value is not None and value < 1:
            raise InputError(
                _("The {what} {value} is not possible: it must be at least 1.").format(what=what, value=value)
            )
    if options.featureWeights and not Path(options.featureWeights).is_file():
        raise InputError(
            _("The feature weights {file} don't exist: choose another file.").format(file=options.featureWeights)
        )


def isTaken(model: Path) -> bool:
    """Whether there is such a model already, or a training of it."""
    return model.exists() or _folderOf(model).exists()


def _folderOf(model: Path) -> Path:
    """The folder of the model's training."""
    return trainingsFolder() / model.stem


def _requireFree(model: Path) -> None:
    """Raises InputError when a model or a training has that name."""
    if model.exists():
        raise InputError(_("There is a model named '{name}' already: choose another name.").format(name=model.stem))
    if isTaken(model):
        raise _taken(model)


def _taken(model: Path) -> InputError:
    text = _("There is a training of '{name}' already: resume it, discard it, or choose another name.")
    return InputError(text.format(name=model.stem))


def _trainOptions(cases: Path, table: Path, styles: Sequence[str], options: TrainingOptions) -> dict[str, Any]:
    """The options of the command train. VGG weights that are in the models folder are used without asking."""
    weights = options.featureWeights
    if weights is None and options.features in ("auto", "vgg19"):
        weights = featureWeights()
    return {
        "cases": str(cases),
        "style": ",".join(styles) or None,
        "preset": options.preset,
        "anatomy": str(table),
        "size": options.size,
        "epochs": options.epochs,
        "steps": options.steps,
        "device": options.device,
        "features": options.features,
        "feature_weights": str(Path(weights).absolute()) if weights else None,
        "download": options.download,
        "seed": options.seed,
        "checkpoint_seconds": _CHECKPOINT_SECONDS,
    }
