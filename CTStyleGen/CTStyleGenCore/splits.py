"""Which cases a data set may be made from, so that no patient is in two of the splits that the user gives.

A file of splits is a JSON object: lists of case ids, one of them "train"; and, where a patient has several cases,
"patients" with the patient of each of these cases. A case without an entry there is a patient of its own.

    {"train": ["A", "B-1", "B-2"], "test": ["C"], "patients": {"B-1": "B", "B-2": "B"}}
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .cases import CaseFiles
from .errors import InputError
from .files import read_json

TRAIN = "train"


@dataclass(frozen=True)
class Splits:
    """The cases to use, and the patients not to use."""

    train: tuple[str, ...]  # case ids
    held_out: Mapping[str, str]  # patient -> the name of the split that holds this patient
    patients: Mapping[str, str]  # case id -> patient, where that is told

    def chosen(self, found: Sequence[CaseFiles]) -> list[CaseFiles]:
        """Those to use among the cases found."""
        return [files for files in found if files.case_id in self.train]

    def check_unused(self, case_ids: Iterable[str], what: str) -> None:
        """Raises InputError if a case is of a patient that is held out; ``what`` says what the cases are used for."""
        for case_id in case_ids:
            if split := self.held_out.get(self.patients.get(case_id, case_id)):
                raise InputError(
                    f"{what} the case {case_id}, whose patient is in the split '{split}': that patient would leak into "
                    "the data set; use one without this patient, or change the splits."
                )


def read_splits(path: Path | None, case_ids: Sequence[str]) -> Splits:
    """The splits in a JSON file; without a file all cases are to be used.

    Raises InputError for a file that is no such object, a case that isn't there, a patient in two splits, and an empty
    or missing "train".
    """
    if path is None:
        return Splits(tuple(case_ids), {}, {})
    try:
        told = read_json(path)
        patients = {str(case): str(patient) for case, patient in told.pop("patients", {}).items()}
        splits = {str(name): [str(case) for case in _list(cases)] for name, cases in told.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f'{path} is no file of splits: give JSON such as {{"train": ["A"], "test": ["B"]}}.'
        ) from error
    if not splits.get(TRAIN):
        raise InputError(f"{path} has no cases in a split '{TRAIN}': name the cases to make the data set from.")
    split_of: dict[str, str] = {}
    for name, cases in splits.items():
        for case in cases:
            if case not in case_ids:
                raise InputError(f"{path} names the case {case}, which isn't there: there are {', '.join(case_ids)}.")
            patient = patients.get(case, case)
            if split_of.setdefault(patient, name) != name:
                raise InputError(
                    f"{path} has the patient {patient} in '{split_of[patient]}' and in '{name}': choose one."
                )
    held_out = {patient: name for patient, name in split_of.items() if name != TRAIN}
    return Splits(tuple(splits[TRAIN]), held_out, patients)


def _list(cases: object) -> list[object]:
    if not isinstance(cases, list):
        raise TypeError
    return cases
