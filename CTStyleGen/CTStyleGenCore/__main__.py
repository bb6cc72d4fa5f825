"""The commands of ``python -m CTStyleGenCore``, also installed as ``ctstylegen``: train, synthesize, info, and others.

Exit codes: 0 done; 2 the input is at fault (one line on stderr says what to do); 130 stopped by the user; 1 anything
else.
"""

import argparse
import json
import locale
import os
import re
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from . import __version__, presets
from .environment import lacking
from .errors import InputError, OutOfMemory, Stopped, TrainingFailed, gpu_failure, is_out_of_memory, one_line
from .ranks import joined, launched
from .reporting import Report, Terminal, json_lines

if TYPE_CHECKING:
    from .perceptual import FeatureWeights

_SEEDS = 1 << 53  # what JSON's numbers hold; PyTorch would take some more
_JSON_HELP = "report as JSON lines on stdout"
_DEVICE_HELP = "auto, cpu or cuda (default: %(default)s)"
_SEED_HELP = "the same seed gives the same result (default: %(default)s)"
_DESCRIPTION = "Organ segmentations to CT, in the style of chosen CT scans. For research use only, not for diagnosis."


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    if sys.platform == "win32":
        with suppress(locale.Error):  # Windows before 10
            locale.setlocale(locale.LC_CTYPE, ".UTF8")  # ITK opens files by names in the C library's own encoding
    options = _parser().parse_args(arguments)
    ranks = launched()
    report: Report = json_lines if getattr(options, "json", False) else Terminal()
    if not ranks.first:
        report = _silent
    try:
        if not 0 <= getattr(options, "seed", 0) < _SEEDS:
            raise InputError(f"The seed {options.seed} is not possible: it must be 0 or more, and below 2^53.")
        options.run(options, report)
        return 0
    except InputError as error:
        kind, message, code = "input", str(error), 2
    except ImportError as error:
        if not (lack := lacking(error)):
            raise
        kind, message, code = "input", lack, 2
    except OSError as error:
        if error.filename is None:
            raise
        kind, message, code = "input", one_line(f"{error.filename}: {error.strerror}: check path and permission."), 2
    except (Stopped, KeyboardInterrupt) as error:
        kind, message, code = "stopped", str(error) or "Stopped.", 130
    except TrainingFailed as error:
        kind, message, code = "training", str(error), 1
    except OutOfMemory as error:
        kind, message, code = "memory", str(error), 1
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            kind, message, code = "memory", "The memory is not enough: end other programs, or use another computer.", 1
        elif failure := gpu_failure(error):
            kind, message, code = "gpu", failure, 1
        else:
            raise
    report({"event": "error", "kind": kind, "message": message})
    if not isinstance(report, Terminal):
        print(message if ranks.first else f"Process {ranks.rank}: {message}", file=sys.stderr)
    return code


def _silent(event: dict[str, Any]) -> None:
    """The report of all processes but the first, where several are at one job."""


# --- commands: torch is imported where it is needed, so that help and info answer at once --------------------------


def _train(options: argparse.Namespace, report: Report) -> None:
    from .devices import Computing, choose_precision
    from .tensorboard_logs import also_logged
    from .training import TrainingOptions, train

    preset = presets.load_preset(options.preset)
    weights = _feature_weights(options, report)
    device = _device(options.device)
    train_options = TrainingOptions(
        cases=options.cases,
        styles=tuple(options.style.split(",")) if options.style else (),
        output=options.output,
        anatomy=options.anatomy,
        size=options.size,
        steps=options.steps,
        epochs=options.epochs,
        slices_per_case=options.slices_per_case,
        computing=Computing(device, choose_precision(options.precision, device)),
        batch=options.batch,
        checkpoint_seconds=options.checkpoint_seconds,
        seed=options.seed,
        resume=options.resume,
        preview=options.preview,
    )
    with joined(device) as ranks:
        if options.tensorboard and ranks.first:
            report = also_logged(report, options.tensorboard)
        model = train(train_options, preset, weights, report, _stop_signal(), ranks)
    report({"event": "done", "outputs": [str(model)], "message": f"Wrote {model}."})


