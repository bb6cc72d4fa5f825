"""The paper's losses, a function per equation: (2) to (9) of section 2.2.

Symbols as in the paper: phi^l(x) is the feature map of image x at layer l, an N_l x M_l matrix (N_l filters, M_l
pixels); SG is the set of segments, here called organs. An image's map y says which pixels belong to which organ; at a
layer, whose pixels are coarser, an organ owns the pixels that it covers by at least one half (``OrganPixels``).

Organ sums gather each organ's own pixels instead of multiplying the whole map by a mask per organ: the same numbers,
since a Gram matrix only adds up pixels, for the price of one Gram instead of one per organ.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

GramNorm = Literal["paper", "area", "matched", "relative"]


# --- which pixels are whose ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OrganPixels:
    """The pixels of each organ in a feature map of M pixels.

    ``index`` lists the pixels organ by organ, ``areas`` how many are each organ's; the rest is the way back: from a
    pixel to its place in that list.
    """

    index: Tensor  # int64 [sum of areas]
    areas: tuple[int, ...]  # per organ
    pixels: int  # M, the map's height times width
    place: Tensor  # int64 [M]: a place in index; its length where nobody owns the pixel
    again: Tensor  # int64 [...]: places in index of pixels that ``place`` leads elsewhere, to another owner
    area: Tensor  # areas as float32, [organs, 1, 1], where the features are

    def gather(self, features: Tensor) -> tuple[Tensor, ...]:
        """features [N, H, W] -> per organ [area, N], float32 or better: a row per pixel."""
        rows = features.permute(1, 2, 0).flatten(0, 1)  # [M, N], a view when channels come last in memory
        return _Gather.apply(rows, self)


class _Gather(torch.autograd.Function):
    """Rows by organ, float32 or better. Backwards it gathers too: quicker than to add row by row, and reproducible."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, organs: OrganPixels) -> tuple[Tensor, ...]:
        ctx.organs, ctx.dtype = organs, rows.dtype
        exact = torch.promote_types(rows.dtype, torch.float32)
        return rows.index_select(0, organs.index).to(exact).split(organs.areas)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        organs: OrganPixels = ctx.organs
        by_place = torch.cat([*grads, grads[0].new_zeros(1, grads[0].shape[1])])
        result = by_place.index_select(0, organs.place)
        if len(organs.again):
            result.index_add_(0, organs.index[organs.again], by_place[organs.again])
        return result.to(ctx.dtype), None


def organ_pixels(labels: Tensor, organs: int, height: int, width: int) -> OrganPixels:
    """Whose the pixels of a height x width feature map are, by a label map of a multiple of that size.

    An organ owns a pixel that it covers by at least one half (the paper does not say how masks go down to a layer). So
    a pixel shared by two organs half and half is both organs', one shared by three or more may be nobody's.

    labels: int64 [H, W], values 0 to organs - 1.
    """
    masks = (labels == torch.arange(organs, device=labels.device)[:, None, None]).float()[None]  # [1, organs, H, W]
    share = F.adaptive_avg_pool2d(masks, (height, width))[0]
    owned = (share >= 0.5).flatten(1)  # [organs, M]
    index = owned.nonzero()[:, 1]  # row-major: organ by organ
    places = torch.arange(len(index), device=index.device)
    place = index.new_full((height * width,), len(index)).index_copy_(0, index, places)
    again = (place[index] != places).nonzero()[:, 0]
    areas = owned.sum(1)
    return OrganPixels(index, tuple(areas.tolist()), height * width, place, again, areas.float()[:, None, None])


# --- content -------------------------------------------------------------------------------------------------------


def content_loss(R: Tensor, O: Tensor) -> Tensor:
    """Equation (2): L_c = 1 / (2 N M) sum_ij |R_ij - O_ij|^2, for feature maps R and O [N, H, W]."""
    N, M = R.shape[0], R[0].numel()
    return (R - O).square().sum() / (2 * N * M)


def masked_content_loss(R: Tensor, O: Tensor, organs: OrganPixels) -> Tensor:
    """Equation (7) at one layer: the content loss, organ by organ; each organ's pixels over the layer's N and M."""
    N, M = R.shape[0], organs.pixels
    return sum(
        ((r - o).square().sum() for r, o in zip(organs.gather(R), organs.gather(O), strict=True)), R.new_zeros(())
    ) / (2 * N * M)


