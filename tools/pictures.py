"""The README's pictures: python -m tools.pictures MODEL [FOLDER]. FOLDER is docs unless it is given.

MODEL is the demo's demo/chest.ctstyle for the panels, for the views that of docs/ablation.md.

panel-NAME.png: the running panels, on the widgets of the tests' stand-in, which looks like Qt without Slicer's style.
views.png: Slicer's slice views of what the Generate panel makes of a real chest, as it is and with a larger heart.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib
import SimpleITK as sitk

from . import demo_data
from .demo import ROOT, add_volume, grow

matplotlib.use("Agg")
import matplotlib.pyplot as plt

_WIDTH = 620  # pixels: the long names of segments can be read
_FOLDER = "/home/me/.local/share/Slicer/CTStyleGen/models"  # told in place of the temporary one
_TRAINED_STEPS = 120  # of the training in the picture


def main(arguments: list[str]) -> None:
    """Writes the pictures into a folder."""
    model, target = Path(arguments[0]), Path(arguments[1] if len(arguments) > 1 else ROOT / "docs")
    target.mkdir(parents=True, exist_ok=True)
    sys.path[:0] = [str(ROOT / "CTStyleGen"), str(ROOT / "CTStyleGen" / "Testing" / "Python")]
    from CTStyleGenTesting import prepare

    prepare()
    import qt
    from CTStyleGenLib import models
    from CTStyleGenTesting.model_files import writeModel
    from CTStyleGenTesting.panels import openModule, passTimeUntil

    from .slice_views import SliceView

    with tempfile.TemporaryDirectory() as folder:
        models.setModelsFolder(Path(folder) / "models")
        styles = ["clinic A", "clinic B", "low dose"]
        writeModel(models.modelsFolder() / "three clinics.ctstyle", styles=styles, style_codes={}, size=256)
        volume, segmentation = _chest(Path(folder))
        views = {name: SliceView(name) for name in ("Red", "Green")}
        views["Red"].show(volume)
        module = openModule()
        generate, train, modelsPanel = module.panels
        generate.parameters.segmentation, generate.parameters.referenceVolume = segmentation, volume
        generate.parameters.organStyles = '{"lungs": ["clinic B", 70], "bone": ["clinic A", 100]}'
        place = module.parent
        place.show()
        passTimeUntil(lambda: train._devices.known)
        _begin_training(train, volume, segmentation)
        for index, panel in enumerate(module.panels):
            module.ui.panelTabs.setCurrentIndex(index)
            if panel is modelsPanel:
                _show_model(panel, model)
                text = panel.ui.storageLabel.text
                panel.ui.storageLabel.text = text.replace(str(models.modelsFolder()), _FOLDER)
            shown = qt.QRect(0, 0, _WIDTH, _height(place, panel))
            place.grab(shown).save(str(target / f"panel-{panel.title.lower()}.png"))
        train.trainings.selected.discard()
        modelsPanel.ui.useButton.click()
        generate.parameters.organStyles = ""  # all looks that it has, alike
        _draw_views(generate, views, volume, segmentation, target / "views.png")
        for view in views.values():
            view.close()


def _height(place: Any, panel: Any) -> int:
    """The height of what is in the panel, of which the window shows all."""
    import qt
    from CTStyleGenTesting.panels import passTime

    place.resize(_WIDTH, panel.widget.minimumSizeHint.height() + 90)
    passTime(0.5)
    buttons = [one for one in panel.widget.findChildren(qt.QAbstractButton) if one.isVisibleTo(place)]
    ends = [one for one in buttons if one.className() != "ctkCollapsibleButton" or one.collapsed]  # open ones take more
    return max(one.mapTo(place, qt.QPoint(0, one.height)).y() for one in ends) + 30


def _begin_training(panel: Any, volume: Any, segmentation: Any) -> None:
    """Begins to train with the chest and two copies of it, and waits until something is to be seen."""
    import slicer
    from CTStyleGenLib import training_cases
    from CTStyleGenLib.parameters import Features
    from CTStyleGenTesting.panels import passTimeUntil

    pairs = [(volume, segmentation)]
    for number in (2, 3):
        organs = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        organs.Copy(segmentation)
        organs.RemoveAllDisplayNodeIDs()
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
    training = panel.trainings.selected
    passTimeUntil(lambda: training.preview and training.done > _TRAINED_STEPS, 1800)


def _show_model(panel: Any, model: Path) -> None:
    """Waits for the check of the libraries, then imports the model and has the child process draw it."""
    from CTStyleGenLib import models
    from CTStyleGenTesting.panels import passTimeUntil

    passTimeUntil(lambda: not panel.isBusy)
    panel.refresh(select=models.importModel(model))
    panel.ui.pictureButton.click()
    passTimeUntil(lambda: not panel.isBusy)


def _draw_views(panel: Any, views: dict[str, Any], volume: Any, segmentation: Any, path: Path) -> None:
    """Generates twice, the second time with the heart grown by hand, and draws what the views show."""
    import slicer

    segmentation.GetDisplayNode().SetOpacity2DFill(0.7)
    rows = []
    for _ in range(2):
        synthetic = _generate(panel)
        row = []
        for view, shown, hasSegments in (("Red", None, True), ("Red", synthetic, False), ("Green", synthetic, False)):
            segmentation.GetDisplayNode().SetVisibility(hasSegments)
            views[view].show(volume, shown)
            row.append(views[view].picture())
        rows.append(row)
        grow(segmentation, "mediastinum", volume)
    slicer.mrmlScene.RemoveNode(synthetic)
    figure, axes = plt.subplots(2, 3, figsize=(9.0, 6.5), facecolor="white")
    titles = (
        ("CT and segmentation", "synthetic CT", "synthetic CT, coronal"),
        ("the heart grown by 8 mm", "its synthetic CT", "its synthetic CT, coronal"),
    )
    for axis, picture, title in zip(axes.flat, (p for row in rows for p in row), sum(titles, ()), strict=True):
        axis.imshow(picture)
        axis.set_title(title, fontsize=10)
        axis.axis("off")
    figure.tight_layout()
    figure.savefig(path, dpi=100)


def _generate(panel: Any) -> Any:
    """Clicks on Generate; the volume that comes of it."""
    import slicer
    from CTStyleGenTesting.panels import passTimeUntil

    panel.check()
    panel.ui.generateButton.click()
    (job,) = panel._runs.jobs
    passTimeUntil(lambda: job.hasEnded, 600)
    slicer.app.processEvents()
    return job.result


def _chest(folder: Path) -> tuple[Any, Any]:
    """The demo's chest: its CT, and its segmentation with colors."""
    import slicer

    case = demo_data.content_case(folder / "content")
    volume = add_volume(sitk.ReadImage(str(case / "ct.nrrd")), "Chest CT")
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Chest")
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(case / "segmentation.seg.nrrd"))
    storage.ReadData(segmentation)
    segmentation.CreateDefaultDisplayNodes()
    return volume, segmentation


if __name__ == "__main__":
    main(sys.argv[1:])
