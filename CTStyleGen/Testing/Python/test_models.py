"""The models folder: what is in it, and that nothing that goes wrong leaves half a file or takes another's name."""

import os
import struct
import subprocess
import sys
import unittest
from pathlib import Path

import CTStyleGenTesting  # noqa: F401 - prepares slicer
from CTStyleGenCore.errors import InputError
from CTStyleGenLib import jobs, models
from CTStyleGenTesting.model_files import ModelsFolderTestCase, writeModel

NOBODY = 65534  # a user without rights; tests in containers are run by root, who may write everywhere


class FolderTest(ModelsFolderTestCase):
    def test_default_is_in_the_applications_data(self) -> None:
        models.setModelsFolder("")
        folder = models.defaultModelsFolder()
        self.assertEqual(folder.parts[-2:], ("CTStyleGen", "models"))
        self.assertTrue(folder.is_absolute())
        self.assertFalse(folder.is_relative_to(Path(models.__file__).parents[1]), "inside the extension")

    def test_is_made_when_it_is_needed(self) -> None:
        models.setModelsFolder(self.elsewhere / "a" / "b")
        self.assertFalse((self.elsewhere / "a").exists())
        self.assertTrue(models.modelsFolder().is_dir())
        self.assertEqual(models.storedModels(), [])

    def test_a_folder_that_can_not_be_made(self) -> None:
        (self.elsewhere / "file").touch()
        models.setModelsFolder(self.elsewhere / "file" / "models")
        with self.assertRaisesRegex(InputError, r"can't be made \(Not a directory|can't be made"):
            models.storedModels()


class StoredModelsTest(ModelsFolderTestCase):
    def test_by_name_with_card_and_size(self) -> None:
        for name in ("Thorax", "abdomen", "lung"):
            writeModel(self.folder / f"{name}.ctstyle", styles=[name])
        (self.folder / "readme.txt").touch()
        (self.folder / "weights").mkdir()
        found = models.storedModels()
        self.assertEqual([model.name for model in found], ["abdomen", "lung", "Thorax"])
        self.assertEqual([model.card["styles"] for model in found], [["abdomen"], ["lung"], ["Thorax"]])
        self.assertEqual(found[0].sizeBytes, found[0].path.stat().st_size)
        self.assertEqual([model.problem for model in found], ["", "", ""])

    def test_bad_files_are_told_in_one_sentence(self) -> None:
        whole = writeModel(self.elsewhere / "whole.ctstyle").read_bytes()
        bad = {
            "empty": b"",
            "cut short": whole[:-2],
            "cut in the header": whole[:200],
            "huge header": struct.pack("<Q", 1 << 62) + whole[8:],
            "pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94\x8c\x06system\x94\x93\x94.",
            "picture": b"\x89PNG\r\n\x1a\n" + bytes(100),
        }
        for name, data in bad.items():
            (self.folder / f"{name}.ctstyle").write_bytes(data)
        writeModel(self.folder / "card without styles.ctstyle", styles=None)
        writeModel(self.folder / "of the future.ctstyle", format_version=9)
        found = models.storedModels()
        self.assertEqual(len(found), len(bad) + 2)
        for model in found:
            with self.subTest(model.name):
                self.assertIsNone(model.card)
                self.assertRegex(model.problem, r"^[^\n]+\.$")
                with self.assertRaises(InputError):
                    models.importModel(model.path)

    def test_picture_counts_while_it_is_newer_than_the_model(self) -> None:
        path = writeModel(self.folder / "chest.ctstyle")
        self.assertIsNone(models.storedModels()[0].picture)
        picture = models.picturePath(path)
        picture.touch()
        os.utime(path, (1000, 1000))
        self.assertEqual(models.storedModels()[0].picture, picture)
        os.utime(picture, (999, 999))
        self.assertIsNone(models.storedModels()[0].picture)


