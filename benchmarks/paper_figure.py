"""A figure like the paper's Fig. 3, its numbers and its loss curves, by one command:

    python -m benchmarks.paper_figure --data ../shared/data --features vgg16 \
        --weights ../shared/weights/vgg16_imagenet_caffe.safetensors --output figure

Trains the preset ``paper`` on eleven patients with the style of the twelfth, then shows two training anatomies in that
style, zoomed crops, and per organ the Wasserstein-1 distance in HU: result to style beside content to style.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import torch
from CTStyleGenCore.anatomy import load_anatomy
from CTStyleGenCore.cases import read_case
from CTStyleGenCore.devices import Computing
from CTStyleGenCore.losses import GramNorm, OrganGrams, masked_style_loss, organ_grams, organ_pixels
from CTStyleGenCore.perceptual import Features, load_weights
from CTStyleGenCore.presets import load_preset
from CTStyleGenCore.slices import HuRange
from CTStyleGenCore.synthesis import Model
from CTStyleGenCore.training import TrainingOptions, train
from CTStyleGenCore.training_data import TrainingSlice, training_slices
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
    preset = load_preset("paper")
    if options.gram_norm:
        preset = replace(preset, gram_norm=options.gram_norm)
    if options.gradient_ratio:
        preset = replace(preset, gradient_ratio=tuple(options.gradient_ratio))
    model = options.output / "paper.ctstyle"
    settings = TrainingOptions(
        cases, (_STYLE,), model, options.size, steps=options.steps, resume=options.resume, computing=Computing()
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
    style = _slice(model, cases / _STYLE)
    contents = [_slice(model, cases / name) for name in _SHOWN]
    results = [
        torch.cat([model.synthesize(one.labels[None], model.noise_code(0, code)) for code in range(_CODES)])
        for one in contents
    ]
    _draw_figure(contents, results, style, output / "figure.png")
    measured: dict = {"card": {key: model.card[key] for key in ("size", "steps", "losses", "features")}, "organs": {}}
    measured["gram_norm"] = model.card["preset"]["gram_norm"]
    for organ in model.anatomy.organs[1:]:
        look = _hu(style)[style.labels == organ.label]
        rows = []
        for one, codes in zip(contents, results, strict=True):
            inside = one.labels == organ.label
            to_style, from_content = (
                float(wasserstein_distance(hu[inside], look)) for hu in (codes[0].numpy(), _hu(one))
            )
            rows.append({"result_to_style_hu": to_style, "content_to_style_hu": from_content})
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
    norms: tuple[GramNorm, ...] = ("paper", "matched", "area")
    for norm in norms:
        sums = (
            sum(float(masked_style_loss(r, s, norm)) for r, s in zip(grams(x, content.labels), look, strict=True))
            for x in images.values()
        )
        lines.append(f"{norm:8s}" + "  ".join(f"{total:.3g}" for total in sums))
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


def _slice(model: Model, case: Path) -> TrainingSlice:
    return training_slices(read_case(case, model.anatomy), model.anatomy, model.G.size, 1, model.hu)[0]


def _hu(one: TrainingSlice) -> np.ndarray:
    return HuRange().to_hu(one.x[0, 0]).numpy()


def _draw_figure(contents: list[TrainingSlice], results: list[torch.Tensor], style: TrainingSlice, path: Path) -> None:
    """First row: maps, contents, results. Second row: content + style = result, zoomed on spine and heart."""
    figure, axes = plt.subplots(2, 7, figsize=(21, 6.6))
    first = [contents[0].y[0, 0], contents[1].y[0, 0], _hu(contents[0]), _hu(contents[1]), _hu(style)]
    first += [results[0][0].numpy(), results[1][0].numpy()]
    titles = ["map A", "map B", "content A", "content B", "style", "SYNTHETIC A", "SYNTHETIC B"]
    for axis, image, title in zip(axes[0], first, titles, strict=True):
        axis.imshow(image, **(_WINDOW if title[:3] != "map" else {"cmap": "gray"}))
        axis.set_title(title)
    crops = [crop for k in range(2) for crop in ((_hu(contents[k]), contents[k]), (_hu(style), style), None)][:6]
    crops[2], crops[5] = (results[0][0].numpy(), contents[0]), (results[1][0].numpy(), contents[1])
    for axis, (image, of), title in zip(
        axes[1], crops, ["content A", "+ style", "= result A", "content B", "+ style", "= result B"], strict=False
    ):
        axis.imshow(_around_spine(image, of.labels), **_WINDOW)
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
    lines = ["Wasserstein-1 in HU, result to style / content to style"]
    for organ, by_case in measured["organs"].items():
        cells = [f"{row['result_to_style_hu']:6.0f} / {row['content_to_style_hu']:4.0f}" for row in by_case.values()]
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
    parser.add_argument("--gram-norm", choices=("paper", "area", "matched"), help="instead of the preset's")
    parser.add_argument("--gradient-ratio", type=float, nargs=4, metavar="R", help="instead of the preset's")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in the output folder")
    parser.add_argument("--model", type=Path, help="draw and measure this model instead of training one")
    parser.add_argument(
        "--style-losses", action="store_true", help="no training: equation (6) by normalization, printed"
    )
    parser.add_argument("--output", type=Path, default=Path("figure"))
    return parser


if __name__ == "__main__":
    main()
