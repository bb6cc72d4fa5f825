"""What a model gets on the scoreboard: images of every pair of a content and a style, and the scores of them."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from . import scores
from .anatomy import Organ
from .memorisation import near_copies
from .pictures import Picture, RealCase, Style, looks
from .rulers import Rulers
from .style_codes import mixed
from .styles import has_style_bank
from .synthesis import Look, Model
from .training_data import slices_at
from .volumes import axial, axial_places

WHOLE = "whole slice"  # in place of an organ's name
_CODES = 3  # noise codes whose images are compared
_NEIGHBORS = 6  # slices of a volume, side by side
_STILL_HU = 0.01  # change below this is none


@dataclass(frozen=True)
class Metric:
    """What a score means."""

    title: str
    unit: str
    better: str  # "less", "more" or "real": the nearer to the real value the better


METRICS = {
    "hu": Metric("HU distance to the style (Wasserstein-1)", "HU", "less"),
    "gap": Metric("share of the HU gap closed", "", "more"),
    "texture": Metric("texture distance to the style (GLCM)", "deviations", "less"),
    "noise": Metric("noise spectrum distance to the style", "dB", "less"),
    "frechet": Metric("Fréchet distance to real slices, of first-order and texture features", "", "less"),
    "kid": Metric("kernel distance (KID) to real slices, of VGG features", "", "less"),
    "dice": Metric("label consistency: Dice of an independent U-Net", "", "more"),
    "diversity": Metric("diversity over noise codes", "HU", "more"),
    "coarse": Metric("diversity over noise codes, of means over 4 x 4 pixels", "HU", "more"),
    "separability": Metric("one organ's style changed: change inside over change elsewhere", "", "more"),
    "memorisation": Metric("distance of detail to the nearest training slice over that of real slices", "", "more"),
    "copies": Metric("share of slices that are near copies of a training slice", "", "less"),
    "continuity": Metric("correlation of neighboring slices of a volume", "", "real"),
}


@dataclass(frozen=True)
class Score:
    """One number of the board, and the real one beside it."""

    styles: str  # unseen, trained or own
    metric: str  # a key of METRICS
    organ: str  # its name, or WHOLE
    value: float
    real: float | None  # None: real CT has no such number

    def beats(self, other: "Score") -> bool:
        """Whether this is the better one of two scores of the same thing."""
        better = METRICS[self.metric].better
        if better == "real":
            return abs(self.value - (self.real or 0)) < abs(other.value - (other.real or 0))
        return self.value < other.value if better == "less" else self.value > other.value


@dataclass(frozen=True)
class Made:
    """A slice that a model made of an unseen map in a style."""

    styles: str
    content: RealCase
    real: Picture  # the content's own CT
    style: Style
    picture: Picture
    codes: tuple[np.ndarray, ...]  # HU [S, S] by several noise codes; the first is the picture's
    badness: float  # mean over organs and distances, in units of the real one's distance


class _Looks:
    """The looks that a model is asked for."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.any_style = has_style_bank(model.card)
        self._codes: dict[str, Tensor] = {}

    def codes(self, style: Style) -> Tensor:
        """[organs, CODE_SIZE]"""
        if style.name not in self._codes:
            told = [self.model.codes_of(one.files.read(self.model.anatomy)) for one in style.cases]
            self._codes[style.name] = torch.stack([mixed(rows, [1.0] * len(rows)) for rows in zip(*told, strict=True)])
        return self._codes[style.name]

    def of(self, style: Style) -> Look:
        """The style's, or the one that the model has."""
        return Look(style.name, self.codes(style)[None]) if self.any_style else self.model.look(())

    def of_one_organ(self, organ: Organ, style: Style, others: Style) -> Look:
        """The style in one organ, and another one in all others."""
        codes = self.codes(others).clone()
        codes[organ.label] = self.codes(style)[organ.label]
        return Look(f"{others.name}; {organ.name}: {style.name}", codes[None])


