"""What nodes of the scene tell of their patient stays there: child processes, copies and results don't get it."""

import tempfile
import unittest
from pathlib import Path
from unittest import mock

import CTStyleGenTesting  # noqa: F401 - prepares slicer
import numpy as np
import SimpleITK as sitk
import slicer
from CTStyleGenTesting import chest, scenes
from CTStyleGenCore.anatomy import load_anatomy
from CTStyleGenCore.files import PrivateFolder
from CTStyleGenLib import training_cases
from CTStyleGenLib.python_call import pythonCall
from CTStyleGenTesting.chest import SHAPE, chestMasks, tinyModel

from CTStyleGen import CTStyleGenLogic

NAME, UID, FOLDER = "Rumpelstilz^Planted", "1.2.826.0.1.3680043.8.498.777.1", "planted folder"
SECRETS = (NAME, "PLANTED-4711", "19010203", UID, FOLDER)


def named(data: bytes) -> list[str]:
    """What is planted, of what is in the bytes."""
    return [secret for secret in SECRETS if secret.encode() in data]


class PatientsTestCase(unittest.TestCase):
    def setUp(self) -> None:
        slicer.mrmlScene.Clear(False)
        grid = scenes.grid((5.1, 6.2, -7.5), (-120.5, 33.3, 40.1), 12)
        self.volume = scenes.addVolume(np.zeros(SHAPE, np.int16), grid)
        self.segmentation = scenes.addSegmentation(chestMasks(), grid)
        self.plant(self.volume, self.segmentation)
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)

    def plant(self, *nodes: slicer.vtkMRMLTransformableNode) -> None:
        """As Slicer's DICOM import leaves nodes: below their patient and study, with UIDs, and with their file."""
        hierarchy = scenes.hierarchyNode()
        patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), NAME)
        hierarchy.SetItemAttribute(patient, "DICOM.PatientID", "PLANTED-4711")
        hierarchy.SetItemAttribute(patient, "DICOM.PatientBirthDate", "19010203")
        study = hierarchy.CreateStudyItem(patient, "Chest")
        for node in nodes:
            if not hierarchy.GetItemByDataNode(node):
                hierarchy.CreateItem(study, node)
            hierarchy.SetItemParent(hierarchy.GetItemByDataNode(node), study)
            hierarchy.SetItemUID(hierarchy.GetItemByDataNode(node), "DICOM", UID)
            node.SetAttribute("DICOM.instanceUIDs", f"{UID}.1 {UID}.2")
            node.SetDescription(NAME)
            node.AddDefaultStorageNode()
            node.GetStorageNode().SetFileName(f"/{FOLDER}/ct.nrrd")
        self.assertEqual(hierarchy.GetItemAncestorAtLevel(hierarchy.GetItemByDataNode(nodes[0]), "Patient"), patient)

    def assertAnonymous(self, node: slicer.vtkMRMLNode) -> None:
        told = {name: node.GetAttribute(name) for name in node.GetAttributeNames()}
        self.assertFalse(named(f"{node.GetName()} {node.GetDescription()} {told}".encode()), told)


class SceneTest(PatientsTestCase):
    def test_exported_cases(self) -> None:
        """As trainings and data sets get them."""
        cases = training_cases.casesFrom({"one": (self.volume, self.segmentation)})
        training_cases.exportCases(cases, self.folder, load_anatomy("thorax"))
        files = sorted((self.folder / "one").iterdir())
        self.assertEqual([file.name for file in files], ["ct.nrrd", "labels.nrrd"])
        for file in files:
            self.assertFalse(named(file.read_bytes()), file)
            self.assertFalse(named(str(sitk.ReadImage(str(file))).encode()), file)

    def test_copied_as_python(self) -> None:
        logic = CTStyleGenLogic()
        for text in (
            pythonCall(logic.synthesize, segmentationNode=self.segmentation, referenceVolumeNode=self.volume, seed=3),
            pythonCall(logic.train, cases={"one": (self.volume, self.segmentation)}, styles=["one"], name="m"),
        ):
            self.assertIn("slicer.mrmlScene.GetFirstNodeByName('Chest')", text)
            self.assertFalse(named(text.encode()), text)


@unittest.skipUnless(chest.CAN_TRAIN, chest.CANT_TRAIN)
class ChildTest(PatientsTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.model = tinyModel()  # not in the temporary folder of one test
        self.seen: dict[str, bytes] = {}  # files of temporary folders, as they are removed
        cleanup = PrivateFolder.cleanup

        def looked(folder: PrivateFolder) -> None:
            for file in Path(folder.name).rglob("*"):
                if file.is_file():
                    self.seen[file.name] = file.read_bytes()
            cleanup(folder)

        for target, name, value in ((PrivateFolder, "cleanup", looked), (tempfile, "tempdir", str(self.folder))):
            patcher = mock.patch.object(target, name, value)
            patcher.start()
            self.addCleanup(patcher.stop)

    def test_synthesized(self) -> None:
        node = CTStyleGenLogic().synthesize(self.segmentation, self.volume, model=self.model, device="cpu")
        self.assertAnonymous(node)
        self.assertSeen("labels.nrrd", "ct.nrrd")
        header = self.saved(node, "synthetic.nrrd")
        self.assertIn(b"CTStyleGen.Synthetic:=1", header)
        self.assertFalse(named(header))

    def test_varied(self) -> None:
        (node,) = CTStyleGenLogic().vary(self.segmentation, self.volume, count=1, amount=0, way="deform")
        self.assertAnonymous(node)
        self.assertEqual(node.GetAttribute("CTStyleGen.Synthetic"), "1")
        self.assertSeen("labels.nrrd", "segments.nrrd", "manifest.csv", "along-001.nrrd", "anatomy.json")
        header = self.saved(node, "varied.seg.nrrd")
        self.assertEqual(header.count(b"CTStyleGen.Synthetic:1"), len(chestMasks()))  # a tag of each segment
        self.assertFalse(named(header))

    def saved(self, node: slicer.vtkMRMLStorableNode, name: str) -> bytes:
        """The header of the file as which Slicer saves the node."""
        if node.GetStorageNode() is None:
            node.AddDefaultStorageNode()
        node.GetStorageNode().SetFileName(str(self.folder / name))
        self.assertTrue(node.GetStorageNode().WriteData(node))
        return (self.folder / name).read_bytes().partition(b"\n\n")[0]

    def assertSeen(self, *names: str) -> None:
        """That these files were among those of the temporary folder, which is gone, and none names the patient."""
        self.assertLessEqual(set(names), set(self.seen))
        for name, data in self.seen.items():
            self.assertFalse(named(data), name)
        self.assertEqual(list(self.folder.glob(".ctstylegen-*")), [])


if __name__ == "__main__":
    unittest.main()
