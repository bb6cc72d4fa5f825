"""A figure like the paper's Fig. 3, its numbers and its loss curves, by one command:

    python -m benchmarks.paper_figure --data ../shared/data --features vgg16 \
        --weights ../shared/weights/vgg16_imagenet_caffe.safetensors --preset paper-relative --output figure

Trains the preset on eleven patients with the style of the twelfth, then shows two training anatomies in that style,
zoomed crops, the same network on perturbed maps, and per organ the Wasserstein-1 distance in HU: result to style beside
content to style.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
from CTStyleGenCore.anatomy import Anatomy, load_anatomy
from CTStyleGenCore.cases import Case, read_case
from CTStyleGenCore.devices import Computing, choose_precision
from CTStyleGenCore.losses import GramNorm, OrganGrams, masked_style_loss, organ_grams, organ_pixels
from CTStyleGenCore.perceptual import Features, load_weights
from CTStyleGenCore.presets import load_preset
from CTStyleGenCore.slices import HuRange
from CTStyleGenCore.synthesis import Model
from CTStyleGenCore.training import TrainingOptions, train
from CTStyleGenCore.training_data import TrainingSlice, training_slices
from CTStyleGenCore.variation import Variations
from scipy.stats import wasserstein_distance

matplotlib.use("Agg")
import matplotlib.pyplot as plt

_STYLE = "A056642-1"  # of all patients the one whose organs differ most from the others' in HU
_LEFT_OUT = ("A056642-2", "Lung_Dx-A0001-L")  # the style's own patient; the same slices as -B in another kernel
_SHOWN = ("TCGA-17-Z034", "TCGA-17-Z011")  # contents A and B
_CODES = 4
_WINDOW = {"vmin": -1000, "vmax": 500, "cmap": "gray"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains (unless --model is given), measures, draws."""
    options = _parser().parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    if options.style_losses:
        print(style_losses(options))
        return
    model = options.model or _trained(options)
    measured = measure(Model(model, "cpu"), options.data / "cases", options.output)
    (options.output / "numbers.json").write_text(json.dumps(measured, indent=2) + "\n")
    print(_table(measured))


