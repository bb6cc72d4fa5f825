"""The slices that a run learns from, and which of them each step draws."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import chain
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
import torch.nn.functional as F
from torch import Tensor

from .airways import with_airways
from .anatomy import Anatomy
from .augmentation import Pose, draw_pose, posed
from .cases import Case, find_cases
from .errors import InputError
from .label_check import Lacks, fitting_slices
from .slices import HuRange, Square, axial, gray_map
from .style_codes import measure_codes

_AIR = -0.95  # at most, in [-1, 1]; less is the noise of air


@dataclass(frozen=True)
class TrainingSlice:
    """A slice as training needs it, S pixels a side."""

    case_id: str
    x: Tensor  # the CT, float32 [1, 1, S, S] in [-1, 1]
    y: Tensor  # its map, float32 [1, 1, S, S] in [-1, 1]
    labels: Tensor  # its organs, int64 [S, S]
    side_mm: float  # of the S pixels

    def on(self, device: str) -> "TrainingSlice":
        """The slice on a device; from page-locked memory it is on its way when this returns."""
        x, y, labels = (part.to(device, non_blocking=True) for part in (self.x, self.y, self.labels))
        return replace(self, x=x, y=y, labels=labels)

    def posed(self, pose: Pose, anatomy: Anatomy, warp_mm: float = 0) -> "TrainingSlice":
        """The slice in another pose, with ``warp_mm`` warped as well."""
        x, labels = posed(self.x, self.labels, pose, warp_mm, self.side_mm)
        return replace(self, x=x, y=gray_map(labels, anatomy)[None, None], labels=labels)

    def mirrored(self) -> "TrainingSlice":
        """The slice, left for right."""
        return replace(self, x=self.x.flip(3), y=self.y.flip(3), labels=self.labels.flip(1))

    def smaller(self, side: int, anatomy: Anatomy) -> "TrainingSlice":
        """The slice with ``side`` pixels a side, a divisor of S; a pixel's label is the one that most of it has."""
        if side == len(self.labels):
            return self
        organs = torch.arange(len(anatomy.organs), device=self.labels.device)[:, None, None]
        labels = F.adaptive_avg_pool2d((self.labels == organs).float(), side).argmax(0)
        x = F.adaptive_avg_pool2d(self.x, side)
        return replace(self, x=x, y=gray_map(labels, anatomy)[None, None], labels=labels)

    def without_table(self) -> "TrainingSlice":
        """The slice with air for table, clothes and tubes outside the body, as a map that doesn't know them has it.

        Pixels beside the body keep their part of it.
        """
        body = (self.labels > 0).float()[None, None]
        reach = max(1, body.shape[-1] // 128)
        far = F.max_pool2d(body, 2 * reach + 1, stride=1, padding=reach) == 0
        return replace(self, x=torch.where(far, self.x.clamp(max=_AIR), self.x))


@dataclass(frozen=True)
class Draw:
    """What a slice of a step works on."""

    content: int  # index into TrainingData.contents
    style: int  # index into TrainingData.styles
    z: Tensor  # the noise code, float32 [1, noise size]
    pose: Pose  # how the content slice is moved, where the preset moves slices
    number: int  # of the draw in its run


@dataclass(frozen=True)
class TrainingData:
    """Content slices x_o and style slices x_s. No content slice is of a case whose style it could not be given."""

    contents: tuple[TrainingSlice, ...]
    styles: tuple[TrainingSlice, ...]
    doubts: tuple[str, ...] = ()  # about the segmentations, a sentence each

    @property
    def slices(self) -> list[TrainingSlice]:
        """All that a run sees: the content slices, and the style slices of cases that give no content."""
        contents = {one.case_id for one in self.contents}
        return [*self.contents, *(one for one in self.styles if one.case_id not in contents)]

    def draw(self, n: int, seed: int, noise_size: int) -> Draw:
        """The n-th draw of a run: each epoch visits every content slice once, in an order of its own.

        Depends on its arguments alone, so that a resumed run goes on as an uninterrupted one would, and several
        processes as one. The style is of another case than the content (the paper: "another CT image from a different
        patient").
        """
        epoch, place = divmod(n, len(self.contents))
        content = int(np.random.default_rng([seed, 0, epoch]).permutation(len(self.contents))[place])
        rng = np.random.default_rng([seed, 1, n])
        style = int(rng.choice(self._styles_for(self.contents[content])))
        z = torch.from_numpy(rng.standard_normal((1, noise_size), dtype=np.float32))
        return Draw(content, style, z, draw_pose(rng), n)

    def pinned(self) -> "TrainingData":
        """The same in page-locked memory, from which a GPU fetches slices while it computes."""

        def pinned(one: TrainingSlice) -> TrainingSlice:
            return replace(one, x=one.x.pin_memory(), y=one.y.pin_memory(), labels=one.labels.pin_memory())

        return self._changed(pinned)

    def without_tables(self) -> "TrainingData":
        """The same slices, each without the table."""
        return self._changed(TrainingSlice.without_table)

    def _changed(self, change: Callable[[TrainingSlice], TrainingSlice]) -> "TrainingData":
        """The same with every slice changed; one that is content and style stays one."""
        changed = {id(one): change(one) for one in {id(one): one for one in (*self.contents, *self.styles)}.values()}
        contents, styles = (tuple(changed[id(one)] for one in part) for part in (self.contents, self.styles))
        return replace(self, contents=contents, styles=styles)

    def _styles_for(self, content: TrainingSlice) -> list[int]:
        return [index for index, style in enumerate(self.styles) if style.case_id != content.case_id]


def load_training_data(
    folder: Path,
    style_ids: tuple[str, ...],
    anatomy: Anatomy,
    size: int,
    slices_per_case: int,
    style_slices: int,
    hu: HuRange,
    every_style: bool = False,
) -> TrainingData:
    """Reads the cases of ``folder`` and takes ``slices_per_case`` slices of each, and ``style_slices`` of each style.

    One case at a time is in memory, besides the slices; those that are content and style alike are there once. With one
    style case, its own slices are no content. With ``every_style`` all cases give both. Slices whose labels don't fit
    their CT are left out, but of a case where none fits. Raises InputError when a style is not among the cases, or
    nothing is left to learn from.
    """
    cases = {files.case_id: files for files in find_cases(folder)}
    if unknown := [style for style in style_ids if style not in cases]:
        raise InputError(
            f"There is no case {unknown[0]!r} in {folder} to take the style from: it has {', '.join(cases)}."
        )
    if every_style:
        style_ids = tuple(cases)
    contents: list[TrainingSlice] = []
    styles: dict[str, list[TrainingSlice]] = {style: [] for style in style_ids}
    doubts: list[str] = []
    lacks = Lacks(anatomy)
    for case_id, files in cases.items():
        case = files.read(anatomy)
        lacks.add(case)
        fitting = fitting_slices(case, anatomy)
        doubts += [fitting.doubt] if fitting.doubt else []
        slices = cache(partial(_fullest, case, fitting.places, anatomy, size, hu))
        if case_id in styles:
            styles[case_id] = slices(style_slices)
        if len(styles) > 1 or case_id not in styles:
            contents += slices(slices_per_case)
    data = TrainingData(tuple(contents), tuple(chain.from_iterable(styles.values())), (*lacks.sentences(), *doubts))
    if not data.contents:
        raise InputError(f"{folder} holds no case besides the style {style_ids[0]}: add a case of another patient.")
    return data


def training_slices(case: Case, anatomy: Anatomy, size: int, count: int, hu: HuRange) -> list[TrainingSlice]:
    """``count`` axial slices of a case, spread evenly over those that show the most organs; all, if it has fewer.

    Of slices whose labels fit their CT (`label_check`), if there are any.
    """
    return _fullest(case, fitting_slices(case, anatomy).places, anatomy, size, hu, count)


def _fullest(
    case: Case, places: Sequence[int], anatomy: Anatomy, size: int, hu: HuRange, count: int
) -> list[TrainingSlice]:
    """``count`` of the slices at these places."""
    chosen = fullest_slices(axial(case.labels)[list(places)], count)
    return slices_at(case, [places[n] for n in chosen], anatomy, size, hu)


def slices_at(case: Case, places: Sequence[int], anatomy: Anatomy, size: int, hu: HuRange) -> list[TrainingSlice]:
    """The axial slices of a case at these places, from 0 at its lower end, with the airways that its CT shows."""
    across, down, _ = sitk.DICOMOrient(case.labels, "LPS").GetSpacing()
    values = axial(case.ct)[places]
    labels = with_airways(axial(case.labels)[places], values, anatomy, (across, down))
    square = Square.of(case.labels, size)
    side_mm = max(square.height * down, square.width * across)
    x = hu.to_unit(square.of_values(torch.from_numpy(values).float(), fill=hu.low))
    y = square.of_labels(torch.from_numpy(labels), len(anatomy.organs))
    return [
        TrainingSlice(case.case_id, a[None, None], gray_map(b, anatomy)[None, None], b, side_mm)
        for a, b in zip(x, y, strict=True)
    ]


def slice_codes(slices: Sequence[TrainingSlice], anatomy: Anatomy) -> Tensor:
    """The style codes [organs, CODE_SIZE] of slices taken together, where they are."""
    x, labels = torch.cat([one.x[0] for one in slices]), torch.stack([one.labels for one in slices])
    return measure_codes(x, labels, len(anatomy.organs))


def fullest_slices(labels: np.ndarray, count: int) -> list[int]:
    """Indices of at most ``count`` slices of labels [K, H, W]: evenly spread over those with the most organs in them.

    If these are fewer than ``count``, slices with fewer organs are taken in as well.
    """
    count = min(count, len(labels))
    organs = np.array([len(np.unique(one)) for one in labels])
    least = np.sort(organs)[-count]
    candidates = np.flatnonzero(organs >= least)
    places = (np.arange(count) + 0.5) * len(candidates) / count
    return candidates[places.astype(int)].tolist()
