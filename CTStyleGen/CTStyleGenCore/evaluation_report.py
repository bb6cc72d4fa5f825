"""The scoreboard as one HTML page: numbers of the models side by side, and images, the worst ones first."""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from itertools import permutations

import numpy as np

from .evaluation import Board
from .model_scores import METRICS, Made, Score
from .png import png

WINDOWS = {"lung": (-1350.0, 150.0), "soft tissue": (-160.0, 240.0)}  # HU of black and white
_STYLES = {
    "unseen": "Styles of unseen patients, taken when the model is used",
    "trained": "Styles that a model with one look was trained for",
    "own": "Volumes: neighboring slices in one style",
}
_ARROWS = {"less": "less is better", "more": "more is better", "real": "near real is better"}
_CSS = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; color: #1c2126; }
h2 { margin-top: 2.5rem; } table { border-collapse: collapse; margin: 0.5rem 0 1rem; }
th, td { padding: 0.2rem 0.8rem; text-align: right; border-bottom: 1px solid #d8dde2; }
th:first-child, td:first-child { text-align: left; } .real, .note { color: #68727c; }
.best { font-weight: 600; } .worse { color: #b3261e; }
figure { display: inline-block; margin: 0 0.4rem 0.6rem 0; } figcaption { font-size: 13px; }
img { display: block; width: 256px; height: 256px; background: #000; }
"""


def page(board: Board) -> str:
    """The page, self-contained: no script, no link, images in it."""
    told = board.told
    models = _names(told)
    parts = [
        "<!DOCTYPE html><html lang='en'><head><meta charset='utf-8'><title>CTStyleGen: scoreboard</title>",
        f"<style>{_CSS}</style></head><body><h1>Scoreboard</h1>",
        "<p>Images named <em>synthetic</em> are made by a model. For research use only, not for diagnosis.</p>",
        _setting(told),
    ]
    for styles, title in _STYLES.items():
        by_model = {
            model: [score for score in of if score.styles == styles]
            for model, of in zip(models, board.scores, strict=True)
        }
        names = [model for model in models if by_model[model]]
        if names:
            columns = [by_model[name] for name in names]
            parts += [f"<h2>{title}</h2>", *(part(names, columns) for part in (_wins, _overview, _details))]
    for model, made in zip(models, board.made, strict=True):
        parts += [f"<h2>Images of {escape(model)}</h2>", _examples(made)]
    return "\n".join([*parts, "</body></html>\n"])


def _names(told: dict) -> list[str]:
    """The models' file names; with a number where two have the same."""
    names = [model["name"] for model in told["models"]]
    return [
        name if names.count(name) == 1 else f"{name} ({names[: place + 1].count(name)})"
        for place, name in enumerate(names)
    ]


def _setting(told: dict) -> str:
    """What was compared, and what was not."""
    rows = [
        [name, model["preset"], model["steps"] or "", "any" if model["any_style"] else ", ".join(model["styles"])]
        for name, model in zip(_names(told), told["models"], strict=True)
    ]
    unseen, train = (
        ", ".join(f"{case} ({info['slices']})" for case, info in told[name].items()) for name in ("unseen", "train")
    )
    patients = len({info["patient"] for info in told["unseen"].values()})
    lines = [
        f"{told['size']} x {told['size']} pixels, seed {told['seed']}, CTStyleGen {told['version']}.",
        f"Unseen: {patients} patients; cases (slices) {unseen}.",
        f"Training cases (slices): {train}.",
        *(f"Left out: {line}" for line in told["left_out"]),
    ]
    text = "".join(f"<p class='note'>{escape(line)}</p>" for line in lines)
    return _table(["model", "preset", "steps", "styles"], [[escape(str(v)) for v in row] for row in rows]) + text


def _wins(models: Sequence[str], columns: Sequence[Sequence[Score]]) -> str:
    """Of each two models, in how many of the rows that both have the first is the better one."""
    lines = []
    for (a, mine), (b, others) in permutations(zip(models, columns, strict=True), 2):
        rows = _common(mine, others)
        if rows:
            won = sum(one.beats(other) for one, other in rows)
            lines.append(f"<p>{escape(a)} is better than {escape(b)} in {won} of {len(rows)} rows.</p>")
    return "".join(lines)


def _common(mine: Iterable[Score], others: Iterable[Score]) -> list[tuple[Score, Score]]:
    known = {(score.metric, score.organ): score for score in others}
    return [(score, known[score.metric, score.organ]) for score in mine if (score.metric, score.organ) in known]


def _overview(models: Sequence[str], columns: Sequence[Sequence[Score]]) -> str:
    """A row a metric: means over organs."""
    rows = []
    for name, metric in METRICS.items():
        means = [_mean([score for score in of if score.metric == name]) for of in columns]
        if any(means):
            unit = f", {metric.unit}" if metric.unit else ""
            rows.append([f"{escape(metric.title)}{unit} <span class='note'>({_ARROWS[metric.better]})</span>"])
            rows[-1] += _cells(means)
    note = "Means over organs. In brackets: real against real; red: further away than that."
    return f"<p class='note'>{note}</p>" + _table(["", *map(escape, models)], rows)


def _mean(found: Sequence[Score]) -> Score | None:
    if not found:
        return None
    reals = [score.real for score in found if score.real is not None]
    real = float(np.mean(reals)) if reals else None
    return Score(found[0].styles, found[0].metric, "mean", float(np.mean([score.value for score in found])), real)


def _details(models: Sequence[str], columns: Sequence[Sequence[Score]]) -> str:
    """A table a metric that is measured by organ."""
    tables = []
    for name, metric in METRICS.items():
        by_organ = [{score.organ: score for score in of if score.metric == name} for of in columns]
        organs = list(dict.fromkeys(organ for of in by_organ for organ in of))
        if len(organs) > 1:
            rows = [[escape(organ), *_cells([of.get(organ) for of in by_organ])] for organ in organs]
            unit = f", {metric.unit}" if metric.unit else ""
            tables.append(f"<h3>{escape(metric.title)}{unit}</h3>" + _table(["", *map(escape, models)], rows))
    return f"<details open><summary>By organ</summary>{''.join(tables)}</details>" if tables else ""


def _cells(found: Sequence[Score | None]) -> list[str]:
    """Numbers with the real one in brackets; the best of several stands out."""
    there = [score for score in found if score is not None]
    cells = []
    for score in found:
        if score is None:
            cells.append("")
            continue
        best = len(there) > 1 and not any(other.beats(score) for other in there)
        is_worse = METRICS[score.metric].better == "less" and score.real is not None and score.value > score.real
        kinds = " ".join(kind for kind, holds in (("best", best), ("worse", is_worse)) if holds)
        real = "" if score.real is None else f" <span class='real'>({score.real:.3g})</span>"
        cells.append(f"<span class='{kinds}'>{score.value:.3g}</span>{real}")
    return cells


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["<table><tr>" + "".join(f"<th>{cell}</th>" for cell in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows]
    return "".join([*lines, "</table>"])


# --- images -----------------------------------------------------------------------------------------------------------


def _examples(made: Sequence[Made]) -> str:
    """The three worst, a middle one and the best, by their distances to the style in units of the real one's."""
    ordered = sorted(made, key=lambda one: -one.badness)
    places = [0, 1, 2, len(ordered) // 2, len(ordered) - 1]
    titles = ("Worst", "Second worst", "Third worst", "Middle", "Best")
    shown = {place: title for place, title in reversed(list(zip(places, titles, strict=True))) if place < len(ordered)}
    parts = ["<p class='note'>Ordered by the mean of all distances to the style, in units of the real CT's own.</p>"]
    for place in sorted(shown):
        one = ordered[place]
        parts.append(
            f"<h3>{shown[place]}: anatomy of {escape(one.content.name)}, style of {escape(one.style.name)} "
            f"<span class='note'>({one.badness:.2f})</span></h3>"
        )
        images = {
            "real CT of the anatomy": one.real.hu,
            "real CT of the style": one.style.pictures[0].hu,
            "synthetic": one.picture.hu,
            "synthetic, another noise code": one.codes[-1],
        }
        for window, (low, high) in WINDOWS.items():
            figures = (_figure(hu, low, high, f"{name}, {window}") for name, hu in images.items())
            parts.append(f"<div>{''.join(figures)}</div>")
    return "".join(parts)


def _figure(hu: np.ndarray, low: float, high: float, caption: str) -> str:
    image = f"<img src='{_png(hu, low, high, caption)}' alt='{caption}'>"
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def _png(hu: np.ndarray, low: float, high: float, caption: str) -> str:
    """An image in a window, as a data URL; it says what it shows, wherever it is saved."""
    grays = (np.clip((hu - low) / (high - low), 0, 1) * 255).round().astype(np.uint8)
    return "data:image/png;base64," + base64.b64encode(png(grays, f"CTStyleGen: {caption}")).decode()
