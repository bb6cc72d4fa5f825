"""Whether a model has learned training slices by heart: how near what it draws comes to them.

A map tells the outlines of organs, so an image has those of its map, memory or not. What a map doesn't tell is the
detail inside organs: vessels, airways, marrow, lesions. Compared are thumbnails of that detail alone.

After S. U. H. Dar et al., arXiv 2402.01054, who compare images with their nearest training images by correlation.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .anatomy import Anatomy
from .augmentation import Pose
from .slices import HuRange
from .training_data import TrainingData, TrainingSlice

# Nearer is a near copy: a detail with a correlation above one half. Of twelve real patients no two have slices nearer
# than 0.55 (docs/trust.md).
NEAR = 0.5
NEAR_COPIES, NEARER, NONE = "near copies", "nearer than real slices", "none"  # what may be found
_NEARER = 0.9  # of the distance of real slices

_THUMBNAIL = 64  # pixels
_BODY_HU = (-1000.0, 400.0)  # what a thumbnail shows
_DETAIL_PIXELS = 4.0  # of a thumbnail: larger forms are anatomy, which all chests share
_INSIDE = 0.99  # share of an organ in a pixel that is wholly inside
_FLAT_HU = 1.0  # root mean square over a thumbnail; less is no detail, but rounding
_IMAGES = 16
_COMPARED = 512  # training slices at most
_REAL = 32  # of them that are compared with those of other cases
_WARP_MM = 6.0  # at most, as `expand` moves anatomy
_AS_IT_IS = Pose(False, 0.0, (1.0, 1.0), (0.0, 0.0))

# A content slice with its map, a noise code [1, noise size], the slice whose look is asked for -> CT [1, 1, S, S]
Draw = Callable[[TrainingSlice, Tensor, TrainingSlice], Tensor]


# --- the metric -------------------------------------------------------------------------------------------------------


def detail(hu: Tensor, labels: Tensor) -> Tensor:
    """The detail inside organs of a slice, float32 [S, S], S >= 64, with int64 organ labels: [64, 64], of norm 1.

    From each organ's HU their trend in that organ is taken off; pixels that are not wholly in one organ are 0.
    """
    small = _shrunk(hu.clamp(*_BODY_HU))
    found = torch.zeros_like(small)
    for organ in labels.flatten().bincount().nonzero().flatten().tolist():
        if organ:  # not outside
            inside = (_shrunk((labels == organ).float()) > _INSIDE).float()
            found += inside * (small - _smoothed(small * inside) / _smoothed(inside).clamp(min=1e-6))
    return found / found.norm().clamp(min=_FLAT_HU * _THUMBNAIL)


def _shrunk(image: Tensor) -> Tensor:
    """[S, S] -> [64, 64]"""
    return F.interpolate(image[None, None], [_THUMBNAIL] * 2, mode="bilinear", antialias=True)[0, 0]


def _smoothed(image: Tensor) -> Tensor:
    """An image [H, W], convolved with a Gaussian."""
    reach = round(3 * _DETAIL_PIXELS)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / _DETAIL_PIXELS) ** 2)
    kernel /= kernel.sum()
    rows = F.conv2d(image[None, None], kernel[None, None, :, None], padding=(reach, 0))
    return F.conv2d(rows, kernel[None, None, None], padding=(0, reach))[0, 0]


def distances(details: Tensor, others: Tensor) -> Tensor:
    """From every detail [n, 64, 64] to every other [m, 64, 64]: [n, m], 1 - the largest correlation over all shifts.

    Mirrored ones count as well. 0: a copy.
    """
    spectra = [torch.fft.rfft2(turned).conj() for turned in (others, others.flip(2))]
    rows = []
    for one in torch.fft.rfft2(details):
        shifted = [torch.fft.irfft2(one * spectrum).flatten(1).amax(1) for spectrum in spectra]
        rows.append((1 - torch.maximum(*shifted)).clamp(min=0))
    return torch.stack(rows)


def near_copies(nearest: Tensor) -> float:
    """The share of slices that are near copies, by their distances to the nearest training slice."""
    return (nearest < NEAR).double().mean().item()


# --- at the end of a training -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Memorisation:
    """What was found; the real values are those of training slices, compared with the slices of all other cases."""

    images: int  # drawn
    slices: int  # of the training, compared with
    distance: float  # to the nearest training slice, median
    real_distance: float
    copies: float  # share of near copies
    real_copies: float

    @property
    def finding(self) -> str:
        """NEAR_COPIES, NEARER (than slices of different cases are to each other: some detail is known), or NONE."""
        if self.copies:
            return NEAR_COPIES
        return NEARER if self.distance < _NEARER * self.real_distance else NONE

    @property
    def told(self) -> str:
        """The finding in a sentence."""
        of = f"of {self.images} images drawn from training maps"
        if self.finding == NEAR_COPIES:
            count = round(self.copies * self.images)
            return (
                f"The model draws near copies of training slices ({count} {of}): don't share it or its images as "
                "anonymous."
            )
        if self.finding == NEARER:
            return (
                f"None {of} is a near copy of a training slice, but they are nearer to them ({self.distance:.2f}) than "
                f"slices of different cases to each other ({self.real_distance:.2f}): some detail may be theirs."
            )
        return f"None {of} is a near copy of a training slice."

    def card(self) -> dict[str, Any]:
        """As the model card has it, JSON-ready."""
        found = {name: round(value, 4) for name, value in asdict(self).items()}
        return found | {"finding": self.finding, "told": self.told}


def draws_near_copies(card: Mapping[str, Any]) -> bool:
    """Whether a model's training has told so in its card; older cards say nothing."""
    told = card.get("memorisation")
    return isinstance(told, Mapping) and told.get("finding") == NEAR_COPIES


