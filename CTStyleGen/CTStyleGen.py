"""The module CTStyleGen of 3D Slicer: a CT for a segmentation. What it does is in CTStyleGenLib and CTStyleGenCore."""

import sys
import unittest
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import slicer
from CTStyleGenCore.anatomy import Anatomy
from CTStyleGenLib import evaluation, expansion, synthesis, training, variation
from CTStyleGenLib.body_segment import BodyJob
from CTStyleGenLib.generate_panel import GeneratePanel
from CTStyleGenLib.job_queue import closeJobQueue, jobQueue
from CTStyleGenLib.models_panel import ModelsPanel
from CTStyleGenLib.panel import Panel
from CTStyleGenLib.parameters import CTStyleGenParameterNode, parametersIn
from CTStyleGenLib.sample_data import registerSampleData
from CTStyleGenLib.self_test import runSelfTest
from CTStyleGenLib.style_cases import StyleCases
from CTStyleGenLib.train_panel import TrainPanel
from CTStyleGenLib.training_cases import CaseChecks, Given, casesFrom
from CTStyleGenLib.training_run import Training
from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin


class CTStyleGen(ScriptedLoadableModule):
    """What the application shows of the module before it is opened."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("CT Style Generation")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Image Synthesis")]
        parent.dependencies = ["Plots", "Segmentations", "Sequences", "SubjectHierarchy", "Volumes"]
        parent.contributors = ["CTStyleGen contributors"]
        parent.helpText = _(
            "Makes a CT volume for a segmentation, in the look of the CT that a model was trained with. "
            "For research use only, not for diagnosis or treatment."
        )
        parent.acknowledgementText = _(
            'The method is that of A. Krishna and K. Mueller, "Medical (CT) Image Generation with Style". '
            "For research use only."
        )
        slicer.app.connect("startupCompleted()", registerSampleData)


class CTStyleGenWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The module's window: a tab for each panel."""

    logic: Any = None
    panels: Sequence[Panel] = ()

    def setup(self) -> None:
        """Called when the module is opened for the first time."""
        ScriptedLoadableModuleWidget.setup(self)
        self.uiWidget = slicer.util.loadUI(self.resourcePath("UI/CTStyleGen.ui"))
        self.layout.addWidget(self.uiWidget)
        self.ui = slicer.util.childWidgetVariables(self.uiWidget)
        self.uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = CTStyleGenLogic()
        self.panels = [GeneratePanel(self.logic), TrainPanel(self.logic), ModelsPanel(self.logic)]
        for panel in self.panels:
            self.ui.panelTabs.addTab(panel.widget, panel.title)
        self.ui.panelTabs.connect("currentChanged(int)", self.onTabChanged)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        if self.parent.isEntered:  # reloaded while it is open, which nobody enters again
            self.enter()

    def cleanup(self) -> None:
        """Called when the application closes or the module is reloaded."""
        self.setParameterNode(None)
        self.removeObservers()
        for panel in self.panels:
            panel.cleanup()
        closeJobQueue()
        self.uiWidget.deleteLater()  # reloading would only hide it, and it would go on to follow the scene

    def enter(self) -> None:
        """Called each time the module is opened."""
        self.setParameterNode(self.logic.getParameterNode())
        for panel in self.panels:
            panel.enter()
        self.onTabChanged(self.ui.panelTabs.currentIndex)

    def exit(self) -> None:
        """Called each time another module is opened."""
        for panel in self.panels:
            panel.exit()
        self.setParameterNode(None)

    def onReload(self) -> None:
        """Reloads the libraries, too, which stay as they were otherwise."""
        for name in [name for name in sys.modules if name.partition(".")[0] in ("CTStyleGenLib", "CTStyleGenCore")]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def onSceneStartClose(self, caller: Any, event: Any) -> None:
        """No panel may hold on to nodes that are about to go."""
        self.setParameterNode(None)

    def onSceneEndClose(self, caller: Any, event: Any) -> None:
        """The empty scene gets parameters of its own."""
        if self.parent.isEntered:
            self.setParameterNode(self.logic.getParameterNode())

    def onTabChanged(self, index: int) -> None:
        """Tells the panel that can be seen now."""
        self.panels[index].shown()

    def setParameterNode(self, parameterNode: CTStyleGenParameterNode | None) -> None:
        """Binds all panels to the parameters of a scene, or to none."""
        for panel in self.panels:
            panel.setParameterNode(parameterNode)