# --- style ---------------------------------------------------------------------------------------------------------


def gram(S: Tensor) -> Tensor:
    """Equation (3): G_ij = sum_k S_ik S_jk, for features S [N, M] -> [N, N]."""
    return _Gram.apply(S)


class _Gram(torch.autograd.Function):
    """S S^T, whose derivative takes one product where that of a product of two matrices takes two."""

    @staticmethod
    def forward(ctx: Any, S: Tensor) -> Tensor:
        ctx.save_for_backward(S)
        return S @ S.mT

    @staticmethod
    def backward(ctx: Any, dG: Tensor) -> Tensor:
        (S,) = ctx.saved_tensors
        return (dG + dG.mT) @ S


def style_loss(R: Tensor, S: Tensor) -> Tensor:
    """Equation (4): L_s = 1 / (4 N^2 M^2) ||G(R) - G(S)||_F^2, for feature maps R and S [N, H, W]."""
    N, M = R.shape[0], R[0].numel()
    return (gram(R.flatten(1)) - gram(S.flatten(1))).square().sum() / (4 * N**2 * M**2)


@dataclass(frozen=True)
class OrganGrams:
    """RR_sg or SS_sg of equation (6) at one layer: an unscaled Gram matrix per organ, and over how many pixels."""

    grams: Tensor  # [organs, N, N]
    area: Tensor  # [organs, 1, 1]: pixels of each
    pixels: int  # M


def organ_grams(features: Tensor, organs: OrganPixels) -> OrganGrams:
    """The Gram matrix (3) of each organ's own pixels, for features [N, H, W]."""
    grams = torch.stack([gram(rows.mT) for rows in organs.gather(features)])
    return OrganGrams(grams, organs.area, organs.pixels)


def _scales(r: OrganGrams, s: OrganGrams, norm: GramNorm) -> tuple[Tensor | float, Tensor | float]:
    """What the Gram matrices of result and style are multiplied with before they are compared, per organ or for all."""
    if norm == "paper":  # each by all pixels of the layer, as printed: an organ's area counts as style
        return 1 / r.pixels, 1 / s.pixels
    area_r, area_s = (one.area.clamp(min=1).to(one.grams.dtype) for one in (r, s))
    if norm == "area":  # each by its organ's own pixels: organs of any area compare, small ones count in full
        return 1 / area_r, 1 / area_s
    if norm == "matched":  # as printed, with the style's Gram brought to the area that the organ has in the result
        return 1 / r.pixels, area_r / (area_s * r.pixels)
    # relative: as area, in units of both Grams together, so that all layers and organs weigh alike; at most 1 for each
    N = s.grams.shape[-1]
    size_r, size_s = (
        torch.linalg.matrix_norm(one.grams, keepdim=True) / area for one, area in ((r, area_r), (s, area_s))
    )
    unit = (size_r.square() + size_s.square()).clamp(min=1e-12).sqrt()
    return 2 * N / (area_r * unit), 2 * N / (area_s * unit)


def masked_style_loss(r: OrganGrams, s: OrganGrams, norm: GramNorm = "paper", min_area: int = 4) -> Tensor:
    """Equation (6) at one layer: sum over organs of 1 / (4 N^2 M^2) ||RR_sg - SS_sg||_F^2.

    An organ that covers fewer than ``min_area`` pixels of the layer, in the result or in the style, is left out of the
    sum. The summands are taken as 1 / (4 N^2) ||a RR - b SS||_F^2; for the printed norm a = b = 1 / M. For the norm
    ``relative``, with r = RR / A_r and s = SS / A_s, A the organ's pixels in each, they come to
    ||r - s||_F^2 / (||r||_F^2 + ||s||_F^2), which never exceeds 1: no result, however far off, breaks G.
    """
    N = r.grams.shape[-1]
    a, b = _scales(r, s, norm)
    counts = torch.minimum(r.area, s.area) >= max(min_area, 1)  # [organs, 1, 1]
    return ((a * r.grams - b * s.grams) * counts).square().sum() / (4 * N**2)


