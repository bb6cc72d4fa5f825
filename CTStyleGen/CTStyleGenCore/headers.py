"""Where NRRD and MetaImage headers say that their voxels are, before the C libraries below SimpleITK read them."""

import re
from collections.abc import Iterator
from pathlib import Path

from .errors import InputError

_LINE, _NAME = 512, 200  # characters of a header's line, and of a MetaImage's name, that the C libraries have room for


def data_file(path: Path, image_io: str | None) -> Path:
    """The file that holds the voxels: ``path`` itself, or the one beside it that its header names.

    ``image_io``: SimpleITK's name of its reader. Raises InputError, or ValueError and OSError, for a NRRD or MetaImage
    header that the C libraries below ITK aren't safe with: lines longer than their buffers, "%" in names that they
    print, names that lead elsewhere (a device that never ends, somebody's files), more bytes than there are.
    """
    if image_io not in _DATA_IN:
        return path
    with path.open("rb") as file:
        lines = iter(file.readline, b"")
        name, length = _DATA_IN[image_io](lines)
    other = path.with_name(name) if name else path
    if name and (other.name != name or "%" in name or not other.is_file()):
        raise InputError(
            f"{path} says that its voxels are in '{name}', which is no file beside it: give one whole file."
        )
    if not 0 <= length <= other.stat().st_size:
        raise ValueError("more bytes than there are")
    return other


def _data_in_nrrd(lines: Iterator[bytes]) -> tuple[str, float]:
    """The file named by a NRRD header; "": its voxels follow the header. And 0, as it doesn't say how long they are.

    Raises ValueError for an unsafe header.
    """
    name = ""
    for line in lines:
        field, _, value = line.rstrip(b"\r\n").partition(b":")
        if not field and not value:
            break
        if len(line) > _LINE and not (line.startswith(b"#") or value.startswith(b"=")):  # comments, keys and values
            raise ValueError("a long line")
        if field.strip().lower() in (b"data file", b"datafile"):
            name = value.strip().decode()
    return name, 0


def _data_in_metaimage(lines: Iterator[bytes]) -> tuple[str, float]:
    """The file named by a MetaImage header; "": its voxels follow the header. And how many bytes these take, packed;
    0: it doesn't say so. Raises ValueError for an unsafe header.
    """
    length = 0.0
    for line in lines:
        told = re.fullmatch(rb"([^\s=:][^=:]*?)[ \t]*[=:][ \t]*(.*?)\s*", line)
        if not told:
            break
        field, value = told[1].lower(), told[2]
        if (field == b"ndims" and value not in (b"2", b"3", b"4")) or (field == b"name" and len(value) > _NAME):
            raise ValueError("dimensions or a name that can't be")
        if field == b"compresseddatasize":
            length = float(value)  # MetaIO takes memory for as many
        if field == b"elementdatafile":
            return "" if value.upper() == b"LOCAL" else value.decode(), length
    raise ValueError("a line that is none of a header")


_DATA_IN = {"NrrdImageIO": _data_in_nrrd, "MetaImageIO": _data_in_metaimage}
