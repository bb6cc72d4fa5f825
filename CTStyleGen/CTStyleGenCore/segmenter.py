"""A small segmentation network, independent of the generators: does it find the organs where they are?

MONAI's U-Net, trained within minutes on some dozen slices, with strong classic augmentation.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from monai.transforms import (
    Compose,
    Rand2DElasticd,
    RandAdjustContrastd,
    RandAffined,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandScaleIntensityd,
    RandShiftIntensityd,
)
from torch import Tensor

from .devices import Computing, Precision
from .slices import HuRange

Pair = tuple[np.ndarray, np.ndarray]  # HU [S, S] and organ labels [S, S] of a slice
_BATCH = 8
_HU = HuRange()


def train_network(
    real: Sequence[Pair],
    synthetic: Sequence[Pair],
    share: float,
    organs: int,
    steps: int,
    seed: int,
    progress: Callable[[], None] = lambda: None,
    precision: Precision = "float32",
) -> torch.nn.Module:
    """A U-Net after ``steps`` of 8 augmented slices, a ``share`` of them synthetic; ``progress`` is called after each.

    Slices all of one size, a multiple of 8. On the CPU; ``precision`` is of its passes.
    """
    torch.manual_seed(seed)
    network = UNet(2, 1, organs, channels=(16, 32, 64, 128), strides=(2, 2, 2), num_res_units=2)
    augment = _augmentation().set_random_state(seed)
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, steps, 0.9)
    loss = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        pools = [synthetic if n < round(share * _BATCH) else real for n in range(_BATCH)]
        drawn = [pool[int(rng.integers(len(pool)))] for pool in pools]
        pairs = [augment({"image": _unit(hu)[None], "label": _tensor(labels)[None]}) for hu, labels in drawn]
        images, labels = (torch.stack([pair[key].as_tensor() for pair in pairs]) for key in ("image", "label"))
        optimizer.zero_grad()
        with Computing(precision=precision).passes():
            logits = network(images)
        loss(logits.float(), labels.round()).backward()
        optimizer.step()
        schedule.step()
        progress()
    return network.eval()


@torch.inference_mode()
def segment(network: torch.nn.Module, slices: Sequence[np.ndarray]) -> np.ndarray:
    """The organ labels [K, S, S] that the network finds in K slices, HU [S, S] each."""
    return network(torch.stack([_unit(hu)[None] for hu in slices])).argmax(1).numpy()


def _augmentation() -> Compose:
    """Classic augmentation at full strength: place, size, shape, brightness, contrast, noise and sharpness."""
    both, modes = ["image", "label"], ["bilinear", "nearest"]
    return Compose(
        [
            RandFlipd(both, prob=0.5, spatial_axis=1),
            RandAffined(
                both,
                prob=0.9,
                rotate_range=0.25,
                scale_range=(0.2, 0.2),
                shear_range=0.1,
                translate_range=(10, 10),
                mode=modes,
                padding_mode="border",
            ),
            Rand2DElasticd(
                both, prob=0.5, spacing=(20, 20), magnitude_range=(0.5, 2), mode=modes, padding_mode="border"
            ),
            RandScaleIntensityd("image", factors=0.15, prob=0.5),
            RandShiftIntensityd("image", offsets=0.1, prob=0.5),
            RandAdjustContrastd("image", gamma=(0.7, 1.5), prob=0.3),
            RandGaussianNoised("image", std=0.05, prob=0.4),
            RandGaussianSmoothd("image", sigma_x=(0.3, 1.0), sigma_y=(0.3, 1.0), prob=0.2),
        ]
    )


def _unit(hu: np.ndarray) -> Tensor:
    return _HU.to_unit(torch.from_numpy(hu.astype(np.float32)))


def _tensor(labels: np.ndarray) -> Tensor:
    return torch.from_numpy(labels.astype(np.float32))