class CTStyleGenLogic(ScriptedLoadableModuleLogic):
    """The module for Python scripts; shows no dialogs.

    >>> logic = CTStyleGenLogic()
    >>> logic.check(segmentationNode, model="chest.ctstyle").problems
    ("The segment 'Tumor' is left out: ...",)
    >>> volumeNode = logic.synthesize(segmentationNode, model="chest.ctstyle", seed=3)
    >>> job = logic.synthesize(segmentationNode, model="chest.ctstyle", samples=4, wait=False)
    """

    def getParameterNode(self) -> CTStyleGenParameterNode:
        """The panel's parameters, as saved in the scene."""
        return parametersIn(ScriptedLoadableModuleLogic.getParameterNode(self))

    def check(
        self,
        segmentationNode: vtkMRMLSegmentationNode | None,
        referenceVolumeNode: vtkMRMLScalarVolumeNode | None = None,
        *,
        model: str | Path,
        styles: Sequence[str] | None = None,
        organs: Mapping[str, str | None] | None = None,
        slices: Sequence[int] | None = None,
        samples: int = 1,
        seed: int = 0,
        styleCases: StyleCases | None = None,
    ) -> synthesis.CheckResult:
        """What would become of each segment (segments), what is wrong (problems), and whether it can start (ready)."""
        wish = synthesis.Wish(Path(model).absolute(), styles, organs, slices, samples, seed, styleCases=styleCases)
        return synthesis.check(segmentationNode, referenceVolumeNode, wish)

    def synthesize(
        self,
        segmentationNode: vtkMRMLSegmentationNode,
        referenceVolumeNode: vtkMRMLScalarVolumeNode | None = None,
        *,
        model: str | Path,
        styles: Sequence[str] | None = None,
        organs: Mapping[str, str | None] | None = None,
        slices: Sequence[int] | None = None,
        samples: int = 1,
        seed: int = 0,
        device: str = "auto",
        styleCases: StyleCases | None = None,
        output: vtkMRMLScalarVolumeNode | None = None,
        asSequence: bool = False,
        wait: bool = True,
    ) -> Any:
        """A CT for the segmentation, as a new volume node with exactly the reference's grid and parent transform.

        Without a reference it is the volume that the segmentation was drawn on. ``styles``: whose look, for all organs
        ("B") or for one ("lungs=B:0.7", "lungs=A:0.3"); without, as the model has it. ``styleCases``: other CTs that
        styles may name, with their segmentations, {"C": (volumeNode, segmentationNode)}. ``organs``: the organ of a
        segment, by its name or ID, where it isn't recognized; None leaves it out. ``slices``: consecutive axial slices,
        from 0 as they are stored; the volume has only these. ``samples``: more than one give a list of volumes in a
        folder or, ``asSequence``, a volume that shows a sequence. ``seed``: another one, another CT. ``device``: auto,
        cpu or cuda. ``output``: a synthetic volume that gets the result instead of a new one; of a range of slices only
        those, if it has the others.

        Waits until the CT is there, or unless it is to ``wait`` returns a `CTStyleGenLib.job_queue.QueuedJob`, whose
        turn comes after those before it. Raises CTStyleGenCore.errors.InputError, with one sentence, for bad input, and
        CTStyleGenLib.jobs.JobError when the process that computes fails; then nothing is added to the scene.
        """
        wish = synthesis.Wish(Path(model).absolute(), styles, organs, slices, samples, seed, device, styleCases)
        job = synthesis.SynthesisJob(segmentationNode, referenceVolumeNode, wish, output, asSequence)
        if wait:
            return job.wait()
        jobQueue().add(job)
        return job

    def train(
        self,
        cases: Given,
        *,
        styles: Sequence[str | vtkMRMLScalarVolumeNode],
        name: str,
        preset: str = training.DEFAULT,
        size: int = 256,
        epochs: int | None = None,
        steps: int | None = None,
        device: str = "auto",
        features: str = "auto",
        featureWeights: str | Path | None = None,
        download: bool = False,
        seed: int = 0,
        outlives: bool = False,
        anatomy: str | Path | None = None,
        wait: bool = False,
    ) -> Training:
        """Trains a model: NAME.ctstyle in the models folder. Returns the training at once unless it is to ``wait``.

        ``cases``: pairs of a CT and its segmentation, by name ({"case-1": (volumeNode, segmentationNode), ...}) or in a
        list, or a folder of cases. Names go into the model's card: never a patient's. ``styles``: the cases whose look
        is learned, by name or by CT node; with the preset styles those to choose from later, none for all of them.
        ``size``: pixels of a slice's side. ``epochs``: passes over the slices; or ``steps``. ``features``: auto, vgg19,
        vgg16 or random, with the VGG's weights from the file ``featureWeights``, else the models folder or, where they
        are missing and ``download`` says so, from pytorch.org. ``outlives``: goes on when Slicer ends; else it pauses
        then. ``anatomy``: the organ table, by name or as a file; none for the preset's. Raises
        CTStyleGenCore.errors.InputError, with one sentence, for bad input, before anything is begun; and what
        `Training.wait` raises.
        """
        options = training.TrainingOptions(
            *(name, styles, preset, size, epochs, steps, device, features, featureWeights, download, seed, outlives),
            anatomy=anatomy,
        )
        started = training.start(casesFrom(cases), options)
        if wait:
            started.wait()
        return started

    def checkTraining(self, cases: Given, **options: Any) -> training.TrainingCheck:
        """What `train` would find wrong with the same arguments, and about how long it would take. Begins nothing."""
        asked = training.TrainingOptions(**options)
        return training.check(casesFrom(cases), asked, CaseChecks())

    def expand(
        self,
        cases: Given,
        output: str | Path,
        *,
        model: str | Path,
        perCase: int,
        amount: float = 6.0,
        styles: Sequence[str] = (),
        styleCases: StyleCases | None = None,
        mix: bool = False,
        labels: str = "organs",
        splits: str | Path | None = None,
        dicom: bool = False,
        seed: int = 0,
        device: str = "auto",
        resume: bool = False,
        wait: bool = True,
    ) -> Any:
        """Makes an annotated data set, ``perCase`` images of each case, and returns its folder ``output``.

        It is an nnU-Net raw data set, with a manifest.csv of where each image comes from. ``cases``: as of `train`.
        ``amount``: how far anatomy moves at most, in mm. ``styles`` and ``styleCases``: the look of all images, as of
        `synthesize`; without, the model's styles in turn or, with ``mix``, two of them mixed in each organ. ``labels``:
        "organs", the values of the organ table, or "source", those of the cases' own segmentations in a folder.
        ``splits``: a JSON file, {"train": [...], "test": [...]}, outside of whose "train" no patient is used.
        ``dicom``: DICOM as well. ``resume``: goes on with a data set that stopped.

        Waits, or unless it is to ``wait`` returns a `CTStyleGenLib.job_queue.QueuedJob`, whose turn comes after the
        data sets before it, beside other jobs; closing the scene leaves it at work. Raises as `synthesize`; images that
        are whole are kept.
        """
        options = expansion.ExpansionOptions(
            cases, model, output, perCase, amount, styles, styleCases, mix, labels, splits, dicom, seed, device, resume
        )
        job = expansion.ExpansionJob(options)
        if wait:
            return job.wait()
        jobQueue().add(job)
        return job

    def estimateExpansion(
        self, cases: Given, *, perCase: int, splits: str | Path | None = None, dicom: bool = False
    ) -> expansion.Estimate:
        """What `expand` would make: its cases, images, and size_bytes, roughly."""
        return expansion.estimateExpansion(cases, perCase, splits, dicom)

    def addBody(
        self,
        segmentationNode: vtkMRMLSegmentationNode,
        referenceVolumeNode: vtkMRMLScalarVolumeNode | None = None,
        *,
        wait: bool = True,
    ) -> Any:
        """Adds a segment of the body to the segmentation, found in the reference CT by its HU, and returns its ID.

        It is the first segment, so that organs are painted over it. Without a reference it is the volume that the
        segmentation was drawn on. Waits, or unless it is to ``wait`` returns a `CTStyleGenLib.job_queue.QueuedJob`.
        Raises as `synthesize`.
        """
        job = BodyJob(segmentationNode, referenceVolumeNode)
        if wait:
            return job.wait()
        jobQueue().add(job)
        return job

    def vary(
        self,
        segmentationNode: vtkMRMLSegmentationNode,
        referenceVolumeNode: vtkMRMLScalarVolumeNode | None = None,
        *,
        count: int = 1,
        amount: float = 5.0,
        seed: int = 0,
        way: str = "mixed",
        cases: str | Path | None = None,
        widen: float = 0.2,
        organs: Mapping[str, str | None] | None = None,
        anatomy: str | Path | Anatomy = "thorax",
        wait: bool = True,
    ) -> Any:
        """New segmentations that could be other people's: ``count`` nodes beside the reference, shown as outlines.

        All segments move together and keep their names, colors and terminology. ``amount``: how far, in mm, root mean
        square; 0 gives copies. ``way``: deform, organs, interpolate, shape, or mixed; interpolate and shape need
        ``cases``, a folder of other patients. Areas and places of organs stay within theirs, widened by the share
        ``widen``. ``organs``: as of `synthesize`. ``anatomy``: the organ table, or its name or file, or a model.

        Waits, or unless it is to ``wait`` returns a `CTStyleGenLib.job_queue.QueuedJob`, whose turn comes after those
        before it. Raises as `synthesize`.
        """
        options = variation.VariationOptions(count, amount, seed, way, cases, widen, organs, anatomy)
        job = variation.VariationJob(segmentationNode, referenceVolumeNode, options)
        if wait:
            return job.wait()
        jobQueue().add(job)
        return job

    def evaluate(
        self,
        resultNode: vtkMRMLScalarVolumeNode,
        segmentationNode: vtkMRMLSegmentationNode | None = None,
        *,
        model: str | Path | None = None,
        organs: Mapping[str, str | None] | None = None,
    ) -> evaluation.ResultReport:
        """The organs of a synthetic CT (organs) and a sentence for each thing to doubt (doubts).

        Of each organ: mean and deviation in HU, and the Wasserstein-1 distances in HU to the reference CT and, where
        the model's card tells, to the style. ``segmentationNode``: without, the one that the CT was made from.
        ``model``: its file; without, the one in the models folder. ``organs``: as of `synthesize`. Raises
        CTStyleGenCore.errors.InputError, with one sentence, for bad input.
        """
        return evaluation.evaluateResult(resultNode, segmentationNode, model, organs)

    def trainings(self) -> list[Training]:
        """All trainings of the models folder, at work, paused or done, whichever Slicer started them; newest first."""
        return training.trainings()


class CTStyleGenTest(ScriptedLoadableModuleTest):
    """The module's self-test, for "Reload and Test"; with the source code, all tests of Testing/Python as well."""

    def runTest(self) -> None:
        self.test_from_files_to_a_ct()
        folder = Path(__file__).parent / "Testing" / "Python"
        if not folder.is_dir():
            return
        for name, module in list(sys.modules.items()):  # after a reload those of before would test what was before
            if Path(getattr(module, "__file__", None) or "/").is_relative_to(folder):
                del sys.modules[name]
        result = unittest.TextTestRunner(verbosity=2).run(unittest.defaultTestLoader.discover(str(folder)))
        self.assertTrue(result.testsRun and result.wasSuccessful(), f"{len(result.failures + result.errors)} failed")

    def test_from_files_to_a_ct(self) -> None:
        """Load, check, train, synthesize, in place."""
        runSelfTest(self, CTStyleGenLogic())
