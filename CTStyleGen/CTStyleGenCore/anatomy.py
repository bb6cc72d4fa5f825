"""The organ table: which organs a model knows, their labels, the paper's gray values, and the names that mean them.

A table is data, not code: `anatomies/*.json`, or any file of the user's in the same form. Codes are SNOMED CT concept
ids (scheme "SCT"), the ones that 3D Slicer's terminologies and TotalSegmentator write.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any

from .errors import InputError
from .files import read_json

_HU_BOUND = 1e6  # no HU is beyond
_BUILT_IN = Path(__file__).parent / "anatomies"


@dataclass(frozen=True)
class Organ:
    """One row of the table."""

    name: str
    label: int  # value in label maps, 0..N-1; 0 is outside the body
    gray: int  # the paper's gray value, 0..255
    codes: tuple[str, ...]  # SNOMED CT concept ids that mean this organ or a part of it
    aliases: tuple[str, ...]  # other names; "*" and "?" as in file names: "rib left *"
    plausible_hu: tuple[float, float]  # where the organ's mean over a slice lies in real CT

    def is_named(self, segment_name: str) -> bool:
        """Whether the name is this organ's own, or one of its aliases without wildcards."""
        return _plain(segment_name) in {_plain(self.name), *map(_plain, self.aliases)}

    def matches(self, segment_name: str) -> bool:
        """Whether an alias with wildcards fits the name."""
        return any(fnmatchcase(_plain(segment_name), _plain(alias)) for alias in self.aliases)


@dataclass(frozen=True)
class Anatomy:
    """An organ table. Its order is the painting order: where segments overlap, the organ later in the table wins."""

    name: str
    organs: tuple[Organ, ...]

    def organ(self, name: str) -> Organ:
        """The organ of that name (case, spaces, hyphens and underscores don't matter); InputError if there is none."""
        for organ in self.organs:
            if _plain(organ.name) == _plain(name):
                return organ
        raise InputError(f"The organ table '{self.name}' has no '{name}'; it knows {self.known()}.")

    def place(self, segment_name: str, code: str | None = None) -> Organ | None:
        """The organ that a segment belongs to: by its SNOMED CT code, else by name, else by an alias with wildcards.

        A code that is in no row ("Tissue", "Organ", a foreign body) says nothing, so the name decides.
        """
        by_code = (organ for organ in self.organs if code in organ.codes)
        by_name = (organ for organ in self.organs if organ.is_named(segment_name))
        by_pattern = (organ for organ in reversed(self.organs) if organ.matches(segment_name))  # "heart muscle"
        return next(by_code, None) or next(by_name, None) or next(by_pattern, None)

    def known(self) -> str:
        """The organs' names for a message: "outside, body, lungs"."""
        return ", ".join(organ.name for organ in self.organs)

    def to_json(self) -> dict:
        """The table as JSON-ready data, as in a model card; `from_json` gives it back."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_json(cls, data: object) -> "Anatomy":
        """The table from JSON data; InputError, naming the row, for one that is malformed."""
        if not isinstance(data, dict) or not isinstance(data.get("name"), str) or not data["name"].strip():
            raise InputError("An organ table is a JSON object with a 'name' and a list of 'organs'.")
        rows = data.get("organs")
        if not isinstance(rows, list) or not 2 <= len(rows) <= 256:
            raise InputError(f"The organ table '{data['name']}' needs a list of 2 to 256 'organs', outside first.")
        anatomy = cls(data["name"], tuple(_organ(data["name"], place, row) for place, row in enumerate(rows)))
        _check_unique(anatomy)
        return anatomy


@dataclass(frozen=True)
class SegmentReport:
    """What became of one segment when it was painted into organ labels."""

    segment: str
    organ: str | None  # None: the table doesn't know it
    voxels: int  # in the segmentation's own grid; 0: empty
    overlapped: int  # of these, voxels given up to an organ later in the table


def load_anatomy(name_or_path: str | Path) -> Anatomy:
    """A table that comes with CTStyleGen ("thorax", "lctsc"), or one from a .json file; InputError if there is none."""
    path = Path(name_or_path)
    if path.suffix.lower() != ".json":
        path = _BUILT_IN / f"{name_or_path}.json"
        if path.parent != _BUILT_IN or not path.is_file():
            names = ", ".join(sorted(table.stem for table in _BUILT_IN.glob("*.json")))
            raise InputError(f"There is no organ table '{name_or_path}'; give {names}, or a .json file.")
    try:
        data = read_json(path)
    except (OSError, ValueError) as error:
        raise InputError(f"The organ table {path} is missing or is no JSON: give another file.") from error
    try:
        return Anatomy.from_json(data)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


@lru_cache(4096)  # each name is looked for in all rows, for each segment
def _plain(name: str) -> str:
    """The name without what people write differently: case, and underscores, hyphens or spaces between words."""
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def _organ(table: str, label: int, row: Any) -> Organ:
    """One row of JSON as an Organ; InputError says which row and key is at fault."""
    if not isinstance(row, dict):
        raise InputError(f"The organ table '{table}': row {label} is not an object.")
    name: Any = row.get("name")
    gray: Any = row.get("gray")
    hu: Any = row.get("plausible_hu")

    def must(holds: bool, key: str, rule: str) -> None:
        if not holds:
            raise InputError(f"The organ table '{table}': '{key}' in row {label} must be {rule}, not {row.get(key)!r}.")

    must(isinstance(name, str) and bool(_plain(name)), "name", "a name")
    must(type(row.get("label")) is int and row["label"] == label, "label", f"{label}, its place in the list")
    must(type(gray) is int and 0 <= gray <= 255, "gray", "a whole number from 0 to 255")
    for key in ("codes", "aliases"):
        must(_are_strings(row.get(key)), key, "a list of texts")
    two_numbers = isinstance(hu, list) and len(hu) == 2 and all(type(bound) in (int, float) for bound in hu)
    two_numbers = two_numbers and all(abs(bound) < _HU_BOUND for bound in hu)
    must(two_numbers and hu[0] < hu[1], "plausible_hu", "two numbers in HU, the lower one first")
    return Organ(name, label, gray, tuple(row["codes"]), tuple(row["aliases"]), (float(hu[0]), float(hu[1])))


def _are_strings(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) and value.strip() for value in values)


def _check_unique(anatomy: Anatomy) -> None:
    """InputError if two organs share a name or alias, a gray value or a code: a segment would have two places."""
    _refuse_twice(anatomy, "the gray value", (organ.gray for organ in anatomy.organs))
    _refuse_twice(anatomy, "the code", (code for organ in anatomy.organs for code in set(organ.codes)))
    names = (name for organ in anatomy.organs for name in {_plain(organ.name), *map(_plain, organ.aliases)})
    _refuse_twice(anatomy, "the name", names)


def _refuse_twice(anatomy: Anatomy, what: str, values: Iterable[object]) -> None:
    seen = set()
    for value in values:
        if value in seen:
            raise InputError(f"The organ table '{anatomy.name}' gives {what} '{value}' to two organs.")
        seen.add(value)