def _trained(options: argparse.Namespace) -> Path:
    """Trains on links to the cases, so that each patient is in once; logs the events."""
    cases = options.output / "cases"
    shutil.rmtree(cases, ignore_errors=True)
    cases.mkdir()
    for case in sorted((options.data / "cases").iterdir()):
        if case.name not in _LEFT_OUT:
            (cases / case.name).symlink_to(case.resolve())
    preset = load_preset(options.preset)
    model = options.output / f"{preset.name}.ctstyle"
    settings = TrainingOptions(
        cases,
        (_STYLE,),
        model,
        options.size,
        steps=options.steps,
        resume=options.resume,
        computing=Computing("cpu", choose_precision("auto", "cpu")),
    )
    events: list[dict] = []

    def log(event: dict) -> None:
        events.append(event)
        if event["event"] != "progress" or len(events) % 60 == 0:
            print(json.dumps(event), flush=True)

    train(settings, preset, load_weights(options.features, options.weights), log, lambda: False)
    (options.output / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    _draw_losses([event for event in events if event["event"] == "progress"], options.output / "losses.png")
    return model


def measure(model: Model, cases: Path, output: Path) -> dict:
    """W1 in HU per organ and content, noise diversity in HU; draws figure.png on the way."""
    style, *contents = (_slice(model, read_case(cases / name, model.anatomy)) for name in (_STYLE, *_SHOWN))
    results = [
        torch.cat([model.synthesize(one.labels[None], model.noise_code(0, code)) for code in range(_CODES)])
        for one in contents
    ]
    perturbed = [_slice(model, _perturbed(read_case(cases / name, model.anatomy), model.anatomy)) for name in _SHOWN]
    from_perturbed = [model.synthesize(one.labels[None], model.noise_code(0, 0))[0].numpy() for one in perturbed]
    _draw_figure(contents, results, style, perturbed, from_perturbed, output / "figure.png")
    measured: dict = {"card": {key: model.card[key] for key in ("size", "steps", "losses", "features")}, "organs": {}}
    measured["preset"] = model.card["preset"]
    for organ in model.anatomy.organs[1:]:
        look = _hu(style)[style.labels == organ.label]
        rows = []
        for one, codes, moved, from_moved in zip(contents, results, perturbed, from_perturbed, strict=True):
            images = {"result": (codes[0].numpy(), one), "content": (_hu(one), one), "perturbed": (from_moved, moved)}
            rows.append(
                {
                    f"{name}_to_style_hu": float(wasserstein_distance(hu[of.labels == organ.label], look))
                    for name, (hu, of) in images.items()
                }
            )
        measured["organs"][organ.name] = dict(zip(_SHOWN, rows, strict=True))
    pairs = [(a, b) for a in range(_CODES) for b in range(a)]
    measured["noise_codes_mean_absolute_difference_hu"] = {
        name: float(np.mean([(codes[a] - codes[b]).abs()[one.labels > 0].mean().item() for a, b in pairs]))
        for name, one, codes in zip(_SHOWN, contents, results, strict=True)
    }
    return measured


def style_losses(options: argparse.Namespace) -> str:
    """Equation (6) over the style layers, for content A as it is and with its organs' HU matched to the style's."""
    preset = load_preset("paper")
    anatomy, hu = load_anatomy(preset.anatomy), HuRange()
    style, content = (
        training_slices(read_case(options.data / "cases" / name, anatomy), anatomy, options.size, 1, hu)[0]
        for name in (_STYLE, _SHOWN[0])
    )
    phi = Features(load_weights(options.features, options.weights), preset.style_layers)

    def grams(x: torch.Tensor, labels: torch.Tensor) -> list[OrganGrams]:
        with torch.no_grad():
            maps = phi(x).values()
            return [organ_grams(m[0], organ_pixels(labels, len(anatomy.organs), *m.shape[-2:])) for m in maps]

    look, images = grams(style.x, style.labels), {"as it is": content.x, "HU matched": _matched(content, style)}
    lines = [f"style loss of {_SHOWN[0]} in the style of {_STYLE}: {', '.join(images)}"]
    norms: tuple[GramNorm, ...] = ("paper", "matched", "area", "relative")
    for norm in norms:
        sums = (
            sum(float(masked_style_loss(r, s, norm)) for r, s in zip(grams(x, content.labels), look, strict=True))
            for x in images.values()
        )
        lines.append(f"{norm:10s}" + "  ".join(f"{total:.3g}" for total in sums))
    return "\n".join(lines)


def _matched(content: TrainingSlice, style: TrainingSlice) -> torch.Tensor:
    """The content's x with each organ's values replaced, rank by rank, by the style's."""
    x = content.x.clone()
    for organ in content.labels.unique():
        look = style.x[0, 0][style.labels == organ].sort().values
        inside = content.labels == organ
        if len(look):
            ranks = x[0, 0][inside].argsort().argsort()
            x[0, 0][inside] = look[ranks * len(look) // len(ranks)]
    return x


def _slice(model: Model, case: Case) -> TrainingSlice:
    return training_slices(case, model.anatomy, model.G.size, 1, model.hu)[0]


def _perturbed(case: Case, anatomy: Anatomy) -> Case:
    """The case as another person's: CT and labels moved by 5 mm (claim 3: perturbed boundaries of the segmentation)."""
    varied = Variations(case.labels, anatomy).draw(amount_mm=5, seed=0, number=0, way="deform")
    return Case(case.case_id, varied.warp(case.ct), varied.labels, case.segments)


def _hu(one: TrainingSlice) -> np.ndarray:
    return HuRange().to_hu(one.x[0, 0]).numpy()


def _draw_figure(
    contents: list[TrainingSlice],
    results: list[torch.Tensor],
    style: TrainingSlice,
    perturbed: list[TrainingSlice],
    from_perturbed: list[np.ndarray],
    path: Path,
) -> None:
    """Rows: maps, contents, style, results; content + style = result, zoomed on spine and heart; perturbed maps."""
    figure, axes = plt.subplots(3, 7, figsize=(21, 9.9))
    shown: list[list[tuple[str, np.ndarray]]] = [[], [], []]
    for name, one, codes, moved, drawn in zip("AB", contents, results, perturbed, from_perturbed, strict=True):
        result = codes[0].numpy()
        shown[0] += [(f"map {name}", one.y[0, 0].numpy()), (f"content {name}", _hu(one)), (f"SYNTHETIC {name}", result)]
        pieces = {f"content {name}": (_hu(one), one), "+ style": (_hu(style), style), f"= result {name}": (result, one)}
        shown[1] += [(title, _around_spine(image, of.labels)) for title, (image, of) in pieces.items()]
        shown[2] += [(f"map {name}, perturbed", moved.y[0, 0].numpy()), (f"SYNTHETIC {name}, perturbed", drawn)]
        shown[2] += [(f"= {name}, zoomed", _around_spine(drawn, moved.labels))]
    shown[0].insert(3, ("style", _hu(style)))
    for row, images in zip(axes, shown, strict=True):
        for axis, (title, image) in zip(row, images, strict=False):
            axis.imshow(image, **(_WINDOW if title[:3] != "map" else {"cmap": "gray"}))
            axis.set_title(title)
    for axis in axes.flat:
        axis.axis("off")
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _around_spine(image: np.ndarray, labels: torch.Tensor) -> np.ndarray:
    """A crop of three eighths of the side around the canal, or the bone where there is none."""
    rows, columns = np.nonzero((labels == (5 if (labels == 5).any() else 4)).numpy())
    half = labels.shape[0] * 3 // 16
    row, column = (int(np.clip(np.median(at), half, labels.shape[0] - half)) for at in (rows, columns))
    return image[row - half : row + half, column - half : column + half]


def _draw_losses(progress: list[dict], path: Path) -> None:
    names = ("discriminator", "adversarial", "style", "content", "total_variation")
    figure, axes = plt.subplots(1, len(names), figsize=(20, 3.2))
    for axis, name in zip(axes, names, strict=True):
        axis.plot([e["done"] for e in progress], [e["losses"].get(name, np.nan) for e in progress], linewidth=0.8)
        axis.set(title=name, xlabel="step", yscale="log")
    figure.tight_layout()
    figure.savefig(path, dpi=70)
    plt.close(figure)


def _table(measured: dict) -> str:
    columns = ("result", "content", "perturbed")
    lines = [f"Wasserstein-1 to the style in HU: {', '.join(columns)} of {' and of '.join(_SHOWN)}"]
    for organ, by_case in measured["organs"].items():
        cells = ["".join(f"{row[f'{column}_to_style_hu']:6.0f}" for column in columns) for row in by_case.values()]
        lines.append(f"{organ:14s}" + "   ".join(cells))
    lines.append(f"noise codes: {measured['noise_codes_mean_absolute_difference_hu']}")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with cases/")
    parser.add_argument("--features", default="vgg19", choices=("vgg19", "vgg16", "random"))
    parser.add_argument("--weights", type=Path, help="VGG weights, if not torchvision's published ones")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, help="default: the preset's 100 epochs")
    parser.add_argument("--preset", default="paper", choices=("paper", "paper-relative"))
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in the output folder")
    parser.add_argument("--model", type=Path, help="draw and measure this model instead of training one")
    parser.add_argument(
        "--style-losses", action="store_true", help="no training: equation (6) by normalization, printed"
    )
    parser.add_argument("--output", type=Path, default=Path("figure"))
    return parser


if __name__ == "__main__":
    main()
