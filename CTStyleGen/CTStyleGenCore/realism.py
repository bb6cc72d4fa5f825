"""The kernel distance of two sets of CT slices, by features of a VGG (torchmetrics' KID).

M. Bińkowski et al., Demystifying MMD GANs, arXiv 1801.01401: unbiased, so that small sets can be compared. Features are
those of a VGG in three CT windows, where the original takes an Inception network's.
"""

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics.image.kid import KernelInceptionDistance

from .perceptual import Features, FeatureWeights, Windows
from .slices import HuRange

_LAYER = "relu4_1"
_SUBSETS = 50  # drawn of the larger set, of the size of the smaller one


class KernelDistance:
    """KID by the mean over places of each feature map of a VGG."""

    def __init__(self, weights: FeatureWeights, hu: HuRange, device: str, seed: int) -> None:
        """Raises InputError where the weights end before the layer that is used."""
        self.hu, self.device, self.seed = hu, device, seed
        self.phi = Features(weights, [_LAYER], Windows(hu)).to(device)

    @torch.inference_mode()
    def features(self, slices: Sequence[np.ndarray]) -> Tensor:
        """K slices, HU [S, S] each -> [K, features]."""
        rows = []
        for hu in slices:
            x = self.hu.to_unit(torch.from_numpy(hu).float()).to(self.device)
            rows.append(self.phi(x[None, None])[_LAYER].mean((2, 3)).cpu())
        return torch.cat(rows)

    def between(self, a: Tensor, b: Tensor) -> float:
        """Of two sets of features, [n, k] and [m, k]; about 0 for images of one kind, by chance below."""
        with warnings.catch_warnings():  # "will save all extracted features in buffer"
            warnings.simplefilter("ignore", UserWarning)
            kid = KernelInceptionDistance(nn.Identity(), subsets=_SUBSETS, subset_size=min(len(a), len(b)))
        kid.update(a, real=True)
        kid.update(b, real=False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return float(kid.compute()[0])
