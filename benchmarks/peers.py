"""Other generators' passes beside ours, where the package MONAI brings them."""

from collections.abc import Callable

import torch
from CTStyleGenCore.trainer import Trainer
from torch import Tensor, nn

Works = dict[str, Callable[[], object]]


def peers(
    size: int, trainer: Trainer, y: Tensor, z: Tensor, timed: Callable[[Works], dict[str, float]]
) -> dict[str, float]:
    """Seconds forward, and forward and backward, of our G, MONAI's SPADE generator and a U-Net of pix2pix's widths.

    y is our map [1, 1, S, S]; SPADE takes the same map with a channel per organ, as it was made for.
    """
    try:
        from monai.networks.nets import SPADENet, UNet
    except ImportError:
        return {}
    organs = len(trainer.anatomy.organs)
    labels = trainer.data.contents[0].labels.to(y.device)
    one_hot = nn.functional.one_hot(labels, organs).movedim(2, 0)[None].float()
    # SPADE's published widths (ngf 64: 1024 to 64) are MONAI's to choose: these are its halves, as for 256 pixels.
    spade = SPADENet(2, 1, 1, organs, [size, size], [64, 128, 256, 512], z_dim=trainer.preset.noise_size, is_vae=False)
    widths = (64, 128, 256, 512, 512, 512, 512)
    unet = UNet(2, organs, 1, widths, (2,) * (len(widths) - 1), kernel_size=3, up_kernel_size=3, norm="instance")
    spade, unet = spade.to(y.device), unet.to(y.device)
    generators: dict[str, tuple[nn.Module, Callable[[], Tensor]]] = {
        "G": (trainer.G, lambda: trainer._generate(y, z)),
        "SPADE": (spade, lambda: spade(one_hot, z)[0]),
        "U-Net": (unet, lambda: unet(one_hot)),
    }
    works: Works = {}
    for name, (network, draw) in generators.items():
        works[f"{name} forward"] = _forward(draw, trainer)
        works[f"{name} both"] = _both(network, draw, trainer)
    return timed(works)


def _forward(draw: Callable[[], Tensor], trainer: Trainer) -> Callable[[], object]:
    def work() -> None:
        with torch.no_grad(), trainer.computing.passes():
            draw()

    return work


def _both(network: nn.Module, draw: Callable[[], Tensor], trainer: Trainer) -> Callable[[], object]:
    def work() -> None:
        network.zero_grad(set_to_none=True)
        with trainer.computing.passes():
            made = draw()
        made.float().sum().backward()

    return work
