"""A step of the preset ``styles``: one generator for the styles of all cases, and of cases that it has never seen.

Every case gives both content and style. A draw is a content slice and a look: every second time the slice's own (then
the generator should give back that very slice), else that of another case's slice. Each time the looks are varied organ
by organ, so that between and around a few patients' styles there are no gaps.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .augmentation import varied
from .losses import (
    coarse_loss,
    code_loss,
    hinge_adversarial_loss,
    hinge_discriminator_loss,
    moment_loss,
)
from .perceptual import Features, FeatureWeights, Windows
from .slices import HuRange
from .style_codes import codes_to_json, measure_codes
from .style_generator import PatchDiscriminator, StyleGenerator
from .trainer import Trainer
from .training_data import Draw, TrainingSlice, slice_codes


@dataclass(frozen=True)
class _Task:
    """What a draw asks for, on the device."""

    content: TrainingSlice  # a real CT and its map
    style: TrainingSlice  # whose look is asked for: the content's own, or another case's
    content_codes: Tensor  # [1, organs, CODE_SIZE]
    style_codes: Tensor

    @property
    def own_style(self) -> bool:
        return self.style is self.content


class StyleTrainer(Trainer):
    """The two players, their optimizers, and a step of the game."""

    hu = HuRange()
    terms = ("adversarial", "moments", "code", "coarse")

    def _networks(self, size: int, weights: FeatureWeights) -> tuple[Any, torch.nn.Module, torch.nn.Module]:
        preset, windows = self.preset, Windows(self.hu)
        grays = [organ.gray for organ in self.anatomy.organs]
        G, D = StyleGenerator(size, grays, preset.noise_size), PatchDiscriminator(grays, windows)
        codes = torch.stack([slice_codes([one], self.anatomy) for one in self.data.contents])
        for normalized in (G.normalized, D.normalized):
            normalized.learn(codes)
        D.eval()
        return G, D, Features(weights, preset.style_layers, windows)

    def _optimizer_D(self) -> torch.optim.Optimizer:
        preset = self.preset
        return torch.optim.Adam(self.D.parameters(), preset.discriminator_rate, preset.generator_betas, fused=True)

    def card(self, styles: Sequence[str]) -> dict[str, Any]:
        """The style bank: the codes of these cases, each measured over all of its style slices together."""
        slices = {case: [one for one in self.data.styles if one.case_id == case] for case in styles}
        codes = {case: slice_codes(own, self.anatomy) for case, own in slices.items()}
        return {"style_codes": {case: codes_to_json(own, self.anatomy, self.hu) for case, own in codes.items()}}

    # --- a step ---

    def train_step(self) -> dict[str, Tensor]:
        """One step. Returns the unweighted loss terms, detached scalars: means over the slices of the step."""
        draws = self._draws()
        tasks = [self._task(draw) for draw in draws]
        y, x = (self._stacked([getattr(task.content, name) for task in tasks]) for name in ("y", "x"))
        own, asked = (torch.cat([getattr(task, name) for task in tasks]) for name in ("content_codes", "style_codes"))
        fake = self._made(y, self._stacked([draw.z for draw in draws]), asked)
        self.D.train()  # spectral norms are brought up to date here alone, equally often in every process
        loss = hinge_discriminator_loss(self._judged(x, y, own), self._judged(fake.detach(), y, asked))
        self.D.eval()
        self.optimizer_D.zero_grad(set_to_none=True)
        loss.backward()
        self._add_up(list(self.D.parameters()), {})
        self.optimizer_D.step()
        losses = {"discriminator": loss.detach()}
        self._update_generator(self._terms(fake, tasks), losses)
        self.step += 1
        return losses

    @torch.no_grad()
    def drawn(self, content: TrainingSlice, z: Tensor, style: TrainingSlice) -> Tensor:
        codes = slice_codes([style], self.anatomy)[None]
        return self.G_average(*(t.to(self.device) for t in (content.y, z, codes))).cpu()

    def _task(self, draw: Draw) -> _Task:
        """The draw's slices, moved and varied; every second draw asks for the content's own style."""
        rng = np.random.default_rng([self.seed, 2, draw.number])
        content = self._varied(self._slice(draw), rng)
        style = content if draw.number % 2 == 0 else self._varied(self.data.styles[draw.style], rng)
        return _Task(content, style, *(slice_codes([one], self.anatomy)[None] for one in (content, style)))

    def _varied(self, one: TrainingSlice, rng: np.random.Generator) -> TrainingSlice:
        x = varied(one.x, one.labels, len(self.anatomy.organs), rng)
        return replace(one, x=x.to(self.device), y=one.y.to(self.device), labels=one.labels.to(self.device))

    def _made(self, y: Tensor, z: Tensor, codes: Tensor) -> Tensor:
        with self.computing.passes():
            return self.G(y, z, codes).float()

    def _judged(self, x: Tensor, y: Tensor, codes: Tensor) -> Tensor:
        """D's logits, float32 [N, 1, s, s]."""
        with self.computing.passes():
            return self.D(x, y, codes).float()

    def _terms(self, x: Tensor, tasks: Sequence[_Task]) -> list[Tensor]:
        """The generator's terms, in the order of ``terms``: scalars, sums over the slices of x."""
        seen = self._see(x)
        rows = [
            self._terms_of(x[i : i + 1], {layer: maps[i] for layer, maps in seen.items()}, task)
            for i, task in enumerate(tasks)
        ]
        return [torch.stack(column).sum() for column in zip(*rows, strict=True)]

    def _terms_of(self, x: Tensor, R: dict[str, Tensor], task: _Task) -> list[Tensor]:
        """The terms of one slice x [1, 1, S, S] with features R."""
        content, style, organs = task.content, task.style, len(self.anatomy.organs)
        with torch.no_grad():
            S = self._see(style.x)
        r, s = self._pixels(content, R), self._pixels(style, S)
        moments = [moment_loss(R[layer], r[layer], S[layer][0], s[layer]) for layer in self.preset.style_layers]
        code = code_loss(measure_codes(x[0], content.labels[None], organs), task.style_codes[0])
        coarse = coarse_loss(x, content.x) if task.own_style else x.new_zeros(())
        adversarial = hinge_adversarial_loss(self._judged(x, content.y, task.style_codes))
        return [adversarial, torch.stack(moments).sum(), code, coarse]

    def _gradient_norms(self, n: int) -> list[float]:
        """NaN for terms that the draw doesn't have."""
        draw = self.data.draw(n, self.seed, self.preset.noise_size)
        task = self._task(draw)
        with torch.no_grad():
            x = self._made(task.content.y, draw.z.to(self.device), task.style_codes)
        terms = self._terms(x.requires_grad_(), [task])
        gradients = [torch.autograd.grad(t, x, retain_graph=True)[0] if t.requires_grad else None for t in terms]
        return [math.nan if gradient is None else gradient.norm().item() for gradient in gradients]
