"""How long a synthesis will take: by the speed that was measured at the last one, on this computer."""

import qt
from CTStyleGenCore.estimates import giga_operations_per_second
from slicer.i18n import tr as _

_SETTING = "CTStyleGen/SlicesPerSecond/{size}/{device}"
_START_SECONDS = 5.0  # for Python and PyTorch
# Measured once, for docs/speed.md, on a computer that multiplies matrices at so many GFLOP/s.
_SECONDS_AT_512, _GIGA_OPERATIONS = 0.385, 153.0
_FEW = 3  # slices that tell no speed


def noteSpeed(size: int, device: str, slices: int, seconds: float) -> None:
    """Notes how long the slices of a model of that size took, after the first batch."""
    if slices >= _FEW and seconds > 0:
        qt.QSettings().setValue(_SETTING.format(size=size, device=device), slices / seconds)


def expectedSeconds(size: int, device: str, slices: int) -> float:
    """How long so many slices will take, with the start of the process."""
    measured = qt.QSettings().value(_SETTING.format(size=size, device=device))
    if measured:
        return _START_SECONDS + slices / float(measured)
    speed = _SECONDS_AT_512 * (size / 512) ** 2 * _GIGA_OPERATIONS / giga_operations_per_second()
    return _START_SECONDS + slices * speed


def inWords(seconds: float) -> str:
    """A duration, rounded as one says it."""
    if seconds < 60:
        return _("{seconds} s").format(seconds=max(1, round(seconds)))
    if seconds < 5400:
        return _("{minutes} min").format(minutes=round(seconds / 60))
    return _("{hours} h").format(hours=round(seconds / 3600))
