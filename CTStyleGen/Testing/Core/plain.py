"""A step of training as the equations stand, nothing saved: what the Trainer's quicker way must agree with."""

import torch
import torch.nn.functional as F
import torchvision
from CTStyleGenCore.perceptual import FeatureWeights
from CTStyleGenCore.trainer import Trainer
from torch import Tensor

ENDS = {
    "relu1_1": 1,
    "relu2_1": 6,
    "relu3_1": 11,
    "relu4_1": 20,
    "relu4_2": 22,
    "relu5_1": 29,
}  # torchvision's


def features(weights: FeatureWeights, x: Tensor) -> dict[str, Tensor]:
    """The maps [N, H, W] of the whole VGG-19 for the gray image x [1, 1, S, S] as RGB."""
    vgg = torchvision.models.vgg19().features
    vgg.load_state_dict(weights.state)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (weights.mean, weights.std))
    h, maps = ((x + 1) / 2 - mean) / std, {}
    for index, module in enumerate(vgg.requires_grad_(False)):
        h = F.relu(h) if isinstance(module, torch.nn.ReLU) else module(h)
        maps |= {name: h[0] for name, end in ENDS.items() if end == index}
    return maps


def masks(labels: Tensor, organs: int, like: Tensor) -> Tensor:
    """[organs, H, W], 1 where an organ covers at least one half of a pixel."""
    shares = F.adaptive_avg_pool2d(F.one_hot(labels, organs).movedim(2, 0).float(), like.shape[-2:])
    return (shares >= 0.5).float()


def grams(maps: Tensor, masks: Tensor) -> Tensor:
    """Equation (3) for the map [N, H, W] multiplied with each mask: [organs, N, N]."""
    masked = (maps[None] * masks[:, None]).flatten(2)
    return masked @ masked.mT


def step(trainer: Trainer, weights: FeatureWeights) -> tuple[dict[str, Tensor], list[Tensor]]:
    """The losses and the generator's gradients of the trainer's next step, by the preset ``paper``; D is updated."""
    preset, organs = trainer.preset, len(trainer.anatomy.organs)
    draw = trainer.data.draw(trainer.step, trainer.seed, preset.noise_size)
    content, style = trainer.data.contents[draw.content], trainer.data.styles[draw.style]
    G, D = trainer.G, trainer.D

    real, fake = torch.sigmoid(D(content.x, content.y)), torch.sigmoid(D(G(content.y, draw.z).detach(), content.y))
    discriminator = -(real.log() + (1 - fake).log()).sum()
    with torch.no_grad():
        gradients = torch.autograd.grad(discriminator, list(D.parameters()))
        for parameter, gradient in zip(D.parameters(), gradients, strict=True):
            parameter -= preset.discriminator_rate * gradient

    x = G(content.y, draw.z)
    R, S, O = (features(weights, image) for image in (x, style.x, content.x))
    style_loss = content_loss = torch.zeros(())
    for layer in preset.style_layers:
        m_r, m_s = masks(content.labels, organs, R[layer]), masks(style.labels, organs, S[layer])
        n, m = R[layer].shape[0], R[layer][0].numel()
        both = (m_r.sum((1, 2)) >= 4) & (m_s.sum((1, 2)) >= 4)
        squares = (grams(R[layer], m_r) - grams(S[layer], m_s)).square().sum((1, 2))
        style_loss = style_loss + squares[both].sum() / (4 * n**2 * m**2)
    for layer in preset.content_layers:
        mask = masks(content.labels, organs, R[layer])[:, None]
        squares = (mask * R[layer] - mask * O[layer]).square().sum()
        content_loss = content_loss + squares / (2 * R[layer].numel())
    rows, columns = x[..., 1:, :] - x[..., :-1, :], x[..., 1:] - x[..., :-1]
    terms = {
        "adversarial": -torch.sigmoid(D(x, content.y)).log().sum(),
        "style": style_loss,
        "content": content_loss,
        "total_variation": rows.square().sum() + columns.square().sum(),
    }
    total = sum(w * term for w, term in zip(trainer.loss_weights, terms.values(), strict=True))
    return {"discriminator": discriminator} | terms, list(torch.autograd.grad(total, list(G.parameters())))
