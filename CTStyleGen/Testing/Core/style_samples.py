"""Maps and style codes made by hand, for the tests of what draws with them."""

import torch
from CTStyleGenCore.anatomy import load_anatomy
from CTStyleGenCore.slices import gray_map
from CTStyleGenCore.style_codes import LAGS, from_told
from CTStyleGenCore.styles import TOLD_LEVELS

THORAX = load_anatomy("thorax")
GRAYS = [organ.gray for organ in THORAX.organs]


def quarters(size: int = 64) -> torch.Tensor:
    """Labels [1, size, size]: organs 1 to 4, a quarter each."""
    row = (torch.arange(size) >= size // 2).long()
    return (1 + row[:, None] + 2 * row)[None]


def codes_of(means: list[float], roughness: float = 0.05) -> torch.Tensor:
    """[1, 6, CODE_SIZE]: each organ's quantiles within 0.1 of its mean; of the grain nothing."""
    quantiles = torch.tensor(means)[:, None] + torch.linspace(-0.1, 0.1, len(TOLD_LEVELS))
    return from_told(torch.cat([quantiles, torch.full((6, len(LAGS)), roughness)], dim=1))[None]


def y_of(labels: torch.Tensor) -> torch.Tensor:
    return gray_map(labels, THORAX)[:, None]


CODES = codes_of([-1.0, 0.0, -0.8, 0.05, 0.5, 0.02])