class _Means:
    """Values and the real ones beside them, by styles, metric and organ; means over slices, then over patients."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str], dict[str, list[tuple[float, float]]]] = defaultdict(
            lambda: defaultdict(list)
        )

    def add(self, styles: str, metric: str, organ: str, patient: str, value: float, real: float = np.nan) -> None:
        self._found[styles, metric, organ][patient].append((value, real))

    def __iter__(self) -> Iterator[tuple[str, str, str, float, float | None]]:
        for key, by_patient in self._found.items():
            value, real = np.mean([np.mean(pairs, axis=0) for pairs in by_patient.values()], axis=0).tolist()
            yield *key, value, None if np.isnan(real) else real


def scored(
    model: Model,
    pairs: Sequence[tuple[str, RealCase, Style]],
    unseen: Sequence[RealCase],
    seed: int,
    rulers: Rulers,
    progress: Callable[[], None],
) -> tuple[list[Made], list[Score]]:
    """What a model makes of pairs (styles, content, style), and its scores; ``progress`` is called after each slice."""
    asked, means, made = _Looks(model), _Means(), []
    for styles, content, style in pairs:
        for number, real in enumerate(content.pictures):
            draw = partial(_drawn, model, content, number, seed)
            codes = tuple(draw(asked.of(style), sample) for sample in range(_CODES))
            picture = Picture(codes[0], real.labels)
            badness = _distances(means, styles, content, real, style, picture, rulers)
            _diversity(means, styles, content, codes, picture, rulers)
            if asked.any_style:
                _separability(means, styles, content, style, picture, asked, draw, rulers)
            made.append(Made(styles, content, real, style, picture, codes, badness))
            progress()
    _consistency(means, made, rulers)
    _continuity(means, model, asked, unseen, seed, rulers)
    found = [Score(*row) for row in means if row[1] not in ("inside", "elsewhere")]
    return made, [*found, *_ratios(means), *_of_sets(made, rulers)]


def _drawn(model: Model, content: RealCase, number: int, seed: int, look: Look, sample: int = 0) -> np.ndarray:
    """HU [S, S] of the content's slice."""
    return model.synthesize(content.slices[number].labels[None], model.noise_code(seed, sample), look)[0].numpy()


def _distances(
    means: _Means, styles: str, content: RealCase, real: Picture, style: Style, picture: Picture, rulers: Rulers
) -> float:
    """Distances to the style of the slice made and of the real one; returns their mean quotient."""
    quotients = []
    for organ in rulers.organs:
        made, own, target = picture.look(organ), real.look(organ), style.look(organ)
        if made is None or own is None or target is None:
            continue
        before = rulers.distances(own, target, organ)
        for metric, value in rulers.distances(made, target, organ).items():
            means.add(styles, metric, organ.name, content.patient, value, before[metric])
            quotients.append(value / max(before[metric], 1e-6))
    return float(np.mean(quotients)) if quotients else 0.0


def _diversity(
    means: _Means, styles: str, content: RealCase, codes: Sequence[np.ndarray], picture: Picture, rulers: Rulers
) -> None:
    for organ in rulers.organs:
        if picture.look(organ):
            inside = picture.inside(organ)
            means.add(styles, "diversity", organ.name, content.patient, scores.diversity(codes, inside))
            if (coarse := scores.coarse_diversity(codes, inside)) is not None:
                means.add(styles, "coarse", organ.name, content.patient, coarse)


def _separability(
    means: _Means,
    styles: str,
    content: RealCase,
    style: Style,
    picture: Picture,
    asked: _Looks,
    draw: Callable[[Look], np.ndarray],
    rulers: Rulers,
) -> None:
    """The style in one organ after the other, the case's own style in all others."""
    own = Style((content,))
    before = draw(asked.of(own))
    for organ in rulers.organs:
        if picture.look(organ) and style.look(organ):
            after = draw(asked.of_one_organ(organ, style, own))
            changes = scores.separability(before, after, picture.inside(organ), picture.labels > 0)
            for what, change in zip(("inside", "elsewhere"), changes, strict=True):
                means.add(styles, what, organ.name, content.patient, change)


def _ratios(means: _Means) -> Iterator[Score]:
    """The scores that are quotients of means."""
    found = {row[:3]: row[3:] for row in means}
    for (styles, metric, organ), (value, real) in found.items():
        if metric == "hu" and real is not None:
            yield Score(styles, "gap", organ, scores.gap_closed(real, value), None)
        if metric == "inside":
            elsewhere = found[styles, "elsewhere", organ][0]
            yield Score(styles, "separability", organ, value / max(elsewhere, _STILL_HU), None)


