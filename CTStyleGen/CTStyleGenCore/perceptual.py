"""VGG features of CT slices: phi^l of equation (1), the ruler that the style and content losses measure with."""

import io
import math
import pickletools
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from .errors import InputError
from .files import sha256
from .slices import HuRange

# Weights published by torchvision: file name (its end is the start of the SHA-256) by network.
PUBLISHED = {"vgg19": "vgg19-dcbb9e9d.pth", "vgg16": "vgg16-397923af.pth"}
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# How much of their mean random filters lose. CT is mostly flat: with it all, edges and texture would hardly count.
_FLATNESS = 0.7
# Variance of a filter's output: 2 would keep the scale from layer to layer (He et al., arXiv 1502.01852); the mean that
# filters lost is made up for, so that noise gives deviations of 0.3 to 0.5 from relu1_1 to relu5_1.
_GAIN = 2.74
_PICKLES = 5  # of a .pth that is no archive: a magic number, a version, the machine, what is saved, and its storages
_PICKLE_BYTES = 16 << 20  # of these, before the storages; real ones take some thousand
KINDS = ("vgg19", "vgg16", "random")


@dataclass(frozen=True)
class FeatureWeights:
    """The convolutions of a VGG and the input normalization they were trained with (RGB in [0, 1])."""

    kind: str
    state: dict[str, Tensor]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sha256: str | None  # of the file; None for random filters

    def card(self) -> dict:
        """What the model card says of the features."""
        return {"kind": self.kind, "sha256": self.sha256, "mean": list(self.mean), "std": list(self.std)}


def _features(kind: str) -> nn.Sequential:
    """torchvision's VGG up to its last convolution, on the meta device: the shapes without the memory."""
    with torch.device("meta"):
        model = torchvision.models.vgg16() if kind == "vgg16" else torchvision.models.vgg19()
    return model.features


def _layer_ends(features: nn.Sequential) -> dict[str, int]:
    """Index of each ReLU by its name: block and place in the block, as in relu4_2."""
    ends, block, place = {}, 1, 0
    for index, module in enumerate(features):
        if isinstance(module, nn.MaxPool2d):
            block, place = block + 1, 0
        elif isinstance(module, nn.ReLU):
            place += 1
            ends[f"relu{block}_{place}"] = index
    return ends


def random_weights(seed: int = 0) -> FeatureWeights:
    """VGG-19 with random filters from a fixed seed: carries texture statistics without any training.

    Random filters as a measure of texture: Ustyuzhaninov et al., arXiv 1606.00021.
    """
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, p in _features("random").state_dict().items():
        if name.endswith("bias"):
            state[name] = torch.zeros(p.shape)
        else:
            filters = torch.randn(p.shape, generator=generator)
            filters -= _FLATNESS * filters.mean((2, 3), keepdim=True)
            state[name] = filters * (_GAIN / filters[0].numel() / filters.var()).sqrt()
    # Normalized to 0.5 for air and 1.5 for the brightest: no gray is near 0, where filters without bias feel nothing.
    return FeatureWeights("random", state, (-0.5,) * 3, (1.0,) * 3, None)


def published_path(kind: str) -> Path:
    """Where torchvision's own download of the published weights lies on this machine."""
    return Path(torch.hub.get_dir()) / "checkpoints" / PUBLISHED[kind]


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} can't be read as safetensors: {_one_line(error)}.") from error


def _read_pth(path: Path) -> dict[str, Tensor]:
    """The tensors of a .pth file; those of an archive stay in the file until they are used."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_checked_archive(path))
    except Exception as error:  # torch raises many kinds for a broken archive
        raise InputError(f"{path} can't be read as PyTorch weights: {_one_line(error)}.") from error
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise InputError(f"{path} holds something else than weights: choose a file with a state dict.")
    return {str(name): t for name, t in state.items()}


def _is_checked_archive(path: Path) -> bool:
    """Whether a .pth file is a ZIP archive, not one pickle after another as PyTorch wrote them before version 1.6.

    Raises ValueError where it asks for more memory than a file of its length holds: for packed entries, and for numbers
    in a pickle (the lengths of tensors are among them) that are greater than the file is long.
    """
    length = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(_PICKLE_BYTES)
    pickles = [io.BytesIO(start)] * _PICKLES
    is_archive = start.startswith(b"PK\3\4")
    if is_archive:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if any(entry.compress_type or entry.file_size != entry.compress_size for entry in entries):
                raise ValueError("its entries are packed")
            if sum(entry.file_size for entry in entries) > length:
                raise ValueError("its entries overlap")
            pickles = [io.BytesIO(archive.read(entry)) for entry in entries if entry.filename.endswith(".pkl")]
    for pickle in pickles:
        for _, value, _ in pickletools.genops(pickle):
            if isinstance(value, int) and value > length and value != torch.serialization.MAGIC_NUMBER:
                raise ValueError("it claims more than fits into a file of its length")
    return is_archive


def _could_be(t: Tensor, expected: Tensor) -> bool:
    """Whether a tensor from a file can be this parameter: there are also sparse ones, and such without values."""
    return t.shape == expected.shape and t.is_floating_point() and t.layout == torch.strided and not t.is_meta


def _one_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__


def _three(text: str) -> tuple[float, ...]:
    """Three numbers, with commas between them. Raises ValueError for anything else."""
    numbers = tuple(float(value) for value in text.split(","))
    if len(numbers) != 3 or not all(map(math.isfinite, numbers)):
        raise ValueError(text)
    return numbers


def read_weights(kind: str, path: str | Path) -> FeatureWeights:
    """VGG weights from a .safetensors or .pth file with torchvision's names (features.N.weight).

    A safetensors file may carry its input normalization as metadata (``mean`` and ``std``, three numbers each for RGB
    in [0, 1]); without it, and in a .pth, that of torchvision's ImageNet weights is meant. Raises InputError when the
    file can't be read or isn't this network's.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"The feature weights {path} do not exist: give a .safetensors or .pth file of {kind}.")
    metadata: dict[str, str] = {}
    if path.suffix == ".safetensors":
        state, metadata = _read_safetensors(path)
    else:
        state = _read_pth(path)
    expected = _features(kind).state_dict()
    state = {name.removeprefix("features."): t for name, t in state.items() if name.startswith("features.")}
    wrong = [name for name, t in state.items() if name not in expected or not _could_be(t, expected[name])]
    if wrong or not state:
        raise InputError(f"{path} does not hold the convolutions of {kind}: choose the file of that network.")
    state = {name: t.detach().float().clone() for name, t in state.items()}
    if not all(t.isfinite().all() for t in state.values()):
        raise InputError(f"{path} has weights that are no numbers: the file is damaged; get it again.")
    try:
        mean, std = (
            _three(metadata[key]) if key in metadata else default
            for key, default in (("mean", _IMAGENET_MEAN), ("std", _IMAGENET_STD))
        )
    except ValueError as error:
        raise InputError(f"{path} has a mean or std in its header that is not three numbers.") from error
    return FeatureWeights(kind, state, mean, std, sha256(path))


