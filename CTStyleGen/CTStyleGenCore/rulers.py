"""What the scoreboard measures with: real CT, and what is learned or measured of it once for all models."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from . import memorisation, scores
from .anatomy import Organ
from .pictures import OrganLook, Picture, RealCase, deviation
from .slices import Square

if TYPE_CHECKING:  # needs torchmetrics
    from .realism import KernelDistance

Find = Callable[[Sequence[Picture]], np.ndarray]  # K pictures -> the organ labels found in them, [K, S, S]
_SEGMENTER_SIZE = 128  # pixels at most: organs are found at that size, and in minutes


class Rulers:
    """Distances, and the real slices, unseen and of the training, that they are set against."""

    def __init__(
        self,
        organs: Sequence[Organ],
        unseen: Sequence[RealCase],
        train: Sequence[RealCase],
        kernel: "KernelDistance | None",
        find: Find | None,
    ) -> None:
        self.organs, self.kernel, self.find = organs, kernel, find
        self.unseen = [picture for case in unseen for picture in case.pictures]
        self.train = [picture for case in train for picture in case.pictures]
        self._texture_scale = {organ.name: deviation(self.train, organ, "texture") for organ in organs}
        self._details = _details(self.train)
        self.unseen_nearest = self.nearest(self.unseen)

    def nearest(self, pictures: Sequence[Picture]) -> Tensor:
        """The distances [K] of pictures to the nearest training slice, as of `memorisation`."""
        return memorisation.distances(_details(pictures), self._details).amin(1)

    def distances(self, a: OrganLook, b: OrganLook, organ: Organ) -> dict[str, float]:
        """By metric."""
        return {
            "hu": scores.hu_distance(a.values, b.values),
            "texture": scores.texture_distance(a.texture, b.texture, self._texture_scale[organ.name]),
            "noise": scores.spectrum_distance(a.noise, b.noise),
        }


def _details(pictures: Sequence[Picture]) -> Tensor:
    """[K, 64, 64]"""
    pairs = [(torch.from_numpy(picture.hu).float(), torch.from_numpy(picture.labels).long()) for picture in pictures]
    return torch.stack([memorisation.detail(hu, labels) for hu, labels in pairs])


def trained_segmenter(
    train: Sequence[RealCase], size: int, organs: int, steps: int, seed: int, progress: Callable[[], None]
) -> Find:
    """A U-Net that has learned from the training cases' slices, ``size`` pixels a side, at 128 pixels at most."""
    from .segmenter import segment, train_network

    square = Square(size, size, min(size, _SEGMENTER_SIZE))
    back = Square(square.size, square.size, size)

    def shrunk(picture: Picture) -> np.ndarray:
        return square.of_values(torch.from_numpy(picture.hu)[None].float(), fill=0.0)[0].numpy()

    def labels(picture: Picture) -> np.ndarray:
        return square.of_labels(torch.from_numpy(picture.labels)[None], organs)[0].numpy()

    pairs = [(shrunk(picture), labels(picture)) for case in train for picture in case.pictures]
    network = train_network(pairs, [], 0.0, organs, steps, seed, progress)

    def find(pictures: Sequence[Picture]) -> np.ndarray:
        small = segment(network, [shrunk(picture) for picture in pictures])
        return back.of_labels(torch.from_numpy(small), organs).numpy()

    return find