def _feature_weights(options: argparse.Namespace, report: Report) -> "FeatureWeights":
    """The network that measures style and content. "auto" says what it chose where that isn't VGG-19."""
    from .perceptual import load_weights, published_path
    from .weights import download_weights

    kind, file = options.features, options.feature_weights
    if kind == "auto":
        kind = "vgg19" if file or options.download or published_path("vgg19").is_file() else "random"
        if kind == "random":
            message = (
                "No VGG-19 weights on this machine: style and content are measured with fixed random filters "
                "(--features random). For ImageNet features give --feature-weights FILE, or --download."
            )
            report({"event": "notice", "message": message})
    if options.download and file is None and kind != "random" and not published_path(kind).is_file():
        file = download_weights(kind, published_path(kind).parent, report)
    return load_weights(kind, file)


def _synthesize(options: argparse.Namespace, report: Report) -> None:
    from .cases import read_ct, read_labels
    from .label_check import lacking
    from .labelling import with_body
    from .synthesis import Model, sample_paths, synthesize_samples
    from .volumes import require_writable, write_volumes

    if options.samples < 1:
        raise InputError(f"{options.samples} samples is not possible: ask for at least one.")
    device = _device(options.device)
    model = Model(options.model, device)
    look = model.look(options.style)
    paths = sample_paths(options.output, options.samples)
    for path in paths:
        require_writable(path)
    reference = read_ct(options.reference) if options.reference else None
    labels, segments = read_labels(options.segmentation, model.anatomy, reference)
    labels, body_found = with_body(labels, model.anatomy, reference)
    report({"event": "started", "segments": [vars(segment) for segment in segments]})
    for what in lacking(segments, model.anatomy, body_found):
        report({"event": "notice", "message": f"{options.segmentation}: {what}"})
    with joined(device) as ranks:
        volumes = synthesize_samples(model, labels, options.samples, options.seed, report, _stop_signal(), look, ranks)
        if ranks.first:
            write_volumes(volumes, paths)
        else:
            for _ in volumes:
                pass
    report({"event": "done", "outputs": [str(p) for p in paths], "message": f"Wrote {', '.join(map(str, paths))}."})


def _body(options: argparse.Namespace, report: Report) -> None:
    from .labelling import find_body
    from .volumes import read_ct, require_writable, write_volume

    require_writable(options.output)

    def progress(done: int, total: int) -> None:
        report({"event": "progress", "done": done, "total": total, "unit": "slice"})

    body = find_body(read_ct(options.ct), progress)
    if body is None:
        raise InputError(
            f"{options.ct} shows no air around a body, or nothing else: give a CT in HU that shows where it ends."
        )
    write_volume(body, options.output)
    report({"event": "done", "outputs": [str(options.output)], "message": f"Wrote {options.output}."})


def _vary(options: argparse.Namespace, report: Report) -> None:
    from .variation_files import VaryOptions, vary

    vary_options = VaryOptions(
        segmentation=options.segmentation,
        output=options.output,
        count=options.count,
        amount_mm=options.amount,
        seed=options.seed,
        way=options.way,
        reference=options.reference,
        warp_reference=options.warp_reference,
        along=options.along,
        cases=options.cases,
        widen=options.widen,
        anatomy=options.anatomy,
    )
    output = vary(vary_options, report, _stop_signal())
    report({"event": "done", "outputs": [str(output)], "message": f"Wrote {output}."})


def _expand(options: argparse.Namespace, report: Report) -> None:
    from .expansion import ExpansionOptions, expand
    from .synthesis import Model

    device = _device(options.device)
    expand_options = ExpansionOptions(
        cases=options.cases,
        per_case=options.per_case,
        output=options.output,
        amount_mm=options.amount,
        seed=options.seed,
        styles=tuple(options.style),
        mix=options.mix,
        splits=options.splits,
        labels=options.labels,
        dicom=options.dicom,
        resume=options.resume,
    )
    model = Model(options.model, device)
    with joined(device) as ranks:
        output = expand(expand_options, model, report, _stop_signal(), ranks)
    report({"event": "done", "outputs": [str(output)], "message": f"Wrote {output}."})