def load_weights(kind: str, path: str | Path | None = None) -> FeatureWeights:
    """The weights of ``kind`` ("vgg19", "vgg16", "random"): from ``path``, or torchvision's file on this disk."""
    if kind == "random":
        return random_weights()
    if path is None:
        path = published_path(kind)
        if not path.is_file():
            raise InputError(
                f"No {kind} weights at {path}: give --feature-weights FILE, or --download to fetch them from "
                "pytorch.org, or --features random to train with fixed random filters."
            )
    return read_weights(kind, path)


class Windows(nn.Module):
    """x [N, 1, S, S] in [-1, 1] -> the lung, soft-tissue and bone window of the radiologist [N, 3, S, S] in [0, 1]."""

    LEVEL_AND_WIDTH = ((-600.0, 1500.0), (40.0, 400.0), (400.0, 1800.0))  # HU

    def __init__(self, hu: HuRange) -> None:
        super().__init__()
        level, width = torch.tensor(self.LEVEL_AND_WIDTH).unbind(1)
        slope, offset = (hu.high - hu.low) / 2 / width, ((hu.high + hu.low) / 2 - level) / width + 0.5
        self.slope: Tensor
        self.offset: Tensor
        self.register_buffer("slope", slope.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("offset", offset.view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.slope + self.offset).clamp(0, 1)


class Features(nn.Module):
    """phi^l: the ReLU activations of a VGG at named layers, for gray images.

    VGG takes RGB; CT is gray. Replicating gray g into three normalized channels and convolving is one convolution of g
    and of a map of ones (the mean's share, which ends at the zero padding): exact, and a third of the work or less.
    With ``windows`` the channels are three windows of the CT instead, where small contrasts of soft tissue count.
    """

    def __init__(self, weights: FeatureWeights, layers: Iterable[str], windows: Windows | None = None) -> None:
        super().__init__()
        features = _features(weights.kind)
        ends = _layer_ends(features)
        if unknown := set(layers) - set(ends):
            raise ValueError(f"{weights.kind} has no layers {sorted(unknown)}")
        self.layers = sorted(layers, key=ends.__getitem__)
        self._taps = {ends[name]: name for name in self.layers}
        features = features[: ends[self.layers[-1]] + 1]  # nothing beyond the deepest layer in use
        missing = [name for name in features.state_dict() if name not in weights.state]
        if missing:
            raise InputError(
                f"The {weights.kind} weights end before layer {self.layers[-1]}: give a file that holds the network "
                "up to there, or choose --features vgg16 or random."
            )
        features.to_empty(device="cpu")
        features.load_state_dict({name: weights.state[name] for name in features.state_dict()})
        self.windows = windows
        if windows is None:
            features[0] = _gray_convolution(features[0], weights)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(weights.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(weights.std).view(1, 3, 1, 1), persistent=False)
        for module in features:
            if isinstance(module, nn.ReLU):
                module.inplace = True  # a convolution needs its result no more, once the ReLU has it
        self.features = features.requires_grad_(False).eval()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """x [N, 1, H, W] in [-1, 1] -> {layer: [N, N_l, H_l, W_l]}."""
        if self.windows is None:
            h = torch.cat([x, torch.ones_like(x)], dim=1)
        else:
            h = (self.windows(x) - self.mean) / self.std
        maps = {}
        for index, module in enumerate(self.features):
            h = module(h)
            if index in self._taps:
                maps[self._taps[index]] = h
        return maps


def _gray_convolution(rgb: nn.Module, weights: FeatureWeights) -> nn.Conv2d:
    """conv1_1 for the two channels (x, 1), x = 2 g - 1 the gray in [-1, 1], equal to rgb of (g - mean) / std."""
    assert isinstance(rgb, nn.Conv2d) and rgb.bias is not None
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (weights.mean, weights.std))
    gray = nn.Conv2d(2, rgb.out_channels, 3, padding=1)
    with torch.no_grad():
        gray.weight[:, 0] = (rgb.weight / std).sum(1) / 2
        gray.weight[:, 1] = (rgb.weight * (0.5 - mean) / std).sum(1)
        gray.bias = nn.Parameter(rgb.bias.clone())
    return gray
