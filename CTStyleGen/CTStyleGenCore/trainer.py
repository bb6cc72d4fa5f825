"""The two players, their optimizers, and a step of the game (sections 2.1 and 2.2).

A step: the generator draws a content slice from its map y and a fresh noise code z; every second step the discriminator
learns to tell G(y, z) from the map's real CT x_o (equation (9)); the generator learns from equation (8), with the style
of a slice x_s of another case, by x_s's own map. With a batch of several slices, their losses are added up, as the sums
over i in (8) and (9) are printed; several processes share a batch and add up their gradients.
"""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .anatomy import Anatomy
from .devices import Computing, placed
from .losses import (
    OrganGrams,
    OrganPixels,
    adversarial_loss,
    discriminator_loss,
    generator_loss,
    masked_content_loss,
    masked_style_loss,
    organ_grams,
    organ_pixels,
    total_variation_loss,
)
from .networks import Discriminator, make_generator
from .perceptual import Features, FeatureWeights
from .presets import Preset
from .ranks import Ranks
from .training_data import Draw, TrainingData, TrainingSlice

TERMS = ("adversarial", "style", "content", "total_variation")
_CALIBRATION_SLICES = 8
_CACHE_BYTES = 1 << 30  # of content features; more slices than fit are measured again when drawn


@dataclass(frozen=True)
class _Part:
    """Slices of a step that are in memory at once."""

    draws: Sequence[Draw]
    slices: Sequence[TrainingSlice]  # as they are seen: moved, where the preset moves them
    y: Tensor  # their maps, [N, 1, S, S], on the device
    z: Tensor  # noise codes, [N, noise size]
    fake: Tensor | None = None  # what G makes of them, where they are all of the step's; else made when it is needed


@dataclass(frozen=True)
class _Content:
    """What the losses need of a content slice at every step, measured once."""

    pixels: dict[str, OrganPixels]  # by layer
    features: dict[str, Tensor]  # O^l by content layer, [N_l, H_l, W_l]