def _evaluate(options: argparse.Namespace, report: Report) -> None:
    from .evaluation import EvaluationOptions, evaluate
    from .perceptual import load_weights

    evaluation_options = EvaluationOptions(
        models=tuple(options.model),
        cases=options.cases,
        train_cases=options.train_cases,
        json=options.result,
        html=options.html,
        splits=options.splits,
        slices=options.slices,
        segmenter_steps=options.segmenter_steps,
        features=load_weights(options.features, options.feature_weights) if options.feature_weights else None,
        seed=options.seed,
        device=_device(options.device),
    )
    evaluate(evaluation_options, report, _stop_signal())
    outputs = [str(path) for path in (options.result, options.html) if path]
    report({"event": "done", "outputs": outputs, "message": f"Wrote {', '.join(outputs)}."})


def _info(options: argparse.Namespace, report: Report) -> None:
    from .model_file import read_card

    card = json.dumps(read_card(options.model), indent=2)
    print(re.sub(r"\[\n[-+.,\deE\s]+\]", lambda numbers: f"[{' '.join(numbers[0][1:-1].split())}]", card))


def _check(options: argparse.Namespace, report: Report) -> None:
    from .environment import check

    check(report)
    report({"event": "done"})


def _install(options: argparse.Namespace, report: Report) -> None:
    from .environment import install

    install(options.packages, options.wheels, options.again, report)
    report({"event": "done", "message": f"Installed {', '.join(options.packages)}."})


def _weights(options: argparse.Namespace, report: Report) -> None:
    from .weights import copy_weights, download_weights

    if options.file:
        path = copy_weights(options.features, options.file, options.folder)
    else:
        path = download_weights(options.features, options.folder, report)
    report({"event": "done", "outputs": [str(path)], "message": f"Wrote {path}."})


def _preview(options: argparse.Namespace, report: Report) -> None:
    from .preview import write_preview
    from .synthesis import Model

    write_preview(Model(options.model, _device(options.device)), options.output)
    report({"event": "done", "outputs": [str(options.output)], "message": f"Wrote {options.output}."})


def _serve(options: argparse.Namespace, report: Report) -> None:
    from .worker import serve

    serve(_device(options.device))


def _device(name: str) -> str:
    """The device to compute on; "auto" is a GPU where one works. Raises InputError when it isn't there."""
    import torch

    from .environment import automatic_device

    devices = ["cpu"]
    if torch.cuda.is_available():
        devices += ["cuda", *(f"cuda:{n}" for n in range(torch.cuda.device_count()))]
    if name == "auto":
        name = "cuda" if "cuda" in devices and launched().count > 1 else automatic_device()
    if name == "cuda" and launched().count > 1:
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"  # a GPU for each process
    if name not in devices:
        raise InputError(f"PyTorch can't use a device {name!r} on this machine: choose from {', '.join(devices)}.")
    return name


def _stop_signal() -> Callable[[], bool]:
    """Whether Ctrl-C or SIGTERM came: the first ends the run in good order, a second Ctrl-C at once.

    Among several processes the second is no different: one Ctrl-C comes twice, from the terminal and from torchrun.
    """
    stopping, alone = False, launched().count == 1

    def stop(signum: int, frame: object) -> None:
        nonlocal stopping
        if stopping and alone and signum == signal.SIGINT:
            raise KeyboardInterrupt
        stopping = True

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    return lambda: stopping