class ImportTest(ModelsFolderTestCase):
    def test_import_and_export_give_the_same_bytes(self) -> None:
        source = writeModel(self.elsewhere / "chest.ctstyle")
        stored = models.importModel(source)
        self.assertEqual(stored, self.folder / "chest.ctstyle")
        exported = models.exportModel(stored, self.elsewhere / "for others")
        self.assertEqual(exported.name, "for others.ctstyle")
        self.assertEqual(exported.read_bytes(), source.read_bytes())
        self.assertEqual(self.names(), ["chest.ctstyle"])

    def test_the_same_model_is_stored_once(self) -> None:
        source = writeModel(self.elsewhere / "chest.ctstyle")
        stored = models.importModel(source)
        renamed = models.renameModel(stored, "mine")
        self.assertEqual(models.importModel(source), renamed)
        self.assertEqual(self.names(), ["mine.ctstyle"])

    def test_another_model_of_that_name_gets_a_number(self) -> None:
        source = self.elsewhere / "chest.ctstyle"
        found = [models.importModel(writeModel(source, weight=float(n))).name for n in range(3)]
        self.assertEqual(found, ["chest.ctstyle", "chest 2.ctstyle", "chest 3.ctstyle"])

    def test_what_is_no_model_is_not_copied(self) -> None:
        (self.elsewhere / "chest.ctstyle").write_bytes(b"no model")
        for file, sentence in (("chest.ctstyle", "is not a CTStyleGen model"), ("nowhere.ctstyle", "does not exist")):
            with self.assertRaisesRegex(InputError, sentence):
                models.importModel(self.elsewhere / file)
        self.assertEqual(self.names(), [])

    def test_export_onto_itself_or_nowhere(self) -> None:
        stored = models.importModel(writeModel(self.elsewhere / "chest.ctstyle"))
        with self.assertRaisesRegex(InputError, "is the model itself"):
            models.exportModel(stored, stored)
        with self.assertRaisesRegex(InputError, "does not exist"):
            models.exportModel(stored, self.elsewhere / "no folder" / "chest.ctstyle")

    def test_two_processes_never_take_the_same_name(self) -> None:
        """Both import eight models of one name at once: sixteen models, whole."""
        program = "\n".join(
            [
                "import sys; from pathlib import Path",
                "sys.path.insert(0, sys.argv[1])",
                "import CTStyleGenTesting",
                "from CTStyleGenLib import models",
                "from CTStyleGenTesting.model_files import writeModel",
                "models.setModelsFolder(sys.argv[2])",
                "source = Path(sys.argv[3]); source.mkdir(); print('ready', flush=True); sys.stdin.readline()",
                "for n in range(8): print(models.importModel(",
                "    writeModel(source / 'chest.ctstyle', n, styles=[sys.argv[3]])))",
            ]
        )
        told = self._runBoth(program)
        self.assertEqual(len(set(told)), 16)
        self.assertEqual([model.problem for model in models.storedModels()], [""] * 16)
        self.assertEqual(sorted(told), sorted(str(model.path) for model in models.storedModels()))

    def _runBoth(self, program: str) -> list[str]:
        """Runs two processes of a program that begin at once; the lines that they print."""
        here = str(Path(__file__).parent)
        commands = [
            [jobs.corePython(), "-c", program, here, str(self.folder), str(self.elsewhere / f"from {n}")]
            for n in range(2)
        ]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        processes = [subprocess.Popen(command, **pipes) for command in commands]
        for process in processes:
            self.assertEqual(process.stdout.readline(), "ready\n")
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        told = [process.communicate()[0].splitlines() for process in processes]
        self.assertEqual([process.returncode for process in processes], [0, 0])
        return told[0] + told[1]

    def test_two_processes_on_one_folder_harm_no_model(self) -> None:
        """Both import, rename and delete models of the same names, eighty times: that is done, or refused in a
        sentence, and what is there is whole.
        """
        program = "\n".join(
            [
                "import random, sys; from pathlib import Path",
                "sys.path.insert(0, sys.argv[1])",
                "import CTStyleGenTesting",
                "from CTStyleGenCore.errors import InputError",
                "from CTStyleGenLib import models",
                "from CTStyleGenTesting.model_files import writeModel",
                "models.setModelsFolder(sys.argv[2])",
                "source = Path(sys.argv[3]); source.mkdir(); print('ready', flush=True); sys.stdin.readline()",
                "rng, paths = random.Random(sys.argv[3]), [models.modelPath(name) for name in 'abc']",
                "for n in range(80):",
                "    file = writeModel(source / f'{rng.choice(paths).name}', n, styles=[sys.argv[3]])",
                "    try:",
                "        rng.choice([",
                "            lambda: models.importModel(file),",
                "            lambda: models.renameModel(rng.choice(paths), rng.choice('abc')),",
                "            lambda: models.deleteModel(rng.choice(paths)),",
                "        ])()",
                "        print('done')",
                "    except InputError as error:",
                "        print(error)",
            ]
        )
        told = self._runBoth(program)
        self.assertGreater(told.count("done"), 40)
        self.assertEqual([line for line in told if line != "done" and not line.endswith(("name.", "permissions."))], [])
        self.assertEqual({model.problem for model in models.storedModels()}, {""})
        self.assertEqual([name for name in self.names() if not name.endswith(".ctstyle")], [])


