"""The .ctstyle file: a generator's weights and its model card, in one safetensors file. Nothing is ever unpickled.

The card is JSON in the file's header, so that it is read without the weights and without torch, also by Slicer's own
process. It holds weights, statistics and the case ids that the user chose; no image and no patient's data.
"""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .anatomy import Anatomy
from .errors import InputError
from .files import parse_json, written_beside

if TYPE_CHECKING:  # torch is imported where weights are: never in Slicer's process
    from torch import Tensor

FORMAT, FORMAT_VERSION = "ctstyle", 1
SUFFIX = ".ctstyle"
_HU_BOUND = 1e6  # no HU is beyond
_HEADER_LIMIT = 16 << 20  # bytes; a real header takes some ten thousand


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) and one.strip() for one in value)


def _is_range(value: Any) -> bool:
    numbers = isinstance(value, list) and len(value) == 2 and all(type(one) in (int, float) for one in value)
    return numbers and -_HU_BOUND < value[0] < value[1] < _HU_BOUND


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


_CARD: dict[str, Callable[[Any], bool]] = {
    "preset": _is_object,
    "anatomy": _is_object,
    "styles": lambda value: _are_ids(value) and value != [],
    "cases": _are_ids,
    "size": lambda value: type(value) is int,
    "hu_range": _is_range,
    "features": _is_object,
    "losses": _is_object,
    "versions": _is_object,
}


def read_card(path: str | Path) -> dict[str, Any]:
    """The model card of a .ctstyle file.

    Raises InputError when the file is missing, no .ctstyle, cut short, or of a version that this program doesn't know.
    """
    path = Path(path)
    header = _read_header(path)
    try:
        card = parse_json(header["__metadata__"]["card"])
        version = card["format_version"] if card["format"] == FORMAT else None
    except (KeyError, TypeError, ValueError) as error:
        raise _not_a_model(path) from error
    if version != FORMAT_VERSION:
        raise InputError(
            f"{path} is a model of format version {version}, this program reads version {FORMAT_VERSION}: "
            "update CTStyleGen or train the model again."
        )
    wrong = [key for key, is_valid in _CARD.items() if not is_valid(card.get(key))]
    if wrong:
        raise InputError(f"The model card of {path} lacks a valid {wrong[0]}: the file is damaged; get it again.")
    try:
        Anatomy.from_json(card["anatomy"])
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return card


def _read_header(path: Path) -> dict[str, Any]:
    """The safetensors header: JSON after its length, followed by as many bytes as it says."""
    if not path.is_file():
        raise InputError(f"The model {path} does not exist: give a {SUFFIX} file.")
    try:
        with path.open("rb") as file:
            start = file.read(8)
            (length,) = struct.unpack("<Q", start) if len(start) == 8 else (0,)
            if not 2 <= length <= _HEADER_LIMIT:
                raise _not_a_model(path)
            text, size = file.read(length), os.fstat(file.fileno()).st_size
    except OSError as error:
        raise InputError(f"The model {path} can't be read: {error.strerror}.") from error
    if len(text) < length:
        raise _cut_short(path)
    try:
        header = parse_json(text)
        end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
        is_whole = 8 + length + end <= size
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise _not_a_model(path) from error
    if not is_whole:
        raise _cut_short(path)
    return header


def _not_a_model(path: Path) -> InputError:
    return InputError(f"{path} is not a CTStyleGen model: give a {SUFFIX} file written by train.")


def _cut_short(path: Path) -> InputError:
    return InputError(f"The model {path} is cut short: copy or download it again.")


def write_model(path: str | Path, weights: "dict[str, Tensor]", card: dict[str, Any]) -> None:
    """Writes weights (any device) and card as a .ctstyle file, whole or not at all."""
    from safetensors.torch import save_file

    card = {"format": FORMAT, "format_version": FORMAT_VERSION, **card}
    with written_beside(path) as beside:
        save_file(
            {name: t.detach().cpu().contiguous() for name, t in weights.items()}, beside, {"card": json.dumps(card)}
        )


def read_weights(path: str | Path) -> "dict[str, Tensor]":
    """The weights of a .ctstyle file, on the CPU. Raises InputError when they can't be read or are no numbers."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights = load_file(path)
        finite = all(t.isfinite().all() for t in weights.values())
    except (SafetensorError, OSError, RuntimeError, KeyError) as error:
        raise InputError(f"The weights in {path} can't be read: copy or download the model again.") from error
    if not finite:
        raise InputError(f"The weights in {path} are no numbers: the file is damaged; get it again.")
    return weights
