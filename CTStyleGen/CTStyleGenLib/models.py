"""The models folder: trained models, their pictures and the VGG weights, as files that can be seen, copied and removed.

    NAME.ctstyle   a model
    NAME.png       a synthetic picture of it, drawn on request
    training/NAME  a training, which writes NAME.ctstyle at its end: so the name is taken
    weights/       VGG weights, fetched or taken from a file on request

There is no list beside the files, so that none can be wrong: what is in the folder is there. Bad models, clashing names
and folders that can't be written raise InputError.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import qt
import slicer
from CTStyleGenCore.errors import InputError
from CTStyleGenCore.files import sha256, written_beside
from CTStyleGenCore.model_file import SUFFIX, read_card
from slicer.i18n import tr as _

SETTING = "CTStyleGen/ModelsFolder"
TRAININGS = "training"
_WEIGHTS, _WEIGHTS_SUFFIXES = "weights", (".pth", ".safetensors")
_FORBIDDEN = '<>:"/\\|?*'  # in file names, on one system or another
_LONGEST_NAME = 100
_LARGEST = 1e6  # of a number that a card tells
_RESERVED = ("CON", "PRN", "AUX", "NUL")  # Windows's devices


@dataclass(frozen=True)
class StoredModel:
    """A model in the folder."""

    path: Path
    card: dict[str, Any] | None  # None: the file can't be used
    problem: str  # why, in a sentence; "" otherwise
    sizeBytes: int

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def picture(self) -> Path | None:
        """A PNG of what the model draws, None if none was made since the model was written."""
        with contextlib.suppress(OSError):
            picture = picturePath(self.path)
            if picture.stat().st_mtime >= self.path.stat().st_mtime:
                return picture
        return None


# --- the folder -------------------------------------------------------------------------------------------------------


def modelsFolder() -> Path:
    """The folder of the models: the user's choice, or one in the application's local data. Made when it isn't there.

    Raises InputError when it can't be made.
    """
    chosen = slicer.app.userSettings().value(SETTING)
    folder = Path(chosen) if chosen else defaultModelsFolder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            _("The models folder {folder} can't be made ({reason}): choose another one in the Models tab.").format(
                folder=folder, reason=error.strerror
            )
        ) from error
    return folder


def defaultModelsFolder() -> Path:
    """Where models go unless the user chooses: kept when Slicer or the extension is updated; models don't roam."""
    local = qt.QStandardPaths.writableLocation(qt.QStandardPaths.AppLocalDataLocation)
    return Path(local) / "CTStyleGen" / "models"


def setModelsFolder(folder: str | Path) -> None:
    """Uses another folder from now on, in all sessions of Slicer; an empty text brings back the default.

    Moves nothing.
    """
    if str(folder):
        slicer.app.userSettings().setValue(SETTING, str(folder))
    else:
        slicer.app.userSettings().remove(SETTING)


# --- what a card says -------------------------------------------------------------------------------------------------


def nearCopiesText(card: Mapping[str, Any]) -> str:
    """Whether the model draws near copies of its training slices, in a sentence or two, as the training has found."""
    found = card.get("memorisation")
    told: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
    values = {name: told.get(name) for name in ("images", "copies", "distance", "real_distance")}
    if not all(isinstance(value, int | float) and 0 <= value < _LARGEST for value in values.values()):
        return _("not measured.")
    texts = {
        "near copies": _(
            "{count} of {images} images drawn from training maps. Don't share the model or its images as anonymous."
        ),
        "nearer than real slices": _(
            "none of {images} images drawn from training maps, but they are nearer to training slices ({distance:.2f}; "
            "0: a copy) than slices of different cases to each other ({real_distance:.2f}): some detail may be theirs."
        ),
        "none": _(
            "none of {images} images drawn from training maps, at a median distance of {distance:.2f} to the nearest "
            "training slice (0: a copy; slices of different cases: {real_distance:.2f}). A sample, no proof."
        ),
    }
    text = texts.get(str(told.get("finding")), _("not measured."))
    return text.format(count=round(told["copies"] * told["images"]), **values)


# --- models -----------------------------------------------------------------------------------------------------------


def storedModels() -> list[StoredModel]:
    """All models of the folder by name, also those that can't be used."""
    found = (_stored(path) for path in modelsFolder().glob(f"*{SUFFIX}"))
    return sorted((model for model in found if model), key=lambda model: model.name.casefold())


def _stored(path: Path) -> StoredModel | None:
    """A file as a model; None if it has gone in the meantime."""
    try:
        size = path.stat().st_size
    except OSError:
        return None
    try:
        return StoredModel(path, read_card(path), "", size)
    except InputError as error:
        return StoredModel(path, None, str(error), size)


def importModel(file: str | Path) -> Path:
    """Copies a model into the folder, once it is found to be one; returns where it is.

    A model that is there already isn't copied again. Another one of the same name gets a number: "chest 2".
    """
    file = Path(file)
    read_card(file)
    for model in storedModels():
        with contextlib.suppress(FileNotFoundError):  # gone in the meantime
            if model.sizeBytes == file.stat().st_size and sha256(model.path) == sha256(file):
                return model.path
    with _claimed(_freePaths(file.stem)) as path:
        _copy(file, path)
    return path


def exportModel(model: str | Path, file: str | Path) -> Path:
    """Copies a model out of the folder to ``file``, which is replaced if it is there; .ctstyle is added to its name."""
    model, file = Path(model), Path(file)
    if file.suffix.lower() != SUFFIX:
        file = file.with_name(file.name + SUFFIX)
    with _notCopied(model):
        isSame = _isFile(file, model.stat())
    if isSame:
        raise InputError(_("{file} is the model itself: choose another folder or name.").format(file=file))
    _copy(model, file)
    return file


def renameModel(model: str | Path, name: str) -> Path:
    """Gives a model, and its picture, another name, without suffix; returns where it is."""
    model = Path(model)
    new = modelPath(name)
    failure = _("{file} can't be renamed ({reason}): check the folder and its permissions.")
    with _told(failure, model.name):
        own = model.stat()
        if not own.st_size:  # a name that is being given to a model
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        isSame = _isFile(new, own)  # also "Chest" for "chest", where the disk takes them for one
        with contextlib.nullcontext(new) if isSame else _claimed(iter([new])):
            model.replace(new)
    with contextlib.suppress(OSError):
        picturePath(model).replace(picturePath(new))
    return new


def _isFile(path: Path, other: os.stat_result) -> bool:
    """Whether there is a file, and it is the other one."""
    try:
        return os.path.samestat(path.stat(), other)
    except FileNotFoundError:
        return False


def deleteModel(model: str | Path) -> None:
    """Removes a model and its picture from the disk."""
    model = Path(model)
    with _told(_("{file} can't be deleted ({reason}): check the folder and its permissions."), model.name):
        model.unlink()
        picturePath(model).unlink(missing_ok=True)


def modelPath(name: str) -> Path:
    """Where the model of that name is, or would be. Raises InputError for what can't be a file's name everywhere."""
    name = name.strip()
    bad = [character for character in name if character in _FORBIDDEN or not character.isprintable()]
    if bad:
        raise InputError(
            _("A model's name can't have {character} in it: choose another name.").format(character=repr(bad[0]))
        )
    if not name or name[0] == "." or name[-1] == "." or name.partition(".")[0].upper() in _RESERVED:
        raise InputError(_("'{name}' can't be a model's name: choose another one.").format(name=name))
    if len(name) > _LONGEST_NAME:
        raise InputError(
            _("A model's name can have {limit} characters, not {count}: choose a shorter one.").format(
                limit=_LONGEST_NAME, count=len(name)
            )
        )
    return modelsFolder() / f"{name}{SUFFIX}"


def picturePath(model: str | Path) -> Path:
    """Where a model's picture is, or would be."""
    return Path(model).with_suffix(".png")


def _freePaths(name: str) -> Iterator[Path]:
    """Places for a model: its name, then with numbers."""
    yield modelPath(name)
    for number in range(2, 1000):
        yield modelPath(f"{name} {number}")


@contextlib.contextmanager
def _claimed(paths: Iterator[Path]) -> Iterator[Path]:
    """The first of the paths that no file has, held by an empty file until the block puts the model there.

    So two processes never take the same name. The claim is given up when the block fails.
    """
    tried = None
    for path in paths:
        tried = path
        if (path.parent / TRAININGS / path.stem).exists():
            continue
        try:
            with _told(_("{file} can't be written ({reason}): check the folder and its permissions."), path):
                path.open("xb").close()
        except FileExistsError:
            continue
        try:
            yield path
        except BaseException:
            with contextlib.suppress(OSError):
                if not path.stat().st_size:  # else it was removed, and is another's now
                    path.unlink()
            raise
        return
    name = tried.stem if tried else ""
    if tried and tried.exists():
        raise InputError(_("There is a model '{name}' already: choose another name.").format(name=name))
    raise InputError(_("There is a training of '{name}': discard it, or choose another name.").format(name=name))


def _copy(source: Path, target: Path) -> None:
    with _notCopied(source), written_beside(target) as beside:
        shutil.copyfile(source, beside)


def _notCopied(source: Path) -> contextlib.AbstractContextManager[None]:
    return _told(_("{file} can't be copied ({reason}): check the folders and their permissions."), source.name)


@contextlib.contextmanager
def _told(sentence: str, file: Path | str) -> Iterator[None]:
    """Turns the system's errors, but for a name that is taken, into the sentence about the file."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        raise InputError(sentence.format(file=file, reason=error.strerror)) from error


# --- VGG weights ------------------------------------------------------------------------------------------------------


def weightsFolder() -> Path:
    """The folder of the VGG weights; it isn't made."""
    return modelsFolder() / _WEIGHTS


def featureWeights() -> Path | None:
    """The VGG-19 weights for training (--feature-weights), None if there are none; the newest if there are several."""
    found = [path for path in weightsFolder().glob("*") if path.suffix in _WEIGHTS_SUFFIXES]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def removeWeights(but: Path | None = None) -> None:
    """Removes all VGG weights from the folder, ``but`` the file that is to take their place."""
    with _told(_("{file} can't be emptied ({reason}): check the folder and its permissions."), weightsFolder()):
        for path in weightsFolder().glob("*"):
            if path.is_file() and path != but:
                path.unlink()


# --- all of it --------------------------------------------------------------------------------------------------------


def trainingsFolder() -> Path:
    """The folder of the trainings; it isn't made."""
    return modelsFolder() / TRAININGS


def removeAll() -> None:
    """Removes all models, their pictures, and the VGG weights. What isn't ours stays, and trainings: discard them."""
    for model in list(modelsFolder().glob(f"*{SUFFIX}")):
        deleteModel(model)
    removeWeights()
    for folder in (weightsFolder(), trainingsFolder()):
        with contextlib.suppress(OSError):  # it holds something else, or isn't there
            folder.rmdir()


def sizeOf(folder: Path) -> int:
    """Bytes of all files in a folder and below it; of those that go meanwhile, as of a training, none."""
    size = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            size += path.stat().st_size if path.is_file() else 0
    return size