def _consistency(means: _Means, made: Sequence[Made], rulers: Rulers) -> None:
    """Dice of the organs that the U-Net finds in the slices made, and in the real ones."""
    if rulers.find is None:
        return
    for one, found, found_real in zip(
        made, rulers.find([one.picture for one in made]), rulers.find([one.real for one in made]), strict=True
    ):
        for organ in rulers.organs:
            truth = one.picture.inside(organ)
            if np.count_nonzero(truth) >= scores.MIN_PIXELS:
                value, real = (scores.dice(labels == organ.label, truth) for labels in (found, found_real))
                means.add(one.styles, "dice", organ.name, one.content.patient, value, real)


def _continuity(
    means: _Means, model: Model, asked: _Looks, unseen: Sequence[RealCase], seed: int, rulers: Rulers
) -> None:
    """Slices side by side, in the middle of the cases that have some."""
    for content in unseen:
        case = content.files.read(model.anatomy)
        count = len(axial(case.labels))
        first = max(0, (count - _NEIGHBORS) // 2)
        places = range(first, min(count, first + _NEIGHBORS))
        if len(places) < 2:
            continue
        slices = slices_at(case, places, model.anatomy, model.G.size, model.hu)
        labels = torch.stack([one.labels for one in slices])
        real = model.hu.to_hu(torch.cat([one.x[0] for one in slices])).numpy()
        z = model.noise_code(seed, 0, axial_places(case.labels)[list(places)])
        volume = model.synthesize(labels, z, asked.of(Style((content,)))).numpy()
        for organ in rulers.organs:
            inside = labels.numpy() == organ.label
            values = [scores.continuity(hu, inside) for hu in (volume, real)]
            if values[0] is not None and values[1] is not None:
                means.add("own", "continuity", organ.name, content.patient, values[0], values[1])


def _of_sets(made: Sequence[Made], rulers: Rulers) -> Iterator[Score]:
    """The scores of all slices together, against real ones; beside them, those of the real training slices.

    Slices in the styles of unseen patients are set against the unseen patients' real ones. Those in the look that a
    model was trained for are set against the slices of that look, as the real ones of other looks are no aim of theirs.
    """
    for styles in dict.fromkeys(one.styles for one in made):
        alike = [one for one in made if one.styles == styles]
        pictures = [one.picture for one in alike]
        aim = rulers.unseen if styles == "unseen" else _slices_of_looks(one.style for one in alike)
        others = [picture for picture in rulers.train if picture not in aim]
        for organ in rulers.organs:
            mine, real, train, every = (
                np.array([look.radiomics for look in looks(of, organ)]) for of in (pictures, aim, others, rulers.train)
            )
            if min(map(len, (mine, real, every))) > 1:
                deviation = every.std(axis=0, ddof=1)
                distance = scores.frechet_distance(mine, real, deviation)
                others_distance = scores.frechet_distance(train, real, deviation) if len(train) > 1 else None
                yield Score(styles, "frechet", organ.name, distance, others_distance)
        if (kernel := rulers.kernel) and min(map(len, (pictures, aim, rulers.train))) > 1:
            ours, wanted, learned = (
                kernel.features([picture.body for picture in of]) for of in (pictures, aim, rulers.train)
            )
            scale, beside = learned.square().mean().sqrt(), None
            if len(others) > 1:
                beside = kernel.between(kernel.features([picture.body for picture in others]) / scale, wanted / scale)
            yield Score(styles, "kid", WHOLE, kernel.between(ours / scale, wanted / scale), beside)
        nearest, unseen = rulers.nearest(pictures), rulers.unseen_nearest
        yield Score(styles, "memorisation", WHOLE, nearest.median().item() / max(unseen.median().item(), 1e-6), 1.0)
        yield Score(styles, "copies", WHOLE, near_copies(nearest), near_copies(unseen))


def _slices_of_looks(styles: Iterable[Style]) -> list[Picture]:
    """The real slices of styles, each once."""
    return list(dict.fromkeys(picture for style in styles for picture in style.pictures))
