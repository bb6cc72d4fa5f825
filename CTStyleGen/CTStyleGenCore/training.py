"""A training run: from cases on disk to a model file, with checkpoints, reports and good order at every end."""

import json
import math
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import torch

from . import __version__
from .anatomy import Anatomy, load_anatomy
from .checkpoint import checkpoint_path, flat_state, load_flat_state, read_checkpoint, write_checkpoint
from .devices import Computing, free_memory, memory_told
from .errors import InputError, OutOfMemory, Stopped, TrainingFailed
from .files import require_file_place
from .memorisation import measured, samples
from .model_file import write_model
from .networks import is_valid_size
from .perceptual import FeatureWeights
from .png import write_png
from .presets import Preset
from .ranks import Ranks
from .reporting import Report
from .slices import HuRange
from .style_trainer import StyleTrainer
from .trainer import Trainer
from .training_data import TrainingData, load_training_data
from .training_metrics import style_distances

_REPORT_SECONDS = 0.5
_SAVING_SHARE = 0.05  # of the time, for checkpoints after epochs, which can be as short as writing one
_AGREE_STEPS = 10  # several processes ask each other as often whether to stop
_WORDS = {  # for what a checkpoint tells, where another one is asked for
    "anatomy": "another organ table",
    "preset": "another preset",
    "features": "other features",
    "styles": "other styles",
    "cases": "other cases",
    "slices": "another number of slices",
    "size": "another size",
    "batch": "another batch",
    "precision": "another precision",
    "seed": "another seed",
}


@dataclass(frozen=True)
class TrainingOptions:
    """What a run is told besides its preset."""

    cases: Path
    styles: tuple[str, ...]  # case ids; none: all, for a preset that has a style bank
    output: Path
    size: int = 512
    epochs: int | None = None  # None: the preset's length
    steps: int | None = None  # instead of epochs
    slices_per_case: int | None = None  # None: the preset's
    batch: int = 1  # slices of a step in each process
    seed: int = 0
    resume: bool = False
    checkpoint_seconds: float = 30.0  # at most, from one checkpoint to the next; there are more, see _Saving
    computing: Computing = field(default_factory=Computing)
    preview: Path | None = None  # a PNG that shows how far the generator is
    anatomy: str | None = None  # organ table: name or file; None: the preset's


def train(
    options: TrainingOptions,
    preset: Preset,
    weights: FeatureWeights,
    report: Report,
    stopping: Callable[[], bool],
    ranks: Ranks | None = None,
) -> Path:
    """A whole run, from cases on disk to a model file; returns the model's path.

    ``stopping`` is asked after every step. Of several ``ranks`` the first alone writes and reports. A run that lacks
    memory goes on with less; several, which compute alike, end. Raises InputError for bad input or a full disk, Stopped
    after ``stopping`` (the checkpoint is written), TrainingFailed when a loss or a weight is no number any more,
    OutOfMemory; then the last good checkpoint stands.
    """
    _check_options(options, preset)
    ranks = ranks or Ranks()
    report = report if ranks.first else _silent
    anatomy, hu = load_anatomy(options.anatomy or preset.anatomy), HuRange()
    preset = replace(preset, anatomy=anatomy.name)
    data = _read(options, preset, anatomy, hu)
    for doubt in data.doubts:
        report({"event": "notice", "message": doubt})
    description = _description(options, preset, anatomy, weights, data, options.batch * ranks.count)
    trainer_of = StyleTrainer if preset.style_bank else Trainer
    steps = options.steps or preset.steps(len(data.contents), options.epochs, options.batch * ranks.count)
    make = partial(trainer_of, preset, anatomy, weights, data, options.size, options.seed)

    def attempt(computing: Computing, resume: bool, report: Report) -> None:
        run = _Run(make(computing, options.batch, ranks, steps), description, checkpoint_path(options.output), report)
        _whole(run, options, resume, stopping, hu)

    _with_less_and_less(attempt, options, ranks.count == 1, report)
    return options.output


def _read(options: TrainingOptions, preset: Preset, anatomy: Anatomy, hu: HuRange) -> TrainingData:
    slices = options.slices_per_case or preset.slices_per_case
    chosen = options.size, slices, preset.style_slices
    data = load_training_data(options.cases, options.styles, anatomy, *chosen, hu, preset.style_bank)
    return data.without_tables() if preset.style_bank else data


def _with_less_and_less(
    attempt: Callable[[Computing, bool, Report], None], options: TrainingOptions, alone: bool, report: Report
) -> None:
    """Attempts a run with less memory each time, from the last checkpoint that it has written. OutOfMemory at the end.

    From a checkpoint, not from the step that failed: it may have changed one of the players.
    """
    computing, resume = options.computing, options.resume

    def told(event: dict[str, Any]) -> None:
        nonlocal resume
        resume |= event["event"] == "checkpoint"
        report(event)

    while True:
        try:
            with memory_told(_memory_advice(options)):
                return attempt(computing, resume, told)
        except OutOfMemory:
            less = computing.with_less_memory(options.batch)
            if less is None or not alone:
                raise
        free_memory()
        report({"event": "notice", "message": _told_of_less(computing, less, resume)})
        computing = less


