"""Names of labels in a NIfTI file's extended header: the label table of TotalSegmentator and of Connectome Workbench.

The header may be followed by extensions, whose lengths are told; a label table is XML in one of them. SimpleITK doesn't
read them. https://nifti.nimh.nih.gov/nifti-1/documentation/nifti1fields
"""

import gzip
import html
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

_LABEL = re.compile(  # parts of bounded length, so that nothing takes long to be found wanting
    r'<Label\s[^<>]{0,300}?Key="(\d{1,9})"[^<>]{0,300}>(?:<!\[CDATA\[([^\]]{0,200})\]\]>|([^<]{0,200}))</Label>'
)
_MOST_BYTES = 1 << 20  # of all extensions; a thousand labels take a tenth of it


def label_names(path: Path) -> dict[int, str]:
    """The names by label value, as a .nii or .nii.gz tells them; empty for one that tells none, or is damaged."""
    try:
        with path.open("rb") as file:
            packed = path.name.lower().endswith(".gz")
            told = b"".join(_extensions(cast(IO[bytes], gzip.GzipFile(fileobj=file)) if packed else file))
    except (OSError, EOFError, struct.error, zlib.error, OverflowError, ValueError):
        return {}
    # By a pattern, as XML of strangers can be made to fill the memory of a parser.
    found = {
        int(key): cdata or html.unescape(text) for key, cdata, text in _LABEL.findall(told.decode(errors="replace"))
    }
    return {value: name.strip() for value, name in found.items() if value and name.strip()}


def _extensions(file: IO[bytes]) -> Iterator[bytes]:
    """What the extensions of a NIfTI-1 or -2 file hold. Raises OSError, EOFError or struct.error for a damaged one."""
    start = file.read(4)
    order = "<" if struct.unpack("<i", start)[0] in (348, 540) else ">"
    length = struct.unpack(order + "i", start)[0]
    if length not in (348, 540):
        return
    header = start + file.read(length - 4)
    voxels = struct.unpack_from(order + ("f" if length == 348 else "q"), header, 108 if length == 348 else 168)[0]
    left = min(int(voxels) - length - 4, _MOST_BYTES)
    if not file.read(4)[:1].strip(b"\0"):
        return
    while left >= 8:
        size, _code = struct.unpack(order + "ii", file.read(8))
        if not 8 <= size <= left:
            return
        yield file.read(size - 8)
        left -= size
