"""The .ctstyle file: a generator's weights and its model card, in one safetensors file. Nothing is ever unpickled.

The card is JSON in the file's header, so that it is read without the weights and without torch, also by Slicer's own
process. It holds weights, statistics and the case ids that the user chose; no image and no patient's data.
"""

import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .anatomy import Anatomy
from .errors import InputError
from .files import written_beside

if TYPE_CHECKING:  # torch is imported where weights are: never in Slicer's process
    from torch import Tensor

FORMAT, FORMAT_VERSION = "ctstyle", 1
SUFFIX = ".ctstyle"
_HEADER_LIMIT = 16 << 20  # bytes; a real header takes some ten thousand
_CARD_TYPES: dict[str, type | tuple[type, ...]] = {
    "preset": dict,
    "anatomy": dict,
    "styles": list,
    "cases": list,
    "size": int,
    "hu_range": list,
    "features": dict,
    "losses": dict,
    "versions": dict,
}


def read_card(path: str | Path) -> dict[str, Any]:
    """The model card of a .ctstyle file.

    Raises InputError when the file is missing, no .ctstyle, cut short, or of a version that this program doesn't know.
    """
    path = Path(path)
    header = _read_header(path)
    try:
        card = json.loads(header["__metadata__"]["card"])
        version = card["format_version"] if card["format"] == FORMAT else None
    except (KeyError, TypeError, ValueError) as error:
        raise _not_a_model(path) from error
    if version != FORMAT_VERSION:
        raise InputError(
            f"{path} is a model of format version {version}, this program reads version {FORMAT_VERSION}: "
            "update CTStyleGen or train the model again."
        )
    wrong = [key for key, kind in _CARD_TYPES.items() if not isinstance(card.get(key), kind)]
    if wrong:
        raise InputError(f"The model card of {path} lacks a valid {wrong[0]}: the file is damaged; get it again.")
    Anatomy.from_json(card["anatomy"])
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
            text = file.read(length)
    except OSError as error:
        raise InputError(f"The model {path} can't be read: {error.strerror}.") from error
    if len(text) < length:
        raise _cut_short(path)
    try:
        header = json.loads(text)
        end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise _not_a_model(path) from error
    if path.stat().st_size < 8 + length + end:
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
    """The weights of a .ctstyle file, on the CPU. Raises InputError when they can't be read."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"The weights in {path} can't be read: copy or download the model again.") from error