# --- smoothness ----------------------------------------------------------------------------------------------------


def total_variation_loss(x: Tensor) -> Tensor:
    """Equation (5), both directions: sum of squared differences of neighbors in x [..., H, W].

    As printed both terms are the horizontal one; the second is taken to be x_{w+1,h} - x_{w,h}.
    """
    return (x[..., :, 1:] - x[..., :, :-1]).square().sum() + (x[..., 1:, :] - x[..., :-1, :]).square().sum()


# --- the game ------------------------------------------------------------------------------------------------------


def adversarial_loss(fake_logits: Tensor) -> Tensor:
    """The first term of equation (8): -sum_i log D(G(y_i, z_i), y_i), D the sigmoid of the logits [N]."""
    return F.softplus(-fake_logits).sum()


def generator_loss(terms: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Equation (8): adversarial + w_s L_s + w_c L_c + w_tv L_tv, for the four terms in this order and their weights.

    The paper gives the adversarial term no weight: its weight is 1.
    """
    return sum((w * term for w, term in zip(weights, terms, strict=True)), torch.zeros_like(terms[0]))


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Equation (9), its bracket closed: -sum_i [log D(x_i, y_i) + log(1 - D(G(y_i, z_i), y_i))], from logits [N]."""
    return (F.softplus(-real_logits) + F.softplus(fake_logits)).sum()


# --- beyond the paper: the losses of the preset styles ---------------------------------------------------------------


def moment_loss(R: Tensor, r: OrganPixels, S: Tensor, s: OrganPixels, min_area: int = 4) -> Tensor:
    """First and second moments of the features over each organ: |difference| of result R [N, H, W] and style S.

    Means and deviations, the style of AdaIN (Huang and Belongie, arXiv 1703.06868), and Gram matrices (3), the paper's,
    organ by organ. Both in units of the style's own and without squares, so that all layers and organs weigh alike, and
    no feature more than its share. S may be of another size. Organs below ``min_area`` pixels in either are left out.
    """
    both = [(a, b) for a, b in zip(r.gather(R), s.gather(S), strict=True) if min(len(a), len(b)) >= min_area]
    losses = [
        sum(((of_a - of_b).abs().sum() / of_b.abs().sum().clamp(min=1e-6) for of_a, of_b in pairs), R.new_zeros(()))
        for pairs in (zip(_moments(a), _moments(b), strict=True) for a, b in both)
    ]
    return torch.stack(losses).mean() if losses else R.new_zeros(())


def _moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    """[area, N] -> means and deviations [2, N], Gram matrix [N, N]."""
    means = rows.mean(0)
    variances = (rows - means).square().mean(0)  # half the time of Tensor.var, backwards too
    deviations = (variances + 1e-6).sqrt()  # of constant rows, too, with a gradient that is a number
    return torch.stack([means, deviations]), gram(rows.mT) / len(rows)


def code_loss(measured: Tensor, asked: Tensor) -> Tensor:
    """Mean |difference| of the style codes [organs, numbers] measured on the result and asked for; NaN: no say.

    Latent regression (Zhu et al., arXiv 1711.11586) with an encoder that needs no learning.
    """
    both = ~(measured.isnan() | asked.isnan())
    return (measured[both] - asked[both]).abs().sum() / max(1, len(measured))


def coarse_loss(x: Tensor, target: Tensor, squares: int = 32) -> Tensor:
    """Mean |difference| of x and target [1, 1, S, S], both averaged over so many squares a side: layout, no texture.

    A difference pixel by pixel is least for the median of all textures, which is smooth: noise would be unlearned.
    """
    return (F.adaptive_avg_pool2d(x, squares) - F.adaptive_avg_pool2d(target, squares)).abs().mean()


def hinge_discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """The hinge version of the game (Lim and Ye, arXiv 1705.02894): mean over the patches of each image, sum over N."""
    return (F.relu(1 - real_logits) + F.relu(1 + fake_logits)).flatten(1).mean(1).sum()


def hinge_adversarial_loss(fake_logits: Tensor) -> Tensor:
    """The generator's side of the hinge game: mean over the patches of each image, sum over N."""
    return -fake_logits.flatten(1).mean(1).sum()
