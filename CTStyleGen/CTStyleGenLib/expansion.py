"""A data set many times the size: from cases in the scene or in a folder, made by a child process.

What it is, and by which plan it is made: `CTStyleGenCore.expansion`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from CTStyleGenCore.anatomy import Anatomy
from CTStyleGenCore.expansion import Estimate, estimate, size_in_bytes
from CTStyleGenCore.files import PrivateFolder
from CTStyleGenCore.model_file import read_card

from .job_queue import QueuedJob
from .jobs import Event, Job
from .style_cases import StyleCases, exportStyles, styleMix
from .training_cases import Given, casesFrom, exportCases, requireCases


@dataclass(frozen=True)
class ExpansionOptions:
    """What an expansion is asked for."""

    cases: Given
    model: str | Path
    output: str | Path  # the folder to make
    perCase: int
    amount: float = 6.0  # mm
    styles: Sequence[str] = ()  # (): the model's, in turn
    styleCases: StyleCases | None = None  # CTs of the scene for styles, as of `synthesis.Wish`
    mix: bool = False  # instead, organ by organ two of the model's
    labels: str = "organs"
    splits: str | Path | None = None
    dicom: bool = False
    seed: int = 0
    device: str = "auto"
    resume: bool = False


def estimateExpansion(cases: Given, perCase: int, splits: str | Path | None = None, dicom: bool = False) -> Estimate:
    """How many images there would be, and how much room they would take. Raises InputError for cases that can't be."""
    found = casesFrom(cases)
    if isinstance(found, Path):
        return estimate(found, perCase, Path(splits) if splits else None, dicom)
    requireCases(found)
    voxels = sum(case.volumeNode.GetImageData().GetNumberOfPoints() for case in found)
    return Estimate(len(found), len(found) * perCase, size_in_bytes(voxels * perCase, dicom))


class ExpansionJob(QueuedJob):
    """An expansion: its result is the data set's folder.

    Cases and style CTs of the scene are exported to a temporary folder, which only the user may read, and which is
    removed in any case. What a canceled job has made stays, and can be gone on with.
    """

    lane = "data sets"  # they take hours

    def __init__(self, options: ExpansionOptions) -> None:
        """Takes in the nodes as they are now. Raises InputError for cases or a model that can't be."""
        super().__init__()
        self._options, self._folder = options, PrivateFolder()
        try:
            found, card = casesFrom(options.cases), read_card(Path(options.model))
            anatomy, styleCases = Anatomy.from_json(card["anatomy"]), options.styleCases or {}
            styleMix(card, options.styles, styleCases)
            if isinstance(found, Path):
                self._cases = found
            else:
                requireCases(found)
                self._cases = self._subfolder("cases")
                exportCases(found, self._cases, anatomy, compress=False)
            self._styles = exportStyles(options.styles, styleCases, self._subfolder("styles"), anatomy)
        except BaseException:
            self._folder.cleanup()
            raise

    def _subfolder(self, name: str) -> Path:
        folder = Path(self._folder.name) / name
        folder.mkdir()
        return folder

    def _begin(self) -> Job:
        options = self._options
        arguments = ["expand", "--model", str(Path(options.model).absolute()), "--cases", str(self._cases)]
        arguments += ["--output", str(Path(options.output).absolute()), "--per-case", str(options.perCase)]
        arguments += ["--amount", str(options.amount), "--labels", options.labels]
        arguments += ["--seed", str(options.seed), "--device", options.device]
        for style in self._styles:
            arguments += ["--style", style]
        if options.splits:
            arguments += ["--splits", str(Path(options.splits).absolute())]
        flags = {"--mix": options.mix, "--dicom": options.dicom, "--resume": options.resume}
        arguments += [flag for flag, wanted in flags.items() if wanted]
        return Job(arguments, self._folder.name, self._note)

    def _finish(self, done: Event) -> Path:
        return Path(done["outputs"][0])

    def _close(self) -> None:
        self._folder.cleanup()