def _whole(run: "_Run", options: TrainingOptions, resume: bool, stopping: Callable[[], bool], hu: HuRange) -> None:
    """From the first step, or with ``resume`` from the checkpoint, to the model file."""
    trainer = run.trainer
    if resume:
        run.resume()
    else:
        run.calibrate()
    losses = run.go_on(options, stopping)
    if trainer.ranks.first:
        run.check_weights()
        drawn = samples(trainer.data, trainer.drawn, trainer.anatomy, trainer.preset.noise_size, options.seed)
        found = measured(drawn, trainer.data)
        run.report({"event": "memorisation", **found.card(), "message": found.told})
        metrics = style_distances(drawn, trainer.anatomy, hu)
        card = _card(trainer, run.description, losses, hu) | {"metrics": metrics, "memorisation": found.card()}
        write_model(options.output, trainer.G_average.state_dict(), card)
        run.checkpoint.unlink(missing_ok=True)


def _told_of_less(computing: Computing, less: Computing, resume: bool) -> str:
    how = f"with {less.at_once} of a step's slices at once, to the same result"
    if less.device != computing.device:
        how = "on the CPU"
    since = "the last checkpoint" if resume else "the first step"
    return f"The memory of {computing.device} is not enough: going on from {since} {how}."


def _silent(event: dict[str, Any]) -> None:
    """The report of all processes but the first."""


def _memory_advice(options: TrainingOptions) -> str:
    smaller = f"train with a --size below {options.size}"
    if options.batch > 1:
        smaller = f"train with a --batch below {options.batch}"
    elsewhere = ", or with --device cpu" if options.computing.device != "cpu" else ""
    return f"{smaller}{elsewhere}; the last checkpoint, if there is one, is kept"


