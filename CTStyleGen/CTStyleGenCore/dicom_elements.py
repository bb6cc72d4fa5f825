"""The elements of a DICOM file, walked before GDCM reads it: GDCM takes memory for as many bytes as an element claims.

DICOM part 5, chapter 7 (elements, sequences) and part 10 (the group that comes first).
"""

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

_MARK = slice(128, 132)  # "DICM"
_SYNTAX, _PIXELS, _ITEM, _END_OF_SEQUENCE = 0x00020010, 0x7FE00010, 0xFFFEE000, 0xFFFEE0DD
_IMPLICIT, _BIG_ENDIAN, _DEFLATED = (b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.2", b"1.2.840.10008.1.2.1.99")
_LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")  # in 4 bytes
_SHORT = [b"AEASATCSDADSDTFDFLISLOLTPNSHSLSSSTTMUIULUS"[at : at + 2] for at in range(0, 42, 2)]  # in 2 bytes
_UNDEFINED = 0xFFFFFFFF  # length: up to a delimiter


def is_dicom(path: Path) -> bool:
    """Whether a file has DICOM's mark."""
    with path.open("rb") as file:
        return file.read(_MARK.stop)[_MARK] == b"DICM"


def has_pixels(path: Path) -> bool:
    """Whether a DICOM file holds an image. Raises ValueError or struct.error for one with an element that isn't whole,
    or of another transfer syntax than GDCM can be trusted with.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[_MARK] != b"DICM":
            raise ValueError("no DICOM")
        return _PIXELS in set(_tags(data))


def _tags(data: mmap.mmap) -> Iterator[int]:
    """The tags of all elements, also of those in sequences, each of which ends before the file does."""
    at, syntax = _MARK.stop, b""
    while data[at : at + 2] == b"\2\0":
        tag, _, start, length = _element(data, at, "<", True)
        at = start + length
        if tag == _SYNTAX:
            syntax = data[start:at].strip(b"\0 ")
    if syntax == _DEFLATED:
        raise ValueError("a deflated file")
    order, explicit = ">" if syntax == _BIG_ENDIAN else "<", syntax != _IMPLICIT
    unknown, fragments = 0, False  # depth in a sequence of unknown VR, which is implicit; in packed pixels
    while at < len(data) and (any(data[at : at + 8]) or data[at:].strip(b"\0")):  # some files end in zeros
        tag, vr, start, length = _element(data, at, order, explicit and not unknown)
        if length == _UNDEFINED:
            fragments = tag == _PIXELS or vr in (b"OB", b"OW")
            unknown += vr == b"UN" or (unknown > 0 and tag != _ITEM)
        elif tag == _END_OF_SEQUENCE:
            fragments, unknown = False, max(0, unknown - 1)
        enters = length == _UNDEFINED or vr == b"SQ" or (tag == _ITEM and not fragments)
        at = start if enters else start + length
        yield tag


def _element(data: mmap.mmap, at: int, order: str, explicit: bool) -> tuple[int, bytes, int, int]:
    """An element's tag, its VR (b"": it says none), where its value starts, and the value's length."""
    group, number, length = struct.unpack_from(f"{order}HHI", data, at)
    vr, start = b"", at + 8
    if explicit and group != _ITEM >> 16:
        vr = data[at + 4 : at + 6]
        if vr in _LONG:
            (length,), start = struct.unpack_from(f"{order}I", data, at + 8), at + 12
        elif vr in _SHORT:
            (length,) = struct.unpack_from(f"{order}H", data, at + 6)
        else:
            raise ValueError(f"no VR: {vr!r}")
    if length != _UNDEFINED and start + length > len(data):
        raise ValueError("an element that is longer than the file")
    return group << 16 | number, vr, start, length
