"""What the user chose in the panels, saved with the scene."""

import enum
from pathlib import Path
from typing import Annotated

from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper


class SliceChoice(enum.Enum):
    """Which slices are generated."""

    ALL = "all"
    RANGE = "range"
    CURRENT = "current"

    def label(self) -> str:
        """The text of the choice in the panel."""
        return {"all": _("All"), "range": _("A range"), "current": _("This one")}[self.value]


class Device(enum.Enum):
    """What is computed on."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"

    def label(self) -> str:
        """The text of the choice in the panel."""
        return {"auto": _("Automatic"), "cpu": _("Processor"), "cuda": _("Graphics card (CUDA)")}[self.value]


@parameterNodeWrapper
class CTStyleGenParameterNode:
    """The parameters of all panels; the names of those of Train and Models start so."""

    # Generate
    segmentation: vtkMRMLSegmentationNode
    referenceVolume: vtkMRMLScalarVolumeNode  # none: the volume that the segmentation was drawn on
    model: Path
    slices: SliceChoice = SliceChoice.ALL
    firstSlice: Annotated[int, WithinRange(0, 99999)] = 0  # of a range, with lastSlice
    lastSlice: Annotated[int, WithinRange(0, 99999)] = 0
    samples: Annotated[int, WithinRange(1, 100)] = 1
    asSequence: bool = False  # the samples
    seed: Annotated[int, WithinRange(0, 999999)] = 0
    organStyles: str = ""  # JSON: by organ, the style and its share in percent; the model's own for the others
    output: vtkMRMLScalarVolumeNode  # none: a new volume
    device: Device = Device.AUTO
    fade: Annotated[float, WithinRange(0, 100)] = 100.0  # percent of the synthetic CT over the reference