def _check_options(options: TrainingOptions, preset: Preset) -> None:
    if not options.styles and not preset.style_bank:
        raise InputError(f"The preset {preset.name} learns one look: give --style, the case to take it from.")
    if not is_valid_size(options.size):
        raise InputError(f"The size {options.size} is not possible: choose 64, 128, 256, 512 or 1024.")
    require_file_place(options.output)
    if options.preview is not None:
        if options.preview.suffix.lower() != ".png":
            raise InputError(f"The preview {options.preview} can't be written: its name must end in .png.")
        require_file_place(options.preview)
    for name in ("epochs", "steps", "slices_per_case", "batch"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InputError(f"{name} = {value} is not possible: it must be at least 1.")
    if not options.checkpoint_seconds >= 0:
        raise InputError(f"{options.checkpoint_seconds} seconds between checkpoints is not possible: 0 or more is.")


class _Saving:
    """When a checkpoint is due: after each epoch, as far as that takes little of the time, and every some seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._took, self._last = seconds, 0.0, time.monotonic()

    def is_due(self, epoch_ended: bool) -> bool:
        since = time.monotonic() - self._last
        return since >= self._seconds or (epoch_ended and since * _SAVING_SHARE >= self._took)

    @contextmanager
    def noted(self) -> Iterator[None]:
        start = time.monotonic()
        yield
        self._last = time.monotonic()
        self._took = self._last - start


@dataclass(frozen=True)
class _Run:
    """A trainer on its way, its checkpoint, and whom it reports to."""

    trainer: Trainer
    description: dict[str, Any]  # what must be the same for a resumed run
    checkpoint: Path
    report: Report

    def calibrate(self) -> None:
        norms = self.trainer.calibrate()
        weights = dict(zip(self.trainer.terms, self.trainer.loss_weights, strict=True))
        self.report({"event": "calibrated", "gradient_norms": norms, "weights": weights})

    def go_on(self, options: TrainingOptions, stopping: Callable[[], bool]) -> dict[str, float]:
        """Steps until the last, with checkpoints and reports on the way; returns the last losses."""
        trainer, total, first, start = self.trainer, self.trainer.steps, self.trainer.step, time.monotonic()
        saving, last_report = _Saving(options.checkpoint_seconds), start
        terms: dict[str, torch.Tensor] = {}  # the last of each: a step may be without some
        losses: dict[str, float] = {}
        while trainer.step < total:
            terms |= trainer.train_step()
            now, ended, stop = time.monotonic(), trainer.step == total, self._stop(stopping)
            save = not ended and (stop or saving.is_due(self._epoch_ended()))
            if ended or save or now - last_report >= _REPORT_SECONDS:
                losses = _finite({name: term.item() for name, term in terms.items()}, trainer.step)
                done, all_done = trainer.work(trainer.step), trainer.work(total)
                left = (now - start) / (done - trainer.work(first)) * (all_done - done)
                progress = {"done": trainer.step, "total": total, "losses": dict(losses), "seconds_left": left}
                self.report({"event": "progress"} | progress)
                last_report = now
            if save:
                with saving.noted():
                    self.save(options.preview)
            if stop and not ended:
                raise Stopped(f"Stopped at step {trainer.step} of {total}: go on with --resume.")
        return losses

    def _epoch_ended(self) -> bool:
        """Whether the last step has drawn the last slice of an epoch."""
        drawn, epoch = self.trainer.step * self.trainer.global_batch, len(self.trainer.data.contents)
        return drawn % epoch < self.trainer.global_batch

    def _stop(self, stopping: Callable[[], bool]) -> bool:
        """Whether to stop, in all processes at the same step."""
        ranks = self.trainer.ranks
        if ranks.count > 1 and self.trainer.step % _AGREE_STEPS:
            return False
        return ranks.any(stopping())

    def save(self, preview: Path | None) -> None:
        """Writes the checkpoint and a preview, in the first process only. TrainingFailed rather than what is broken."""
        if not self.trainer.ranks.first:
            return
        self.check_weights()
        told = {"step": self.trainer.step, "loss_weights": self.trainer.loss_weights}
        write_checkpoint(self.checkpoint, flat_state(self.trainer.parts()), self.description | told)
        self.report({"event": "checkpoint", "step": self.trainer.step})
        if preview is not None:
            self._show(preview)

    def _show(self, path: Path) -> None:
        """Writes a content slice's map, the CT drawn from it by now, and its real CT, side by side, as a PNG."""
        grays = (self.trainer.example() + 1) * 127.5
        told = f"A map, synthetic CT drawn from it by CTStyleGen {__version__}, and its real CT, side by side."
        write_png(path, grays.round().byte().numpy(), told)
        self.report({"event": "preview", "step": self.trainer.step, "path": str(path)})

    def check_weights(self) -> None:
        """Raises TrainingFailed when the last update, after the losses were told, has broken a network."""
        for name, t in flat_state(self.trainer.parts()).items():
            if not torch.isfinite(t).all():
                raise _no_number(name, self.trainer.step)

    def resume(self) -> None:
        """Goes on from the checkpoint. Raises InputError when there is none, or it is another run's or damaged."""
        trainer = self.trainer
        state, saved = read_checkpoint(self.checkpoint)
        saved = {"anatomy": _grays(load_anatomy(Preset.anatomy))} | saved  # for long there was no other table
        if differing := [key for key, value in self.description.items() if saved.get(key) != value]:
            raise InputError(
                f"The checkpoint {self.checkpoint} was made with {_WORDS[differing[0]]}: go on with what it was begun "
                "with."
            )
        try:
            load_flat_state(trainer.parts(), state)
            trainer.step, trainer.loss_weights = int(saved["step"]), tuple(float(w) for w in saved["loss_weights"])
            if trainer.step < 0 or len(trainer.loss_weights) != len(trainer.terms):
                raise ValueError("a step or loss weights that can't be")
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            raise InputError(f"The checkpoint {self.checkpoint} is damaged: remove it and train again.") from error


def _finite(losses: dict[str, float], step: int) -> dict[str, float]:
    for name, value in losses.items():
        if not math.isfinite(value):
            raise _no_number(f"{name} loss", step)
    return losses


def _no_number(what: str, step: int) -> TrainingFailed:
    return TrainingFailed(
        f"The {what} is no number any more at step {step}; the last checkpoint, if there is one, is kept: check the "
        "cases for wrong HU, or train with another seed."
    )


def _description(
    options: TrainingOptions,
    preset: Preset,
    anatomy: Anatomy,
    weights: FeatureWeights,
    data: TrainingData,
    batch: int,
) -> dict[str, Any]:
    """What must be the same for a resumed run, JSON-ready, for the checkpoint and the model card."""
    run = {
        "anatomy": _grays(anatomy),  # a card has the whole table
        "preset": preset.card(),
        "features": weights.card(),
        "styles": options.styles or sorted({one.case_id for one in data.styles}),
        "cases": sorted({one.case_id for one in data.contents}),
        "slices": len(data.contents),
        "size": options.size,
        "batch": batch,
        "precision": options.computing.precision,
        "seed": options.seed,
    }
    return json.loads(json.dumps(run))  # tuples as lists, as a checkpoint gives them back


def _grays(anatomy: Anatomy) -> dict[str, int]:
    """What of an organ table networks learn; codes and aliases, by which segments are recognized, may change."""
    return {organ.name: organ.gray for organ in anatomy.organs}


def _card(trainer: Trainer, run: dict[str, Any], losses: dict[str, float], hu: HuRange) -> dict[str, Any]:
    return run | {
        **trainer.card(run["styles"]),
        "precision": trainer.computing.precision,  # of the last steps, if the memory wasn't enough
        "anatomy": trainer.anatomy.to_json(),
        "hu_range": [hu.low, hu.high],
        "steps": trainer.step,
        "losses": {"weights": dict(zip(trainer.terms, trainer.loss_weights, strict=True)), "last": losses},
        "use": "Synthetic images. For research use only, not for diagnosis.",
        "created": date.today().isoformat(),
        "versions": {"ctstylegen": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }
