"""From nodes to new nodes: checks, the exchange with the child process, and the results' provenance."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import CTStyleGenCore
import numpy as np
import SimpleITK as sitk
import slicer
from CTStyleGenCore.anatomy import Anatomy, SegmentReport
from CTStyleGenCore.errors import InputError
from CTStyleGenCore.files import PrivateFolder, sha256
from CTStyleGenCore.model_file import read_card
from CTStyleGenCore.styles import told
from CTStyleGenCore.volumes import same_grid, write_volume
from slicer.i18n import tr as _

from .conditioning import Conditioning, Organs, conditioningFromSegmentation, lacksBody, referenceOf
from .geometry import sliceCount
from .job_queue import QueuedJob
from .jobs import Event, Job, JobError
from .outputs import Place
from .speed import noteSpeed
from .style_cases import StyleCases, exportStyles, missingOrgans, styleMix

_MOST_SAMPLES = 1000


@dataclass(frozen=True)
class Wish:
    """What is asked for, besides the nodes.

    ``styles`` are written as for the option --style: "B", "lungs=B:0.7", "lungs=A:0.3"; None leaves it to the model.
    ``styleCases`` are CTs of the scene with their segmentations, by the names that styles call them.
    ``organs`` says for segments, by name or ID, which organ they are; None leaves one out.
    """

    model: Path
    styles: Sequence[str] | None = None
    organs: Organs | None = None
    slices: Sequence[int] | None = None  # consecutive, numbered from 0 as the voxels are stored; None: all
    samples: int = 1
    seed: int = 0
    device: str = "auto"
    styleCases: StyleCases | None = None


@dataclass(frozen=True)
class CheckResult:
    """What `check` found: one report a segment, and a sentence for everything that isn't as it should be."""

    segments: tuple[SegmentReport, ...]
    problems: tuple[str, ...]
    ready: bool  # whether synthesize would start
    slices: int = 0  # how many would be made, of all samples together
    size: int = 0  # pixels of the side of the squares that the model makes
    lacksBody: bool = False  # whether no segment is the body, though the model knows one


def check(
    segmentationNode: "slicer.vtkMRMLSegmentationNode | None",
    referenceVolumeNode: "slicer.vtkMRMLScalarVolumeNode | None",
    wish: Wish,
) -> CheckResult:
    """Whether a synthesis can work with these, and what it would leave out. Changes nothing and raises nothing."""
    reference = referenceVolumeNode or referenceOf(segmentationNode)
    try:
        prepared = _prepare(segmentationNode, reference, wish)
        conditioning, anatomy = prepared.conditioning, Anatomy.from_json(prepared.card["anatomy"])
        organs = {segment.organ for segment in conditioning.segments if segment.organ and segment.voxels}
        ofStyles = tuple(missingOrgans(wish.styleCases or {}, organs, anatomy))
    except InputError as error:
        return CheckResult((), (str(error),), ready=False)
    bodiless = lacksBody(conditioning.labels, reference, anatomy)
    noBody = _("No segment is the whole body: what no organ covers counts as air. Add a segment of the body.")
    count = len(prepared.slices) if prepared.slices else sliceCount(reference)
    return CheckResult(
        conditioning.segments,
        (*conditioning.problems, *([noBody] if bodiless else []), *ofStyles),
        ready=True,
        slices=count * wish.samples,
        size=int(prepared.card["size"]),
        lacksBody=bodiless,
    )


class SynthesisJob(QueuedJob):
    """A synthesis: its result is a volume node or, of several samples, a list of them.

    The temporary folder, which holds the patient's organ labels, is removed in any case.
    """

    def __init__(
        self,
        segmentationNode: "slicer.vtkMRMLSegmentationNode",
        referenceVolumeNode: "slicer.vtkMRMLScalarVolumeNode | None",
        wish: Wish,
        outputVolumeNode: "slicer.vtkMRMLScalarVolumeNode | None" = None,
        asSequence: bool = False,
    ) -> None:
        """Takes in the nodes as they are now. Raises InputError for what can't work.

        ``outputVolumeNode``, a synthetic volume, gets the result instead of a new one; samples are always new.
        ``asSequence``: the samples become a sequence, and the result is the volume that shows them.
        """
        super().__init__()
        reference = referenceVolumeNode or referenceOf(segmentationNode)
        prepared = _prepare(segmentationNode, reference, wish)
        self._wish, self._output, self._asSequence = wish, outputVolumeNode, asSequence
        self._place = Place(segmentationNode, reference, prepared.slices)
        self._labels = self._place.image(self._place.cut(prepared.conditioning.labels))
        self._provenance = provenanceOf(segmentationNode, prepared.card, wish)
        self._size = int(prepared.card["size"])
        self._firstSlice = (0.0, 0)  # when the first batch of slices was done, and how many those were
        self._folder = PrivateFolder()
        try:
            self._styles = exportedStyles(wish, Path(self._folder.name), prepared.card)
        except BaseException:
            self._folder.cleanup()
            raise

    def _begin(self) -> Job:
        folder, wish = Path(self._folder.name), self._wish
        write_volume(self._labels, folder / "labels.nrrd", compress=False)
        arguments = ["synthesize", "--model", str(wish.model), "--segmentation", str(folder / "labels.nrrd")]
        for style in self._styles:
            arguments += ["--style", style]
        arguments += ["--samples", str(wish.samples), "--seed", str(wish.seed), "--device", wish.device]
        return Job([*arguments, "--output", str(folder / "ct.nrrd")], folder, self._note)

    def _note(self, event: Event) -> None:
        super()._note(event)
        if event.get("event") == "progress" and not self._firstSlice[1]:
            self._firstSlice = (time.monotonic(), self.done)

    def _finish(self, done: Event) -> Any:
        since, before = self._firstSlice
        noteSpeed(self._size, self._wish.device, self.done - before, time.monotonic() - since)
        samples = [_readResult(Path(path), self._labels) for path in done.get("outputs", ())]
        if len(samples) != self._wish.samples:
            raise JobError(_("The CTStyleGen process ended well but didn't write what it was asked for."))
        provenance = [{**self._provenance, "Sample": str(number)} for number in range(1, len(samples) + 1)]
        if len(samples) > 1:
            return (self._place.addSequence if self._asSequence else self._place.addSamples)(samples, provenance)
        if self._output is not None:
            return self._place.renew(self._output, samples[0], provenance[0])
        return self._place.add(samples[0], provenance[0])

    def _close(self) -> None:
        self._folder.cleanup()