# --- arguments ------------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with an option in one line, as all bad input is told."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {one_line(message)} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="ctstylegen", description=_DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"CTStyleGen {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_train(commands.add_parser("train", help="learn a generator from annotated CT"))
    _add_synthesize(commands.add_parser("synthesize", help="make CT volumes from a segmentation"))
    _add_vary(commands.add_parser("vary", help="make new segmentations from one, as of other people"))
    _add_expand(commands.add_parser("expand", help="make an annotated data set many times the size"))
    _add_evaluate(commands.add_parser("evaluate", help="measure models on patients that they have not seen"))
    _add_body(commands.add_parser("body", help="find the body in a CT, for segmentations without one"))
    info = commands.add_parser("info", help="print a model's card as JSON")
    info.add_argument("model", type=Path, help="a .ctstyle file")
    info.set_defaults(run=_info)
    _add_preview(commands.add_parser("preview", help="draw a small picture of what a model makes"))
    check = commands.add_parser("check", help="say which of the libraries that networks need work here")
    check.add_argument("--json", action="store_true", help=_JSON_HELP)
    check.set_defaults(run=_check)
    _add_install(commands.add_parser("install", help="install libraries that networks need, from wheels if need be"))
    _add_weights(commands.add_parser("weights", help="fetch or check a VGG's ImageNet weights"))
    serve = commands.add_parser("serve", help="answer requests on stdin with the model kept loaded (docs/worker.md)")
    serve.add_argument("--device", default="auto", help=_DEVICE_HELP)
    serve.set_defaults(run=_serve, json=True)
    return parser


def _add_train(train: argparse.ArgumentParser) -> None:
    add = train.add_argument
    add("--cases", type=Path, required=True, metavar="DIR", help="one folder a case, or an nnU-Net raw data set")
    add(
        "--style",
        metavar="CASE[,CASE...]",
        help="the case(s) whose look is learned; with the preset styles, those to choose from later (default: all)",
    )
    add("--output", type=Path, required=True, metavar="M.ctstyle", help="the model to write")
    add(
        "--preset",
        default=presets.DEFAULT,
        help=f"training recipe: {', '.join(presets.PRESETS)} (default: %(default)s)",
    )
    add("--size", type=int, default=512, help="side of the slices in pixels, a power of two (default: %(default)s)")
    length = train.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=int, help="passes over the slices (default: the preset's length)")
    length.add_argument("--steps", type=int, help="steps of --batch slices each, instead of epochs")
    add("--slices-per-case", type=int, metavar="K", help="slices to learn from of each case (default: the preset's)")
    add("--anatomy", metavar="TABLE", help="organ table, name or .json (default: the preset's, thorax)")
    add(
        "--features",
        choices=("auto", "vgg19", "vgg16", "random"),
        default="auto",
        help="the network that measures style and content; random: fixed random filters; auto: vgg19 where its weights "
        "are given, asked for or on this machine, else random, and says so (default: %(default)s)",
    )
    add("--feature-weights", type=Path, metavar="FILE", help=".safetensors or .pth with the VGG's ImageNet weights")
    add(
        "--download",
        action="store_true",
        help="fetch the VGG's weights from pytorch.org if they are not on this machine",
    )
    add(
        "--batch",
        type=int,
        default=1,
        metavar="N",
        help="slices of a step in each process (default: %(default)s, the paper's)",
    )
    add(
        "--precision",
        default="auto",
        help="of the networks' passes: float32, bfloat16, or auto, bfloat16 where hardware has it",
    )
    add(
        "--checkpoint-seconds",
        type=float,
        default=30.0,
        metavar="T",
        help="longest time from checkpoint to checkpoint; epochs end with one, too (default: %(default)s)",
    )
    add("--resume", action="store_true", help="go on from the checkpoint beside the output")
    add("--preview", type=Path, metavar="PNG", help="an image of map, synthetic CT and real CT, renewed on the way")
    add("--tensorboard", type=Path, metavar="DIR", help="write the losses as TensorBoard logs as well")
    _add_common(train)
    train.set_defaults(run=_train)


