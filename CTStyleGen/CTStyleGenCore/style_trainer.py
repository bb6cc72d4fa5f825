"""A step of the preset ``styles``: one generator for the styles of all cases, and of cases that it has never seen.

Every case gives both content and style. A draw is a content slice and a look: every second time the slice's own (then
the generator should give back that very slice), else that of another case's slice. Each time the looks are varied organ
by organ, so that between and around a few patients' styles there are no gaps.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .augmentation import varied
from .composition import Composition, cut, fat_of_slice, in_proportion
from .losses import coarse_loss, code_loss, hinge_adversarial_loss, hinge_discriminator_loss, moment_loss
from .perceptual import Features, FeatureWeights, Windows
from .slices import HuRange
from .style_codes import GRAIN_BY, codes_to_json, measure_told, told
from .style_discriminator import FeatureDiscriminator
from .style_generator import NormalizedCodes, StyleGenerator
from .trainer import Trainer
from .training_data import Draw, TrainingSlice, slice_codes

_UNIT_SLICES = 4  # of all cases, that tell how large features are


@dataclass(frozen=True)
class _Task:
    """What a draw asks for, on the device."""

    content: TrainingSlice  # a real CT and its map
    style: TrainingSlice  # whose look is asked for: the content's own, or another case's
    style_codes: Tensor  # [1, organs, CODE_SIZE]
    codes: Tensor  # the same in the proportion of the content's fat, which is what is asked for
    z: Tensor  # [1, noise size]

    @property
    def own_style(self) -> bool:
        return self.style is self.content


@dataclass(frozen=True)
class _Seen:
    """What the generator makes of tasks, and what VGG sees."""

    tasks: Sequence[_Task]
    x: Tensor  # [N, 1, S, S]
    R: dict[str, Tensor]  # features [N, C, s, s] of x, by layer
    S: dict[str, Tensor]  # of the style slices


class StyleTrainer(Trainer):
    """The two players, their optimizers, and a step of the game."""

    D: FeatureDiscriminator
    hu = HuRange()
    terms = ("adversarial", "moments", "code", "coarse")
    _grown = 0  # the side that the networks know codes of

    def _networks(self, size: int, weights: FeatureWeights) -> tuple[Any, torch.nn.Module, torch.nn.Module]:
        preset, grays = self.preset, [organ.gray for organ in self.anatomy.organs]
        judged = (*preset.style_layers, *preset.judged_layers)
        phi = Features(weights, judged, Windows(self.hu))
        some = self.data.contents[:: math.ceil(len(self.data.contents) / _UNIT_SLICES)]
        maps = phi(torch.cat([one.x for one in some]))
        channels = {layer: maps[layer].shape[1] for layer in judged}
        G, D = StyleGenerator(size, grays, preset.noise_size), FeatureDiscriminator(grays, channels)
        self._content_fat, self._style_fat = self._fat(self.data.contents), self._fat(self.data.styles)
        cases = [one.case_id for one in self.data.contents]
        shares = (G.shares(one.y) for one in self.data.contents)
        G.composition = Composition.learned(shares, self._content_fat, cases, cut(self.hu))
        self._content_fat = self._content_fat.where(G.composition.told, torch.nan)
        D.learn(maps)
        return G, D.eval(), phi

    def _optimizer_D(self) -> torch.optim.Optimizer:
        preset = self.preset
        return torch.optim.Adam(self.D.parameters(), preset.discriminator_rate, preset.generator_betas, fused=True)

    def _fat(self, slices: Sequence[TrainingSlice]) -> Tensor:
        """The share of each organ's pixels that are fat: [slices, organs]."""
        organs = len(self.anatomy.organs)
        return torch.stack([fat_of_slice(one.x[0, 0], one.labels, organs, cut(self.hu)) for one in slices])

    def card(self, styles: Sequence[str]) -> dict[str, Any]:
        """The style bank, codes of these cases, each measured over all of its style slices; what maps tell of fat."""
        slices = {case: [one for one in self.data.styles if one.case_id == case] for case in styles}
        codes = {case: slice_codes(own, self.anatomy) for case, own in slices.items()}
        bank = {case: codes_to_json(own, self.anatomy, self.hu) for case, own in codes.items()}
        return {"style_codes": bank, "grain_by": GRAIN_BY, "fat": self.G_average.composition.to_json(self.anatomy)}

    # --- growing: early steps are made with fewer pixels ---

    @property
    def side(self) -> int:
        """Pixels a side of this step's slices."""
        left = self.step
        for side, steps in self.preset.stages(self.size, self.steps):
            if left < steps:
                return side
            left -= steps
        return self.size

    def _grow(self) -> None:
        """Has the networks told of codes as they are at the step's side: roughness is by the pixel."""
        if self.side == self._grown:
            return
        self._grown = self.side
        slices = [one.on(self.device).smaller(self.side, self.anatomy) for one in self.data.contents]
        codes = torch.stack([slice_codes([one], self.anatomy) for one in slices])
        for network in (self.G, self.G_average, self.D):
            for part in network.modules():
                if isinstance(part, NormalizedCodes):
                    part.learn(codes)

    # --- a step ---

    def train_step(self) -> dict[str, Tensor]:
        """One step. Returns the unweighted loss terms, detached scalars: means over the slices of the step."""
        self._grow()
        tasks = [self._task(draw) for draw in self._draws()]
        at_once = self.computing.at_once or len(tasks)
        parts = [tasks[n : n + at_once] for n in range(0, len(tasks), at_once)]
        kept = [self._seen(tasks)] if len(parts) == 1 else []

        def seen() -> Iterable[_Seen]:
            return kept or map(self._seen, parts)

        losses = {"discriminator": self._learn_to_tell(seen())}
        terms = map(self._terms, seen())
        self._update_generator(next(terms), losses, terms)
        self.step += 1
        return losses

    @torch.no_grad()
    def drawn(self, content: TrainingSlice, z: Tensor, style: TrainingSlice) -> Tensor:
        """At the step's side, shown with the model's."""
        self._grow()
        small, codes = content.smaller(self.side, self.anatomy), self._codes(style.smaller(self.side, self.anatomy))
        x = self.G_average(*(t.to(self.device) for t in (small.y, z, codes))).cpu()
        return F.interpolate(x, size=content.x.shape[2:])

    def _task(self, draw: Draw) -> _Task:
        """The draw's slices, moved, varied, at the step's side; every second draw asks for the content's own style."""
        rng = np.random.default_rng([self.seed, 2, draw.number])
        content = self._varied(self._slice(draw), rng)
        style = content if draw.number % 2 == 0 else self._varied(self._style_slice(draw, rng), rng)
        codes = self._codes(style)
        asked = codes
        if style is not content:
            own, wanted = self._style_fat[[draw.style]], self._content_fat[[draw.content]]
            asked = in_proportion(codes, own.to(self.device), wanted.to(self.device))
        return _Task(content, style, codes, asked, draw.z.to(self.device))

    def _style_slice(self, draw: Draw, rng: np.random.Generator) -> TrainingSlice:
        """Another case's, mirrored or not: moved in other ways, it would lose some of its sharpness."""
        one = self.data.styles[draw.style].on(self.device)
        return one.mirrored() if rng.random() < 0.5 else one

    def _codes(self, style: TrainingSlice) -> Tensor:
        return slice_codes([style], self.anatomy)[None]

    def _varied(self, one: TrainingSlice, rng: np.random.Generator) -> TrainingSlice:
        one = one.smaller(self.side, self.anatomy)
        return replace(one, x=varied(one.x, one.labels, len(self.anatomy.organs), rng))

    def _seen(self, tasks: Sequence[_Task]) -> _Seen:
        x = self._made(tasks)
        with torch.no_grad():
            S = self._see(torch.cat([task.style.x for task in tasks]))
        return _Seen(tasks, x, self._see(x), S)

    def _made(self, tasks: Sequence[_Task]) -> Tensor:
        y, z, codes = (torch.cat(parts) for parts in zip(*((t.content.y, t.z, t.codes) for t in tasks), strict=True))
        with self.computing.passes():
            return self.G(y, z, codes).float()

    def _learn_to_tell(self, parts: Iterable[_Seen]) -> Tensor:
        """D's step: features of the generated images, and of real ones in the very styles that were asked for."""
        self.optimizer_D.zero_grad(set_to_none=True)
        self.D.update_norms()
        losses = []
        for part in parts:
            style_y, y = (torch.cat([getattr(task, name).y for task in part.tasks]) for name in ("style", "content"))
            of_style, codes = (
                torch.cat([getattr(task, name) for task in part.tasks]) for name in ("style_codes", "codes")
            )
            real = self._judged(part.S, style_y, of_style)
            fake = self._judged({layer: maps.detach() for layer, maps in part.R.items()}, y, codes)
            loss = torch.stack([hinge_discriminator_loss(a, b) for a, b in zip(real, fake, strict=True)]).mean()
            loss.backward()
            losses.append(loss.detach())
        self._add_up(list(self.D.parameters()), {})
        self.optimizer_D.step()
        return torch.stack(losses).sum()

    def _judged(self, maps: dict[str, Tensor], y: Tensor, codes: Tensor) -> list[Tensor]:
        """D's logits, float32 [N, 1, s, s] of each layer."""
        with self.computing.passes():
            return [logits.float() for logits in self.D(maps, y, codes)]

    def _terms(self, seen: _Seen) -> list[Tensor]:
        """The generator's terms, in the order of ``terms``: scalars, sums over the slices."""
        rows = []
        for i, task in enumerate(seen.tasks):
            R, S = ({layer: maps[i : i + 1] for layer, maps in of.items()} for of in (seen.R, seen.S))
            rows.append(self._terms_of(seen.x[i : i + 1], R, S, task))
        return [torch.stack(column).sum() for column in zip(*rows, strict=True)]

    def _terms_of(self, x: Tensor, R: dict[str, Tensor], S: dict[str, Tensor], task: _Task) -> list[Tensor]:
        """The terms of one slice x [1, 1, S, S] with features R, where its style has S."""
        content, layers = task.content, self.preset.style_layers
        r, s = self._pixels(content, R), self._pixels(task.style, S)
        moments = [moment_loss(R[layer][0], r[layer], S[layer][0], s[layer]) for layer in layers]
        measured = measure_told(x[0], content.labels[None], len(self.anatomy.organs))
        code = code_loss(measured, told(task.codes)[0])
        coarse = coarse_loss(x, content.x) if task.own_style else x.new_zeros(())
        adversarial = [hinge_adversarial_loss(logits) for logits in self._judged(R, content.y, task.codes)]
        return [torch.stack(adversarial).mean(), torch.stack(moments).sum(), code, coarse]

    def _gradient_norms(self, n: int) -> list[float]:
        """NaN for terms that the draw doesn't have."""
        self._grow()
        seen = self._seen([self._task(self.data.draw(n, self.seed, self.preset.noise_size))])
        x = seen.x.detach().requires_grad_()
        terms = self._terms(replace(seen, x=x, R=self._see(x)))
        gradients = [torch.autograd.grad(t, x, retain_graph=True)[0] if t.requires_grad else None for t in terms]
        return [math.nan if gradient is None else gradient.norm().item() for gradient in gradients]