def exportedStyles(wish: Wish, folder: Path, card: Mapping[str, Any]) -> list[str]:
    """The styles as the child process understands them, with the scene's cases in the folder."""
    return exportStyles(wish.styles or (), wish.styleCases or {}, folder, Anatomy.from_json(card["anatomy"]))


def provenanceOf(
    segmentationNode: "slicer.vtkMRMLSegmentationNode", card: Mapping[str, Any], wish: Wish
) -> dict[str, str]:
    """What the result will say about where it comes from: attributes, without the prefix CTStyleGen."""
    slices = {"Slices": f"{wish.slices[0]}-{wish.slices[-1]}"} if wish.slices is not None else {}
    mix = styleMix(card, wish.styles or (), wish.styleCases or {})
    inCard = all(case in card["styles"] for shares in mix.values() for case in shares)  # never a path
    shares = {"StyleShares": json.dumps(mix)} if mix and inCard else {}
    return {
        "Model": wish.model.name,
        "ModelSHA256": sha256(wish.model),
        "Segmentation": segmentationNode.GetName(),
        "Styles": told(mix) or ", ".join(card["styles"]),
        **shares,
        "Seed": str(wish.seed),
        **slices,
        "Version": CTStyleGenCore.__version__,
        "SlicerVersion": slicer.app.applicationVersion,
    }


@dataclass(frozen=True)
class _Prepared:
    conditioning: Conditioning
    card: dict[str, Any]
    slices: range | None  # None: all


def _prepare(
    segmentationNode: "slicer.vtkMRMLSegmentationNode | None",
    referenceVolumeNode: "slicer.vtkMRMLScalarVolumeNode | None",
    wish: Wish,
) -> _Prepared:
    """Organ labels and the model's card; raises InputError for what can't work."""
    card = read_card(wish.model)
    styleMix(card, wish.styles or (), wish.styleCases or {})
    if not 1 <= wish.samples <= _MOST_SAMPLES:
        raise InputError(
            _("{count} samples are not possible: ask for 1 to {most}.").format(count=wish.samples, most=_MOST_SAMPLES)
        )
    if wish.seed < 0:
        raise InputError(_("The seed {seed} is not possible: it must be 0 or more.").format(seed=wish.seed))
    anatomy = Anatomy.from_json(card["anatomy"])
    conditioning = conditioningFromSegmentation(segmentationNode, referenceVolumeNode, anatomy, wish.organs)
    slices = None
    if wish.slices is not None:
        slices = _consecutive(wish.slices, sliceCount(referenceVolumeNode))
        if not Place(segmentationNode, referenceVolumeNode, slices).cut(conditioning.labels).any():
            raise InputError(
                _("There is no organ in the slices {first} to {last}: choose others.").format(
                    first=slices[0], last=slices[-1]
                )
            )
    return _Prepared(conditioning, card, slices)


def _consecutive(slices: Iterable[int], count: int) -> range:
    """The slices as a range; raises InputError unless they are consecutive slices of a volume that has ``count``."""
    numbers = list(slices)
    if not numbers or numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        raise InputError(_("The slices must be consecutive: give them as range(first, last + 1)."))
    if numbers[0] < 0 or numbers[-1] >= count:
        raise InputError(
            _("There is no slice {number} in the reference volume: its slices are 0 to {last}.").format(
                number=numbers[0] if numbers[0] < 0 else numbers[-1], last=count - 1
            )
        )
    return range(numbers[0], numbers[-1] + 1)


def _readResult(path: Path, labels: sitk.Image) -> np.ndarray:
    """The child's voxels, int16 HU [k, j, i].

    Read by SimpleITK, which keeps the order of the voxels; Slicer's reader turns the slices of left-handed volumes.
    """
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise JobError(_("The CTStyleGen process ended well but wrote no readable volume.")) from error
    if image.GetPixelID() != sitk.sitkInt16 or not same_grid(image, labels):
        raise JobError(_("The CTStyleGen process wrote a volume in another grid than it was asked for."))
    return sitk.GetArrayFromImage(image)