def _add_synthesize(synthesize: argparse.ArgumentParser) -> None:
    add = synthesize.add_argument
    add("--model", type=Path, required=True, metavar="M.ctstyle", help="a trained model")
    add("--segmentation", type=Path, required=True, metavar="S", help=".seg.nrrd or a label map")
    add(
        "--reference", type=Path, metavar="CT", help="CT whose voxel grid the result gets (default: the segmentation's)"
    )
    add(
        "--style",
        action="append",
        default=[],
        metavar="[ORGAN=]CASE[:WEIGHT]",
        help="whose look to give, to all organs or to one: a style in the model or, with the preset styles, any folder "
        "with a CT and its segmentation; again to mix several (default: the model's styles, all alike)",
    )
    add("--samples", type=int, default=1, metavar="K", help="volumes to make, each of another noise code")
    add(
        "--output", type=Path, required=True, metavar="OUT", help=".nrrd, .nii.gz or .mha; K volumes: OUT-1, OUT-2, ..."
    )
    _add_common(synthesize)
    synthesize.set_defaults(run=_synthesize)


def _add_vary(vary: argparse.ArgumentParser) -> None:
    add = vary.add_argument
    add("--segmentation", type=Path, required=True, metavar="S", help=".seg.nrrd or a label map")
    add(
        "--reference", type=Path, metavar="CT", help="CT whose voxel grid the results get (default: the segmentation's)"
    )
    add("--count", type=int, required=True, metavar="K", help="variations to make")
    add(
        "--amount",
        type=float,
        required=True,
        metavar="MM",
        help="how far anatomy moves, root mean square over the body (for organs: over their surfaces); 0: not at all",
    )
    add("--output", type=Path, required=True, metavar="DIR", help="folder to make: labels-001.nrrd, ..., manifest.csv")
    add(
        "--way",
        default="mixed",
        help="deform: smoothly, everywhere; organs: some grow, shrink or move, and their neighbors give way; "
        "interpolate: toward another of the --cases; shape: toward a person drawn from a shape model of the --cases; "
        "mixed: each in one of these ways (default: %(default)s)",
    )
    add(
        "--cases",
        type=Path,
        metavar="DIR",
        help="other patients, as of train: areas and places of organs stay within theirs and the source's",
    )
    add(
        "--widen",
        type=float,
        default=0.2,
        metavar="SHARE",
        help="how far beyond that range areas may go; lengths and places half as far (default: %(default)s)",
    )
    add("--anatomy", default="thorax", metavar="TABLE", help="organ table, name or .json (default: %(default)s)")
    add("--warp-reference", action="store_true", help="write the reference CT moved alike, as ct-001.nrrd, ...")
    add(
        "--along",
        type=Path,
        metavar="LABELS",
        help="labels of your own, in the same grid, to move alike: along-001.nrrd, ...",
    )
    vary.add_argument("--seed", type=int, default=0, help=_SEED_HELP)
    vary.add_argument("--json", action="store_true", help=_JSON_HELP)
    vary.set_defaults(run=_vary)


def _add_expand(expand: argparse.ArgumentParser) -> None:
    add = expand.add_argument
    add("--model", type=Path, required=True, metavar="M.ctstyle", help="a trained model")
    add("--cases", type=Path, required=True, metavar="DIR", help="one folder a case, or an nnU-Net raw data set")
    add("--per-case", type=int, required=True, metavar="K", help="images to make from each case")
    add("--output", type=Path, required=True, metavar="DATASET", help="folder to make: an nnU-Net raw data set")
    add("--amount", type=float, default=6.0, metavar="MM", help="how far anatomy moves at most (default: %(default)s)")
    add(
        "--style",
        action="append",
        default=[],
        metavar="[ORGAN=]CASE[:WEIGHT]",
        help="the look of all images, as of synthesize (default: the model's styles in turn)",
    )
    add("--mix", action="store_true", help="mix two of the model's styles in each organ of each image")
    add(
        "--splits",
        type=Path,
        metavar="FILE",
        help='JSON, {"train": [CASE, ...], "test": [CASE, ...]}: no patient outside of "train" is used',
    )
    add(
        "--labels",
        default="organs",
        help="values of the labels: organs, the organ table's, or source, those of the cases' own segmentations "
        "(default: %(default)s)",
    )
    add("--dicom", action="store_true", help="write DICOM as well: CT images, and the labels as DICOM SEG")
    add("--resume", action="store_true", help="go on with a data set that was stopped")
    _add_common(expand)
    expand.set_defaults(run=_expand)


