"""Pictures of the module's panels, as docs/panel-NAME.png: python -m tools.panel_pictures [FOLDER [MODEL]].

They are the running panels, on the widgets of the tests' stand-in, which looks like Qt without Slicer's style, with a
real chest CT and its segmentation. MODEL, a .ctstyle file such as the demo's, is drawn in the Models panel.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from . import demo_data
from .demo import _ROOT, _add_volume

_WIDTH = 420  # pixels, of a panel beside the views


def main(arguments: list[str]) -> None:
    """Writes the pictures into a folder."""
    target = Path(arguments[0] if arguments else _ROOT / "docs")
    sys.path[:0] = [str(_ROOT / "CTStyleGen"), str(_ROOT / "CTStyleGen" / "Testing" / "Python")]
    from CTStyleGenTesting import prepare

    prepare()
    from CTStyleGenLib import models
    from CTStyleGenLib.models_panel import ModelsPanel
    from CTStyleGenLib.train_panel import TrainPanel
    from CTStyleGenTesting.model_files import writeModel
    from CTStyleGenTesting.panels import openModule, passTime, sliceView

    with tempfile.TemporaryDirectory() as folder:
        models.setModelsFolder(Path(folder) / "models")
        styles = {"styles": ["clinic A", "clinic B", "low dose"], "style_codes": {}, "size": 256}
        writeModel(models.modelsFolder() / "chest.ctstyle", **styles)
        volume, segmentation = _chest(Path(folder))
        sliceView()
        module = openModule()
        parameters = module.panels[0].parameters
        parameters.segmentation, parameters.referenceVolume = segmentation, volume
        parameters.organStyles = '{"lungs": ["clinic B", 70], "bone": ["clinic A", 100]}'
        place = module.parent
        tabs = module.ui.panelTabs
        place.show()
        train = next(panel for panel in module.panels if isinstance(panel, TrainPanel))
        _begin_training(train, volume, segmentation)
        for index, panel in enumerate(module.panels):
            tabs.setCurrentIndex(index)
            height = panel.widget.minimumSizeHint.height() + 90
            place.resize(_WIDTH, height)
            if isinstance(panel, ModelsPanel):
                _show_models(panel, *map(Path, arguments[1:]))
            passTime(1.0)
            place.grab().save(str(target / f"panel-{panel.title.lower()}.png"))
        train.selectedTraining.discard()


def _begin_training(panel: Any, volume: Any, segmentation: Any) -> None:
    """Begins to train with the chest and two copies of it, and waits for the first pictures."""
    import slicer
    from CTStyleGenLib import training_cases
    from CTStyleGenLib.parameters import Features
    from CTStyleGenTesting.panels import passTimeUntil

    pairs = [(volume, segmentation)]
    for number in (2, 3):
        organs = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        organs.Copy(segmentation)
        organs.SetName(f"Chest {number}")
        ct = slicer.modules.volumes.logic().CloneVolume(slicer.mrmlScene, volume, f"Chest CT {number}")
        pairs.append((ct, organs))
    for pair in pairs:
        training_cases.addCase(*pair)
    training_cases.setStyle(segmentation, True)
    chosen = panel.parameters
    chosen.trainPreset, chosen.trainSize, chosen.trainFeatures = "quick", "64", Features.RANDOM
    panel.update()
    panel.check()
    panel.ui.startButton.click()
    training = panel.selectedTraining
    passTimeUntil(lambda: training.preview and training.done > 30, 900)


def _show_models(panel: Any, *files: Path) -> None:
    """Waits for the check of the libraries, then imports the models and has the child process draw the last one."""
    from CTStyleGenLib import models
    from CTStyleGenTesting.panels import passTimeUntil

    passTimeUntil(lambda: not panel.isBusy)
    for file in files:
        panel.refresh(select=models.importModel(file))
        panel.ui.pictureButton.click()
        passTimeUntil(lambda: not panel.isBusy)


def _chest(folder: Path) -> tuple[Any, Any]:
    """The demo's chest: its CT, and its segmentation with colors."""
    import slicer

    case = demo_data.content_case(folder / "content")
    volume = _add_volume(sitk.ReadImage(str(case / "ct.nrrd")), "Chest CT")
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Chest")
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(case / "segmentation.seg.nrrd"))
    storage.ReadData(segmentation)
    segmentation.CreateDefaultDisplayNodes()
    return volume, segmentation


if __name__ == "__main__":
    main(sys.argv[1:])
