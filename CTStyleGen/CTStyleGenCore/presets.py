"""Training recipes by name. A preset is all that a training run does but its data, size and length."""

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from .errors import InputError

if TYPE_CHECKING:  # a recipe is known without torch
    from .losses import GramNorm
    from .networks import GeneratorKind


@dataclass(frozen=True)
class Preset:
    """A recipe. The comments give the reason for each value of ``paper``; docs/paper.md has the long form."""

    name: str
    # Six grays: section 2. The organs that they stand for are in a figure; thorax is the text's reading of it.
    anatomy: str = "thorax"
    # Section 2.1: an encoder-decoder of convolutions with kernel 4 and stride 2.
    generator: "GeneratorKind" = "paper"
    # Section 2.1: "a 200-dimensional random code". Its distribution is not given: standard normal.
    noise_size: int = 200
    # Section 2.2: "the first layer and every other RELU layer that succeeds the pooling layer".
    style_layers: tuple[str, ...] = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
    # What a discriminator that looks at features judges besides the style layers. For the preset styles alone.
    judged_layers: tuple[str, ...] = ()
    # Section 2.2: "the RELU activations of the tenth layer": the tenth convolution of VGG-19 is conv4_2.
    content_layers: tuple[str, ...] = ("relu4_2",)
    # Equation (6) as printed divides by all pixels of the layer.
    gram_norm: "GramNorm" = "paper"
    # w_s, w_c, w_tv are not given. They are set before the first step so that the gradients at the generated image have
    # norms in this proportion (adversarial : style : content : total variation).
    gradient_ratio: tuple[float, ...] = (1.0, 10.0, 1.0, 0.1)
    # w_s grows geometrically by this factor within so many steps, then stays. The paper doesn't say so.
    style_growth: tuple[float, int] = (1.0, 1)
    # Section 2.1: Adam and stochastic gradient descent; rates and the 2 : 1 of updates are those of the code that the
    # paper builds on (Zhao et al.).
    generator_rate: float = 2e-4
    generator_betas: tuple[float, float] = (0.5, 0.999)
    discriminator_rate: float = 8e-5
    generator_updates_per_discriminator_update: int = 2
    # Whether content slices are moved, CT and map together (augmentation). The paper doesn't say so.
    poses: bool = False
    # By how much moved slices are warped at most, in mm (root mean square): so that maps like those of varied anatomy
    # are in the training. The paper has the same network draw perturbed maps; whether it trained on some, it doesn't
    # say.
    warp_mm: float = 0.0
    # The share of the steps that are made with fewer pixels, 128 a side, then 256, before those of the model's own size
    # (progressive growing: Karras et al., arXiv 1710.10196). For the preset styles alone.
    growing_share: float = 0.0
    # The model is G averaged over this many last steps (Karras et al., arXiv 1710.10196); 1: G itself.
    average_steps: int = 1
    # Section 2.3: 100 epochs; one or two slices of each of 12 patients, 20 in all.
    epochs: int = 100
    # Steps at least where no length is asked for: of few slices, an epoch is short. The paper doesn't say so.
    least_steps: int = 1
    slices_per_case: int = 2
    style_slices: int = 1

    @property
    def style_bank(self) -> bool:
        """Whether its models take each organ's style when they are used, from a bank of style codes or any CT."""
        return self.generator == "styles"

    def steps(self, slices: float, epochs: int | None = None, batch: int = 1) -> int:
        """The steps of a training with so many slices, ``batch`` in each; epochs: None for the preset's length."""
        if epochs:
            return math.ceil(epochs * slices / batch)
        return max(self.least_steps, math.ceil(self.epochs * slices / batch))

    def stages(self, size: int, steps: int) -> list[tuple[int, int]]:
        """How many of so many steps are made with how many pixels a side (side, steps), the model's own size last."""
        small = [side for side in (128, 256, 512) if side < size]
        each = int(self.growing_share * steps) // len(small) if small else 0
        return [*((side, each) for side in small), (size, steps - each * len(small))]

    def card(self) -> dict:
        """The preset as JSON-ready values."""
        return asdict(self)


# The paper with equation (6) in units of the style. As printed, layer and organ sizes decide what counts as style, and
# the style's grays are not rewarded (docs/paper.md). A style that weighs as much from the first step on as it takes to
# reach its grays leaves noise, so it grows while the anatomy is learned; the average takes the last steps' swings out.
_PAPER_RELATIVE = Preset(
    "paper-relative",
    gram_norm="relative",
    gradient_ratio=(1.0, 0.2, 3.0, 0.1),
    style_growth=(60.0, 1200),
    generator_rate=5e-4,
    average_steps=50,
)

# For a first look without ImageNet weights. Random filters see texture in their first blocks only, so style and content
# are measured there, at a third of the cost; each organ's style over its own area, or small organs would learn no gray.
_QUICK = Preset(
    "quick",
    generator="organs",
    style_layers=("relu1_1", "relu2_1", "relu3_1"),
    content_layers=("relu2_1",),
    gram_norm="area",
    gradient_ratio=(1.0, 10.0, 3.0, 0.02),
    poses=True,
    average_steps=100,
    slices_per_case=10,
)

# One network for many styles, chosen and mixed organ by organ when it is used. docs/ablation.md: what each means does.
_STYLES = Preset(
    "styles",
    generator="styles",
    style_layers=("relu1_1", "relu2_1", "relu3_1", "relu4_1"),
    judged_layers=("relu5_1",),
    content_layers=(),
    # adversarial, moments, code, coarse
    gradient_ratio=(0.6, 3.0, 6.0, 6.0),
    generator_rate=2e-3,
    generator_betas=(0.0, 0.99),
    discriminator_rate=2e-3,
    generator_updates_per_discriminator_update=1,
    poses=True,
    warp_mm=10.0,
    growing_share=0.6,
    average_steps=200,
    epochs=60,
    least_steps=1400,
    slices_per_case=10,
    style_slices=10,
)

PRESETS = {preset.name: preset for preset in (Preset("paper"), _PAPER_RELATIVE, _QUICK, _STYLES)}
DEFAULT = "styles"


def load_preset(name: str) -> Preset:
    """The preset of that name. Raises InputError for an unknown one."""
    if name not in PRESETS:
        raise InputError(f"There is no preset {name!r}: choose from {', '.join(sorted(PRESETS))}.")
    return PRESETS[name]