def _add_evaluate(evaluate: argparse.ArgumentParser) -> None:
    add = evaluate.add_argument
    add(
        "--model",
        type=Path,
        action="append",
        required=True,
        metavar="M.ctstyle",
        help="a trained model; again for others beside it",
    )
    add("--cases", type=Path, required=True, metavar="DIR", help="cases of patients that no model has seen")
    add("--train-cases", type=Path, required=True, metavar="DIR", help="the cases that the models were trained with")
    add("--json", type=Path, required=True, dest="result", metavar="R.json", help="the numbers to write")
    add("--html", type=Path, metavar="R.html", help="a page of numbers and images to write")
    add(
        "--splits",
        type=Path,
        metavar="FILE",
        help="JSON that tells which cases are of one patient, as of expand (default: each case is a patient)",
    )
    add("--slices", type=int, default=2, metavar="K", help="slices to draw of each unseen case (default: %(default)s)")
    add(
        "--segmenter-steps",
        type=int,
        default=250,
        metavar="N",
        help="training steps of the U-Net that looks for organs; 0: leave that part out (default: %(default)s)",
    )
    add("--features", choices=("vgg19", "vgg16"), default="vgg19", help="whose weights they are (default: %(default)s)")
    add(
        "--feature-weights",
        type=Path,
        metavar="FILE",
        help="a VGG's ImageNet weights, for the kernel distance (default: leave that part out)",
    )
    evaluate.add_argument("--device", default="auto", help=_DEVICE_HELP)
    evaluate.add_argument("--seed", type=int, default=0, help=_SEED_HELP)
    evaluate.set_defaults(run=_evaluate)


def _add_body(body: argparse.ArgumentParser) -> None:
    add = body.add_argument
    add("--ct", type=Path, required=True, help="a CT: a file, or a folder with one DICOM series")
    add(
        "--output", type=Path, required=True, help="the label map to write, 1 in the body: .nrrd, .nii, .nii.gz or .mha"
    )
    add("--json", action="store_true", help=_JSON_HELP)
    body.set_defaults(run=_body)


def _add_preview(preview: argparse.ArgumentParser) -> None:
    preview.add_argument("model", type=Path, help="a .ctstyle file")
    preview.add_argument("--output", type=Path, required=True, metavar="PNG", help="the picture to write")
    preview.add_argument("--device", default="auto", help=_DEVICE_HELP)
    preview.add_argument("--json", action="store_true", help=_JSON_HELP)
    preview.set_defaults(run=_preview)


def _add_install(install: argparse.ArgumentParser) -> None:
    add = install.add_argument
    add("packages", nargs="+", metavar="PACKAGE", help="torch, torchvision, safetensors")
    add("--wheels", type=Path, metavar="DIR", help="install from the wheels in this folder, without any network")
    add("--again", action="store_true", help="also what is installed already, such as a half installed library")
    add("--json", action="store_true", help=_JSON_HELP)
    install.set_defaults(run=_install)


def _add_weights(weights: argparse.ArgumentParser) -> None:
    add = weights.add_argument
    add("--features", choices=("vgg19", "vgg16"), default="vgg19", help="which network's (default: %(default)s)")
    add("--folder", type=Path, required=True, metavar="DIR", help="where to put them")
    source = weights.add_mutually_exclusive_group(required=True)
    source.add_argument("--download", action="store_true", help="from pytorch.org")
    source.add_argument("--file", type=Path, metavar="FILE", help="a copy of this .pth or .safetensors")
    add("--json", action="store_true", help=_JSON_HELP)
    weights.set_defaults(run=_weights)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help=_DEVICE_HELP)
    parser.add_argument("--seed", type=int, default=0, help=_SEED_HELP)
    parser.add_argument("--json", action="store_true", help=_JSON_HELP)


if __name__ == "__main__":
    sys.exit(main())