class RenameAndDeleteTest(ModelsFolderTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.chest = models.importModel(writeModel(self.elsewhere / "chest.ctstyle"))

    def test_rename_takes_the_picture_along(self) -> None:
        models.picturePath(self.chest).touch()
        self.assertEqual(models.renameModel(self.chest, " Chest of Ä "), self.folder / "Chest of Ä.ctstyle")
        self.assertEqual(self.names(), ["Chest of Ä.ctstyle", "Chest of Ä.png"])

    def test_rename_to_itself_and_to_capitals(self) -> None:
        self.assertEqual(models.renameModel(self.chest, "chest"), self.chest)
        self.assertEqual(models.renameModel(self.chest, "CHEST").name, "CHEST.ctstyle")
        self.assertEqual(self.names(), ["CHEST.ctstyle"])

    def test_a_name_that_is_taken(self) -> None:
        other = models.importModel(writeModel(self.elsewhere / "lung.ctstyle", weight=2))
        before = other.read_bytes()
        with self.assertRaisesRegex(InputError, "^There is a model 'lung' already: choose another name.$"):
            models.renameModel(self.chest, "lung")
        self.assertEqual(self.names(), ["chest.ctstyle", "lung.ctstyle"])
        self.assertEqual(other.read_bytes(), before)

    def test_a_name_that_a_training_has(self) -> None:
        """At its end it would write over a model that has come by its name."""
        (self.folder / models.TRAININGS / "lung").mkdir(parents=True)
        with self.assertRaisesRegex(InputError, "^There is a training of 'lung': discard it, or choose another name.$"):
            models.renameModel(self.chest, "lung")
        other = models.importModel(writeModel(self.elsewhere / "lung.ctstyle", weight=2))
        self.assertEqual(other.name, "lung 2.ctstyle")

    def test_names_that_no_file_can_have_everywhere(self) -> None:
        for name in ("", "  ", ".hidden", "a/b", "a\\b", "..", "what?", "a:b", "line\nbreak", "CON", "x" * 101, "dot."):
            with self.subTest(name), self.assertRaisesRegex(InputError, r"\A[^\n]+\.\Z"):
                models.renameModel(self.chest, name)
        self.assertEqual(self.names(), ["chest.ctstyle"])

    def test_a_model_that_has_gone(self) -> None:
        self.chest.unlink()
        for act in (lambda: models.renameModel(self.chest, "new"), lambda: models.deleteModel(self.chest)):
            with self.assertRaisesRegex(InputError, r"^chest.ctstyle can't be (renamed|deleted) \("):
                act()
        self.assertEqual(self.names(), [])

    def test_delete_takes_the_picture_along(self) -> None:
        models.picturePath(self.chest).touch()
        models.deleteModel(self.chest)
        self.assertEqual(self.names(), [])

    @unittest.skipIf(sys.platform == "win32", "there, a folder's permissions are another thing")
    def test_a_folder_that_is_read_only(self) -> None:
        program = "\n".join(
            [
                "import os, sys",
                "sys.path.insert(0, sys.argv[1])",
                "import CTStyleGenTesting",
                "from CTStyleGenLib import models",
                "from CTStyleGenCore.errors import InputError",
                "from pathlib import Path",
                "models.modelsFolder = lambda: Path(sys.argv[2])  # nobody can't read the settings",
                f"isRoot = os.geteuid() == 0; os.seteuid({NOBODY}) if isRoot else None",
                "model = models.storedModels()[0].path",
                "for act in (lambda: models.importModel(sys.argv[3]), lambda: models.renameModel(model, 'new'),",
                "            lambda: models.deleteModel(model),",
                "            lambda: models.exportModel(model, model.parent / 'copy')):",
                "    try: act(); print('done')",
                "    except InputError as error: print(error)",
                "os.seteuid(0) if isRoot else None",
            ]
        )
        other = writeModel(self.elsewhere / "other.ctstyle", weight=3)
        for path, mode in ((self.folder.parent, 0o755), (self.folder, 0o555)):
            path.chmod(mode)
        self.addCleanup(self.folder.chmod, 0o755)
        here = str(Path(__file__).parent)
        command = [jobs.corePython(), "-c", program, here, str(self.folder), str(other)]
        ran = subprocess.run(command, capture_output=True, text=True)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        told = ran.stdout.splitlines()
        self.assertEqual(len(told), 4)
        for line in told:
            self.assertRegex(line, r"(can't be|Can't write).*Permission denied")
        self.assertEqual(self.names(), ["chest.ctstyle"])


class WeightsTest(ModelsFolderTestCase):
    def test_newest_counts_and_all_can_be_removed(self) -> None:
        self.assertIsNone(models.featureWeights())
        models.removeWeights()
        models.weightsFolder().mkdir()
        old, new = models.weightsFolder() / "vgg19-dcbb9e9d.pth", models.weightsFolder() / "vgg19.safetensors"
        old.write_bytes(bytes(1000))
        new.write_bytes(bytes(500))
        (models.weightsFolder() / "note.txt").touch()
        os.utime(old, (1000, 1000))
        self.assertEqual(models.featureWeights(), new)
        self.assertEqual(models.sizeOf(models.weightsFolder()), 1500)
        models.removeWeights(but=new)
        self.assertEqual([path.name for path in models.weightsFolder().iterdir()], ["vgg19.safetensors"])
        models.removeWeights()
        self.assertIsNone(models.featureWeights())


if __name__ == "__main__":
    unittest.main()
