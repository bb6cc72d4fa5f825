"""Organ labels to CT: a trained generator over the axial slices of a volume, and back onto the volume's own grid."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from torch import Tensor

from . import __version__
from .anatomy import Anatomy
from .cases import MASKS, Case, read_case
from .composition import Composition
from .devices import free_memory, placed
from .errors import InputError, OutOfMemory, Stopped, is_out_of_memory
from .files import sha256
from .model_file import read_card, read_weights
from .networks import make_generator
from .ranks import Ranks
from .reporting import Report
from .slices import HuRange, Square, axial, from_axial, gray_map
from .style_codes import codes_from_json, mixed
from .styles import style_mix, told
from .training_data import slice_codes, training_slices
from .volumes import axial_places

_FOLDERS = 16  # whose styles are kept in mind
_TEXTURE_MM = 5.0  # over which texture goes on from slice to slice, as far as in real CT: docs/ablation.md
_BATCH_PIXELS = 2 * 512 * 512  # slices that a GPU synthesizes together: two at 512, eight at 256


@dataclass(frozen=True)
class Look:
    """The styles asked for, as a model takes them."""

    told: str  # in words, for a file's header
    codes: Tensor | None  # [1, organs, CODE_SIZE]; None for a model that has one look


class Model:
    """A trained generator with its card, ready to synthesize on a device."""

    def __init__(self, path: str | Path, device: str) -> None:
        """Reads a .ctstyle file. Raises InputError when it is none, or damaged."""
        self.path = Path(path)
        self.card: dict[str, Any] = read_card(path)
        self.anatomy = Anatomy.from_json(self.card["anatomy"])
        try:
            self.digest = sha256(path)  # of the file, which may be another or gone by the time that a volume is done
            low, high = self.card["hu_range"]
            self.hu = HuRange(float(low), float(high))
            preset, weights = self.card["preset"], read_weights(path)
            made_of = preset["generator"], self.card["size"], self.anatomy, preset["noise_size"]
            with torch.device("meta"):  # takes no memory, whatever size the card claims
                expected = make_generator(*made_of).state_dict()
            if any(name not in weights or weights[name].shape != t.shape for name, t in expected.items()):
                raise ValueError("weights of other shapes")
            self.G = make_generator(*made_of)
            self.G.load_state_dict(weights)
            bank = self.card.get("style_codes", {})
            if set(bank) != set(self.card["styles"] if preset["generator"] == "styles" else ()):
                raise ValueError("styles without a code to give, or codes that the generator doesn't take")
            if preset["generator"] == "styles":
                self.G.composition = Composition.from_json(self.card.get("fat", {}), self.anatomy, self.hu)
            known = self.anatomy, self.hu, self.card.get("grain_by")
            self._bank = {case: codes_from_json(told, *known) for case, told in bank.items()}
        except OSError as error:
            raise InputError(f"The model {path} can't be read: {error.strerror}.") from error
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as error:
            raise InputError(
                f"The weights in {path} don't fit its model card: the file is damaged; get it again."
            ) from error
        self._measured = lru_cache(_FOLDERS)(self._measure)
        self.move(device)

    def move(self, device: str) -> None:
        """Goes on on another device."""
        self.device, self.G = device, placed(self.G, device, channels_last=False).eval()

    @torch.inference_mode()
    def synthesize(self, labels: Tensor, z: Tensor, look: Look | None = None) -> Tensor:
        """labels int64 [K, S, S], noise codes z [K or 1, noise size] and one look for all -> HU, float32 [K, S, S].

        Without a look, all the model's styles have an equal share in it. Raises InputError for damaged weights, from
        which no HU come.
        """
        y = gray_map(labels.to(self.device), self.anatomy)[:, None]
        look = look or self.look(())
        given = (z,) if look.codes is None else (z, look.codes)
        x = self.G(y, *(t.to(self.device).expand(len(y), *t.shape[1:]) for t in given))
        hu = self.hu.to_hu(x[:, 0]).cpu()
        if not hu.isfinite().all():
            raise InputError(f"The weights in {self.path} draw what is no CT: the file is damaged; get it again.")
        return hu

    def look(self, styles: Sequence[str]) -> Look:
        """The look that styles ask for, as `--style` writes them (`styles`). InputError: unknown, or no case there."""
        mix = style_mix(self.card, styles)
        if not mix:
            return Look(", ".join(self.card["styles"]), None)
        rows = [
            mixed([self._codes(case)[organ.label] for case in shares], list(shares.values()))
            for organ, shares in zip(self.anatomy.organs, mix.values(), strict=True)
        ]
        return Look(told(mix), torch.stack(rows)[None])

    def _codes(self, case: str) -> Tensor:
        """The codes [organs, CODE_SIZE] of a case of the bank, or of a case folder."""
        if case in self._bank:
            return self._bank[case]
        places = [Path(case), Path(case) / MASKS]
        files = [file for place in places if place.is_dir() for file in place.iterdir() if file.is_file()]
        return self._measured(case, tuple(sorted((str(file), file.stat().st_mtime_ns) for file in files)))

    def _measure(self, folder: str, files: tuple[tuple[str, int], ...]) -> Tensor:
        """The codes of the case in a folder; ``files`` are what is in it, so that a changed case is measured anew."""
        return self.codes_of(read_case(folder, self.anatomy))

    def codes_of(self, case: Case) -> Tensor:
        """The style codes of a case, [organs, CODE_SIZE], as this model was trained with."""
        slices = training_slices(case, self.anatomy, self.G.size, self.card["preset"]["style_slices"], self.hu)
        return slice_codes([one.without_table() for one in slices], self.anatomy)

    def noise_code(self, seed: int, sample: int, places_mm: Sequence[float] | np.ndarray = (0.0,)) -> Tensor:
        """The noise codes of a sample for slices at these places along their normal: [places, noise size].

        Each is standard normal, the same on every machine; near places have codes alike (a Gaussian process with a
        width of _TEXTURE_MM), so that texture changes from slice to slice as it does within a slice.
        """
        rng = np.random.default_rng([seed, sample])
        here, aside, frequency = (rng.standard_normal(self.G.noise_size, np.float32) for _ in range(3))
        phase = np.outer(places_mm, frequency / _TEXTURE_MM)
        return torch.from_numpy((np.cos(phase) * here + np.sin(phase) * aside).astype(np.float32))


def synthesize_volume(
    model: Model,
    labels: sitk.Image,
    seed: int,
    sample: int = 0,
    progress: Callable[[int], None] = lambda slices: None,
    look: Look | None = None,
    ranks: Ranks | None = None,
) -> sitk.Image:
    """A CT, int16 HU, in exactly the grid of ``labels`` (uint8 organ labels, 3-D), slice by slice.

    A slice's noise depends on seed, sample and its place in the patient, not on what other slices there are.
    ``progress`` is told the number of slices after each batch of them. Several ``ranks`` share the slices out, and each
    gets the volume.
    """
    values, ranks = axial(labels), ranks or Ranks()
    square, z = Square.of(labels, model.G.size), model.noise_code(seed, sample, axial_places(labels))
    result = np.zeros(values.shape, np.int16)
    with ranks.together():
        for part, slices in _batches(model, values, square, z, ranks.share(range(len(values))), look):
            result[part] = slices
            progress(len(part))
    return from_axial(_of_all(result, ranks), labels)


def _of_all(result: np.ndarray, ranks: Ranks) -> np.ndarray:
    """The slices of all processes, int16; each has zeros for those of the others."""
    if ranks.count == 1:
        return result
    total = torch.from_numpy(result).to(ranks.device, torch.int32)  # which all ways to pass messages add up
    ranks.add_up([total])
    return total.to("cpu", torch.int16).numpy()


def _batches(
    model: Model, values: np.ndarray, square: Square, z: Tensor, numbers: Sequence[int], look: Look | None
) -> Iterator[tuple[list[int], np.ndarray]]:
    """The slices of these numbers in int16 HU, as many at once as the memory has room for.

    values: organ labels [slice, row, column], which lie so in the model's square; z: a noise code for each slice.
    """
    done, batch = 0, _slices_together(model)
    while done < len(numbers):
        part = list(numbers[done : done + batch])
        try:
            squares = square.of_labels(torch.from_numpy(values[part]), len(model.anatomy.organs))
            slices = square.back(model.synthesize(squares, z[part], look)).round().to(torch.int16).numpy()
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            batch = _with_less_memory(model, batch)
            continue
        yield part, slices
        done += len(part)


def _slices_together(model: Model) -> int:
    """How many slices make a batch: one on the CPU, where more are no faster and change the last bits of each other."""
    return 1 if model.device == "cpu" else max(1, _BATCH_PIXELS // model.G.size**2)


def _with_less_memory(model: Model, batch: int) -> int:
    """The next smaller batch to try; after one slice at a time on a GPU, on the CPU. Raises OutOfMemory at the end."""
    if batch == 1 and model.device == "cpu":
        raise OutOfMemory("The memory is not enough for one slice: close other programs, or use a model of less size.")
    if batch == 1:
        print(f"The memory of {model.device} is not enough: going on on the CPU.", file=sys.stderr)
        model.move("cpu")
    free_memory()
    return max(1, batch // 2)


def sample_paths(output: Path, samples: int) -> list[Path]:
    """Where the samples go: OUT itself for one, else OUT with -1, -2, ... before its suffixes (.nii.gz is one)."""
    if samples == 1:
        return [output]
    suffix = ".nii.gz" if output.name.lower().endswith(".nii.gz") else output.suffix
    stem = output.name[: len(output.name) - len(suffix)]
    return [output.with_name(f"{stem}-{sample}{suffix}") for sample in range(1, samples + 1)]


def synthesize_samples(
    model: Model,
    labels: sitk.Image,
    samples: int,
    seed: int,
    report: Report,
    stopping: Callable[[], bool],
    look: Look | None = None,
    ranks: Ranks | None = None,
) -> Iterator[sitk.Image]:
    """A volume for each of so many noise codes, marked as synthetic, one after the other: together they can be large.

    Several ``ranks`` share the slices out; ``report`` tells of the own. Raises Stopped when ``stopping``, asked after
    each batch of slices, says so.
    """
    ranks = ranks or Ranks()
    total = samples * len(ranks.share(range(len(axial(labels)))))
    done = 0

    def progress(slices: int) -> None:
        nonlocal done
        done += slices
        report({"event": "progress", "done": done, "total": total, "unit": "slice"})
        if stopping():
            raise Stopped("Stopped; nothing was written.")

    for sample in range(samples):
        volume = synthesize_volume(model, labels, seed, sample, progress, look, ranks)
        mark_synthetic(volume, model, seed, sample, look)
        yield volume


def mark_synthetic(volume: sitk.Image, model: Model, seed: int, sample: int, look: Look | None = None) -> None:
    """Gives a volume the header fields that say that it is synthetic, and from what; samples are numbers from 0."""
    provenance = {
        "Synthetic": "YES",
        "Model": f"{model.path.name} sha256:{model.digest}",
        "Style": (look or model.look(())).told,
        "Seed": f"{seed}, sample {sample + 1}",
        "Version": __version__,
    }
    for key, value in provenance.items():
        volume.SetMetaData(f"CTStyleGen.{key}", value)
