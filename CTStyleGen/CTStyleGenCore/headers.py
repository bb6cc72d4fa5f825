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
    print, names that lead elsewhere (a device that never ends, somebody's files), more bytes than there are, packed
    ones that need a dictionary, which MetaIO waits for without end.
    """
    if image_io not in _DATA_IN:
        return path
    with path.open("rb") as file:
        lines = iter(file.readline, b"")
        name, length, packed = _DATA_IN[image_io](lines)
        start = 0 if name else file.tell()
    other = path.with_name(name) if name else path
    if name and (other.name != name or "%" in name or not other.is_file()):
        raise InputError(
            f"{path} says that its voxels are in '{name}', which is no file beside it: give one whole file."
        )
    if not 0 <= length <= other.stat().st_size:
        raise ValueError("more bytes than there are")
    if packed and _needs_dictionary(other, start):
        raise ValueError("packed with a dictionary")
    return other


def _needs_dictionary(path: Path, start: int) -> bool:
    """Whether a zlib stream begins there that says so (RFC 1950, section 2.2: FCHECK and FDICT)."""
    with path.open("rb") as file:
        file.seek(start)
        head = file.read(2)
    return int.from_bytes(head, "big") % 31 == 0 and len(head) == 2 and bool(head[1] & 0x20)


def _data_in_nrrd(lines: Iterator[bytes]) -> tuple[str, float, bool]:
    """The file named by a NRRD header; "": its voxels follow the header. And 0, as it doesn't say how long they are.

    False: what may be packed in them is safe. Raises ValueError for an unsafe header.
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
    return name, 0, False


def _data_in_metaimage(lines: Iterator[bytes]) -> tuple[str, float, bool]:
    """The file named by a MetaImage header; "": its voxels follow the header. How many bytes these take, packed; 0: it
    doesn't say so. And whether they are packed. Raises ValueError for an unsafe header.
    """
    length, packed, moved = 0.0, False, False
    for line in lines:
        told = re.fullmatch(rb"([^\s=:][^=:]*?)[ \t]*[=:][ \t]*(.*?)\s*", line)
        if not told:
            break
        field, value = told[1].lower(), told[2]
        if (field == b"ndims" and value not in (b"2", b"3", b"4")) or (field == b"name" and len(value) > _NAME):
            raise ValueError("dimensions or a name that can't be")
        packed |= field == b"compresseddata" and value[:1] in (b"T", b"t", b"1")
        moved |= field == b"headersize" and value != b"0"
        if field == b"compresseddatasize":
            length = float(value)  # MetaIO takes memory for as many
        if field == b"elementdatafile":
            if packed and moved:
                raise ValueError("packed voxels that begin elsewhere")
            return "" if value.upper() == b"LOCAL" else value.decode(), length, packed
    raise ValueError("a line that is none of a header")


_DATA_IN = {"NrrdImageIO": _data_in_nrrd, "MetaImageIO": _data_in_metaimage}
