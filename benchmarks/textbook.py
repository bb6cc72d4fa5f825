"""The step as it is written first after reading the paper, for comparison: nothing kept from step to step.

For each organ the images (result, style, content) are multiplied by the organ's mask and passed through the RGB VGG;
Gram matrices are those of whole maps; style and content are measured anew at every step; the generator draws one image
for the discriminator's update and another for its own; plain Adam; float32.
"""

import torch
from CTStyleGenCore.losses import adversarial_loss, discriminator_loss, total_variation_loss
from CTStyleGenCore.networks import Discriminator, make_generator
from CTStyleGenCore.perceptual import FeatureWeights
from CTStyleGenCore.presets import Preset
from CTStyleGenCore.training_data import TrainingData, TrainingSlice
from torch import Tensor, nn
from torchvision.models import vgg19

from .phantoms import anatomy_of

_ENDS = {"relu1_1": 1, "relu2_1": 6, "relu3_1": 11, "relu4_1": 20, "relu4_2": 22, "relu5_1": 29}


class Textbook:
    """The two players without any of the Trainer's savings."""

    def __init__(
        self, preset: Preset, organs: int, weights: FeatureWeights, data: TrainingData, size: int, device: str
    ):
        self.preset, self.organs, self.data, self.device = preset, organs, data, device
        self.G = make_generator(preset.generator, size, anatomy_of(organs), preset.noise_size).to(device)
        self.D = Discriminator(size).to(device)
        self.vgg = vgg19().features[: max(_ENDS.values()) + 1]
        self.vgg.load_state_dict({name: weights.state[name] for name in self.vgg.state_dict()})
        self.vgg.requires_grad_(False).to(device)
        for module in self.vgg:
            if isinstance(module, nn.ReLU):
                module.inplace = False
        self.optimizer_G = torch.optim.Adam(self.G.parameters(), preset.generator_rate, preset.generator_betas)
        self.optimizer_D = torch.optim.SGD(self.D.parameters(), preset.discriminator_rate)
        self.step = 0

    def train_step(self) -> None:
        draw = self.data.draw(self.step, 0, self.preset.noise_size)
        content, style = self.data.contents[draw.content], self.data.styles[draw.style]
        x, y, z = (t.to(self.device) for t in (content.x, content.y, draw.z))
        if self.step % self.preset.generator_updates_per_discriminator_update == 0:
            self.optimizer_D.zero_grad()
            discriminator_loss(self.D(x, y), self.D(self.G(y, z).detach(), y)).backward()
            self.optimizer_D.step()
        self.optimizer_G.zero_grad()
        fake = self.G(y, z)
        loss = adversarial_loss(self.D(fake, y)) + total_variation_loss(fake)
        for organ in range(self.organs):
            R, O, S = self._see(fake, content, organ), self._see(x, content, organ), self._see(style.x, style, organ)
            for layer in self.preset.style_layers:
                n, m = R[layer].shape
                loss = loss + (R[layer] @ R[layer].T - S[layer] @ S[layer].T).square().sum() / (4 * n**2 * m**2)
            for layer in self.preset.content_layers:
                loss = loss + (R[layer] - O[layer]).square().sum() / (2 * R[layer].numel())
        loss.backward()
        self.optimizer_G.step()
        self.step += 1

    def _see(self, x: Tensor, one: TrainingSlice, organ: int) -> dict[str, Tensor]:
        """Feature maps [N, M] of an image's one organ."""
        mask = (one.labels == organ).float().to(self.device)
        maps: dict[str, Tensor] = {}
        h = (x.to(self.device) * mask).expand(-1, 3, -1, -1)
        for index, module in enumerate(self.vgg):
            h = module(h)
            maps |= {name: h[0].flatten(1) for name, end in _ENDS.items() if end == index}
        return maps
