"""The models folder: where models are kept on this computer, outside the scene and outside the installed extension."""

from pathlib import Path

import qt
import slicer
from CTStyleGenCore.errors import InputError

_SETTING = "CTStyleGen/ModelsFolder"


def modelsFolder() -> Path:
    """The folder of the models: the user's choice, or one in the application's local data. Made when it isn't there.

    Raises InputError when it can't be made.
    """
    chosen = slicer.app.userSettings().value(_SETTING)
    folder = Path(chosen) if chosen else defaultModelsFolder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"The models folder {folder} can't be made ({error.strerror}): choose another one in the Models tab."
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
    slicer.app.userSettings().setValue(_SETTING, str(folder))