class Trainer:
    """The two players, their optimizers, and a step of the game."""

    terms: tuple[str, ...] = TERMS

    def __init__(
        self,
        preset: Preset,
        anatomy: Anatomy,
        weights: FeatureWeights,
        data: TrainingData,
        size: int,
        seed: int,
        computing: Computing,
        batch: int = 1,
        ranks: Ranks | None = None,
        steps: int = 0,
    ) -> None:
        """``batch`` is the slices of a step in this process; all processes together take batch * ranks.count.

        ``steps`` are those of the whole run, for a preset whose training grows.
        """
        torch.manual_seed(seed)
        self.preset, self.anatomy, self.seed, self.computing = preset, anatomy, seed, computing
        self.size, self.steps, self.batch, self.ranks = size, steps, batch, ranks or Ranks()
        self.device = computing.device
        on_gpu = torch.device(self.device).type == "cuda"
        if on_gpu:
            torch.backends.cudnn.benchmark = True  # shapes stay the same from step to step
        self.data = data.pinned() if on_gpu else data
        G, D, phi = self._networks(size, weights)
        self.G = placed(G, self.device, channels_last=False)
        # What becomes the model.
        self.G_average = copy.deepcopy(self.G).requires_grad_(False).eval() if preset.average_steps > 1 else self.G
        self.D = placed(D, self.device, channels_last=False)
        self.phi = placed(phi.to(getattr(torch, computing.precision)), self.device)
        self._learning = list(self.G.parameters())
        self.optimizer_G = torch.optim.Adam(self._learning, preset.generator_rate, preset.generator_betas, fused=True)
        self.optimizer_D = self._optimizer_D()
        self.loss_weights: tuple[float, ...] = (1.0,) * len(self.terms)  # see calibrate
        self.step = 0
        self._style = lru_cache(None)(self._measure_style)
        self._measured: dict[int, _Content] = {}  # content slices, as many as the cache has room for
        self._cache_room = _CACHE_BYTES

    def _networks(self, size: int, weights: FeatureWeights) -> tuple[Any, torch.nn.Module, torch.nn.Module]:
        """Generator, discriminator and features, on the CPU."""
        preset = self.preset
        G = make_generator(preset.generator, size, self.anatomy, preset.noise_size)
        return G, Discriminator(size), Features(weights, {*preset.style_layers, *preset.content_layers})

    def _optimizer_D(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.D.parameters(), self.preset.discriminator_rate)

    def parts(self) -> dict[str, torch.nn.Module | torch.optim.Optimizer]:
        """All that training changes, by name."""
        average = {} if self.G_average is self.G else {"G_average": self.G_average}
        optimizers = {"optimizer_G": self.optimizer_G, "optimizer_D": self.optimizer_D}
        return {"G": self.G, "D": self.D, **average, **optimizers}

    @property
    def global_batch(self) -> int:
        """Slices of a step, in all processes together."""
        return self.batch * self.ranks.count

    def work(self, steps: int) -> int:
        """What so many steps of the run take, in pixels: early ones are smaller where a training grows."""
        pixels = 0
        for side, count in self.preset.stages(self.size, self.steps):
            pixels += min(steps, count) * side**2
            steps = max(0, steps - count)
        return pixels

    def train_step(self) -> dict[str, Tensor]:
        """One step. Returns the unweighted loss terms, detached scalars: means over the slices of the step."""
        first, *others = self._parts()
        losses = {}
        if self.step % self.preset.generator_updates_per_discriminator_update == 0:
            losses["discriminator"] = self._update_discriminator([first, *others])
        self._update_generator(self._part_terms(first), losses, map(self._part_terms, others))
        self.step += 1
        return losses

    def _parts(self) -> list[_Part]:
        """The step's slices, as many at once as fit into the memory. The gradients of all parts add up."""
        draws = self._draws()
        at_once = self.computing.at_once or len(draws)
        parts = [self._part(draws[n : n + at_once]) for n in range(0, len(draws), at_once)]
        return parts if len(parts) > 1 else [replace(parts[0], fake=self._fake(parts[0]))]

    def _part(self, draws: Sequence[Draw]) -> _Part:
        slices = [self._slice(draw) for draw in draws]
        y, z = self._stacked([one.y for one in slices]), self._stacked([draw.z for draw in draws])
        return _Part(draws, slices, y, z)

    def _fake(self, part: _Part) -> Tensor:
        return self._generate(part.y, part.z) if part.fake is None else part.fake

    def _part_terms(self, part: _Part) -> list[Tensor]:
        return self._generator_terms(self._fake(part), part.y, part.draws, part.slices)

    def _update_generator(
        self, terms: Sequence[Tensor], losses: dict[str, Tensor], others: Iterable[Sequence[Tensor]] = ()
    ) -> None:
        """Learns from the terms, sums over slices, and from those of other parts; adds them to the step's losses."""
        self.optimizer_G.zero_grad(set_to_none=True)
        for part in chain([terms], others):
            generator_loss(part, self._weights_now()).backward(inputs=self._learning)  # D and phi don't learn here
            for name, term in zip(self.terms, part, strict=True):
                losses[name] = losses.get(name, 0) + term.detach()
        self._add_up(self._learning, losses)
        self.optimizer_G.step()
        if self.G_average is not self.G:
            self._update_average()

    def _weights_now(self) -> list[float]:
        """The loss weights of this step: those calibrated, the style's grown as the preset says."""
        factor, steps = self.preset.style_growth
        grown = factor ** min(1.0, self.step / steps)
        return [w * grown if term == "style" else w for term, w in zip(self.terms, self.loss_weights, strict=True)]

    def example(self) -> Tensor:
        """The first draw's map, the CT that the model by now draws from it, and its real CT: [S, 3 S] in [-1, 1]."""
        draw = self.data.draw(0, self.seed, self.preset.noise_size)
        one = self.data.contents[draw.content]
        return torch.cat([one.y, self.drawn(one, draw.z, one), one.x], dim=3)[0, 0]

    @torch.no_grad()
    def drawn(self, content: TrainingSlice, z: Tensor, style: TrainingSlice) -> Tensor:
        """What the model by now makes of a map, [1, 1, S, S] in [-1, 1], in the look of a slice if it has several."""
        return self.G_average(content.y.to(self.device), z.to(self.device)).cpu()

    @torch.no_grad()
    def _update_average(self) -> None:
        share = 1 / min(self.preset.average_steps, self.step + 1)  # at first the plain mean of all steps so far
        torch._foreach_lerp_(tuple(self.G_average.parameters()), tuple(self._learning), share)

    def _draws(self) -> list[Draw]:
        """This process's part of the step's draws, which are the same for any number of processes."""
        first = self.step * self.global_batch + self.ranks.rank * self.batch
        return [self.data.draw(n, self.seed, self.preset.noise_size) for n in range(first, first + self.batch)]

    def _slice(self, draw: Draw) -> TrainingSlice:
        """The content slice of a draw, on the device, moved where the preset says so."""
        one = self.data.contents[draw.content].on(self.device)
        return one.posed(draw.pose, self.anatomy, self.preset.warp_mm) if self.preset.poses else one

    def _stacked(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.cat([part.to(self.device, non_blocking=True) for part in parts])

    def _generate(self, y: Tensor, z: Tensor) -> Tensor:
        with self.computing.passes():
            return self.G(y, z).float()

    def _judge(self, x: Tensor, y: Tensor) -> Tensor:
        """D's logits, float32 [N]."""
        with self.computing.passes():
            return self.D(x, y).float()

    def _see(self, x: Tensor) -> dict[str, Tensor]:
        """phi's feature maps [N, N_l, H_l, W_l] by layer, in the precision of the passes."""
        with self.computing.passes():
            return self.phi(x)

    def _update_discriminator(self, parts: Sequence[_Part]) -> Tensor:
        self.optimizer_D.zero_grad(set_to_none=True)
        loss = torch.stack([self._learn_to_judge(part) for part in parts]).sum()
        self._add_up(list(self.D.parameters()), {})
        self.optimizer_D.step()
        return loss

    def _learn_to_judge(self, part: _Part) -> Tensor:
        with torch.no_grad():
            real, fake = self._stacked([one.x for one in part.slices]), self._fake(part).detach()
        loss = discriminator_loss(self._judge(real, part.y), self._judge(fake, part.y))
        loss.backward()
        return loss.detach()

    def _add_up(self, parameters: list[torch.nn.Parameter], losses: dict[str, Tensor]) -> None:
        """Adds up the processes' gradients; sums of losses over slices become means over all processes' slices."""
        values = torch.stack([*losses.values()]) if losses else torch.zeros(0, device=self.device)
        self.ranks.add_up([*(p.grad for p in parameters if p.grad is not None), values])
        losses |= dict(zip(losses, values / self.global_batch, strict=True))

    def _generator_terms(
        self, x: Tensor, y: Tensor, draws: Sequence[Draw], slices: Sequence[TrainingSlice]
    ) -> list[Tensor]:
        """The four terms of equation (8), in the order of TERMS: scalars, sums over the slices of x."""
        maps = {layer: _each(m) for layer, m in self._see(x).items()}
        style, content = [], []
        for i, (draw, one) in enumerate(zip(draws, slices, strict=True)):
            own, target = self._content(draw.content, one), self._style(draw.style)
            style += [
                masked_style_loss(organ_grams(maps[layer][i], own.pixels[layer]), target[layer], self.preset.gram_norm)
                for layer in self.preset.style_layers
            ]
            content += [masked_content_loss(maps[layer][i], O, own.pixels[layer]) for layer, O in own.features.items()]
        adversarial = adversarial_loss(self._judge(x, y))
        return [adversarial, torch.stack(style).sum(), torch.stack(content).sum(), total_variation_loss(x)]

    def _content(self, index: int, one: TrainingSlice) -> _Content:
        """What is to be known of content slice ``index``, seen as ``one``: moved slices are measured anew."""
        if index in self._measured:
            return self._measured[index]
        content = self._measure_content(one)
        if self.preset.poses:
            return content
        size = sum(O.nbytes for O in content.features.values())
        if size <= self._cache_room:
            self._cache_room -= size
            self._measured[index] = content
        return content

    @torch.no_grad()
    def _measure_content(self, one: TrainingSlice) -> _Content:
        maps = self._see(one.x.to(self.device))
        features = {layer: maps[layer][0] for layer in self.preset.content_layers}
        return _Content(self._pixels(one, maps), features)

    @torch.no_grad()
    def _measure_style(self, index: int) -> dict[str, OrganGrams]:
        one = self.data.styles[index]
        maps = self._see(one.x.to(self.device))
        pixels = self._pixels(one, maps)
        return {layer: organ_grams(maps[layer][0], pixels[layer]) for layer in self.preset.style_layers}

    def _pixels(self, one: TrainingSlice, maps: dict[str, Tensor]) -> dict[str, OrganPixels]:
        labels = one.labels.to(self.device)
        return {layer: organ_pixels(labels, len(self.anatomy.organs), *m.shape[-2:]) for layer, m in maps.items()}

    def card(self, styles: Sequence[str]) -> dict[str, Any]:
        """What the model card says of these styles besides what all models' cards say."""
        return {}

    def calibrate(self) -> dict[str, float]:
        """Sets the loss weights: the gradients at the generated image get norms in the preset's proportion.

        The norms are medians over up to eight content slices, at the generator's first images. Returns them by term.
        """
        count = min(_CALIBRATION_SLICES, len(self.data.contents))
        norms = np.nanmedian([self._gradient_norms(n) for n in range(count)], axis=0)
        weights = [ratio / max(norm, 1e-12) for ratio, norm in zip(self.preset.gradient_ratio, norms, strict=True)]
        self.loss_weights = tuple(float(w / weights[0]) for w in weights)  # equation (8): the adversarial term has none
        return dict(zip(self.terms, norms.tolist(), strict=True))

    def _gradient_norms(self, n: int) -> list[float]:
        draw = self.data.draw(n, self.seed, self.preset.noise_size)
        one = self._slice(draw)
        y = one.y.to(self.device)
        with torch.no_grad():
            x = self._generate(y, draw.z.to(self.device))
        x.requires_grad_()
        terms = self._generator_terms(x, y, [draw], [one])
        return [torch.autograd.grad(term, x, retain_graph=True)[0].norm().item() for term in terms]


def _each(maps: Tensor) -> Sequence[Tensor]:
    """The images' maps [N, H, W] of a batch [K, N, H, W]; one alone keeps its layout in memory on the way back."""
    return [maps.squeeze(0)] if len(maps) == 1 else maps.unbind(0)
