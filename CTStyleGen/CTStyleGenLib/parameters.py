"""What the user chose in the panels, saved with the scene."""

import enum
from pathlib import Path
from typing import Annotated, Any

from CTStyleGenCore.presets import DEFAULT, PRESETS
from slicer import vtkMRMLScalarVolumeNode, vtkMRMLScriptedModuleNode, vtkMRMLSegmentationNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper


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


class CaseSource(enum.Enum):
    """Where a training's cases are."""

    SCENE = "scene"
    FOLDER = "folder"

    def label(self) -> str:
        """The text of the choice in the panel."""
        return {"scene": _("Of the scene"), "folder": _("Of a folder")}[self.value]


class Features(enum.Enum):
    """The network that measures style and content."""

    AUTO = "auto"
    FILE = "file"
    DOWNLOAD = "download"
    RANDOM = "random"

    def label(self) -> str:
        """The text of the choice in the panel."""
        return {
            "auto": _("VGG-19 if its weights are here"),
            "file": _("VGG-19, weights of a file"),
            "download": _("VGG-19, download it (550 MB)"),
            "random": _("Random filters"),
        }[self.value]


class TableChoice(enum.Enum):
    """The organ table that segments are recognized by, and that a model learns."""

    THORAX = "thorax"
    LCTSC = "lctsc"
    FILE = "file"

    def label(self) -> str:
        """The text of the choice in the panel."""
        return {
            "thorax": _("Chest (thorax)"),
            "lctsc": _("Chest, for radiotherapy (lctsc)"),
            "file": _("A table of my own"),
        }[self.value]


class VaryWay(enum.Enum):
    """How anatomy is varied; the other ways of `CTStyleGenCore.variation` need other patients."""

    MIXED = "mixed"
    DEFORM = "deform"
    ORGANS = "organs"

    def label(self) -> str:
        """The text of the choice in the panel."""
        return {"mixed": _("Either"), "deform": _("As a whole"), "organs": _("Organ by organ")}[self.value]


class ExportCases(enum.Enum):
    """What a training set is made of."""

    SEGMENTATION = "segmentation"
    FOLDER = "folder"

    def label(self) -> str:
        """The text of the choice in the panel."""
        return {"segmentation": _("The segmentation above"), "folder": _("A folder of cases")}[self.value]


class ExportLook(enum.Enum):
    """The look of a training set's images."""

    TURNS = "turns"
    CHOSEN = "chosen"

    def label(self) -> str:
        """The text of the choice in the panel."""
        return {"turns": _("The model's styles in turn"), "chosen": _("As chosen for the organs")}[self.value]


@parameterNodeWrapper
class CTStyleGenParameterNode:
    """The parameters of all panels; the names of those of Evaluate, Vary, Export, Train and Models start so."""

    # Generate
    segmentation: vtkMRMLSegmentationNode
    referenceVolume: vtkMRMLScalarVolumeNode  # none: the volume that the segmentation was drawn on
    model: Path
    styleVolume: vtkMRMLScalarVolumeNode  # none: the model's own styles
    slices: SliceChoice = SliceChoice.ALL
    firstSlice: Annotated[int, WithinRange(0, 99999)] = 0  # of a range, with lastSlice
    lastSlice: Annotated[int, WithinRange(0, 99999)] = 0
    samples: Annotated[int, WithinRange(1, 100)] = 1
    asSequence: bool = False  # the samples
    seed: Annotated[int, WithinRange(0, 999999)] = 0
    organStyles: str = ""  # JSON: by organ, the style and its share in percent; for the others, as for all
    output: vtkMRMLScalarVolumeNode  # none: a new volume
    device: Device = Device.AUTO
    fade: Annotated[float, WithinRange(0, 100)] = 100.0  # percent of the synthetic CT over the reference

    # Generate, Evaluate
    evaluateResult: vtkMRMLScalarVolumeNode

    # Generate, Vary
    varyAmount: Annotated[float, WithinRange(0, 50)] = 5.0  # mm, root mean square
    varyCount: Annotated[int, WithinRange(1, 100)] = 3
    varySeed: Annotated[int, WithinRange(0, 999999)] = 0
    varyWay: VaryWay = VaryWay.MIXED

    # Generate, Export
    exportCases: ExportCases = ExportCases.SEGMENTATION
    exportCasesFolder: Path
    exportFolder: Path  # in which the data set's folder is made
    exportName: str = "Dataset501_Synthetic"  # of the data set's folder
    exportPerCase: Annotated[int, WithinRange(1, 9999)] = 20  # images
    exportAmount: Annotated[float, WithinRange(0, 50)] = 6.0  # mm, at most
    exportLook: ExportLook = ExportLook.TURNS
    exportSeed: Annotated[int, WithinRange(0, 999999)] = 0
    exportDicom: bool = False

    # Train; the cases of the scene are kept at their segmentations (training_cases)
    trainSource: CaseSource = CaseSource.SCENE
    trainFolder: Path
    trainFolderStyles: str = ""  # JSON: the names of the cases of the folder that are ticked
    trainName: str = ""
    trainPreset: Annotated[str, Choice(list(PRESETS))] = DEFAULT
    trainSize: Annotated[str, Choice(["64", "128", "256", "512", "1024"])] = "256"  # pixels
    trainEpochs: Annotated[int, WithinRange(0, 99999)] = 0  # 0: the preset's
    trainDevice: str = "auto"
    trainFeatures: Features = Features.AUTO
    trainWeights: Path
    trainOrgans: TableChoice = TableChoice.THORAX
    trainOrgansFile: Path
    trainOutlives: bool = False  # Slicer


def parametersIn(node: vtkMRMLScriptedModuleNode) -> CTStyleGenParameterNode:
    """The parameters in a node of the scene: as at first where they can't be read, as those of another version."""
    make: Any = CTStyleGenParameterNode  # the wrapper gives it its constructor
    try:
        made = make(node)
        for name in made.allParameters:
            made.setValue(name, made.getValue(name))  # which looks whether the value is possible
        return made
    except (KeyError, TypeError, ValueError):
        node.UnsetAllParameters()
        return make(node)