@dataclass(frozen=True)
class Sample:
    """An image that a generator drew after its training."""

    content: TrainingSlice  # whose map it has
    made: TrainingSlice  # the image, and the map, which may be warped
    style: TrainingSlice  # whose look was asked for


def samples(data: TrainingData, draw: Draw, anatomy: Anatomy, noise_size: int, seed: int) -> list[Sample]:
    """Images of a generator that show what it has by heart.

    Half of the images are of training maps as they are, in the slice's own look: what a model has by heart shows there
    first. Half are of maps warped as `expand` warps them, in the look of another case. All have fresh noise codes.
    """
    first = len(data.contents) << 32  # after all draws of any run
    found = []
    for number in range(_IMAGES):
        drawn = data.draw(first + number, seed, noise_size)
        content = one = style = data.contents[drawn.content]
        if number % 2:
            one = one.posed(replace(_AS_IT_IS, warp=drawn.pose.warp), anatomy, _WARP_MM)
            style = data.styles[drawn.style]
        found.append(Sample(content, replace(one, x=draw(one, drawn.z, style)), style))
    return found


def measured(drawn: Sequence[Sample], data: TrainingData) -> Memorisation:
    """How near images come to the slices that their generator has learned from, in some seconds."""
    hu = HuRange()

    def seen(slices: Sequence[TrainingSlice]) -> Tensor:
        return torch.stack([detail(hu.to_hu(one.x[0, 0]), one.labels) for one in slices])

    contents, made = [one.content for one in drawn], [one.made for one in drawn]
    of_each_case = {one.case_id: one for one in data.slices}.values()  # so that all have others to be compared with
    known = list({id(one): one for one in (*_spread(data.slices, _COMPARED), *of_each_case, *contents)}.values())
    real = _spread(data.slices, _REAL)
    details = seen(known)
    nearest = distances(seen(made), details).amin(1)
    same_case = torch.tensor([[one.case_id == other.case_id for other in known] for one in real])
    nearest_real = distances(seen(real), details).masked_fill(same_case, math.inf).amin(1)
    medians = (values.median().item() for values in (nearest, nearest_real))
    shares = (near_copies(values) for values in (nearest, nearest_real))
    return Memorisation(len(made), len(known), *medians, *shares)


def _spread(slices: Sequence[TrainingSlice], count: int) -> list[TrainingSlice]:
    """``count`` of the slices, evenly spread; all, if they are fewer."""
    count = min(count, len(slices))
    return [slices[place * len(slices) // count] for place in range(count)]
