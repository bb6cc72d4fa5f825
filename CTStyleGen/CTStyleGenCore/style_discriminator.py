"""The other player of the preset ``styles``: it judges what a pretrained VGG sees of a CT, place by place.

On a few dozen slices a discriminator that looks at pixels has won before the generator has learned anything, and tells
it nothing more. Small heads on features that are there anyway learn within some hundred steps and don't win: Projected
GANs (Sauer et al., arXiv 2111.01007). Spectrally normalized (Miyato et al., arXiv 1802.05957).
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.nn.utils.parametrize import is_parametrized

from .style_codes import TOLD
from .style_generator import NormalizedCodes, OrganShares

_WIDTH, _CODE_WIDTH = 64, 8


class FeatureDiscriminator(nn.Module):
    """D(phi(x), y, codes) -> logits: is what VGG sees here a CT of this map, in this style?"""

    def __init__(self, grays: Sequence[int], channels: Mapping[str, int]) -> None:
        """grays: the organs' in the map; channels: of the features, by layer."""
        super().__init__()
        self.shares, self.normalized = OrganShares(grays), NormalizedCodes(len(grays))
        self.code = nn.Linear(TOLD, _CODE_WIDTH)
        self.heads = nn.ModuleDict({layer: _head(count, len(grays) + _CODE_WIDTH) for layer, count in channels.items()})
        for layer, count in channels.items():
            self.register_buffer(_unit(layer), torch.ones(1, count, 1, 1))

    def learn(self, maps: Mapping[str, Tensor]) -> None:
        """Takes the root mean square of each feature of real slices, maps [N, C, s, s] by layer, for its unit.

        Features that hardly show in them have a tenth of the layer's mean: else what a generator makes of them first,
        being new to all, would be all that counts.
        """
        for layer in self.heads:
            size = maps[layer].float().square().mean((0, 2, 3), keepdim=True).sqrt()
            setattr(self, _unit(layer), size.clamp(min=0.1 * size.mean()))

    def update_norms(self) -> None:
        """A step of the power iterations that give the spectral norms; passes leave them as they are."""
        self.train()
        for layer in self.modules():
            if is_parametrized(layer, "weight"):
                _ = layer.weight
        self.eval()

    def forward(self, maps: Mapping[str, Tensor], y: Tensor, codes: Tensor) -> list[Tensor]:
        """Features [N, C, s, s] by layer, y [N, 1, S, S], codes [N, O, CODE_SIZE] -> logits [N, 1, s, s] of each layer.

        A style is told at every pixel of its organ.
        """
        shares, styles = self.shares(y), self.code(self.normalized(codes))
        logits = []
        for layer, head in self.heads.items():
            features = maps[layer] / getattr(self, _unit(layer))
            here = F.adaptive_avg_pool2d(shares, features.shape[-1])
            logits.append(head(torch.cat([features, here, torch.einsum("nohw,noc->nchw", here, styles)], dim=1)))
        return logits


def _head(features: int, told: int) -> nn.Sequential:
    """Of features and what is told of map and style, per pixel; narrow where the feature maps are large."""
    width = min(_WIDTH, features // 2)
    layers = [nn.Conv2d(features + told, width, 1), *(nn.Conv2d(width, n, 3, padding=1) for n in (width, 1))]
    first, second, last = (spectral_norm(layer) for layer in layers)
    return nn.Sequential(first, nn.LeakyReLU(0.2), second, nn.LeakyReLU(0.2), last)


def _unit(layer: str) -> str:
    return f"unit_{layer}"
